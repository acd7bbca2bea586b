"""The `CallerProbe` of a command in the user's own process: its ancestors, and the identity files of all worktrees."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from thrum.cli.acting import roots_of
from thrum.cli.caller_probe import KernelProbe
from thrum.cli.connect import runtime_names
from thrum.identity.evidence import AgentPlace, PeerEvidence, Registry
from thrum.identity.files import Identity, list_identities
from thrum.identity.guard_modes import FIRE
from thrum.identity.processes import OwnerState, open_process_table
from thrum.model.log import append_line
from thrum.model.paths import Layout


class OwnProbe(KernelProbe):
    """Of a process with these variables, at those places. What its files say of processes is all that is known here."""

    def __init__(self, env: Mapping[str, str], layout: Layout) -> None:
        evidence = PeerEvidence(
            open_process_table(),
            layout,
            pid=os.getpid(),
            uid=os.getuid(),
            names=functools.cache(lambda: runtime_names(env, layout)),
        )
        super().__init__(evidence, functools.cache(lambda: _registry(layout)))
        self._log_file = layout.log_file

    def state_of(self, agent_id: str, identity: Identity | None) -> OwnerState:
        return self._state_of(None if identity is None else _place(identity))

    def is_news(self, what: str) -> bool:
        return True  # only a daemon remembers

    def record(self, outcome: str, fields: Mapping[str, Any]) -> None:
        append_line(self._log_file, "warning", FIRE, {**fields, "outcome": outcome})


def _registry(layout: Layout) -> Registry:
    return Registry(
        _place(each.identity, str(root))
        for root in roots_of(layout)
        for each in list_identities(root / ".thrum" / "identities")
        if each.identity is not None
    )


def _place(identity: Identity, root: str = "") -> AgentPlace:
    return AgentPlace(identity.name, root, identity.agent_pid, identity.agent_pid_started, identity.updated_seconds)
