"""A stranger who may push, has a key of his own and knows every line that ever was on the remote.

He says what is his, and tries everything else: facts about what is another's, ids of others with other bytes, earlier
dates, others' lines again and elsewhere, others' names and origins. What honest clones wrote must stand as they wrote
it (`checks.nobody_interferes`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec

from tests.sim.deeds import NAMES
from tests.sim.git import Files, Remote, commit_of, history
from tests.sim.hostile import HOUR_MS, Hostile
from tests.support.store.signers import PROJECT, daemon_id_of, signer_of
from thrum.model import clock, events, signatures
from thrum.model.events import AnyFact, Body, GroupFields, Pair, UnknownEvent, Work
from thrum.model.tombstones import branch_file_of
from thrum.sync.merge import JOURNAL_FILE

_NUMBERS: Final = (901, 902)
"""Of their keys."""
STRANGERS: Final = frozenset(map(daemon_id_of, _NUMBERS))

_TEXT_FIELDS: Final = (
    b'"content":"',
    b'"role":"',
    b'"reason":"',
    b'"intent":"',
    b'"member_value":"',
    b'"name":"',
    b'"cutoff":"',
)


class Stranger(Hostile):
    """One push of one of them."""

    def __init__(self, remote: Remote, dice: Random, ms: int) -> None:
        super().__init__(remote, dice, ms)
        number = dice.choice(_NUMBERS)
        self.signer, self.me = signer_of(number), daemon_id_of(number)
        self._ulids = signatures.CertifiedUlids(self.me, dice.randbytes)

    def deeds(self) -> list[Callable[[Files], str]]:
        return [
            self.say,
            self.say_of,
            self.say_of,
            self.say_of,
            self.pose,
            self.reuse,
            self.reuse,
            self.replay,
            self.bring_back,
            self.take_over,
        ]

    # -- what he does to the files

    def say(self, files: Files) -> str:
        """What is his to say: of what project he is, agents, messages and sessions of his own, sweeps."""
        fact = self._key() if self.dice.random() < 0.4 else self.fact()
        return self._add(files, fact, self.signer.sign(events.encode(fact)))

    def say_of(self, files: Files) -> str:
        """Something about what is another's."""
        line = self._some_line(files)
        found = None if line is None else _decode(line)
        fact = self._key() if found is None else self._about(found)
        if self.dice.random() < 0.2:
            fact = msgspec.structs.replace(fact, timestamp=self._time())
        raw, how = self._sign(fact, b"" if line is None else line)
        return f"{how} {self._add(files, fact, raw)}"

    def pose(self, files: Files) -> str:
        """He registers somebody whom a fact names, by an early date, and marks, joins and cleans up in that name."""
        line = self._some_line(files)
        found = None if line is None else _decode(line)
        if isinstance(found, events.MessageCreated):
            who = self.dice.choice((found.agent_id, *found.recipients))
            marked = self._make(events.MessageReceipt, message_id=found.message_id, agent_id=who, receipt_type="read")
        elif isinstance(found, events.GroupMemberAdded):
            who = found.member_value
            marked = self._make(
                events.GroupMemberRemoved,
                group_id=found.group_id,
                member_type=found.member_type,
                member_value=who,
                removed_by=who,
            )
        else:
            who = self.dice.choice(NAMES)
            marked = self._make(events.AgentCleaned, agent_id=who, by=who, messages=True)
        facts = [self._key(), self._registration(who), marked]
        return "poses: " + ", ".join(self._add(files, fact, self.signer.sign(events.encode(fact))) for fact in facts)

    def take_over(self, files: Files) -> str:
        """He has agents of his own, and says that one of them goes on as another, or another as his, with its mail."""
        dice = self.dice
        line = self._some_line(files)
        found = None if line is None else _decode(line)
        fact = found if isinstance(found, events.MessageCreated) else None
        if fact is not None and dice.random() < 0.3:
            whom: tuple[str, ...] = (fact.agent_id, *fact.recipients)
        else:
            whom = NAMES
        new, of = dice.choice((*whom, "odd")), dice.choice((*whom, "odd"))
        mine = [self._registration(name) for name in (new, of) if dice.random() < 0.8]
        alias = self._alias(new, of, fact)
        last = [self._make(events.AgentCleaned, agent_id=of, by=of)] if dice.random() < 0.5 else []
        facts = [self._key(), *mine, alias, *last]
        return "takes over: " + ", ".join(
            self._add(files, fact, self.signer.sign(events.encode(fact))) for fact in facts
        )

    def _alias(self, new: str, of: str, fact: events.MessageCreated | None) -> AnyFact:
        ids = (*self._ids("msg_"), *((fact.message_id,) if fact is not None else ()))
        mail = {state: (id,) for id in ids if (state := self.dice.choice(("", "stored", "seen", "read")))}
        alias = self._make(events.AgentAliased, agent_id=new, of=of, **mail)
        return msgspec.structs.replace(alias, timestamp=self._time())

    def reuse(self, files: Files) -> str:
        """Another line of somebody's id: other bytes, an earlier date, another thing of the same id."""
        line = self._some_line(files)
        found = None if line is None else _decode(line)
        if line is None or found is None:
            return "nothing to reuse"
        base = signatures.unsigned(line)
        which = self.dice.choice(("bytes", "bytes", "date", "origin", "second"))
        if which == "second":
            # Of the thing a second create, with an id of his own.
            event_id = "evt_" + self._ulids.at(self.ms)
            fact: Any = msgspec.structs.replace(
                found, event_id=event_id, timestamp=clock.format_ms(self.ms - 99 * HOUR_MS), origin_daemon=self.me
            )
        elif which == "date":
            fact = msgspec.structs.replace(found, timestamp=clock.format_ms(self.ms - 99 * HOUR_MS))
        elif which == "origin":
            at = self.dice.choice((found.timestamp, clock.format_ms(self.ms - 99 * HOUR_MS)))
            fact = msgspec.structs.replace(found, origin_daemon=self.me, timestamp=at)
        else:
            fact = _decode(self._with_other_bytes(base)) or found
        raw, how = self._sign(fact, line)
        if which == "bytes":
            raw = raw if self.dice.random() < 0.5 else self._with_other_bytes(base)
        return f"{which} {how} {self._add(files, fact, raw)}"

    def replay(self, files: Files) -> str:
        """A line that was on the remote at some time, once more: in its place or another, whole or without its name."""
        line = self._some_line(files, everywhere=True)
        if line is None:
            return "nothing to replay"
        dice = self.dice
        found = _decode(line)
        file = branch_file_of(found) if found is not None else ""
        if not file or dice.random() < 0.4:
            file = dice.choice(("events.jsonl", *(f"messages/{name.replace(':', '.')}.jsonl" for name in NAMES)))
        if dice.random() < 0.3:
            line = signatures.unsigned(line)
        self._put(files, file, self._data(files, file) + (line + b"\n") * dice.choice((1, 1, 2)))
        return f"replay in {file}"

    def bring_back(self, files: Files) -> str:
        """All lines of a commit of before, beside those of now."""
        past = history(self.remote.objects, self.remote.tip)
        for entry in commit_of(self.remote.objects, self.dice.choice(past)).files if past else ():
            file = entry.path.decode("utf-8", "surrogateescape")
            data = self.remote.objects[entry.object_id]
            if JOURNAL_FILE.fullmatch(file) and isinstance(data, bytes):
                self._put(files, file, self._data(files, file) + data)
        return "brings back what was"

    # -- lines

    def _add(self, files: Files, fact: AnyFact, raw: bytes) -> str:
        """Append a line where its fact belongs, or where no such fact lies."""
        file = branch_file_of(fact) or "events.jsonl"
        if self.dice.random() < 0.1:
            file = f"messages/{self.dice.choice(NAMES).replace(':', '.')}.jsonl"
        self._put(files, file, self._data(files, file) + raw + b"\n")
        return f"{raw[:300].decode(errors='replace')} … in {file}"

    def _sign(self, fact: AnyFact, line: bytes) -> tuple[bytes, str]:
        """One of the ways in which a stranger may write a fact, given somebody's line. Says which."""
        dice = self.dice
        theirs = getattr(_decode(line), "origin_daemon", "") or self.me
        how = dice.choice(
            ("signed", "signed", "signed", "signed", "unsigned", "in their name", "pasted", "broken", "twice")
        )
        if how == "unsigned":
            return events.encode(fact), how
        if how == "twice":
            return self.signer.sign(events.encode(fact).replace(b'"v":1', b'"v":1,"v":1', 1)), how
        if how == "broken":
            raw = self.signer.sign(events.encode(fact))
            return raw.replace(b'"v":1', b'"v":1,"zz":1', 1), how
        if how in ("in their name", "pasted"):
            base = events.encode(msgspec.structs.replace(fact, origin_daemon=theirs))
            parts = signatures.split_signature(line)
            if how == "pasted" and parts is not None:
                return signatures.with_signature(base, *parts[1:]), how
            return (self.signer.sign(base) if dice.random() < 0.5 else base), how
        return self.signer.sign(events.encode(fact)), how

    def _key(self) -> AnyFact:
        """Of what project he is: mostly of this one."""
        repo_ids = (PROJECT,) if self.dice.random() < 0.9 else ("r_7K2Q1X9M3P0C",)
        return self._make(events.DaemonKeyed, repo_ids=repo_ids)

    def _make(self, cls: type[Any], **fields: Any) -> Any:
        """A fact of his. What makes a thing mostly gives it the id that only he can make."""
        event_id = "evt_" + self._ulids.at(self.ms)
        made = signatures.MADE.get(cls.__struct_config__.tag)
        if made is not None and self.dice.random() < 0.7:
            fields[made.field] = made.prefix + event_id.removeprefix("evt_")
        return cls(timestamp=self._time(), event_id=event_id, v=1, origin_daemon=self.me, **fields)

    def _about(self, fact: AnyFact) -> AnyFact:
        """What he would like to be true of what a fact is about."""
        dice, make = self.dice, self._make
        who = dice.choice(NAMES)
        match fact:
            case events.MessageCreated():
                of: dict[str, Any] = {"message_id": fact.message_id}
                to = dice.choice((*fact.recipients, who))
                return dice.choice(
                    (
                        lambda: make(events.MessageEdited, agent_id=fact.agent_id, body=Body("plain", "forged"), **of),
                        lambda: make(events.MessageEdited, agent_id="", body=Body("plain", "forged"), **of),
                        lambda: make(events.MessageDeleted, agent_id=fact.agent_id, reason="forged", **of),
                        lambda: make(events.MessageReceipt, agent_id=to, receipt_type="read", **of),
                        lambda: self._alias(who, to, fact),
                        lambda: self._reply(fact, to),
                    )
                )()
            case events.SessionStarted() | events.SessionEnded():
                session_id = fact.session_id
                work = Work(session_id=session_id, intent="forged", intent_updated_at=self._time())
                agent_id = getattr(fact, "agent_id", who)
                return dice.choice(
                    (
                        lambda: make(events.SessionEnded, session_id=session_id, agent_id=agent_id, reason="forged"),
                        lambda: make(events.AgentUpdated, agent_id=agent_id, work_contexts=(work,)),
                    )
                )()
            case events.GroupCreated() | events.GroupMemberAdded() | events.GroupUpdated():
                of = {"group_id": fact.group_id}
                about = of | {"member_type": dice.choice(("agent", "role")), "member_value": who}
                return dice.choice(
                    (
                        lambda: make(events.GroupMemberAdded, added_by=who, **about),
                        lambda: make(events.GroupMemberRemoved, removed_by=who, **about),
                        lambda: make(events.GroupUpdated, updated_by=who, fields=GroupFields(name="forged"), **of),
                        lambda: make(events.GroupDeleted, deleted_by=who, **of),
                    )
                )()
            case events.AgentAliased():
                return dice.choice(
                    (
                        lambda: make(events.AgentAliased, agent_id=who, of=fact.of, read=fact.message_ids),
                        lambda: make(events.AgentAliased, agent_id=fact.agent_id, of=who, read=fact.message_ids),
                        lambda: make(events.AgentAliased, agent_id=fact.of, of=fact.agent_id, seen=fact.message_ids),
                        lambda: make(events.AgentAliased, agent_id=who, of=fact.agent_id, stored=fact.message_ids),
                    )
                )()
            case events.AgentRegistered() | events.AgentUpdated() | events.AgentContextSaved():
                agent_id = fact.agent_id
                return dice.choice(
                    (
                        lambda: self._registration(agent_id),
                        lambda: make(events.AgentCleaned, agent_id=agent_id, by=who, messages=dice.random() < 0.7),
                        lambda: make(events.AgentContextSaved, agent_id=agent_id, content="forged"),
                    )
                )()
            case events.DaemonKeyed():
                return dice.choice(
                    (
                        lambda: make(events.DaemonSucceeded, previous_id=fact.origin_daemon),
                        lambda: make(events.DaemonKeyed, repo_ids=("r_7K2Q1X9M3P0C",)),
                    )
                )()
            case _:
                return make(events.PurgeExecuted, cutoff=clock.format_ms(self.ms + dice.choice((0, 0, HOUR_MS))))

    def _registration(self, agent_id: str) -> AnyFact:
        kind = "user" if agent_id.startswith("user:") else "agent"
        derived = agent_id.startswith("coordinator_")
        return self._make(
            events.AgentRegistered,
            agent_id=agent_id,
            kind=kind,
            # Of an unnamed agent the id tells the role.
            role="coordinator" if derived else "tester",
            name="" if derived or kind == "user" else agent_id,
            module="all",
        )

    def _reply(self, fact: events.MessageCreated, author: str) -> AnyFact:
        return self._make(
            events.MessageCreated,
            message_id="msg_odd",
            agent_id=author,
            body=Body("plain", "forged"),
            refs=(Pair("reply_to", fact.message_id),),
            thread_id=self.dice.choice(("thr_0", fact.thread_id or "thr_" + fact.message_id.removeprefix("msg_"))),
            recipients=(fact.agent_id,),
        )

    def _with_other_bytes(self, base: bytes) -> bytes:
        """A smaller or a larger line of the same id, that says something else if there is anything to say."""
        mark = self.dice.choice((b"!", b"~"))
        for field in _TEXT_FIELDS:
            if field in base:
                return base.replace(field, field + mark, 1)
        return base.replace(b'"v":1', b'"v":1,"aa":1', 1)

    def _some_line(self, files: Files, *, everywhere: bool = False) -> bytes | None:
        """A line of the branch as it is, or was at some time."""
        if everywhere:
            blobs = [name for name, data in self.remote.objects.items() if isinstance(data, bytes) and data]
        else:
            blobs = [files[file].object_id for file in sorted(files) if JOURNAL_FILE.fullmatch(file)]
        if not blobs:
            return None
        data = self.remote.objects[self.dice.choice(blobs)]
        assert isinstance(data, bytes)
        lines = [line for line in data.split(b"\n") if line.startswith(b'{"type"')]
        return self.dice.choice(lines) if lines else None


def _decode(line: bytes) -> AnyFact | None:
    try:
        fact = events.decode(line)
    except events.BadLine:
        return None
    return None if isinstance(fact, UnknownEvent) else fact
