"""The picture as a directory of addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thrum.addressing import EVERYONE, Member
from thrum.store.views import View


class ViewDirectory:
    """`addressing.Directory` over the picture, as it is inside one decision."""

    __slots__ = ("_groups", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._groups: dict[str, Sequence[Member]] | None = None

    def is_agent(self, agent_id: str) -> bool:
        return self._view.is_live(agent_id)

    def with_role(self, role: str) -> Sequence[str]:
        return [row.agent_id for row in self._view.agents(role=role, kind="agent")]

    def group(self, name: str) -> Sequence[Member] | None:
        if self._groups is None:
            self._groups = {
                group: [Member(member.member_type, member.member_value) for member in members]
                for group, members in self._view.groups().items()
            }
        return self._groups.get(name)

    def everyone(self) -> Sequence[str]:
        return [row.agent_id for row in self._view.agents() if row.kind != "proxy"]

    def words(self) -> Iterable[str]:
        rows = self._view.agents()
        yield EVERYONE
        yield from {row.agent_id for row in rows}
        yield from {row.role for row in rows if row.kind == "agent"}
        yield from self._view.groups()
