"""What agents do, as decisions for the committer: facts of every kind, about things that are really there."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from thrum.model import clock, events
from thrum.model.errors import AgentNotFound, DaemonUnknown, InvalidParams, ThrumError
from thrum.model.events import Body, GroupFields, Pair, Work
from thrum.model.methods.sync import SyncAcceptParams
from thrum.ops import daemon_acceptance, renaming
from thrum.store.api import Decide, Decision, Stamp
from thrum.store.queries.views import View

if TYPE_CHECKING:
    from tests.sim.clone import Clone

NAMES = ("ann", "bob", "cid", "dot", "user:leon", "coordinator_1B9K33T6RK")

_TEXTS = ("hi", "done", "why", 'ünïcode\u2028 "x"')

Make = Callable[[Stamp], "list[Any]"]


class _Context:
    """What `ops.daemon_acceptance` needs: it keeps the decision that it is handed."""

    def __init__(self) -> None:
        self.journal = self
        self.decide: Any = None

    async def commit(self, decide: Any, *, heavy: bool = False) -> None:
        del heavy
        self.decide = decide


class Deeds:
    """Draws what an agent of a clone does next from what the clone knows."""

    def __init__(self, clone: Clone) -> None:
        self.clone = clone
        self.dice = clone.world.dice
        self.db: sqlite3.Connection = clone.store.reader
        self.me = self.dice.choice(clone.agents)

    def draw(self) -> Decide[None]:
        """A decision; it finds its facts' times when it is executed."""
        profile = self.clone.world.profile
        if (profile.foreign or profile.before) and not self.clone.is_old and self.dice.random() < 0.04:
            return self.accept()
        if not self.clone.is_old and self.dice.random() < (0.3 if profile.renaming else 0.01):
            return self.rename()
        deeds, weights = zip(*_DEEDS, strict=True)
        if self.clone.world.profile.sweeping:
            weights = tuple(weight * _SWEEPING.get(deed, 1) for deed, weight in _DEEDS)
        here = "SELECT 1 FROM registrations WHERE agent_id = ? AND home = ''"
        is_new = self.db.execute(here, (self.me,)).fetchone() is None
        deed = Deeds.register if is_new and self.dice.random() < 0.6 else self.dice.choices(deeds, weights)[0]
        make = deed(self)

        def decide(view: View, stamp: Stamp) -> Decision[None]:
            return Decision(make(stamp) if make else [], lambda view, seqs: None)

        return decide

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """One of the rows that a query gives in a fixed order."""
        rows = self.db.execute(sql, values).fetchall()
        return self.dice.choice(rows) if rows else None

    def text(self) -> str:
        return f"{self.dice.choice(_TEXTS)} {self.dice.randrange(100)}"

    def others(self) -> list[str]:
        return sorted(self.dice.sample(NAMES, self.dice.randrange(1, 4)))

    # -- what people say

    def accept(self) -> Decide[None]:
        """`thrum sync accept`: of a daemon its unsigned lines, or that it is who it says it was, or one of its agents;
        or that it is gone.
        """
        known = [row.daemon_id for row in self.clone.store.view.trusted_of() if row.daemon_id]
        if not known:
            return lambda _view, _stamp: Decision([], lambda _view, _seqs: None)
        which, origin = self.dice.choice(("", "", "gone", "agent")), self.dice.choice(known)
        agent = self.dice.choice(NAMES) if which == "agent" else ""
        params = SyncAcceptParams(origin=origin, gone=which == "gone", agent=agent)
        ctx = _Context()
        with contextlib.suppress(StopIteration):
            daemon_acceptance.accept(ctx, params, ()).send(None)  # pyright: ignore[reportArgumentType]

        def decide(view: View, stamp: Stamp) -> Decision[None]:
            try:
                return ctx.decide(view, stamp)
            except (DaemonUnknown, AgentNotFound, InvalidParams):
                return Decision([], lambda _view, _seqs: None)

        return decide

    def rename(self) -> Decide[None]:
        """`thrum agent rename`: of an agent of this machine, to a name that nobody has as far as is known here. Others
        may go on by the old name for a while.
        """
        old, new, goes_on = self.me, self.dice.choice(NAMES), self.dice.random() < 0.3

        def decide(view: View, stamp: Stamp) -> Decision[None]:
            row = view.agent(old)
            if row is None or not row.live or not row.is_own or "agent" not in (row.kind, "") or ":" in old + new:
                return Decision([], lambda _view, _seqs: None)
            try:
                renaming.check_name(view, row, new)
            except ThrumError:
                return Decision([], lambda _view, _seqs: None)
            kept = {*self.clone.agents} - (set() if goes_on else {old})
            self.clone.agents = sorted(kept | {new})
            return Decision(renaming.facts_of(view, stamp, row, new), lambda _view, _seqs: None)

        return decide

    # -- messages

    def send(self, **fields: Any) -> Make:
        to = self.others()
        text, quiet = self.text(), self.dice.random() < 0.1
        refs = tuple(Pair("mention", name) for name in to) + fields.pop("more_refs", ())
        scopes = (Pair("module", "m"),) if self.dice.random() < 0.3 else ()
        replaced = self.row("SELECT message_id FROM messages ORDER BY message_id") if self.dice.random() < 0.2 else None
        supersedes = replaced[0] if replaced else ""

        def make(stamp: Stamp) -> list[Any]:
            return [
                stamp.make(
                    events.MessageCreated,
                    message_id=stamp.new_id("msg_"),
                    agent_id=self.me,
                    body=Body("markdown", text),
                    refs=refs,
                    scopes=scopes,
                    audiences=() if quiet else tuple(Pair("agent", name) for name in to),
                    recipients=tuple(to),
                    quiet=quiet,
                    supersedes=supersedes,
                    **fields,
                )
            ]

        return make

    def reply(self) -> Make | None:
        row = self.row("SELECT message_id, thread_id FROM messages ORDER BY message_id")
        if row is None:
            return self.send()
        thread = row[1] or "thr_" + row[0].removeprefix("msg_")
        return self.send(more_refs=(Pair("reply_to", row[0]),), thread_id=thread)

    def _mine(self) -> tuple[Any, ...] | None:
        return self.row(
            "SELECT message_id, ifnull(nullif(updated_at, ''), created_at) FROM messages WHERE agent_id = ?"
            " ORDER BY message_id",
            self.me,
        )

    def edit(self) -> Make | None:
        row, text = self._mine(), self.text()
        return row and (
            lambda stamp: [
                stamp.make(
                    events.MessageEdited,
                    at=stamp.later_than(row[1]),
                    message_id=row[0],
                    agent_id=self.me,
                    body=Body("plain", text),
                )
            ]
        )

    def delete(self) -> Make | None:
        row = self._mine()
        return row and (
            lambda stamp: [stamp.make(events.MessageDeleted, message_id=row[0], agent_id=self.me, reason="oops")]
        )

    def read(self) -> Make | None:
        row = self.row(
            "SELECT message_id FROM message_recipients WHERE agent_id = ? AND read_at IS NULL ORDER BY message_id",
            self.me,
        )
        word = self.dice.choice(("seen", "read", "read", "delivered"))
        return row and (
            lambda stamp: [stamp.make(events.MessageReceipt, message_id=row[0], agent_id=self.me, receipt_type=word)]
        )

    # -- agents and sessions

    def register(self) -> Make:
        kind = "user" if self.me.startswith("user:") else "agent"
        row = self.db.execute("SELECT reg_at FROM agents WHERE agent_id = ?", (self.me,)).fetchone()
        # Of an unnamed agent the id tells the role.
        role = "coordinator" if self.me.startswith("coordinator_") else self.dice.choice(("tester", "coder"))
        return lambda stamp: [
            stamp.make(
                events.AgentRegistered,
                at=stamp.later_than(row[0] if row else ""),
                agent_id=self.me,
                kind=kind,
                role=role,
                module="all",
                hostname=f"host{self.clone.number}",
            )
        ]

    def start(self) -> Make:
        scopes = (Pair("module", self.text()),)
        return lambda stamp: [
            stamp.make(events.SessionStarted, session_id=stamp.new_id("ses_"), agent_id=self.me, scopes=scopes)
        ]

    def _session(self) -> tuple[Any, ...] | None:
        return self.row(
            "SELECT session_id FROM sessions WHERE agent_id = ? AND ended_at = '' ORDER BY session_id", self.me
        )

    def end(self) -> Make | None:
        row = self._session()
        return row and (
            lambda stamp: [stamp.make(events.SessionEnded, session_id=row[0], agent_id=self.me, reason="normal")]
        )

    def update(self) -> Make | None:
        row = self._session()
        if row is None:
            return self.start()
        text, which = self.text(), self.dice.randrange(4)

        def make(stamp: Stamp) -> list[Any]:
            fields: dict[str, Any] = {}
            if which != 1:
                fields |= {"intent": text, "intent_updated_at": stamp.text}
            if which == 1:
                fields |= {"current_task": text, "task_updated_at": stamp.text}
            if which == 2:
                fields |= {"branch": text, "git_updated_at": stamp.text, "changed_files": ("a.py", text)}
            work = Work(session_id=row[0], **fields)
            return [stamp.make(events.AgentUpdated, agent_id=self.me, work_contexts=(work,))]

        return make

    def note(self) -> Make:
        text = self.text()
        return lambda stamp: [stamp.make(events.AgentContextSaved, agent_id=self.me, content=text)]

    def clean(self) -> Make:
        whom = self.dice.choice(NAMES)
        messages = self.dice.random() < 0.4
        return lambda stamp: [
            stamp.make(events.AgentCleaned, agent_id=whom, by=self.me, method="manual", messages=messages)
        ]

    def purge(self) -> Make:
        back_ms = self.dice.choice((0, 1_000, 60_000, 3_600_000))
        return lambda stamp: [stamp.make(events.PurgeExecuted, cutoff=clock.format_ms(stamp.ms - back_ms), by=self.me)]

    # -- what never travels

    def local(self) -> Make:
        which, text, row = self.dice.randrange(5), self.text(), self._session()
        outcome = self.dice.choice(("offered", "offered", "proved", "expired"))

        def make(stamp: Stamp) -> list[Any]:
            if which == 0:
                return [stamp.make(events.AgentPlaced, agent_id=self.me, worktree_path=f"/{text}", agent_pid=7)]
            if which == 1:
                return [stamp.make(events.AgentStatusSet, agent_id=self.me, status=text, by=self.me)]
            if which == 2:
                return [stamp.make(events.AgentSeen, agent_id=self.me, session_id=row[0] if row else "")]
            if which == 3:
                return [stamp.make(events.AgentExited, agent_id=self.me, agent_pid=7)]
            attempt = {"attempt_id": f"wak_{len(text) % 3}", "door": "claude", "message_ids": ("msg_" + text,)}
            return [stamp.make(events.WakeAttempted, agent_id=self.me, outcome=outcome, **attempt)]

        return make

    # -- groups

    def group(self) -> Make:
        name = self.dice.choice(("crew", "core"))
        member = self.dice.choice(NAMES)

        def make(stamp: Stamp) -> list[Any]:
            group_id = stamp.new_id("grp_")
            return [
                stamp.make(events.GroupCreated, group_id=group_id, name=name, created_by=self.me),
                stamp.make(
                    events.GroupMemberAdded,
                    group_id=group_id,
                    member_type="agent",
                    member_value=member,
                    added_by=self.me,
                ),
            ]

        return make

    def regroup(self) -> Make | None:
        row = self.row("SELECT group_id FROM groups ORDER BY group_id")
        if row is None:
            return self.group()
        which, member, text = self.dice.randrange(7), self.dice.choice(NAMES), self.text()
        of = {"group_id": row[0]}
        about = of | {"member_type": self.dice.choice(("agent", "role")), "member_value": member}

        def make(stamp: Stamp) -> list[Any]:
            if which < 3:
                return [stamp.make(events.GroupMemberAdded, added_by=self.me, **about)]
            if which < 5:
                return [stamp.make(events.GroupMemberRemoved, removed_by=self.me, **about)]
            if which == 5:
                return [stamp.make(events.GroupUpdated, updated_by=self.me, fields=GroupFields(description=text), **of)]
            return [stamp.make(events.GroupDeleted, deleted_by=self.me, **of)]

        return make


_SWEEPING: dict[Callable[[Deeds], Any], int] = {
    Deeds.clean: 5,
    Deeds.purge: 5,
    Deeds.start: 4,
    Deeds.end: 5,
    Deeds.update: 3,
    Deeds.local: 4,
}
"""How much more often in a world where much is tombstoned or replaced soon."""

_DEEDS: list[tuple[Callable[[Deeds], Any], int]] = [
    (Deeds.send, 12),
    (Deeds.reply, 6),
    (Deeds.edit, 8),
    (Deeds.delete, 2),
    (Deeds.read, 10),
    (Deeds.register, 5),
    (Deeds.start, 3),
    (Deeds.end, 3),
    (Deeds.update, 8),
    (Deeds.note, 2),
    (Deeds.clean, 1),
    (Deeds.purge, 1),
    (Deeds.local, 3),
    (Deeds.group, 2),
    (Deeds.regroup, 4),
]
