"""What cleanups and purges of before tombstoned, for tests of what is pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from thrum.model.origins import BEFORE, OLD_REALM, Origins
from thrum.model.tombstones import Ends, Order, Tombstones

ORIGINS = Origins()


def _never(_session_id: str) -> str:
    return ""


def old_tombstones(
    agents: Mapping[str, Order] | None = None,
    authors: Mapping[str, Order] | None = None,
    purge: str = "",
    ended_at: Callable[[str], str] = _never,
) -> Tombstones:
    """Watermarks of the realm in which all unsigned lines lie. `ended_at(session_id)`: `""` if no end is known."""

    def ends(session_id: str) -> Ends:
        at = ended_at(session_id)
        return [(ORIGINS.provenance("", BEFORE), at)] if at else ()

    return Tombstones(
        origins=ORIGINS,
        agents={id: {OLD_REALM: order} for id, order in (agents or {}).items()},
        authors={id: {OLD_REALM: order} for id, order in (authors or {}).items()},
        purges={OLD_REALM: purge} if purge else {},
        ends=ends,
    )
