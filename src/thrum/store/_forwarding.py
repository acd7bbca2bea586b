"""Messages to the name that an agent had before it was renamed (docs/decisions/0050)."""

from __future__ import annotations

from collections.abc import Iterable

from thrum.model.events import AgentAliased, AnyFact, MessageCreated, UnknownEvent
from thrum.store.api import Stamp
from thrum.store.projection.merge_messages import recipients_of
from thrum.store.queries.views import View


def handed_on(view: View, stamp: Stamp, arrived: Iterable[AnyFact | UnknownEvent]) -> list[AgentAliased]:
    """The facts that hand what arrived for agents renamed here on to them."""
    letters = [fact for fact in arrived if isinstance(fact, MessageCreated)]
    renamed = view.current_ids() if letters else {}
    found: dict[str, list[str]] = {}
    for letter in letters if renamed else ():
        for old in renamed.keys() & set(recipients_of(letter)):
            found.setdefault(old, []).append(letter.message_id)
    return [
        stamp.make(AgentAliased, agent_id=renamed[old], of=old, stored=tuple(dict.fromkeys(message_ids)))
        for old, message_ids in sorted(found.items())
    ]
