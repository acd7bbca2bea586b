"""verify: do journals, database, branch and identity files agree? doctor: is this machine fit? Source: cli.md §3.16."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Annotated

import trio

from thrum.cli.commands.hooks import local_agents
from thrum.cli.parser import RUN, switch
from thrum.cli.render import namesake
from thrum.cli.run import Answer, Run
from thrum.cli.text import clean, line, plural
from thrum.model import config_acceptance
from thrum.model.errors import ThrumError
from thrum.model.methods.admin import VERIFY_RUN, QuarantinedLine, VerifyDifference, VerifyParams, VerifyResult
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.method import Empty
from thrum.model.methods.sync import SYNC_FORCE, SYNC_STATUS, SyncForceParams

_BACK_SECONDS = 600.0
"""How long a daemon may take to rebuild its database before it is no longer waited for."""
_ROUND_MS = 10_000
_LOOK_SECONDS = 0.05
_ANSWER_SECONDS = 5.0
_SHOWN_MAX = 20
_FOREIGN = {
    "unsigned": "unsigned, which count",
    "hidden": "unsigned, not shown",
    "not_yours": "about what they do not own, ignored (harmless: an agent was renamed, or two clones share a name)",
    "strange": "of a daemon that has not named its project",
}
"""The lines of other daemons, by how they stand (`VerifyResult.foreign`)."""


async def verify(
    *,
    repair: Annotated[bool, switch("rebuild the database, quarantine truncated last lines")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    layout = run.layout()
    if await run.client_if_running() is None:
        from thrum.admin.verify import verify_here

        work = partial(verify_here, layout, run.session.env, hostname(run), repair=repair)
        result = await trio.to_thread.run_sync(work)
    else:
        result = await _by_daemon(run, repair)
    return Answer(result, data=_text(result), status=0 if result.ok else 1)


async def _by_daemon(run: Run, repair: bool) -> VerifyResult:
    """Ask the daemon. After a repair it is asked again, once it has reopened its store."""
    before = await run.call(HEALTH, Empty())
    result = await run.call(VERIFY_RUN, VerifyParams(repair=repair))
    if not result.repaired:
        return result
    await wait_for_another(run, before.epoch)
    result = await run.call(VERIFY_RUN, VerifyParams())
    if any(check.name == "branch" and not check.ok for check in result.checks):
        # What the journals lost and the branch has comes back with a round.
        await run.call(SYNC_FORCE, SyncForceParams(wait_ms=_ROUND_MS))
        result = await run.call(VERIFY_RUN, VerifyParams())
    from thrum.admin.repair import as_repaired

    return as_repaired(result)


async def wait_for_another(run: Run, epoch: str) -> None:
    """Wait until the daemon serves another projection than that. Raises what it answers in the end."""
    deadline = trio.current_time() + _BACK_SECONDS
    while True:
        await run.disconnect()
        try:
            health = await run.call(HEALTH, Empty())
        except ThrumError:
            if trio.current_time() > deadline:
                raise
        else:
            if health.epoch != epoch:
                return
        await trio.sleep(_LOOK_SECONDS)


def hostname(run: Run) -> str:
    """What this machine's daemon records as its host."""
    return run.session.env.get("THRUM_HOSTNAME") or os.uname().nodename


def _text(result: VerifyResult) -> str:
    lines: list[str] = []
    for check in result.checks:
        lines.append(f"{check.name:<10} {'ok' if check.ok else 'DIFFERS':<8} {line(check.detail)}")
        if not check.ok:
            ids = check.name != "identities"  # there the name is in the file's
            lines += [f"  {_place(each, ids)}" for each in check.differences if each.file]
    if result.quarantine:
        lines.append(f"{plural(result.quarantined, 'line')} in quarantine:")
        counts = [each for each in result.quarantine if each.more]
        kept = [each for each in result.quarantine if not each.more]
        lines += [f"  {_quarantine_line(each)}" for each in (*kept[:_SHOWN_MAX], *counts[:_SHOWN_MAX])]
        if kept[_SHOWN_MAX:] or counts[_SHOWN_MAX:]:
            lines.append("  … (thrum verify --json)")
    if result.opaque:
        named = ", ".join(f"{line(name)} ({count})" for name, count in sorted(result.opaque.items()))
        lines.append(f"Types of a newer thrum, kept as they are: {named}")
    if result.foreign:
        counted = (f"{count} {_FOREIGN.get(kind, kind)}" for kind, count in result.foreign.items())
        lines.append(f"Of other daemons: {', '.join(counted)}")
    lines += [f"Name {namesake(name, hosts)}" for name, hosts in result.namesakes.items()]
    if result.repaired:
        lines.append("Repaired.")
    lines.append("Verified." if result.ok else "Not in agreement.")
    if result.remedy:
        lines.append(f"  fix: {line(result.remedy)}")
    return clean("\n".join(lines))


def _quarantine_line(each: QuarantinedLine) -> str:
    size = plural(each.length, "byte")
    if each.more:
        file = line(each.file) or "other journals"
        return f"{file}: {line(each.reason)}, {plural(each.more, 'line')} more that were only counted ({size})"
    return f"{line(each.file)}{_offset(each)}: {line(each.reason)} ({size})"


def _offset(each: QuarantinedLine) -> str:
    """Where it lies; a line of the branch that never was in a journal lies nowhere."""
    return f" byte {each.offset}" if each.offset >= 0 else ""


def _place(each: VerifyDifference, ids: bool) -> str:
    place = f"{line(each.file)} line {each.line}" if each.line else line(each.file)
    said = [line(each.reason)] if each.reason else []
    named = [line(name) for name in each.ids if ids]
    return ": ".join([place, "  ".join([*said, *named])])


# -- doctor


async def doctor(
    *, fix: Annotated[bool, switch("restore the accepted settings")] = False, run: Annotated[Run, RUN]
) -> Answer:
    run.require_own_process()
    if fix:
        await trio.to_thread.run_sync(config_acceptance.put_back, run.layout())
    from thrum.admin.doctor import Patient, examine

    patient = Patient(run.session.env, None)
    try:
        patient = Patient(run.session.env, run.layout())
        if await run.client_if_running() is not None:
            with trio.move_on_after(_ANSWER_SECONDS):  # one that hangs is a finding
                health = await run.call_once(HEALTH, Empty())
                sync = await run.call_once(SYNC_STATUS, Empty())
                patient = replace(patient, health=health, sync=sync, agents=await local_agents(run))
    except ThrumError as refusal:
        run.debug(refusal.message)
        patient = replace(patient, refusal=refusal)
    found = await trio.to_thread.run_sync(examine, patient)
    lines: list[str] = []
    for check in found.checks:
        lines.append(f"{check.status:<4}  {check.name:<13}  {line(check.detail)}")
        if check.remedy and check.status != "ok":
            lines.append(f"      fix: {line(check.remedy)}")
    return Answer(found, data="\n".join(lines), status=0 if found.ok else 1)
