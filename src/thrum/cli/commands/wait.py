"""wait: block until a message comes. watch: every fact as it happens. Source: cli.md §3.6, §3.7."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import trio

from thrum.cli import render
from thrum.cli.commands.messages import check_agent, check_recipient, hosts_of
from thrum.cli.connect import seconds_since_start, stopped_on_purpose
from thrum.cli.parser import RUN, option, switch
from thrum.cli.references import note_printed
from thrum.cli.render import RenderContext
from thrum.cli.run import Answer, Run
from thrum.cli.session import TTY_OUT
from thrum.cli.text import json_clean
from thrum.cli.values import parse_after, parse_agent, parse_duration, parse_pair
from thrum.model import limits, wire_types
from thrum.model.clock import format_ms
from thrum.model.errors import DaemonUnavailable, IdentityMismatch, ShuttingDown, TimedOut
from thrum.model.event_specs import EVENT_SPECS, Entity
from thrum.model.methods.messages import MESSAGE_MARK_READ, MESSAGE_WAIT, MarkReadParams, WaitParams, WaitResult

TIMEOUT_LINE = "NO_MESSAGES_TIMEOUT — re-run thrum wait to continue listening"

_PAUSE_SECONDS = (0.05, 0.1, 0.2, 0.5)
_GONE = f"the daemon is gone; waiting up to {limits.watch_reconnect_seconds:g} s for it"
_LOOK_SECONDS = 2.0
"""How often `watch` looks whether it had to reconnect while nothing happened."""
_ANSWER_SECONDS = 10.0
"""How much longer than asked a daemon may take before it counts as not answering."""


async def wait(
    *,
    timeout: Annotated[str, option("30s", "how long to wait; 0 checks once")] = "30s",  # noqa: ASYNC109
    after: Annotated[
        str, option("T", "wait for messages since now, -30s, +60s or a time, read or not, instead of unseen ones")
    ] = "",
    mention: Annotated[str, option("X", "only messages to this name, role or group")] = "",
    scope: Annotated[str, option("T:V", "only messages with this scope")] = "",
    from_: Annotated[str, option("X", "only messages by this author", "--from")] = "",
    mark_read: Annotated[bool, switch("mark printed messages as read, not only as seen")] = False,
    agent_name: Annotated[str, option("N", "must be your own name; kept for old scripts")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    patience = Patience(run, parse_duration(timeout, "--timeout"))
    now_ms = run.now_ms
    params = WaitParams(
        since=parse_after(after, now_ms) if after else "unseen",
        scope=parse_pair(scope, "--scope") if scope else None,
        mention_role=parse_agent(mention) if mention else "",
        author_id=parse_agent(from_) if from_ else "",
        mark="read" if mark_read else "seen",
    )
    me = run.identity().agent_id
    if agent_name and parse_agent(agent_name) != me:
        raise IdentityMismatch(
            f"--agent-name {agent_name}, but you are @{me}", remedy="leave --agent-name out, or export THRUM_NAME"
        )
    if params.author_id and not run.session.handed_over:
        await check_agent(run, params.author_id)  # else one would wait in vain for a misspelt name
    if params.mention_role and not run.session.handed_over:
        await check_recipient(run, params.mention_role)
    result = await wait_for(run, params, patience, now_ms)
    if result.status == "timeout":
        return Answer({"status": "timeout", "messages": []}, notice=TIMEOUT_LINE, status=1)
    action = render.next_step(result.messages, are_read=mark_read)
    document: dict[str, Any] = {"status": "received", "action": action, "messages": result.messages}
    if result.remaining:
        document["remaining"] = result.remaining
    hosts = await hosts_of(run, result.messages)
    data = render.messages(result.messages, RenderContext(run.now_ms, run.session.terminal.width, hosts))
    more = f"{result.remaining} more: thrum wait\n" if result.remaining else ""
    foot = "" if run.quiet else f"\n{more}Next: {action}"

    async def mark() -> None:
        await run.delivered()
        ids = tuple(message.message_id for message in result.messages)
        if run.session.local:
            # Over a socket the daemon marks by itself, a moment later: be sure before this process ends.
            state = "read" if mark_read else "seen"
            await run.call(MESSAGE_MARK_READ, MarkReadParams(message_ids=ids, state=state))
        await note_printed(run, ids)

    return Answer(document, said="MESSAGES_RECEIVED", data=data + foot, then=mark)


class Patience:
    """How much of the timeout is left, counted from when the user's process began."""

    def __init__(self, run: Run, timeout_ms: int) -> None:
        spent = seconds_since_start(run.now_ms) if run.session.handed_over else 0.0
        self._deadline = trio.current_time() + timeout_ms / 1000 - spent

    @property
    def seconds(self) -> float:
        return max(0.0, self._deadline - trio.current_time())


async def wait_for(run: Run, params: WaitParams, patience: Patience, now_ms: int) -> WaitResult:
    """Until a message comes or the time is over, over restarts of the daemon."""
    if run.session.handed_over:
        # A daemon that had this wait went away.
        await _reconnect(run, patience)
    while True:
        params.timeout_ms = min(round(patience.seconds * 1000), limits.wait_max_ms)
        try:
            await run.connect(run.autostart)
            with trio.move_on_after(params.timeout_ms / 1000 + _ANSWER_SECONDS) as scope:
                result = await run.call_once(MESSAGE_WAIT, params)
                if result.status == "received" or patience.seconds <= 0:
                    return result
        except (ShuttingDown, DaemonUnavailable) as error:
            await run.disconnect()
            if isinstance(error, DaemonUnavailable) and error.details.get("reason") != "closed":
                raise
            run.go_elsewhere(error)
            if params.since == "now":
                params.since = format_ms(now_ms)  # what came while we were not listening counts too
            await _reconnect(run, patience)
            continue
        if scope.cancelled_caught:
            raise TimedOut(f"no answer within {_ANSWER_SECONDS:g} s", remedy="thrum daemon restart")


async def _reconnect(run: Run, patience: Patience) -> None:
    """Wait for the daemon to come back; one that was not stopped on purpose is started. Raises DaemonUnavailable."""
    tries = 0
    while True:
        try:
            await run.connect(run.autostart and not stopped_on_purpose(run.layout()))
            return
        except DaemonUnavailable:
            if patience.seconds <= 0:
                raise
        await trio.sleep(min(patience.seconds, _PAUSE_SECONDS[min(tries, len(_PAUSE_SECONDS) - 1)]))
        tries += 1


# -- watch


def _shared_types(*entities: Entity) -> tuple[str, ...]:
    return tuple(type_ for type_, spec in EVENT_SPECS.items() if spec.shared and spec.entity in entities)


WATCHED = _shared_types("message", "agent", "session", "group", "purge")
"""No bookkeeping of this machine, nor of its daemons among each other (cli.md §3.7)."""
MINE = _shared_types("message")


async def watch(
    *,
    to_me: Annotated[bool, switch("only messages to you, team posts, and their edits and deletions")] = False,
    since: Annotated[str, option("CURSOR", "continue right after that line; 0 starts with the first fact")] = "",
    run: Annotated[Run, RUN],
) -> int:
    """A stream: it ends by SIGINT or SIGTERM, with status 0."""
    run.require_own_process()
    # The daemon is started if need be; the stream has a connection of its own.
    await run.connect(run.autostart)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def end_on_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(end_on_signal)
            await _follow(run, to_me=to_me, since=since)
    return 0


async def _follow(run: Run, *, to_me: bool, since: str) -> None:
    from thrum.bus import subscriber

    audience = subscriber.agent_audience(run.identity().agent_id) if to_me else "all/"
    types = MINE if to_me else WATCHED
    terminal = run.session.terminal
    width = terminal.width if terminal.tty & TTY_OUT else 0
    async with subscriber.open_stream_async(
        audience, cursor=since or None, types=types, full=run.flags.json, repo=run.layout().root
    ) as stream:
        await _control(run, "watch.start", f"watching from {stream.cursor}", str(stream.cursor))
        reconnects, is_told = 0, False
        while True:
            hint = await stream.next(_LOOK_SECONDS)
            if stream.reconnects != reconnects:
                reconnects = stream.reconnects
                cursor = str(stream.cursor) if hint is None else f"{hint.epoch}.{hint.seq - 1}"
                await _control(run, "watch.reconnect", "the daemon is back, nothing was lost", cursor)
                is_told = False
            if hint is None:
                if stream.is_lost and not is_told and not run.quiet:
                    await run.complain(_GONE)
                is_told = stream.is_lost
                continue
            if run.flags.json:
                await terminal.write_out(_watch_line(hint))
            else:
                await run.write(render.hint_line(hint, width))


async def _control(run: Run, kind: str, said: str, cursor: str) -> None:
    """A line about the stream itself: for programs on stdout, for people on stderr. `cursor` resumes from here."""
    if run.flags.json:
        await run.write_json({"type": kind, "cursor": cursor, "timestamp": format_ms(run.now_ms)})
    elif not run.quiet:
        await run.complain(said)


def _watch_line(hint: wire_types.Hint) -> bytes:
    """The fact as stored, with the cursor that resumes right after it."""
    fact = bytes(hint.fact or b"{}").rstrip()
    return b'%s,"cursor":"%s.%d"}\n' % (json_clean(fact[:-1]), hint.epoch.encode(), hint.seq)
