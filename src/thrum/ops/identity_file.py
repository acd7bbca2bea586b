"""The agent's own file follows what the journal says of it. The journal is the truth; the file may lag, never lead."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from thrum.errors import ThrumError
from thrum.identity.files import Identity, identity_path, update_identity
from thrum.ops.house import House

log = logging.getLogger("thrum.ops")


def identities_of(root: str) -> Path:
    """Where the identity files of a root lie."""
    return Path(root) / ".thrum" / "identities"


async def note_in_file(house: House, agent_id: str, **changes: Any) -> None:
    """Write fields into a local agent's identity file, if it has one (identity.md §4 "written by").

    What cannot be written is logged: the fact behind it is on disk already.
    """
    row = house.view.agent(agent_id)
    if row is None or not row.is_own or not row.worktree_path:
        return
    directory = identities_of(row.worktree_path)
    if not identity_path(directory, agent_id).is_file():
        return

    def change(before: Identity | None) -> Identity | None:
        return replace(before, **changes) if before is not None else None

    try:
        write = partial(update_identity, directory, agent_id, change, now_ms=house.clock.now_ms())
        await trio.to_thread.run_sync(write)
    except (OSError, ThrumError) as error:
        log.warning("the identity file of %s was not written: %s", agent_id, error)
