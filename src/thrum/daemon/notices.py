"""Messages of the daemon itself: by `system`, which reads nothing (rpc.md §5). Pure: what a transaction is to hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from thrum.model import addressing, clock
from thrum.model.events import MessageCreated
from thrum.model.fact_parts import Body
from thrum.ops.directory import ViewDirectory
from thrum.store.api import Stamp
from thrum.store.queries.views import View

BY: Final = "system"


def notice(
    view: View, stamp: Stamp, to: Sequence[str], text: str, *, urgent: bool = False, seconds: float = 0.0
) -> MessageCreated:
    """One message to these agents; it wakes them for `seconds`, 0: as any other. Raises what `addressing` raises."""
    audience = addressing.resolve([f"@{agent_id}" for agent_id in to], BY, ViewDirectory(view))
    return stamp.make(
        MessageCreated,
        message_id=stamp.new_id("msg_"),
        agent_id=BY,
        body=Body("plain", text),
        scopes=audience.scopes,
        refs=audience.refs,
        audiences=audience.audiences,
        recipients=audience.recipients,
        urgent=urgent,
        expires_at=clock.format_ms(stamp.ms + round(seconds * 1000)) if seconds else "",
    )
