"""The agent's own file follows what the journal says of it. The journal is the truth; the file may lag, never lead."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from thrum.identity.files import Identity, identity_path, update_identity
from thrum.identity.guard_modes import fire, record_fire
from thrum.model.errors import ThrumError
from thrum.model.files import is_file
from thrum.model.guards import Refusal, refusal_fields
from thrum.ops.context import Context
from thrum.ops.liveness import owner_alive
from thrum.store.queries.views import AgentRow

log = logging.getLogger("thrum.ops")


def identities_of(root: str) -> Path:
    """Where the identity files of a root lie."""
    return Path(root) / ".thrum" / "identities"


def check_writable(ctx: Context, agent_id: str, by: str, *, method: str = "") -> str:
    """The guard `daemon_writer_liveness`, before the fact is written: the daemon writes nothing into the identity file
    of an agent whose process is dead, unless the agent itself (`by`) calls (identity.md §12).

    Raises DaemonWriterLiveness in strict; gives the warning to print in warn, else nothing. An agent without process
    passes, one of another machine is skipped.
    """
    row = ctx.view.agent(agent_id)
    return "" if row is None else _judge(ctx, row, by, method)


def _judge(ctx: Context, row: AgentRow, by: str, method: str) -> str:
    if by == row.agent_id or not row.agent_pid or owner_alive(row, ctx.processes, ctx.runtime_names()):
        return ""
    refusal = Refusal("daemon_writer_liveness", "subject_pid_dead", "", row.agent_id, by, row.agent_pid)
    modes = ctx.modes()
    if not (row.is_own and row.worktree_path):
        mode = modes[refusal.guard]
        if mode != "off":
            record_fire("skipped", refusal_fields(refusal, mode=mode, method=method))
        return ""
    return fire(refusal, modes, method=method)


async def note_in_file(
    ctx: Context, agent_id: str, *, by: str | None = None, housekeeping: bool = False, **changes: Any
) -> None:
    """Write fields into a local agent's identity file, if it has one (identity.md §4 "written by").

    `by`: who calls, if not the agent itself: then the agent's process must be alive. `housekeeping`: the change only
    takes away or fills. What cannot be written is logged: the fact behind it is on disk already.
    """
    row = ctx.view.agent(agent_id)
    if row is None or not row.is_own or not row.worktree_path:
        return
    directory = identities_of(row.worktree_path)
    if not is_file(identity_path(directory, agent_id)):
        return

    def change(before: Identity | None) -> Identity | None:
        return replace(before, **changes) if before is not None else None

    try:
        if by is not None and not housekeeping:
            _judge(ctx, row, by, "")
        write = partial(update_identity, directory, agent_id, change, now_ms=ctx.clock.now_ms())
        await trio.to_thread.run_sync(write)
    except (OSError, ThrumError) as error:
        log.warning("the identity file of %s was not written: %s", agent_id, error)
