"""Send, edit, delete, mark: decisions that become facts. Source: rpc.md §5 "Messages", events.md §8."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from thrum.model import addressing, clock, limits
from thrum.model.addressing import Audience
from thrum.model.errors import (
    BadTime,
    InvalidParams,
    MessageDeleted,
    MessageNotFound,
    NoReplyAddress,
    NotYours,
    not_author,
)
from thrum.model.events import AnyFact, Body, MessageCreated, MessageEdited, MessageReceipt, Pair
from thrum.model.events import MessageDeleted as MessageDeletedFact
from thrum.model.methods.messages import (
    DeleteParams,
    DeleteResult,
    EditParams,
    EditResult,
    MarkReadParams,
    MarkReadResult,
    SendParams,
    SendResult,
    SilentRecipient,
)
from thrum.model.wire_types import Recipient
from thrum.ops.context import Call, Context, caller_id
from thrum.ops.directory import ViewDirectory
from thrum.ops.drafts import check_body, check_refs, check_scopes, check_text
from thrum.ops.liveness import owner_alive, worktree_missing
from thrum.ops.sessions import ensure_session
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, MessageRow, View

_MARKED_AT_ONCE: Final = 500
"""Receipts of one call that are decided in one go: some 15 ms."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What `send` answers, with the rows of the first of its recipients, as they were when it was decided: none for
    a replay, and for a message that concerns no one in particular.
    """

    result: SendResult
    rows: Sequence[AgentRow] = ()


async def send(ctx: Context, call: Call, params: SendParams) -> Sent:
    """Store a message for its recipients. All or nothing: one unknown address and nothing is stored."""
    author = caller_id(call)
    body = check_body(params.content, params.format, params.structured, ctx.body_bytes_max)
    scopes, refs = check_scopes(params.scopes, params.tags), check_refs(params.refs)
    to = (params.to,) if isinstance(params.to, str) else params.to
    addresses = (*to, *params.mentions)
    if params.urgent and params.quiet:
        raise InvalidParams("urgent and quiet exclude each other", remedy="leave one of them out", field="urgent")

    def decide(view: View, stamp: Stamp) -> Decision[Sent]:
        directory = ViewDirectory(view)
        parent = _parent(view, params.reply_to) if params.reply_to else None
        replaced = _own_message(view, params.supersedes, author, "replace") if params.supersedes else None
        audience = _audience(view, directory, author, addresses, parent, replaced, everybody=params.reply_all)
        if params.urgent and audience.quiet:
            raise _nobody_to_wake()
        session_id, facts = ensure_session(view, stamp, author)
        facts += _read_parent(view, stamp, parent, author, session_id)
        own_refs = audience.refs + ((Pair("reply_to", parent.message_id),) if parent else ())
        created = stamp.make(
            MessageCreated,
            message_id=stamp.new_id("msg_"),
            thread_id=_thread_id(parent) if parent else "",
            agent_id=author,
            session_id=session_id,
            body=body,
            scopes=_merged(audience.scopes, scopes),
            refs=_merged(own_refs, refs),
            audiences=audience.audiences,
            recipients=audience.recipients,
            quiet=audience.quiet or params.quiet,
            urgent=params.urgent,
            expires_at=_expiry(params, stamp.ms),
            supersedes=params.supersedes,
        )
        rows = [] if audience.quiet else _rows(view, audience.recipients)
        warnings = _warnings(view, ctx, directory, audience, rows)
        silent = (
            _silent(rows, ctx.clock.now_ms()) if len(audience.recipients) <= limits.recipients_looked_at_max else ()
        )
        return Decision(
            [*facts, created],
            lambda after, seqs: Sent(
                _sent(created, seqs[-1], after.recipients(created.message_id), warnings, silent), rows
            ),
            main=len(facts),
        )

    return await ctx.journal.commit(decide, key=call.key, replay=_replay_send)


def _audience(
    view: View,
    directory: ViewDirectory,
    author: str,
    addresses: Sequence[str],
    parent: MessageRow | None,
    replaced: MessageRow | None,
    *,
    everybody: bool,
) -> Audience:
    """Whom a message is for: who is named; else those of the one that it answers, or replaces; else the team."""
    if not addresses and parent is None and replaced is not None:
        addresses = [addressing.address_of(pair) for pair in view.pairs(replaced.message_id)[2]]
    if addresses:
        return addressing.resolve(addresses, author, directory)
    if parent is None:
        return addressing.to_team(author, directory)
    _, _, asked = view.pairs(parent.message_id)
    by = view.called_now(parent.agent_id, parent.origin_daemon)
    is_post = parent.quiet and not asked
    return addressing.resolve_reply(by, asked, is_post, author, directory, everybody=everybody)


def _nobody_to_wake() -> InvalidParams:
    message = "a message to the team wakes no one, so it cannot be urgent"
    return InvalidParams(message, remedy='say whom it is for: thrum send "TEXT" --to @NAME --urgent', field="urgent")


def _expiry(params: SendParams, now_ms: int) -> str:
    """When the message expires, `""` for never. Raises BadTime, InvalidParams."""
    if params.expires_in_ms < 0:
        raise InvalidParams("expires_in_ms must be more than 0", remedy="leave it out", field="expires_in_ms")
    if params.expires_in_ms:
        return clock.format_ms(now_ms + min(params.expires_in_ms, limits.duration_ms_max))
    at = _moment(params.expires_at)
    if at and at <= clock.format_ms(now_ms):
        raise BadTime(f"it would have expired already: {at}", remedy="give a time to come, or leave it out")
    return at


def _parent(view: View, message_id: str) -> MessageRow:
    parent = view.message(message_id)
    if parent is None:
        raise MessageNotFound(f"message not found: {message_id}")
    if parent.deleted:
        raise _deleted(message_id, parent.deleted_at)
    if parent.agent_id.startswith(addressing.READS_NOTHING):
        raise NoReplyAddress(f"@{parent.agent_id} does not read messages")
    return parent


def _deleted(message_id: str, at: str) -> MessageDeleted:
    remedy = f"thrum message get {message_id} still shows it; send a new one"
    return MessageDeleted(f"{message_id} was deleted on {at}", remedy=remedy)


def _thread_id(parent: MessageRow) -> str:
    """All replies under one root agree without asking, on any machine (events.md §8)."""
    return parent.thread_id or "thr_" + parent.message_id.removeprefix("msg_")


def _read_parent(
    view: View, stamp: Stamp, parent: MessageRow | None, author: str, session_id: str
) -> list[MessageReceipt]:
    """Who answers has read; only if the parent was addressed to the caller and is unread."""
    if parent is None or not view.markable(author, [parent.message_id], "read"):
        return []
    return [_receipt(stamp, parent.message_id, author, session_id, "read")]


def _receipt(stamp: Stamp, message_id: str, agent_id: str, session_id: str, state: str) -> MessageReceipt:
    return stamp.make(
        MessageReceipt, message_id=message_id, agent_id=agent_id, session_id=session_id, receipt_type=state
    )


def _merged(own: Sequence[Pair], given: Sequence[Pair]) -> tuple[Pair, ...]:
    return tuple(dict.fromkeys((*own, *given)))


def _rows(view: View, recipients: Sequence[str]) -> list[AgentRow]:
    found = (view.agent(each) for each in recipients[: limits.recipients_looked_at_max])
    return [row for row in found if row is not None]


def _silent(rows: Sequence[AgentRow], now_ms: int) -> tuple[SilentRecipient, ...]:
    """Who may not be there to read it."""
    seen = sorted((row.last_seen_at or row.registered_at, row.agent_id) for row in rows)
    return tuple(
        SilentRecipient(agent_id, at)
        for at, agent_id in seen
        if now_ms - clock.parse_ms(at) > limits.recipient_silent_ms
    )


def _warnings(
    view: View, ctx: Context, directory: ViewDirectory, audience: Audience, rows: Sequence[AgentRow]
) -> tuple[str, ...]:
    """What the sender would want to know although the message is stored: of all of it what matters most."""
    if not audience.recipients:
        return ("no other agent is registered here yet: thrum team --all",)
    if len(rows) == len(audience.recipients):
        others = {row.agent_id for row in rows if row.live and not row.is_own}
    else:
        others = view.elsewhere(audience.recipients)
    apart = _apart(ctx, directory, audience, others)
    return apart if apart or audience.quiet else _not_running(ctx, rows)


def _apart(ctx: Context, directory: ViewDirectory, audience: Audience, apart: Collection[str]) -> tuple[str, ...]:
    """Of recipients on other machines: `apart`."""
    elsewhere = [each for each in audience.recipients if each in apart]
    twice = [pair.value for pair in audience.audiences if pair.type == "agent" and directory.is_shared(pair.value)]
    why = ctx.why_no_sync() if elsewhere or twice else ""
    if elsewhere and why:
        return (f"{_names(elsewhere, 1)} elsewhere, and {why}",)
    if twice:
        fate = f"{why}: only the one here gets it" if why else "all of them get it"
        return tuple(f"@{name} is the name of agents on several machines: {fate}" for name in twice)
    wide = [pair for pair in audience.audiences if pair.type in ("role", "group")]
    if not wide or len(elsewhere) < len(audience.recipients):
        return ()
    return (f"@{wide[0].value} has members on other machines only: they read it after the next sync",)


def _not_running(ctx: Context, rows: Sequence[AgentRow]) -> tuple[str, ...]:
    """Of the local recipients that are not running: those whose worktree is gone, else those whose process is known."""
    # Who runs has a worktree: of the others alone the file system is asked.
    absent = [
        row
        for row in rows
        if row.is_own and not (row.agent_pid and owner_alive(row, ctx.processes, ctx.runtime_names()))
    ]
    homeless = [row.agent_id for row in absent if worktree_missing(row)]
    if homeless:
        home = "their worktrees" if homeless[1:] else "its worktree"
        return (f"{_names(homeless, 3)} gone with {home}: thrum agent cleanup",)
    gone = [row.agent_id for row in absent if row.agent_pid]
    return (f"{_names(gone, 3)} not running: they read it at the next start",) if gone else ()


def _names(agent_ids: Sequence[str], shown: int) -> str:
    """`@nux is`, `@nux and 2 more are`."""
    more = f" and {len(agent_ids) - shown} more" if len(agent_ids) > shown else ""
    return ", ".join(f"@{agent_id}" for agent_id in agent_ids[:shown]) + more + (" are" if agent_ids[1:] else " is")


def _sent(
    fact: MessageCreated,
    seq: int,
    recipients: Sequence[Recipient],
    warnings: tuple[str, ...] = (),
    silent: tuple[SilentRecipient, ...] = (),
    replayed: bool = False,
) -> SendResult:
    return SendResult(
        message_id=fact.message_id,
        thread_id=fact.thread_id,
        created_at=clock.normalise(fact.timestamp),
        reply_to=next((ref.value for ref in fact.refs if ref.type == "reply_to"), ""),
        seq=seq,
        resolved_to=len(fact.recipients),
        quiet=fact.quiet,
        audiences=fact.audiences,
        recipients=tuple(recipients),
        silent=silent,
        warnings=warnings,
        replayed=replayed,
    )


def _replay_send(view: View, fact: AnyFact, seq: int) -> Sent:
    assert isinstance(fact, MessageCreated)
    return Sent(_sent(fact, seq, view.recipients(fact.message_id), replayed=True))


async def edit(ctx: Context, call: Call, params: EditParams) -> EditResult:
    """Replace the body. Wakes no one and keeps read marks; only for the author."""
    author = caller_id(call)
    if params.content is None and params.structured is None:
        raise InvalidParams("message.edit needs content or structured", remedy="give the new body", field="content")

    def decide(view: View, stamp: Stamp) -> Decision[EditResult]:
        row = _own_message(view, params.message_id, author, "edit")
        content = row.body_content if params.content is None else params.content
        body = check_body(content, params.format or row.body_format, params.structured, ctx.body_bytes_max)
        if params.structured is None and row.body_structured:
            body = Body(body.format, body.content, row.body_structured)
        session_id, facts = ensure_session(view, stamp, author)
        del session_id
        fact = stamp.make(
            MessageEdited,
            at=stamp.later_than(row.updated_at or row.created_at),
            message_id=row.message_id,
            agent_id=author,
            body=body,
        )
        return Decision([*facts, fact], lambda after, _seqs: _edited(after, fact), main=len(facts))

    return await ctx.journal.commit(decide, key=call.key, replay=lambda view, fact, _seq: _edited(view, fact, True))


def _edited(view: View, fact: AnyFact, replayed: bool = False) -> EditResult:
    assert isinstance(fact, MessageEdited)
    row = view.message(fact.message_id)
    return EditResult(
        message_id=fact.message_id,
        updated_at=clock.normalise(fact.timestamp),
        version=row.edit_count if row else 0,
        replayed=replayed,
    )


async def delete(ctx: Context, call: Call, params: DeleteParams) -> DeleteResult:
    """Hide a message everywhere, for good; the author's alone. `message.get` still shows it, marked."""
    author = caller_id(call)
    reason = check_text(params.reason, "reason", limits.reason_chars_max)

    def decide(view: View, stamp: Stamp) -> Decision[DeleteResult]:
        row = _own_message(view, params.message_id, author, "delete")
        _, facts = ensure_session(view, stamp, author)
        fact = stamp.make(
            MessageDeletedFact,
            at=stamp.later_than(row.updated_at or row.created_at),
            message_id=row.message_id,
            agent_id=author,
            reason=reason,
        )
        result = DeleteResult(message_id=row.message_id, deleted_at=fact.timestamp)
        return Decision([*facts, fact], lambda _view, _seqs: result, main=len(facts))

    return await ctx.journal.commit(decide, key=call.key, replay=_replay_delete)


def _replay_delete(_view: View, fact: AnyFact, _seq: int) -> DeleteResult:
    assert isinstance(fact, MessageDeletedFact)
    return DeleteResult(message_id=fact.message_id, deleted_at=clock.normalise(fact.timestamp), replayed=True)


def _own_message(view: View, message_id: str, author: str, verb: str) -> MessageRow:
    row = view.message(message_id)
    if row is None:
        raise MessageNotFound(f"message not found: {message_id}")
    if row.agent_id != author:
        raise not_author(verb, message_id, row.agent_id, author)
    if not view.is_ours(row.origin_daemon):
        raise NotYours(f"{message_id} was written on another machine", remedy=f"{verb} it there")
    if row.deleted:
        raise _deleted(message_id, row.deleted_at)
    return row


async def mark_read(ctx: Context, call: Call, params: MarkReadParams) -> MarkReadResult:
    """Mark what is addressed to the caller: the messages named, or all of them. Nothing is marked if one is unknown."""
    reader = caller_id(call)
    if bool(params.message_ids) == params.all:
        raise InvalidParams(
            "give message_ids, or all", remedy="thrum message read MSG_ID… | --all", field="message_ids"
        )
    before = _moment(params.marked_before)
    marked: list[str] = []
    skipped = 0

    def choose(view: View, stamp: Stamp) -> Decision[int]:
        nonlocal marked, skipped
        wanted = None if params.all else list(dict.fromkeys(params.message_ids))
        unknown = next((message_id for message_id in wanted or () if view.message(message_id) is None), None)
        if unknown is not None:
            raise MessageNotFound(f"message not found: {unknown}")
        marked = view.markable(reader, wanted, params.state, before)
        skipped = _skipped(view, reader, wanted or (), before)
        return _marking(view, stamp, reader, marked[:_MARKED_AT_ONCE], params.state)

    remaining = await ctx.journal.commit(choose, key=call.key)
    # What came after the choice stays unread. In parts, so that others get their turn between.
    for start in range(_MARKED_AT_ONCE, len(marked), _MARKED_AT_ONCE):
        some = marked[start : start + _MARKED_AT_ONCE]

        def mark(view: View, stamp: Stamp, some: Sequence[str] = some) -> Decision[int]:
            return _marking(view, stamp, reader, view.markable(reader, some, params.state), params.state)

        remaining = await ctx.journal.commit(mark)
    return MarkReadResult(marked_count=len(marked), skipped_count=skipped, remaining=remaining)


def _marking(view: View, stamp: Stamp, reader: str, message_ids: Sequence[str], state: str) -> Decision[int]:
    """Receipts for these messages; answers how many are left unread."""
    facts: list[AnyFact] = []
    if message_ids:
        session_id, facts = ensure_session(view, stamp, reader)
        facts += [_receipt(stamp, message_id, reader, session_id, state) for message_id in message_ids]
    return Decision(facts, lambda after, _seqs: after.inbox_count(reader)[1], main=max(0, len(facts) - 1))


def _skipped(view: View, reader: str, wanted: Sequence[str], before: str) -> int:
    """How many of the ids named are not the caller's, or newer than `before`."""
    rows = [view.is_recipient(message_id, reader) for message_id in wanted]
    return sum(row is None or bool(before and row.stored_at > before) for row in rows)


def _moment(text: str) -> str:
    try:
        return clock.normalise(text) if text else ""
    except ValueError as error:
        raise BadTime(f'bad time "{text}"', remedy="write RFC 3339") from error
