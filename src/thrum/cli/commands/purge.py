"""purge. Source: cli.md §2 "W3", §3.14."""

from __future__ import annotations

from typing import Annotated

from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, plural
from thrum.cli.values import absolute, parse_time
from thrum.model.clock import format_ms
from thrum.model.errors import NotAvailable
from thrum.model.methods.admin import PURGE_EXECUTE, PurgeParams, PurgeResult


async def purge(
    *,
    before: Annotated[str, option("T", "remove what is older than this: 30d, 2026-02-03, RFC 3339")] = "",
    all: Annotated[bool, switch("remove everything up to now")] = False,
    yes: Annotated[bool, switch("execute; without it: only a preview", "--yes", "--confirm")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    if before and all:
        raise run.command.error("--before and --all exclude each other")
    if not before and not all:
        raise run.command.error("--before T or --all is missing")
    cutoff = format_ms(run.now_ms if all else parse_time(before, "--before", run.now_ms))
    params = PurgeParams(before=cutoff, dry_run=not yes, confirm=yes)
    result = await run.call(PURGE_EXECUTE, params)
    if yes:
        notice = "other clones remove it when they sync; git history keeps what was pushed"
        return Answer(result, said=_counts("Purged", result, " deleted"), notice="" if run.quiet else notice)
    way = f"Run with --yes to execute: {line(run.again('--yes'))}"
    return Answer(result, data="\n".join([*_counts("Purge preview", result, ""), way]))


async def accept(
    event_id: Annotated[str, word("EVENT_ID", "the event of the other clone's purge")] = "",
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    """A plain refusal for now: what of a purge may be taken over is a person's word for each daemon that it names."""
    del event_id, run
    raise NotAvailable(
        "thrum does not execute another clone's purge: it removes only what that clone's agents wrote",
        remedy="to purge what this clone's agents wrote before the same time: thrum purge --before T --yes; "
        "each other clone purges its own",
    )


def _counts(what: str, result: PurgeResult, done: str) -> list[str]:
    unread = f" ({result.unread} not read by all)" if result.unread and not done else ""
    counted = (
        plural(result.messages_deleted, "message") + unread,
        plural(result.sessions_deleted, "session"),
        plural(result.events_deleted, "event"),
    )
    lines = [f"{what} (before {absolute(result.before)}):", *(f"  {each}{done}" for each in counted)]
    if result.command_queue_deleted:
        lines.append(f"  {plural(result.command_queue_deleted, 'queued command')}{done}")
    if result.others:
        lines.append(f"  {plural(result.others, 'message')} that agents of other clones wrote: kept")
    return lines
