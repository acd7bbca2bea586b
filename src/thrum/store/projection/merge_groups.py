"""Groups and their members (events.md §9): names and descriptions are last-wins over the create's, members add-wins.

What each origin says of a member is kept apart, `""` for all that is from before signing: whose word counts is asked
when the group is (`store.queries._group_views`), since it hangs on whom this machine takes for the agent's holder.
"""

from __future__ import annotations

import sqlite3

from thrum.model.events import AnyFact, GroupCreated, GroupDeleted, GroupMemberAdded, GroupMemberRemoved, GroupUpdated
from thrum.model.origins import BEFORE, Provenance
from thrum.store.projection.entities import Winner
from thrum.store.projection.watermarks import AGENT, Order, Watermarks


class Groups:
    """The thing `g:`; see `entities.Entity` for the contract. No watermark tombstones a group, only
    memberships.
    """

    prefix = "g:"
    create_type = "group.create"

    def __init__(self, db: sqlite3.Connection, watermarks: Watermarks) -> None:
        self._db = db
        self._watermarks = watermarks

    def winner(self, group_id: str) -> Winner | None:
        row = self._db.execute(
            "SELECT trust, created_at, create_event, origin_daemon FROM groups WHERE group_id = ?", (group_id,)
        ).fetchone()
        return None if row is None else Winner(*row)

    def is_tombstoned(self, create: AnyFact, order: Order, who: Provenance) -> bool:
        return False

    def is_doomed(self, group_id: str, who: Provenance) -> bool:
        return False

    def insert(self, create: AnyFact, order: Order, seq: int, who: Provenance) -> None:
        assert isinstance(create, GroupCreated)
        self._db.execute(
            "INSERT INTO groups"
            " (group_id, name, description, created_at, create_event, created_by, origin_daemon, trust)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                create.group_id,
                create.name,
                create.description,
                *order,
                create.created_by,
                create.origin_daemon,
                who.trust,
            ),
        )

    def erase(self, group_id: str) -> None:
        self._db.execute("DELETE FROM groups WHERE group_id = ?", (group_id,))
        self._db.execute("DELETE FROM group_members WHERE group_id = ?", (group_id,))

    def merge(self, group_id: str, fact: AnyFact, order: Order, file: str, who: Provenance) -> bool:
        if isinstance(fact, GroupMemberAdded):
            if fact.member_type == "agent" and self._watermarks.covers(AGENT, fact.member_value, order, who.under):
                return False
            self._member(group_id, fact, fact.added_by, order, who, ("added_at", "add_event", "added_by"))
        elif isinstance(fact, GroupMemberRemoved):
            self._member(group_id, fact, fact.removed_by, order, who, ("removed_at", "remove_event", "removed_by"))
        elif isinstance(fact, GroupUpdated):
            if fact.fields.name is not None:
                self._text(group_id, "name", fact.fields.name, order)
            if fact.fields.description is not None:
                self._text(group_id, "description", fact.fields.description, order)
        else:
            assert isinstance(fact, GroupDeleted)
            self._db.execute(
                "UPDATE groups SET deleted_at = ?2, delete_event = ?3 WHERE group_id = ?1"
                " AND (delete_event = '' OR (deleted_at, delete_event) > (?2, ?3))",
                (group_id, *order),
            )
        return True

    def _member(
        self,
        group_id: str,
        fact: GroupMemberAdded | GroupMemberRemoved,
        by: str,
        order: Order,
        who: Provenance,
        columns: tuple[str, str, str],
    ) -> None:
        at_column, event_column, by_column = columns
        # Unsigned only in a group from before signing: in a signed group the author is known.
        sql = "SELECT trust FROM groups WHERE group_id = ?"
        is_of_before = who.trust == BEFORE and self._db.execute(sql, (group_id,)).fetchone()[0] == BEFORE
        origin = "" if is_of_before else fact.origin_daemon
        self._db.execute(
            "INSERT INTO group_members (group_id, member_type, member_value, origin,"
            f" {at_column}, {event_column}, {by_column})"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            f" SET {at_column} = excluded.{at_column}, {event_column} = excluded.{event_column},"
            f" {by_column} = excluded.{by_column}"
            f" WHERE ({at_column}, {event_column}) < (excluded.{at_column}, excluded.{event_column})",
            (group_id, fact.member_type, fact.member_value, origin, *order, by),
        )

    def _text(self, group_id: str, column: str, value: str, order: Order) -> None:
        self._db.execute(
            f"UPDATE groups SET {column} = ?2, {column}_at = ?3, {column}_event = ?4 WHERE group_id = ?1"
            f" AND ({column}_at, {column}_event) < (?3, ?4)",
            (group_id, value, *order),
        )
