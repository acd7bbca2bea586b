"""`context.*`: notes and preambles of local agents, over RPC. Files, no facts. Source: rpc.md §5, cli.md 3.12.

Reading is free. Writing is for agents of the same worktree: notes are what the next session there believes.
"""

from __future__ import annotations

import os.path
from pathlib import Path

import trio

from thrum.model import ids, notes
from thrum.model.errors import AgentNotFound, IdentityMismatch, NotAWorktree, ThrumError, in_shell
from thrum.model.events import AgentContextSaved
from thrum.model.methods.notes import (
    ContextClearParams,
    ContextClearResult,
    ContextSaveParams,
    ContextSaveResult,
    ContextShowParams,
    ContextShowResult,
    PreambleShowParams,
    PreambleShowResult,
)
from thrum.ops.context import Call, Context, caller_id
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View


async def show(ctx: Context, _call: Call, params: ContextShowParams) -> ContextShowResult:
    """An agent's notes and preamble. Raises AgentNotFound, FileUnreadable, FileTooLarge."""
    agent_id, root = _to_read(ctx, params.agent_name, params.repo_path)
    row = ctx.view.agent(agent_id)
    if row is not None and not row.is_own:
        return _from_elsewhere(ctx, agent_id)
    saved = await trio.to_thread.run_sync(notes.read_notes, root, agent_id)
    preamble = None
    if params.include_preamble:
        preamble = await trio.to_thread.run_sync(notes.read_preamble, root, agent_id)
    return ContextShowResult(
        agent_name=agent_id,
        content=saved.text if saved else "",
        has_context=saved is not None,
        size=saved.size if saved else 0,
        updated_at=saved.updated_at if saved else "",
        preamble=preamble.text if preamble else "",
        has_preamble=preamble is not None,
        preamble_size=preamble.size if preamble else 0,
    )


def _from_elsewhere(ctx: Context, agent_id: str) -> ContextShowResult:
    """What an agent of another machine put on the branch."""
    content, saved_at = ctx.view.note(agent_id) or ("", "")
    return ContextShowResult(
        agent_name=agent_id,
        content=content,
        has_context=bool(saved_at),
        size=len(content.encode()),
        updated_at=saved_at,
        has_preamble=False,
    )


async def show_preamble(ctx: Context, _call: Call, params: PreambleShowParams) -> PreambleShowResult:
    """An agent's preamble. Raises as `show`."""
    agent_id, root = _to_read(ctx, params.agent_name, params.repo_path)
    found = await trio.to_thread.run_sync(notes.read_preamble, root, agent_id)
    content = found.text if found else ""
    return PreambleShowResult(agent_name=agent_id, content=content, has_preamble=found is not None)


async def save(ctx: Context, call: Call, params: ContextSaveParams) -> ContextSaveResult:
    """Replace an agent's notes. Raises AgentNotFound, IdentityMismatch, EmptyBody, BodyTooLarge, StoreFailed."""
    agent_id, root = _to_write(ctx, call, params.agent_name, params.repo_path)
    before, note = await trio.to_thread.run_sync(_replace_notes, root, agent_id, params.content)
    return _saved("Context", agent_id, root, note, f", replaced {before}" if before else "")


def _replace_notes(root: Path, agent_id: str, content: str) -> tuple[int, notes.Note]:
    """The previous size in bytes, 0 if there was no readable file, and the present content."""
    try:
        found = notes.read_notes(root, agent_id)
    except ThrumError:
        found = None
    return found.size if found else 0, notes.save_notes(root, agent_id, content)


async def save_preamble(ctx: Context, call: Call, params: ContextSaveParams) -> ContextSaveResult:
    """Replace an agent's preamble. Raises as `save`."""
    agent_id, root = _to_write(ctx, call, params.agent_name, params.repo_path)
    note = await trio.to_thread.run_sync(notes.save_preamble, root, agent_id, params.content)
    return _saved("Preamble", agent_id, root, note)


async def clear(ctx: Context, call: Call, params: ContextClearParams) -> ContextClearResult:
    """Remove an agent's notes; fine if there are none. Raises AgentNotFound, IdentityMismatch, StoreFailed."""
    agent_id, root = _to_write(ctx, call, params.agent_name, params.repo_path)
    cleared = await trio.to_thread.run_sync(notes.clear_notes, root, agent_id)
    return ContextClearResult(agent_name=agent_id, cleared=cleared, message=f"Context cleared for {agent_id}")


async def publish(ctx: Context, call: Call, agent_name: str) -> bool:
    """Put an agent's notes on the branch, as a fact; False when none are saved. Nothing new, nothing written.

    Raises as `save`.
    """
    agent_id, root = _to_write(ctx, call, agent_name, "")
    saved = await trio.to_thread.run_sync(notes.read_notes, root, agent_id)
    if saved is None:
        return False
    content = saved.text

    def decide(view: View, stamp: Stamp) -> Decision[None]:
        known = view.note(agent_id)
        if known is not None and known[0] == content:
            return Decision((), lambda _view, _seqs: None)
        at = stamp.later_than(known[1] if known else "")
        fact = stamp.make(AgentContextSaved, at=at, agent_id=agent_id, content=content)
        return Decision([fact], lambda _view, _seqs: None)

    await ctx.journal.commit(decide, key=call.key)
    return True


def _saved(what: str, agent_id: str, root: Path, note: notes.Note, also: str = "") -> ContextSaveResult:
    return ContextSaveResult(
        agent_name=agent_id,
        path=str(note.path.relative_to(root)),
        size=note.size,
        message=f"{what} saved for {agent_id} ({note.size} byte{'' if note.size == 1 else 's'}{also})",
    )


def _to_read(ctx: Context, name: str, repo_path: str) -> tuple[str, Path]:
    """The agent meant, and where its files are: its own root, else one that the caller names."""
    agent_id, home = _agent(ctx, name)
    if not repo_path:
        return agent_id, Path(home or ctx.here.layout.root)
    wanted = os.path.realpath(repo_path)
    known = {str(root) for root in notes.roots(ctx.here.layout)}
    if wanted != home and wanted not in known:
        raise NotAWorktree(f"{repo_path} is not a worktree of this repository", remedy="leave repo_path out")
    return agent_id, Path(wanted)


def _to_write(ctx: Context, call: Call, name: str, repo_path: str) -> tuple[str, Path]:
    """The same for a caller that is about to write: its own root, in which the agent must live."""
    caller = caller_id(call)
    agent_id, home = _agent(ctx, name)
    mine = ctx.view.agent(caller)
    root = call.caller.root or (mine.worktree_path if mine else "")
    if not home or home != root or (repo_path and os.path.realpath(repo_path) != root):
        where = f"it lives in {home}" if home else "it does not live on this machine"
        raise IdentityMismatch(
            f"the notes of @{agent_id} can only be written in its own worktree: {where}; you are @{caller}",
            remedy=f"cd {in_shell(home)}" if home else "write your own: leave --agent out",
            expected_agent=agent_id,
            detected_agent=caller,
        )
    return agent_id, Path(root)


def _agent(ctx: Context, name: str) -> tuple[str, str]:
    """A registered agent's id, and its root if it lives here."""
    for spelling in (name, ids.parse_agent_id(name).canonical):
        row = ctx.view.agent(spelling)
        if row is not None and row.live:
            return spelling, row.worktree_path if row.is_own else ""
    raise AgentNotFound(f"agent not found: {name}")
