"""Short words for messages: the end of an id, `last`, an author's newest message to me. Source: cli.md §3.4.

What was printed to whom is remembered in memory, for hours rather than days: after a start of the daemon `last` is
refused, and nothing else is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from thrum.identity.evidence import Failed
from thrum.model.errors import AmbiguousMessage, InvalidParams, MessageNotFound
from thrum.model.ids import MESSAGE_ID_END_MIN, short_message_id
from thrum.model.methods.messages import FindParams, FindResult, PrintedParams
from thrum.model.methods.method import Empty
from thrum.ops.context import Call, Context, caller_id, evidence_of
from thrum.store.queries.views import MessageRow, View

_RIVAL_MS: Final = 5_000
"""Who has just been told of two messages may not have noticed the second one."""
_SESSIONS_MAX: Final = 1_000
_PRINTED_MAX: Final = 50
_CANDIDATES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Print:
    """A message that was shown, and when."""

    message_id: str
    author: str
    at_ms: int


@dataclass(slots=True)
class Printed:
    """What was printed last to each session of a process. Lives in the daemon."""

    _sessions: dict[Hashable, deque[Print]] = field(default_factory=dict[Hashable, deque[Print]])

    def note(self, session: Hashable, rows: Sequence[MessageRow], now_ms: int) -> None:
        """These messages were printed together."""
        prints = self._sessions.pop(session, None) or deque(maxlen=_PRINTED_MAX)
        self._sessions[session] = prints
        if len(self._sessions) > _SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        oldest_first = sorted(rows, key=lambda row: (row.created_at, row.message_id))
        prints.extend(Print(row.message_id, row.agent_id, now_ms) for row in oldest_first)

    def last(self, session: Hashable, now_ms: int) -> Print:
        """The newest one. AmbiguousMessage if another author's was printed a moment ago, too."""
        prints = self._sessions.get(session)
        if not prints:
            raise MessageNotFound(
                "no message was printed to this session",
                remedy="thrum inbox prints them; or give the end of an id, or @NAME",
            )
        newest = prints[-1]
        for each in reversed(prints):
            if each.author != newest.author and abs(now_ms - each.at_ms) <= _RIVAL_MS:
                raise _ambiguous("last", [newest, each])
        return newest


def _ambiguous(word: str, candidates: Sequence[Print]) -> AmbiguousMessage:
    shown = [f"{short_message_id(each.message_id)} by @{each.author}" for each in candidates]
    return AmbiguousMessage(
        f'"{word}" may be {" or ".join(shown)}',
        remedy="say which, by more of its id",
        candidates=[each.message_id for each in candidates],
        authors=[each.author for each in candidates],
    )


def _session(ctx: Context, call: Call, agent_id: str) -> Hashable:
    """Who saw them: the agent's live process; else that agent at that terminal, or at none."""
    try:
        evidence = evidence_of(call)
        place = ctx.registry().by_id.get(agent_id)
        if place is not None and evidence.state_of(place) == "chain":
            return agent_id, place.agent_pid, place.agent_pid_started
        return agent_id, evidence.terminal()
    except Failed:
        return (agent_id,)


async def note(ctx: Context, printed: Printed, call: Call, params: PrintedParams) -> Empty:
    """Messages were printed to the caller. Its own are none that it would answer."""
    if call.caller.agent_id is not None:
        rows = [row for message_id in params.message_ids if (row := ctx.view.message(message_id)) is not None]
        others = [row for row in rows if row.agent_id != call.caller.agent_id]
        printed.note(_session(ctx, call, call.caller.agent_id), others, ctx.clock.now_ms())
    return Empty()


async def find(ctx: Context, printed: Printed, call: Call, params: FindParams) -> FindResult:
    """The one message that the reference names. Raises MessageNotFound, AmbiguousMessage."""
    if [params.end != "", params.author != "", params.last].count(True) != 1:
        raise InvalidParams("give one of end, author, last", remedy="thrum reply MSG_ID", field="end")
    if params.end:
        return FindResult(message_id=await _by_end(ctx, params.end))
    me = caller_id(call)
    if params.last:
        return FindResult(message_id=printed.last(_session(ctx, call, me), ctx.clock.now_ms()).message_id)
    return FindResult(message_id=_newest_from(ctx.view, params.author, me))


def _newest_from(view: View, author: str, me: str) -> str:
    """The newest message to `me` by the agent with that name now; if there is none, by one that had it. Raises
    MessageNotFound."""
    found, origin = view.newest_from(author, me)
    newest, renamed, others = found, view.called_now(author, origin), [origin]
    while found and view.is_live(author) and view.called_now(author, origin) != author:
        found, origin = view.newest_from(author, me, others)
        others.append(origin)
    if found:
        return found
    was = f": {short_message_id(newest)} is by an agent now named @{renamed}" if newest else ""
    raise MessageNotFound(f"no message of @{author} to you{was}", remedy="thrum inbox; thrum team --all")


async def _by_end(ctx: Context, end: str) -> str:
    """The id that ends so. A long projection is gone through in steps, so that other calls don't wait."""
    if len(end) < MESSAGE_ID_END_MIN:
        remedy = f"at least {MESSAGE_ID_END_MIN} characters of its end"
        raise MessageNotFound(f"message not found: {end}", remedy=remedy)
    found: list[str] = []
    for step in ctx.view.ids_in_steps():
        found += [message_id for message_id in step if message_id.endswith(end)]
        if len(found) >= _CANDIDATES_MAX:
            break
        await trio.lowlevel.checkpoint()
    if not found:
        raise MessageNotFound(f"message not found: {end}")
    if len(found) > 1:
        rows = [row for message_id in found if (row := ctx.view.message(message_id)) is not None]
        raise _ambiguous_end(end, rows)
    return found[0]


def _ambiguous_end(end: str, rows: Sequence[MessageRow]) -> AmbiguousMessage:
    shown = ", ".join(f"{row.message_id} by @{row.agent_id}" for row in rows)
    return AmbiguousMessage(
        f"several messages end with {end}: {shown}",
        remedy="say which, by more of its id",
        candidates=[row.message_id for row in rows],
    )
