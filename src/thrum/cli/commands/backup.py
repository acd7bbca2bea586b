"""backup, backup status|config|restore: snapshots of the files that are the truth. Source: cli.md §3.15."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import trio

from thrum.cli import values
from thrum.cli.commands.verify import hostname, wait_for_another
from thrum.cli.confirm import confirm
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, plural
from thrum.model.errors import StoreFailed
from thrum.model.methods.admin import (
    BACKUP_CONFIG,
    BACKUP_CREATE,
    BACKUP_RESTORE,
    BACKUP_STATUS,
    BackupParams,
    BackupResult,
    RestoreParams,
    RestoreResult,
)
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.method import Empty

Dir = Annotated[
    str, option("D", "directory of the backups; default: the setting backup.dir, else .thrum/backup", "--dir")
]

_SYNC_KEPT = {
    True: "  Sync stays off here; it was on in the backup: thrum sync enable",
    False: "  Sync stays on here; it was off in the backup: thrum sync disable",
}


async def backup(*, dir: Dir = "", run: Annotated[Run, RUN]) -> Answer:
    given = _absolute(run, dir)
    if await run.client_if_running() is not None:
        result = await run.call(BACKUP_CREATE, BackupParams(dir=given))
    else:
        from thrum.admin.backup import create_here

        result = await trio.to_thread.run_sync(create_here, run.layout(), run.session.env, given)
    return Answer(result, said=[f"✓ Backup complete: {line(result.location)}", *_counts(result)])


async def status(*, dir: Dir = "", run: Annotated[Run, RUN]) -> Answer:
    given = _absolute(run, dir)
    if await run.client_if_running() is not None:
        result = await run.call(BACKUP_STATUS, BackupParams(dir=given))
    else:
        from thrum.admin.backup import status as look

        result = await trio.to_thread.run_sync(look, run.layout(), given)
    time = f"{values.absolute(result.timestamp)} ({values.age(result.timestamp, run.now_ms)})"
    lines = [f"Last backup:    {line(time)}", f"Location:       {line(result.location)}", *_counts(result)]
    archives = result.archives
    if archives is not None:
        times = f"{values.absolute(archives.oldest)} to {values.absolute(archives.newest)}"
        lines.append(f"Archives:       {archives.count} ({plural(archives.bytes, 'byte')}), {times}")
    else:
        lines.append("Archives:       none")
    return Answer(result, data="\n".join(lines))


async def config(*, dir: Dir = "", run: Annotated[Run, RUN]) -> Answer:
    given = _absolute(run, dir)
    if await run.client_if_running() is not None:
        result = await run.call(BACKUP_CONFIG, Empty())
    else:
        from thrum.admin.backup import settings_of

        result = await trio.to_thread.run_sync(settings_of, run.layout())
    if given:
        result.dir = given
    keep = result.retention
    kept = ((keep.daily, "daily"), (keep.weekly, "weekly"), (keep.monthly, "monthly"))
    shown = ", ".join(f"{'all' if count < 0 else count} {name}" for count, name in kept)
    return Answer(result, data=f"Dir:        {line(result.dir)}\nRetention:  {shown}")


async def restore(
    archive: Annotated[str, word("ARCHIVE", "a zip file or the name of an archive; default: the last backup")] = "",
    /,
    *,
    dir: Dir = "",
    yes: Annotated[bool, switch("don't ask")] = False,
    other_repository: Annotated[bool, switch("restore even a backup of another project")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    layout, given = run.layout(), _absolute(run, dir)
    archive = _archive(run, archive)
    from thrum.admin.restore import restore_here, source_of

    source = await trio.to_thread.run_sync(source_of, layout, archive, given)
    if not yes:
        question = f"Replace messages, agents and settings of {layout.main_root} by {source}?"
        await confirm(run, question, what="the restore")
    if await run.client_if_running() is not None:
        params = RestoreParams(archive=archive, dir=given, confirm=True, other_repository=other_repository)
        result = await _by_daemon(run, params)
    else:
        work = partial(restore_here, layout, run.session.env, hostname(run), archive, given)
        result = await trio.to_thread.run_sync(partial(work, other_repository=other_repository))
    lines = [f"✓ Restored from {line(result.source)}", f"  Safety backup: {line(result.safety_backup)}"]
    if result.daemon_restarted:
        lines.append("  The running daemon goes on with it.")
    if result.local_only is not None:
        lines.append(_SYNC_KEPT[result.local_only])
    lines.append("  What was purged and pushed stays purged; the next sync brings back what the remote has.")
    left_out = tuple(f"left out of the restored settings: {each}" for each in result.left_out)
    return Answer(result, said=lines, warnings=left_out)


async def _by_daemon(run: Run, params: RestoreParams) -> RestoreResult:
    """Ask the daemon, and wait until it serves what was restored. Raises StoreFailed when it gave that up."""
    before = await run.call(HEALTH, Empty())
    result = await run.call(BACKUP_RESTORE, params)
    await wait_for_another(run, before.epoch)
    if not await trio.to_thread.run_sync(os.path.exists, result.safety_backup):
        raise StoreFailed(
            f"the restore was aborted: {result.safety_backup} could not be made; nothing was changed",
            remedy="thrum daemon logs -n 20",
        )
    return result


def _archive(run: Run, archive: str) -> str:
    """A path if it looks like one or there is such a file, else the name of an archive."""
    path = _absolute(run, archive)
    return path if "/" in archive or (archive and Path(path).exists()) else archive


def _absolute(run: Run, path: str) -> str:
    """A path as the user means it; nothing stays nothing."""
    return os.path.abspath(os.path.join(run.session.cwd, os.path.expanduser(path))) if path else ""


def _counts(result: BackupResult) -> list[str]:
    counts = result.counts
    named = (
        ("Events:", counts.events),
        ("Message files:", counts.message_files),
        ("Local journals:", counts.local_tables),
        ("Config files:", counts.config_files),
    )
    return [f"{name:<15} {count}" for name, count in named]
