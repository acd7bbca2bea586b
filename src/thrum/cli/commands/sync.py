"""sync status|force|enable|disable, context sync. Source: cli.md §2 "W3", §3.13."""

from __future__ import annotations

from typing import Annotated

from thrum.cli.commands.context import Agent, claim
from thrum.cli.confirm import confirm
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.render import RenderContext, labelled
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, one_line
from thrum.cli.values import parse_duration, true
from thrum.model import limits
from thrum.model.config import sync_override
from thrum.model.errors import ConfirmationRequired, SyncFailed
from thrum.model.methods.method import Empty
from thrum.model.methods.notes import CONTEXT_SYNC, ContextSyncParams
from thrum.model.methods.sync import (
    SYNC_ACCEPT,
    SYNC_CONFIGURE,
    SYNC_FORCE,
    SYNC_STATUS,
    SyncAcceptParams,
    SyncConfigureParams,
    SyncForceParams,
    SyncOrigin,
    SyncStatusResult,
)


async def status(*, run: Annotated[Run, RUN]) -> Answer:
    found = await run.call(SYNC_STATUS, Empty())
    _warn_of_local(run, local_only=found.local_only)
    return Answer(found, data=status_text(found, RenderContext(run.now_ms, run.session.terminal.width)))


def status_text(found: SyncStatusResult, rendering: RenderContext) -> str:
    """`Sync: Mode: State: Last sync: Pending: Error:`, each where there is something to say. `Sync: off` exchanges
    nothing, though its rounds run: they commit.
    """
    where = f"{line(found.remote)} ({line(found.remote_url)})" if found.remote else ""
    mode = f"local only ({one_line(found.local_only_reason)})" if found.local_only else where
    what = "not committed yet" if found.local_only else "not pushed yet"
    return labelled(
        ("Sync", "stopped" if not found.running else "off" if found.local_only else "running"),
        ("Mode", mode),
        ("State", line(found.sync_state)),
        ("Last sync", rendering.ago(found.last_sync_at) if found.last_sync_at else ""),
        ("Pending", f"{found.pending} {what}" if found.pending else "0"),
        ("Head", line(found.head)),
        ("Quarantined", ", ".join(line(each) for each in found.skipped)),
        ("Exposed", "; ".join(one_line(each) for each in found.exposed)),
        ("Read-only", "a newer thrum writes there: nothing is pushed" if found.read_only else ""),
        *(("Of others", _origin(each)) for each in found.origins),
        ("Error", one_line(found.last_error)),
        ("  fix", one_line(found.remedy)),
        width=11,
    )


def _origin(each: SyncOrigin) -> str:
    """One daemon of which not all counts, and what makes it count."""
    told = (
        (each.hidden, "unsigned and not shown"),
        (each.waiting, "of a daemon that has not named its project"),
        (each.not_yours, "about what it does not own, ignored"),
    )
    said = [f"{count} {what}" for count, what in told if count]
    said += [f"says it was {line(was)}" for was in each.was]
    advice = f": thrum sync accept {line(each.daemon_id)}" if each.hidden or each.was else ""
    host = f" ({line(each.hostname)})" if each.hostname else ""
    return f"{line(each.daemon_id)}{host} {', '.join(said)}{advice}"


async def accept(
    origin: Annotated[str, word("DAEMON", "the daemon; without it: accept the refused branch as this project's")] = "",
    *,
    gone: Annotated[bool, switch("that daemon no longer exists")] = False,
    holder: Annotated[str, option("AGENT", "the agent that belongs to this daemon")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    params = SyncAcceptParams(origin=origin, gone=gone, agent=holder.removeprefix("@"))
    found = await run.call(SYNC_ACCEPT, params)
    return Answer(found, said=f"✓ Accepted ({found.kind}): {line(found.accepted)}")


async def force(
    *,
    wait: Annotated[bool, switch("no effect; kept for old scripts")] = False,
    timeout: Annotated[str, option("30s", "how long to wait for the result; 0: only request the sync")] = "30s",  # noqa: ASYNC109
    run: Annotated[Run, RUN],
) -> Answer:
    """A ✓ says that it happened: to run it in the background, use `--timeout 0` (decision 0062)."""
    del wait
    left_ms = parse_duration(timeout, "--timeout")
    waits = left_ms > 0
    while True:
        wait_ms = min(left_ms, limits.sync_wait_max_ms)
        found = await run.call(SYNC_FORCE, SyncForceParams(wait_ms=wait_ms))
        left_ms -= wait_ms
        if not (found.late and left_ms > 0):
            break
    _warn_of_local(run, local_only=found.local_only)
    if found.result == "error":
        raise SyncFailed(f"sync failed: {found.last_error}", remedy=found.remedy or None)
    if found.local_only:
        return Answer(found, said=f"Local only: nothing is exchanged ({one_line(found.local_only_reason)})")
    if not waits:
        return Answer(found, said="Sync requested; for the result: thrum sync status")
    return Answer(found, said=f"✓ Synced ({found.received or 0} in, {found.sent or 0} out)")


def _warn_of_local(run: Run, *, local_only: bool) -> None:
    """A daemon minds the environment that it was started with, not that of a command."""
    if true(run.session.env.get("THRUM_LOCAL")) and not local_only:
        run.warnings.append("the running daemon syncs; THRUM_LOCAL takes effect when it starts: thrum daemon restart")
    if sync_override(run.session.env) and local_only:
        run.warnings.append(
            "THRUM_LOCAL=0 takes effect when a daemon is started, and not by an agent: thrum daemon restart"
        )


async def enable(
    *,
    yes: Annotated[bool, switch("confirm pushing to a remote that others can read")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    params = SyncConfigureParams(enabled=True, confirm_public=yes)
    try:
        found = await run.call(SYNC_CONFIGURE, params)
    except ConfirmationRequired as refusal:
        try:
            await confirm(run, f"{refusal.message}. Push anyway?")
        except ConfirmationRequired:
            raise refusal from None  # no one to ask; the error says what to do
        params = SyncConfigureParams(enabled=True, confirm_public=True)
        found = await run.call(SYNC_CONFIGURE, params)
    if found.local_only:
        return Answer(found, said=f"✓ Sync enabled; for now local only: {one_line(found.local_only_reason)}")
    return Answer(found, said=f"✓ Sync enabled ({line(found.remote)})")


async def disable(*, run: Annotated[Run, RUN]) -> Answer:
    found = await run.call(SYNC_CONFIGURE, SyncConfigureParams(enabled=False))
    warnings = () if found.local_only else ("the environment keeps it on: THRUM_LOCAL=0",)
    return Answer(found, said="✓ Sync disabled: local only", warnings=warnings)


async def context(*, agent: Agent = "", run: Annotated[Run, RUN]) -> Answer:
    params = ContextSyncParams(agent_name=claim(run, agent))
    found = await run.call(CONTEXT_SYNC, params)
    return Answer(found, said=found.message)
