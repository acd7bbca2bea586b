"""`worktree.*`: worktrees with thrum, an agent and a terminal in them (cli.md 3.17). Composition of
`admin.worktrees`, the projection and the terminals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from thrum.admin.worktree_setup import set_up_worktree
from thrum.admin.worktrees import Created, Wanted, Worktrees
from thrum.daemon import registering
from thrum.daemon.terminal_service import TerminalService
from thrum.git.worktrees import Worktree
from thrum.identity.evidence import Failed
from thrum.model.config import Config
from thrum.model.errors import (
    AgentAlive,
    ModuleMissing,
    RoleMissing,
    TmuxMissing,
    TmuxSessionExists,
    UsageError,
    WorktreeDirty,
    WorktreeNotFound,
    in_shell,
)
from thrum.model.methods.method import AnyMethod, Empty
from thrum.model.methods.terminals import TmuxCreateParams
from thrum.model.methods.worktrees import (
    WORKTREE_CREATE,
    WORKTREE_LIST,
    WORKTREE_TEARDOWN,
    WorktreeCreateParams,
    WorktreeCreateResult,
    WorktreeListResult,
    WorktreeRow,
    WorktreeTeardownParams,
    WorktreeTeardownResult,
)
from thrum.ops import lifecycle
from thrum.ops.context import Call, Context, evidence_of
from thrum.ops.liveness import owner_alive
from thrum.rpc.dispatch import Handler, row
from thrum.store.queries.views import AgentRow


@dataclass(frozen=True, slots=True)
class WorktreeService:
    """The worktrees of one daemon's repository."""

    ctx: Context
    environ: Mapping[str, str]
    config: Callable[[], Config]
    terminals: TerminalService

    def handlers(self) -> dict[AnyMethod, Handler]:
        return dict(
            (
                row(WORKTREE_CREATE, self._create),
                row(WORKTREE_LIST, self._list),
                row(WORKTREE_TEARDOWN, self._teardown),
            )
        )

    @property
    def _worktrees(self) -> Worktrees:
        return Worktrees(self.ctx.here.layout, self.environ, self.config())

    async def _create(self, call: Call, params: WorktreeCreateParams) -> WorktreeCreateResult:
        """Each step may be repeated: what was done before is found."""
        _check_agent(params)
        wanted = Wanted(params.name, params.branch, params.base, params.detach)
        work = partial(self._worktrees.create, wanted, self._root_of(call))
        created = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        result = WorktreeCreateResult(
            worktree_path=created.path,
            branch=created.branch,
            detached=not created.branch,
            reused=created.reused,
            redirect=created.redirect,
            notes=created.notes,
        )
        if params.agent_name:
            await self._settle(created, params, result)
        return result

    async def _settle(self, created: Created, params: WorktreeCreateParams, result: WorktreeCreateResult) -> None:
        """Register the agent, and make its session, in a worktree that is there."""
        if not created.redirect:  # the settings want none, but an agent needs a place for its identity
            set_up = partial(set_up_worktree, Path(created.path), None, self.environ)
            result.redirect = (await trio.to_thread.run_sync(set_up)).redirect
        root = await trio.to_thread.run_sync(os.path.realpath, created.path)
        wanted = TmuxCreateParams(
            name=params.name,
            cwd=root,
            agent_name=params.agent_name,
            role=params.role,
            module=params.module,
            intent=params.intent,
            runtime=params.runtime,
        )
        recruit = await self.terminals.recruit(root, wanted)
        result.agent_id, result.warnings = await registering.register(recruit, self.environ)
        try:
            result.session = await self._session(root, result.agent_id, params)
        except TmuxMissing:
            result.warnings += ("tmux is not installed: the agent has no session; start its runtime there yourself",)

    async def _session(self, root: str, agent_id: str, params: WorktreeCreateParams) -> str:
        runtime = params.runtime or await self.terminals.preferred(root, agent_id)
        try:
            return (await self.terminals.open(params.name, root, agent_id, runtime)).name
        except TmuxSessionExists:
            found = await self.terminals.find(params.name)
            if found is None or (self.terminals.agent_in(found.name, found), found.directory) != (agent_id, root):
                raise
            return found.name

    def _root_of(self, call: Call) -> str:
        """Where the caller stands; the main root for who stands in none of the repository's."""
        try:
            root = evidence_of(call).current_root(trio.current_time())
        except Failed:
            root = None
        return root or str(self.ctx.here.layout.main_root)

    async def _list(self, _call: Call, _params: Empty) -> WorktreeListResult:
        listed = await trio.to_thread.run_sync(self._worktrees.listed)
        return WorktreeListResult(tuple(line for each in listed for line in self._rows(each)))

    def _rows(self, worktree: Worktree) -> list[WorktreeRow]:
        agents = self._agents_in(worktree.path)
        gone = "gone" if worktree.gone else ""
        lines = [
            WorktreeRow(
                path=worktree.path,
                branch=worktree.branch,
                head=worktree.head,
                agent=agent.agent_id,
                role=agent.role,
                status=gone or ("active" if self.ctx.view.open_session(agent.agent_id) else "offline"),
            )
            for agent in agents
        ]
        return lines or [WorktreeRow(path=worktree.path, branch=worktree.branch, head=worktree.head, status=gone)]

    def _agents_in(self, path: str) -> list[AgentRow]:
        places = {path, os.path.realpath(path)}
        rows = sorted(self.ctx.view.agents(kind="agent"), key=lambda each: each.agent_id)
        return [each for each in rows if each.is_own and each.worktree_path in places]

    # -- teardown

    async def _teardown(self, call: Call, params: WorktreeTeardownParams) -> WorktreeTeardownResult:
        """Everything is looked at before anything goes. The agents go last: a kill in between leaves them to the same
        command."""
        worktrees = self._worktrees
        try:
            found = await trio.to_thread.run_sync(worktrees.find, params.name)
        except WorktreeNotFound:
            return await self._finish(call, params, str(worktrees.base() / params.name))
        self._check_caller(call, found)
        agents = self._agents_in(found.path)
        if not params.force:
            self._check_agents(agents)
        look = partial(worktrees.look, found, delete_branch=params.delete_branch, force=params.force)
        await trio.to_thread.run_sync(look)
        killed = await self._end_sessions(agents)
        doomed = await trio.to_thread.run_sync(look)  # once more, now that no one works there
        remove = partial(worktrees.remove, doomed, delete_branch=params.delete_branch, force=params.force)
        removed = await trio.to_thread.run_sync(remove)
        return WorktreeTeardownResult(
            name=params.name,
            worktree_path=found.path,
            removed=True,
            agents_deleted=await self._delete_agents(call, params, agents),
            branch_deleted=removed.branch,
            session_killed=", ".join(killed),
            lost=removed.lost,
        )

    async def _finish(self, call: Call, params: WorktreeTeardownParams, path: str) -> WorktreeTeardownResult:
        """Of a worktree that is gone, its agents. Raises WorktreeNotFound without any."""
        agents = self._agents_in(path)
        if not agents or params.keep_agent:
            raise WorktreeNotFound(f"no worktree {params.name}")
        killed = await self._end_sessions(agents)
        return WorktreeTeardownResult(
            name=params.name,
            worktree_path=path,
            removed=False,
            agents_deleted=await self._delete_agents(call, params, agents),
            session_killed=", ".join(killed),
        )

    def _check_caller(self, call: Call, worktree: Worktree) -> None:
        if self._root_of(call) == os.path.realpath(worktree.path):
            main = self.ctx.here.layout.main_root
            remedy = f"cd {in_shell(main)}, then repeat the command"
            raise WorktreeDirty(f"you stand in {worktree.path}", remedy=remedy)

    def _check_agents(self, agents: list[AgentRow]) -> None:
        """Raise AgentAlive for one that runs, but in no session that goes with it."""
        for each in agents:
            if not each.tmux_session and owner_alive(each, self.ctx.processes, self.ctx.runtime_names()):
                raise AgentAlive(f"@{each.agent_id} runs there (pid {each.agent_pid})", agent_id=each.agent_id)

    async def _end_sessions(self, agents: list[AgentRow]) -> list[str]:
        names = sorted({each.tmux_session for each in agents if each.tmux_session})
        killed: list[str] = []
        for name in names:
            try:
                if await self.terminals.kill(name):
                    killed.append(name)
            except TmuxMissing:
                continue
        return killed

    async def _delete_agents(
        self, call: Call, params: WorktreeTeardownParams, agents: list[AgentRow]
    ) -> tuple[str, ...]:
        roots = sorted({each.worktree_path for each in agents})
        if params.keep_agent:
            return ()
        return tuple([agent_id for root in roots for agent_id in await lifecycle.delete_all_of(self.ctx, call, root)])


def _check_agent(params: WorktreeCreateParams) -> None:
    """An agent has a name, a role and a module, or there is none. Raises RoleMissing, ModuleMissing, UsageError."""
    again = f"thrum worktree create {in_shell(params.name)} --name {in_shell(params.agent_name or 'NAME')}"
    if not params.agent_name:
        if params.role or params.module or params.intent or params.runtime:
            raise UsageError("an agent needs a name", remedy=f"{again} --role ROLE --module MODULE")
        return
    if not params.role:
        raise RoleMissing(f"@{params.agent_name} needs a role", remedy=f"{again} --role ROLE --module MODULE")
    if not params.module:
        raise ModuleMissing(f"@{params.agent_name} needs a module", remedy=f"{again} --role ROLE --module MODULE")
