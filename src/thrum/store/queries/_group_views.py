"""Queries on groups: who is a member, according to the daemons that may say so (events.md §9, §11)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from thrum.model.origins import BEFORE, Origins
from thrum.store.projection.merge_agents import holders_of, may_speak, registrars_of
from thrum.store.queries._daemon_views import DaemonViews
from thrum.store.queries.rows import GroupMark, GroupRow, Member, is_member


class _Group(NamedTuple):
    group_id: str
    name: str
    description: str
    created_at: str
    created_by: str
    origin: str
    trust: int


class GroupViews(DaemonViews):
    """The part of `View` that knows groups. Those of one name are one: that of this daemon first, else the earliest.

    Members are who the group's own daemon names, and agents whose own daemon lets them join. A group of another daemon
    beside one of this daemon adds none but those: no name made a second time reaches whom the first does not.
    """

    def groups(self) -> dict[str, list[Member]]:
        """Name -> members of every group that was not deleted."""
        return {group.name: list(group.members) for group in self._united("")}

    def group(self, name: str) -> GroupRow | None:
        """One group, with the members of all of that name."""
        return next(iter(self._united(name)), None)

    def group_marks(self, name: str, member_type: str = "", member_value: str = "") -> list[GroupMark]:
        """Every live group of that name, in their order, with what counts there of one member."""
        found: list[GroupMark] = []
        groups = self._groups(name)
        for group in groups:
            told = self._told(groups[0], group, member_type, member_value)
            added_at, removed_at = (told[0].added_at, told[0].removed_at) if told else ("", "")
            found.append(GroupMark(group.group_id, added_at, removed_at, group.origin))
        return found

    def groups_of(self, agent_id: str) -> list[str]:
        """The ids of the live groups that an agent is a member of by name."""
        rows = self._db.execute(
            "SELECT DISTINCT name FROM groups JOIN group_members USING (group_id)"
            " WHERE deleted_at = '' AND member_type = 'agent' AND member_value = ?",
            (agent_id,),
        ).fetchall()
        marks = [mark for (name,) in rows for mark in self.group_marks(name, "agent", agent_id)]
        return [mark.group_id for mark in marks if mark.added_at and mark.added_at >= mark.removed_at]

    def group_name(self, group_id: str) -> str:
        """The name of a group, deleted ones too; `""` if it is not known."""
        row = self._db.execute("SELECT name FROM groups WHERE group_id = ?", (group_id,)).fetchone()
        return row[0] if row else ""

    def is_group_here(self, name: str) -> bool:
        """Whether a group of that name was made here."""
        return any(self.is_ours(group.origin) for group in self._groups(name)[:1])

    def _united(self, name: str) -> list[GroupRow]:
        heads: dict[str, _Group] = {}
        members: dict[str, dict[tuple[str, str], Member]] = {}
        for group in self._groups(name):
            head = heads.setdefault(group.name, group)
            united = members.setdefault(group.name, {})
            for told in self._told(head, group):
                if is_member(told.added_at, told.removed_at):
                    united.setdefault((told.type, told.value), Member(told.type, told.value, told.added_at, told.by))
        return [
            GroupRow(*heads[name][:5], tuple(members[name][key] for key in sorted(members[name])))
            for name in sorted(heads)
        ]

    def _groups(self, name: str) -> list[_Group]:
        """The live ones of that name, or all."""
        rows = self._db.execute(
            "SELECT group_id, name, description, created_at, created_by, origin_daemon, trust FROM groups"
            " WHERE deleted_at = '' AND (?1 = '' OR name = ?1) ORDER BY created_at, create_event",
            (name,),
        )
        return sorted(map(_Group._make, rows.fetchall()), key=lambda group: not self.is_ours(group.origin))

    def _told(self, head: _Group, group: _Group, member_type: str = "", member_value: str = "") -> list[_Told]:
        """What counts of each member of a group, or of one of them."""
        rows = self._db.execute(
            "SELECT member_type, member_value, origin, added_at, added_by, removed_at FROM group_members"
            " WHERE group_id = ?1 AND (?2 = '' OR (member_type = ?2 AND member_value = ?3))",
            (group.group_id, member_type, member_value),
        ).fetchall()
        is_whole = head is group or group.trust == BEFORE or not self.is_ours(head.origin)
        origins = self.origins() if any(row[2] for row in rows) else Origins()
        counting: dict[tuple[str, str], list[_Told]] = {}
        for row in rows:
            kind, value, origin = row[:3]
            home = origins.home(origin)
            theirs = is_whole and (not origin or home == origins.home(group.origin))
            if theirs or (kind == "agent" and self._speaks(value, home, origins)):
                counting.setdefault((kind, value), []).append(_Told(kind, value, *row[3:]))
        return [_last(told) for told in counting.values()]

    def _speaks(self, agent_id: str, home: str, origins: Origins) -> bool:
        return may_speak(home, registrars_of(self._db, agent_id), holders_of(self._db, agent_id, origins))


class _Told(NamedTuple):
    type: str
    value: str
    added_at: str
    by: str
    removed_at: str


def _last(told: Iterable[_Told]) -> _Told:
    """The last adding and the last removing, no matter which of the accepted daemons said it."""
    told = list(told)
    added = max(told, key=lambda each: each.added_at)
    return added._replace(removed_at=max(each.removed_at for each in told))
