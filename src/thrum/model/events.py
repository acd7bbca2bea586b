"""The facts: what thrum records, one JSON object per line. Their codec, and facts of a newer version kept opaque.

Source: events.md §2 to §5. A class is a past participle (`MessageCreated`), its tag the word on disk
(`message.create`). Field order is byte order: the envelope first, then the type's own fields. Encoding one fact twice
gives the same bytes; a line that came from elsewhere is never encoded again: its bytes travel on.

An optional field that is empty is absent on disk; in the program it is `""`, `()`, `0` or `False`. Words of an
enumeration (`kind`, `status`, `format` …) are plain text here: an unknown one never makes a fact unusable.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import msgspec

from thrum.model import clock, ids, limits
from thrum.model.event_specs import EVENT_SPECS, LATER_LOCAL_TYPES, EventSpec
from thrum.model.event_specs import EVENTS_FILE as EVENTS_FILE
from thrum.model.event_specs import LOCAL_FILE as LOCAL_FILE
from thrum.model.event_specs import MESSAGES_DIR as MESSAGES_DIR
from thrum.model.fact_parts import Body as Body
from thrum.model.fact_parts import Commit as Commit
from thrum.model.fact_parts import FileChange as FileChange
from thrum.model.fact_parts import GroupFields as GroupFields
from thrum.model.fact_parts import Pair as Pair
from thrum.model.fact_parts import Whole as Whole
from thrum.model.fact_parts import Work as Work

FACTS_VERSION: Final = 6
"""Rises when the projection of the same facts would change: then the database is rebuilt."""

KNOWN_V: Final = 1
"""The greatest `v` of a fact that this program understands."""

_BOM: Final = b"\xef\xbb\xbf"
_DEPTH_MAX: Final = 256
"""How deep a line may be nested. A bound of our own: the decoder's hangs on the stack that it is called from."""


class Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type"):
    """The envelope of every fact. Only the committer stamps; foreign facts keep what they came with."""

    timestamp: str
    event_id: str
    v: Whole
    origin_daemon: str = ""
    client_key: str = ""
    client_digest: str = ""


def tag_of(cls: type[Fact]) -> str:
    """The name on disk of a class."""
    return str(cls.__struct_config__.tag)


# -- messages/{author}.jsonl


class MessageCreated(Fact, frozen=True, gc=False, kw_only=True, tag="message.create"):
    message_id: str
    thread_id: str = ""
    agent_id: str
    session_id: str = ""
    body: Body
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    audiences: tuple[Pair, ...] = ()
    recipients: tuple[str, ...] = ()
    quiet: bool = False
    urgent: bool = False
    expires_at: str = ""
    supersedes: str = ""
    authored_by: str = ""
    disclosed: bool = False


class MessageEdited(Fact, frozen=True, gc=False, kw_only=True, tag="message.edit"):
    message_id: str
    agent_id: str = ""
    body: Body


class MessageDeleted(Fact, frozen=True, gc=False, kw_only=True, tag="message.delete"):
    message_id: str
    agent_id: str = ""
    reason: str = ""


class AgentUpdated(Fact, frozen=True, gc=False, kw_only=True, tag="agent.update"):
    agent_id: str
    work_contexts: tuple[Work, ...]


class AgentContextSaved(Fact, frozen=True, gc=False, kw_only=True, tag="agent.context"):
    agent_id: str
    content: str


# -- events.jsonl


class AgentRegistered(Fact, frozen=True, gc=False, kw_only=True, tag="agent.register"):
    agent_id: str
    kind: str
    name: str = ""
    role: str
    module: str
    worktree: str = ""
    display: str = ""
    hostname: str = ""


class SessionStarted(Fact, frozen=True, gc=False, kw_only=True, tag="agent.session.start"):
    session_id: str
    agent_id: str
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()


class SessionEnded(Fact, frozen=True, gc=False, kw_only=True, tag="agent.session.end"):
    session_id: str
    agent_id: str = ""
    reason: str = ""


class AgentCleaned(Fact, frozen=True, gc=False, kw_only=True, tag="agent.cleanup"):
    agent_id: str
    reason: str = ""
    method: str = ""
    by: str = ""
    messages: bool = False


class AgentAliased(Fact, frozen=True, gc=False, kw_only=True, tag="agent.alias"):
    """The agent `of` continues as `agent_id`, with these messages of its inbox: unseen, seen, or read ones.

    docs/decisions/0050. One that came late, for the old id, is handed on by another such fact.
    """

    agent_id: str
    of: str
    stored: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    @property
    def message_ids(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.stored, *self.seen, *self.read)


class GroupCreated(Fact, frozen=True, gc=False, kw_only=True, tag="group.create"):
    group_id: str
    name: str
    description: str = ""
    created_by: str


class GroupMemberAdded(Fact, frozen=True, gc=False, kw_only=True, tag="group.member.add"):
    group_id: str
    member_type: str
    member_value: str
    added_by: str


class GroupMemberRemoved(Fact, frozen=True, gc=False, kw_only=True, tag="group.member.remove"):
    group_id: str
    member_type: str
    member_value: str
    removed_by: str


class GroupUpdated(Fact, frozen=True, gc=False, kw_only=True, tag="group.update"):
    group_id: str
    updated_by: str
    fields: GroupFields


class GroupDeleted(Fact, frozen=True, gc=False, kw_only=True, tag="group.delete"):
    group_id: str
    deleted_by: str


class PurgeExecuted(Fact, frozen=True, gc=False, kw_only=True, tag="purge.executed"):
    """`upto`: of each origin the greatest order that was known where it was purged, `time event_id`."""

    cutoff: str
    by: str = ""
    upto: dict[str, str] = {}


class JournalFormat(Fact, frozen=True, gc=False, kw_only=True, tag="journal.format"):
    format: Whole


class DaemonKeyed(Fact, frozen=True, gc=False, kw_only=True, tag="daemon.key"):
    """What project a daemon is of: every repository id that it ever had (events.md §11 "Project")."""

    repo_ids: tuple[str, ...]
    roots: tuple[str, ...] = ()


class DaemonSucceeded(Fact, frozen=True, gc=False, kw_only=True, tag="daemon.succession"):
    """A daemon says that it wrote under another id before."""

    previous_id: str
    old_key: str = ""
    old_sig: str = ""


# -- local.jsonl


class MessageReceipt(Fact, frozen=True, gc=False, kw_only=True, tag="message.receipt"):
    message_id: str
    agent_id: str
    session_id: str = ""
    receipt_type: str


class AgentPlaced(Fact, frozen=True, gc=False, kw_only=True, tag="agent.place"):
    agent_id: str
    worktree_path: str
    agent_pid: Whole = 0
    agent_pid_started: str = ""
    runtime: str = ""
    tmux_session: str = ""
    runtime_session: str = ""
    transcript: str = ""
    pane: str = ""
    hooks_seen_at: str = ""


class AgentExited(Fact, frozen=True, gc=False, kw_only=True, tag="agent.exit"):
    agent_id: str
    agent_pid: Whole
    agent_pid_started: str = ""


class AgentSeen(Fact, frozen=True, gc=False, kw_only=True, tag="agent.seen"):
    agent_id: str
    session_id: str = ""


class AgentStatusSet(Fact, frozen=True, gc=False, kw_only=True, tag="agent.status"):
    agent_id: str
    status: str
    by: str
    asks: str = ""
    """What a dialog asks that blocks it."""


class WakeAttempted(Fact, frozen=True, gc=False, kw_only=True, tag="wake.attempt"):
    """One offer of mail through one door, or how it ended: facts of one attempt share `attempt_id`, its secret token.

    `outcome`: offered, then at most one of proved, expired, refused, failed, revoked. `message_ids` of `proved` are
    those that were really said. `process`: the runtime process that it was made for, as its offerer names one.
    """

    agent_id: str
    attempt_id: str
    door: str
    message_ids: tuple[str, ...]
    outcome: str
    detail: str = ""
    process: str = ""


class SessionItemsChanged(Fact, frozen=True, gc=False, kw_only=True, tag="session.items"):
    session_id: str
    add_scopes: tuple[Pair, ...] = ()
    remove_scopes: tuple[Pair, ...] = ()
    add_refs: tuple[Pair, ...] = ()
    remove_refs: tuple[Pair, ...] = ()


class AgentHidden(Fact, frozen=True, gc=False, kw_only=True, tag="agent.hide"):
    """Another daemon's agent, `of` that daemon, is not shown here."""

    agent_id: str
    of: str


class Accepted(Fact, frozen=True, gc=False, kw_only=True, tag="accept"):
    """What counts here by the word of this machine (events.md §11).

    - `before`: `lines` are 16 hexadecimal characters of the sha256 of each unsigned line that was here; one without
      lines closes it
    - `origin`: unsigned lines of the daemon `id` count; with `of`, `id` is the daemon that wrote as `of` before
    - `holder`: the agent `id` is the one of the daemon `of`
    - `gone`: daemon `id` no longer exists
    - `project`: the repository `id` is this project too
    """

    kind: str
    id: str = ""
    of: str = ""
    lines: tuple[str, ...] = ()


class UnknownEvent(msgspec.Struct, frozen=True, gc=False):
    """A fact that this program does not understand: unknown type, or a newer `v`. Stored, numbered and synced on."""

    type: str
    timestamp: str
    event_id: str
    v: int
    origin_daemon: str
    raw: bytes


MessageFact: TypeAlias = MessageCreated | MessageEdited | MessageDeleted | MessageReceipt
SessionFact: TypeAlias = SessionStarted | SessionEnded | AgentUpdated | AgentSeen | SessionItemsChanged
GroupFact: TypeAlias = GroupCreated | GroupMemberAdded | GroupMemberRemoved | GroupUpdated | GroupDeleted
AgentFact: TypeAlias = (
    AgentRegistered
    | AgentAliased
    | AgentCleaned
    | AgentContextSaved
    | AgentPlaced
    | AgentExited
    | AgentStatusSet
    | WakeAttempted
)
DaemonFact: TypeAlias = DaemonKeyed | DaemonSucceeded | Accepted | AgentHidden
AnyFact: TypeAlias = MessageFact | SessionFact | GroupFact | AgentFact | DaemonFact | PurgeExecuted | JournalFormat
"""By the entity of their rows in `EVENT_SPECS`."""

SPECS: Final[dict[type, EventSpec]] = {cls: EVENT_SPECS[tag_of(cls)] for cls in AnyFact.__args__}
"""The row of each class; a `UnknownEvent` has none."""
assert len(SPECS) == len(EVENT_SPECS), "each row of EVENT_SPECS is of one class"

SWEEPS: Final = tuple(cls for cls, spec in SPECS.items() if spec.ahead == "sweep")
"""What takes other facts out of effect."""

_NEVER_TRAVEL: Final = LATER_LOCAL_TYPES.union(name for name, spec in EVENT_SPECS.items() if not spec.travels)


class BadLine(ValueError):
    """A line that cannot be used. `reason` is the word that goes to the quarantine file (events.md §11)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class _Envelope(msgspec.Struct, gc=False):
    type: str
    timestamp: str
    event_id: str
    v: Whole = 1
    origin_daemon: str = ""


_STRINGS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[\]{}]")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyFact)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def encode(fact: AnyFact) -> bytes:
    """The one line of a fact, without its newline. Raises BadLine if it could not be read back (a lone surrogate)."""
    try:
        return _encoder.encode(fact)
    except UnicodeEncodeError as error:
        raise BadLine("not_utf8", str(error)) from error


def bare(line: bytes) -> bytes:
    """A line without what an odd editor may have put around it: two lines are the same fact when these are equal."""
    return line.removeprefix(_BOM).strip(b" \t\r\n")


def decode(line: bytes) -> AnyFact | UnknownEvent:
    """The fact of one line (no newline). Opaque for what a newer program wrote; BadLine for an unusable line."""
    if len(line) > limits.line_bytes_max:
        raise BadLine("too_long", f"{len(line)} bytes")
    if len(line) > 2 * _DEPTH_MAX and line.count(b"[") + line.count(b"{") > _DEPTH_MAX:
        _refuse_deep(line)
    try:
        fact = _decoder.decode(line)
    except msgspec.MsgspecError as error:
        return _decode_odd(line, error)
    except UnicodeDecodeError as error:
        raise BadLine("not_utf8", str(error)) from error
    except RecursionError as error:
        raise BadLine("not_json", "nested too deep") from error
    if fact.v > KNOWN_V:
        return _opaque(line)
    if not fact.event_id:
        raise BadLine("missing_field", "event_id is empty")
    try:
        clock.normalise(fact.timestamp)
    except ValueError as error:
        raise BadLine("bad_field", f"timestamp: {error}") from error
    return fact


def _refuse_deep(line: bytes) -> None:
    depth = 0
    for mark in _BRACKETS.findall(_STRINGS.sub(b"", line)):
        depth += 1 if mark in b"[{" else -1
        if depth > _DEPTH_MAX:
            raise BadLine("not_json", "nested too deep")


def _decode_odd(line: bytes, error: msgspec.MsgspecError) -> UnknownEvent:
    """Why the typed decode failed: a newer program's fact is opaque, everything else is a bad line."""
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        raise BadLine("not_utf8", str(bad)) from bad
    try:
        raw = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError) as bad:
        raise BadLine("not_json", str(bad)) from bad
    if not isinstance(raw, dict):
        raise BadLine("not_object")
    opaque = _opaque(line)
    if opaque.type in EVENT_SPECS and opaque.v <= KNOWN_V:
        raise BadLine("bad_field", str(error)) from error
    return opaque


def _opaque(line: bytes) -> UnknownEvent:
    try:
        envelope = _envelope_decoder.decode(line)
        clock.normalise(envelope.timestamp)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise BadLine("missing_field", str(error)) from error
    if not envelope.event_id or not envelope.type:
        raise BadLine("missing_field", "type or event_id is empty")
    return UnknownEvent(
        envelope.type, envelope.timestamp, envelope.event_id, envelope.v, envelope.origin_daemon, raw=bytes(line)
    )


def type_of(fact: AnyFact | UnknownEvent) -> str:
    """The dotted name on disk."""
    return fact.type if isinstance(fact, UnknownEvent) else tag_of(type(fact))


def never_travels(fact: AnyFact | UnknownEvent) -> bool:
    """Whether a fact may not come from the branch. Receipts may (events.md §5)."""
    return fact.type in _NEVER_TRAVEL if isinstance(fact, UnknownEvent) else not SPECS[type(fact)].travels


def actor_of(fact: AnyFact | UnknownEvent) -> str:
    """Who did it (events.md §2): decides the file and the scope of a client key."""
    if isinstance(fact, UnknownEvent):
        return "system"
    field = SPECS[type(fact)].actor
    return (getattr(fact, field) if field else "") or "system"


def order_of(fact: AnyFact | UnknownEvent) -> tuple[str, str]:
    """The order of facts: every "last wins", tie and sorted file goes by it, and by nothing else."""
    return (clock.normalise(fact.timestamp), fact.event_id)


def file_of(fact: AnyFact) -> str:
    """The journal a fact belongs into: `events.jsonl`, `messages/{stem}.jsonl` or `local.jsonl`."""
    journal = SPECS[type(fact)].journal
    return f"{MESSAGES_DIR}/{ids.file_stem(actor_of(fact))}.jsonl" if journal == MESSAGES_DIR else journal
