"""The projection as a directory of addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thrum.model.addressing import EVERYONE, Member
from thrum.store.queries.views import View


class ViewDirectory:
    """`addressing.Directory` over the projection, as it is inside one decision."""

    __slots__ = ("_addresses", "_groups", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._addresses: dict[str, tuple[str, int] | None] = {}
        self._groups: dict[str, Sequence[Member]] | None = None

    def is_agent(self, agent_id: str) -> bool:
        return self._address(agent_id) is not None

    def current_id(self, agent_id: str) -> str:
        return self._view.renamed(agent_id)

    def is_role_here(self, word: str) -> bool:
        found = self._address(word)
        if found is not None and self._view.is_ours(found[0]):
            return False
        return any(row.is_own for row in self._view.agents(role=word, kind="agent"))

    def is_shared(self, agent_id: str) -> bool:
        """Whether several daemons have an agent of that id: mail to it reaches all of them."""
        found = self._address(agent_id)
        return found is not None and found[1] > 1

    def _address(self, agent_id: str) -> tuple[str, int] | None:
        if agent_id not in self._addresses:
            self._addresses[agent_id] = self._view.address(agent_id)
        return self._addresses[agent_id]

    def with_role(self, role: str) -> Sequence[str]:
        return [row.agent_id for row in self._view.agents(role=role, kind="agent")]

    def group(self, name: str) -> Sequence[Member] | None:
        if self._groups is None:
            self._groups = {
                group: [Member(member.member_type, member.member_value) for member in members]
                for group, members in self._view.groups().items()
            }
        found = self._groups.get(name)
        if found is not None and self.is_role_here(name) and not self._view.is_group_here(name):
            return None  # nor does another machine's group take a word away
        return found

    def everyone(self) -> Sequence[str]:
        return [row.agent_id for row in self._view.agents() if row.kind != "proxy"]

    def words(self) -> Iterable[str]:
        rows = self._view.agents()
        yield EVERYONE
        yield from {row.agent_id for row in rows}
        yield from {row.role for row in rows if row.kind == "agent"}
        yield from self._view.groups()
