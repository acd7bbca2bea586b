"""Agents follow their worktree: a moved repository, a moved linked worktree (identity.md §3, §11).

An agent is bound to the path of its root. The mark identifies the worktree, and only a move takes it along:
of a copy, git's directory is another one, or the mark is still where it was. docs/decisions/0048.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from thrum.identity.evidence import Failed, PeerEvidence
from thrum.identity.files import Identity, identity_path, list_identities, update_identity
from thrum.model import clock, trust
from thrum.model.dot_git import find_git, worktrees
from thrum.model.errors import NewerFormat, ThrumError
from thrum.model.events import AgentPlaced
from thrum.model.files import inode_of, is_file
from thrum.model.paths import Layout, counts, is_tracked, keep_of
from thrum.ops import renaming
from thrum.ops.context import Context
from thrum.ops.identity_file import identities_of
from thrum.ops.runtime_place import carried_over
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View

log = logging.getLogger("thrum.ops")

_BELIEVED_SECONDS = 1.0
_ROOTS_MAX = 1024


class Moves:
    """Looks for worktrees that are elsewhere by now: all of them at the start, then each caller's."""

    def __init__(self, ctx: Context, now: Callable[[], float]) -> None:
        self._ctx = ctx
        self._now = now
        self._believed: dict[str, tuple[float, tuple[int, int] | None]] = {}
        """Until when, and as long as the same mark lies there."""
        self._one_at_a_time = trio.Lock()

    async def arrive(self, evidence: PeerEvidence) -> None:
        """A caller connects: its agents follow it before it asks anything. Raises nothing."""
        now = self._now()
        try:
            root = evidence.current_root(now)
        except Failed:
            return
        if root is None:
            return
        until, seen = self._believed.get(root, (0.0, None))
        mark = inode_of(f"{root}/.thrum/{trust.MARK}")
        if now < until and mark == seen:
            return
        if len(self._believed) >= _ROOTS_MAX:
            self._believed.clear()
        self._believed[root] = now + _BELIEVED_SECONDS, mark
        record = trust.read_record(keep_of(Path(root)))
        if record is not None and record.root not in ("", root):
            try:
                await self.follow(root)
            except ThrumError as error:
                log.warning("agents do not follow to %s: %s", root, error)

    async def follow(self, root: str = "") -> None:
        """Bind agents to where their worktrees are, that at `root` too if git does not list it. Again after a kill."""
        async with self._one_at_a_time:
            ctx = self._ctx
            bound_to = {row.worktree_path for row in ctx.view.agent_places()}
            moves = await trio.to_thread.run_sync(find_moves, ctx.here.layout, root)
            strange = await trio.to_thread.run_sync(_strange, ctx.here.layout, bound_to)
            with contextlib.suppress(NewerFormat):
                await ctx.journal.commit(partial(decide, own=ctx.here.own, moves=moves, strange=strange))
            if moves:
                await trio.to_thread.run_sync(_note, moves, ctx.clock.now_ms())
            if not root:
                try:
                    await renaming.resume(ctx)
                except ThrumError as error:
                    log.warning("%s", error)


def decide(
    view: View, stamp: Stamp, own: Collection[str], moves: Mapping[str, str], strange: Collection[str]
) -> Decision[None]:
    """`moves`: from the root that was to the root that is. `strange`: roots that are another repository's by now, as
    in a copy those of the original: nothing here is bound to them.
    """
    facts: list[AgentPlaced] = []
    for row in view.agents():
        root = moves.get(row.worktree_path, "")
        follows = bool(root) and row.origin_daemon in own and is_file(identity_path(identities_of(root), row.agent_id))
        if not follows and row.worktree_path not in strange:
            continue
        # It is not a heartbeat: the record keeps its age.
        at = clock.format_ms(clock.parse_ms(row.place_at) + 1)
        if follows:
            process = (row.agent_pid, row.agent_pid_started, row.runtime, row.tmux_session)
        else:
            root, process = "", (0, "", "", "")
        pid, started, runtime, tmux = process
        told = carried_over(row if follows else None, pid, started)
        facts.append(
            stamp.make(
                AgentPlaced,
                at=at,
                agent_id=row.agent_id,
                worktree_path=root,
                agent_pid=pid,
                agent_pid_started=started,
                runtime=runtime,
                tmux_session=tmux,
                **told,
            )
        )
    return Decision(facts, lambda _view, _seqs: None)


# -- looking and noting; blocking


def find_moves(layout: Layout, root: str = "") -> dict[str, str]:
    """Old and new path of each worktree whose mark has moved. A mark that still counts where it was has
    not moved: what has it too is a copy, or the same place by another path.
    """
    roots = [
        layout.main_root,
        *(worktrees(layout.common_dir) if layout.common_dir else ()),
        *([Path(root)] * bool(root)),
    ]
    return {record.root: str(each) for each in dict.fromkeys(roots) if (record := _moved(each)) is not None}


def _moved(root: Path) -> trust.Record | None:
    record = trust.read_record(keep_of(root))
    if record is None or record.root in ("", str(root)):
        return None
    with contextlib.suppress(ThrumError, OSError):
        before = Path(record.root)
        there = trust.read_record(keep_of(before))
        is_there = there is not None and there.mark == record.mark and trust.has_mark(before / ".thrum", record.mark)
        # A link in the old place leads to the one place there is.
        is_there = is_there and os.path.realpath(before) != str(root)
        return record if counts(root) and not is_there else None
    return None


def _strange(layout: Layout, roots: Collection[str]) -> set[str]:
    return {root for root in roots if _is_strange(Path(root), layout)}


def _is_strange(root: Path, layout: Layout) -> bool:
    """Whether another repository is there. One that cannot be read, as before `git worktree repair`, tells nothing."""
    git = find_git(root) if (root / ".git").exists() else None
    if git is None or git.root != root or layout.common_dir is None or not git.common_dir.is_dir():
        return False
    return not git.common_dir.samefile(layout.common_dir)


def _note(moves: Mapping[str, str], now_ms: int) -> None:
    """Bring identity files and the worktrees' records to it: the record last, it is the sign that all was done."""
    for before, root in moves.items():
        try:
            rename = partial(_in_worktree, name=Path(root).name)
            # They stay as they were in order of time: the later one is who one is (§6, P10).
            for later, agent_id in enumerate(_named_for(before, root)):
                update_identity(identities_of(root), agent_id, rename, now_ms=now_ms + later)
            keep = keep_of(Path(root))
            if (record := trust.read_record(keep)) is not None and record.root == before:
                trust.write_record(keep, record._replace(root=root))
        except (OSError, ThrumError) as error:
            log.warning("it is not noted that %s is %s now: %s", before, root, error)


def _named_for(before: str, root: str) -> list[str]:
    """The agents whose identity files say that they are in the worktree of that name (§6, P9), the latest last."""
    listed = [each for each in list_identities(identities_of(root)) if not is_tracked(each.path)]
    found = [each.identity for each in listed if each.identity is not None]
    found.sort(key=lambda identity: identity.updated_seconds)
    return [each.name for each in found if each.worktree in (before, Path(before).name)]


def _in_worktree(identity: Identity | None, name: str) -> Identity | None:
    return None if identity is None else replace(identity, worktree=name)
