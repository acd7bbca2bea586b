"""A town of three daemons of one project, of which one is ours, one a neighbour's and one a stranger's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.store import factmaker
from tests.support.store.signers import Daemon
from thrum.model import events
from thrum.model.events import AnyFact
from thrum.model.tombstones import branch_file_of

HOUR_MS = 3_600_000
ME = Daemon(1)
OWN = frozenset({ME.daemon_id})

Line = tuple[AnyFact, bytes]


class Town:
    """This daemon, a neighbour and a stranger, all of one project; `me`, `ann`, `eve` make signed lines."""

    def __init__(self) -> None:
        self.me, self.ann, self.eve = Daemon(1), Daemon(2), Daemon(3)
        for number, daemon in enumerate((self.me, self.ann, self.eve)):
            daemon.ms += number * 100
        self.lines: list[Line] = [(key, who.line(key)) for who in self.all for key in [who.introduction()]]

    @property
    def all(self) -> tuple[Daemon, ...]:
        return self.me, self.ann, self.eve

    def say(self, who: Daemon, fact: AnyFact) -> Any:
        self.lines.append((fact, who.line(fact)))
        return fact

    def register(self, who: Daemon, agent_id: str) -> Any:
        return self.say(who, who(events.AgentRegistered, agent_id=agent_id, kind="agent", role="coder", module="all"))


def live(lines: Sequence[Line]) -> factmaker.Live:
    found = factmaker.Live(OWN)
    found.now_ms += HOUR_MS
    for fact, raw in lines:
        found.projection.apply(found.journals.add(fact, raw, branch_file_of(fact) or events.LOCAL_FILE))
    return found
