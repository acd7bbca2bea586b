"""A clone that pushes what no daemon would: unusable lines, facts in wrong files, forged ones, files in odd places.

Whatever it pushes, the daemons must agree on what comes of it, go on, and lose nothing that anybody wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.sim.deeds import NAMES
from tests.sim.git import FIRST_OBJECTS, REGULAR, Files, Remote, blob_id, commit_of, put_commit
from thrum.git.trees import TreeEntry
from thrum.model import clock, events, ids
from thrum.model.events import Body, Pair
from thrum.model.tombstones import branch_file_of
from thrum.sync.merge import JOURNAL_FILE
from thrum.sync.worktree import FIRST

THEM = "d_01KGH87Y00FFFFFFFFFFFFFFFF"
HOUR_MS = 3_600_000


class Hostile:
    def __init__(self, remote: Remote, dice: Random, ms: int) -> None:
        self.remote = remote
        self.dice = dice
        self.ms = ms
        self._ulids: ids.Ulids = ids.Ulids(dice.randbytes)

    def push(self) -> str:
        """Push something. Says what."""
        remote, dice = self.remote, self.dice
        remote.objects |= FIRST_OBJECTS
        base = remote.tip or FIRST
        files: Files = {
            entry.path.decode("utf-8", "surrogateescape"): entry for entry in commit_of(remote.objects, base).files
        }
        done: list[str] = []
        for _ in range(dice.randrange(1, 4)):
            done.append(dice.choice(self.deeds())(files))
        commit = put_commit(remote.objects, files.values(), base, "hostile", self.ms // 1000)
        remote.move(commit)
        return ", ".join(done)

    def deeds(self) -> list[Callable[[Files], str]]:
        """What it does to the files, each as often as it stands here. Each says what was done."""
        return [self.add_line, self.add_line, self.add_line, self.spoil, self.odd_entry]

    # -- lines

    def add_line(self, files: Files) -> str:
        file, raw, what = self.line(files)
        self._put(files, file, self._data(files, file) + raw + b"\n")
        return f"{what} in {file}"

    def line(self, files: Files) -> tuple[str, bytes, str]:
        dice = self.dice
        which = dice.choice(
            ("forged", "forged", "wrong file", "sealed", "unusable", "bad", "conflict", "conflict", "moved", "local")
        )
        some = dice.choice(("events.jsonl", f"messages/{dice.choice(NAMES).replace(':', '.')}.jsonl"))
        if which == "unusable":
            return some, dice.choice((b"garbage", b"\xff\xfe", b"[]", b'{"type":"x"}', b"{", b"1", b"\0")), which
        if which in ("conflict", "moved"):
            some = dice.choice(sorted(file for file in files if JOURNAL_FILE.fullmatch(file)) or [some])
            lines = [line for line in self._data(files, some).split(b"\n") if line.startswith(b'{"type"')]
            if lines and which == "conflict":
                return some, self._twisted(dice.choice(lines)), which
            if lines:
                return f"messages/{dice.choice(NAMES).replace(':', '.')}.jsonl", dice.choice(lines), which
        fact = self.fact()
        raw = events.encode(fact)
        home = branch_file_of(fact)
        if which == "wrong file":
            return some, raw, which
        if which == "sealed":
            old, new = dice.choice(((b'"v":1', b'"v":2'), (b'{"type":"', b'{"type":"future.')))
            return some, raw.replace(old, new, 1), which
        if which == "bad":
            bad = dice.choice(
                (b'"v":1,"body":7', b'"v":"one"', b'"v":1,"agent_id":7', b'"v":1,"zz":"' + b"z" * 9_000 + b'"')
            )
            return home, raw.replace(b'"v":1', bad, 1), which
        if which == "local":
            placed = self._make(events.AgentPlaced, agent_id=dice.choice(NAMES), worktree_path="/x")
            return some, events.encode(placed), which
        return home, raw, events.type_of(fact)

    def _twisted(self, line: bytes) -> bytes:
        """Another line of the same id, that says something else if there is anything to say; smaller or larger."""
        mark = self.dice.choice((b"!", b"~"))
        for field in (b'"content":"', b'"role":"', b'"reason":"', b'"intent":"', b'"member_value":"', b'"cutoff":"'):
            if field in line:
                return line.replace(field, field + mark, 1)
        old, new = self.dice.choice(((b'"v":1', b'"v":1,"zz":1'), (b'"timestamp"', b'"aa":1,"timestamp"')))
        return line.replace(old, new, 1)

    def fact(self) -> Any:
        """A forged fact; sometimes about ids that others use."""
        dice = self.dice
        who, other = dice.choice(NAMES), dice.choice(NAMES)
        message = dice.choice(("msg_odd", *self._ids("msg_")))
        session = dice.choice(("ses_odd", *self._ids("ses_")))
        kinds: tuple[tuple[type[Any], dict[str, Any]], ...] = (
            (
                events.MessageCreated,
                {"message_id": message, "agent_id": who, "body": Body("plain", "forged"), "recipients": (other,)},
            ),
            (
                events.MessageCreated,
                {
                    "message_id": "msg_" + self._ulids.at(self.ms),
                    "agent_id": who,
                    "body": Body("plain", "forged"),
                    "refs": (Pair("reply_to", message),),
                    "thread_id": dice.choice(("", "thr_a")),
                    "recipients": (other,),
                },
            ),
            (
                events.MessageEdited,
                {"message_id": message, "agent_id": dice.choice((who, "")), "body": Body("plain", "e")},
            ),
            (events.MessageDeleted, {"message_id": message, "agent_id": dice.choice((who, ""))}),
            (
                events.MessageReceipt,
                {"message_id": message, "agent_id": who, "receipt_type": dice.choice(("read", "odd"))},
            ),
            (
                events.AgentRegistered,
                {"agent_id": dice.choice((who, "Odd:Id/../x")), "kind": "agent", "role": "r", "module": "m"},
            ),
            (
                events.AgentAliased,
                {"agent_id": other, "of": who, dice.choice(("stored", "seen", "read")): (message, message)},
            ),
            (events.SessionStarted, {"session_id": session, "agent_id": who}),
            (events.SessionEnded, {"session_id": session}),
            (events.AgentCleaned, {"agent_id": who, "messages": dice.random() < 0.3}),
            (events.PurgeExecuted, {"cutoff": clock.format_ms(self.ms + dice.choice((-HOUR_MS, 0, 99 * HOUR_MS)))}),
            (
                events.AgentUpdated,
                {
                    "agent_id": who,
                    "work_contexts": (
                        events.Work(
                            session_id=session, intent="forged", intent_updated_at=dice.choice(("never", self._time()))
                        ),
                    ),
                },
            ),
            (events.AgentContextSaved, {"agent_id": dice.choice((who, "Odd:Id/../x")), "content": "forged"}),
            (events.JournalFormat, {"format": dice.choice((1, 1, 1, 2))}),
        )
        cls, fields = dice.choice(kinds)
        return self._make(cls, **fields)

    def _make(self, cls: type[Any], **fields: Any) -> Any:
        origin = self.dice.choice((THEM, "", "d_01KGH87Y00BBBBBBBBBBBB0000"))
        event_id = "evt_" + self._ulids.at(self.ms)
        return cls(timestamp=self._time(), event_id=event_id, v=1, origin_daemon=origin, **fields)

    def _time(self) -> str:
        hours = self.dice.choice((0, 0, 0, -1, 3, 30, 90))
        text = clock.format_ms(self.ms + hours * HOUR_MS)
        return text.replace("Z", "+00:00") if self.dice.random() < 0.2 else text

    def _ids(self, prefix: str) -> list[str]:
        """Ids that are used on the branch."""
        found: set[str] = set()
        for data in self.remote.objects.values():
            if isinstance(data, bytes):
                start = data.find(b'"' + prefix.encode())
                if start >= 0:
                    found.add(data[start + 1 : start + 31].decode(errors="replace"))
        return sorted(found)[:3]

    # -- files

    def spoil(self, files: Files) -> str:
        """Change a journal in ways that lines alone don't show."""
        journals = sorted(file for file in files if file.endswith(".jsonl"))
        if not journals:
            return "nothing"
        file = self.dice.choice(journals)
        data = self._data(files, file)
        lines = data.split(b"\n")[:-1]
        which = self.dice.choice(
            ("gone", "empty", "cut", "crlf", "bom", "blank", "blanks", "shuffled", "twice", "no newline")
        )
        if which == "gone":
            del files[file]
            return f"{file} gone"
        if which == "cut":
            data = b"".join(line + b"\n" for line in lines if self.dice.random() < 0.5)
        elif which == "shuffled":
            self.dice.shuffle(lines)
            data = b"".join(line + b"\n" for line in lines)
        else:
            data = {
                "empty": b"",
                "crlf": data.replace(b"\n", b"\r\n"),
                "bom": b"\xef\xbb\xbf" + data,
                "blank": b"\n \n" + data + b"\n",
                "blanks": b"".join(self.dice.choice((b"", b" ", b"\t")) + line + b" \n" for line in lines),
                "twice": data + data,
                "no newline": data.removesuffix(b"\n"),
            }[which]
        self._put(files, file, data)
        return f"{file} {which}"

    def odd_entry(self, files: Files) -> str:
        """A file where none belongs, or of a kind that is none."""
        dice = self.dice
        name = dice.choice(
            (
                "README",
                "messages/sub/dir.jsonl",
                "messages/.hidden.jsonl",
                "messages/%41.jsonl",
                "messages/a b.jsonl",
                "messages",
                "events.jsonl/x",
                "messages/ann.jsonl/x",
                f"messages/{dice.choice(NAMES).replace(':', '.')}.jsonl",
                "messages/other.jsonl",
            )
        )
        mode = dice.choice((REGULAR, REGULAR, 0o100755, 0o120000))
        for path in list(files):
            if path == name or path.startswith(name + "/") or name.startswith(path + "/"):
                del files[path]
        self._put(files, name, events.encode(self.fact()) + b"\n", mode)
        return f"{name} as {mode:o}"

    def _data(self, files: Files, file: str) -> bytes:
        entry = files.get(file)
        found = b"" if entry is None else self.remote.objects[entry.object_id]
        assert isinstance(found, bytes)
        return found + b"\n" if found and not found.endswith(b"\n") else found

    def _put(self, files: Files, file: str, data: bytes, mode: int = REGULAR) -> None:
        name = blob_id(data)
        for path in list(files):
            if path.startswith(file + "/") or file.startswith(path + "/"):
                del files[path]
        self.remote.objects[name] = data
        files[file] = TreeEntry(file.encode("utf-8", "surrogateescape"), mode, name)
