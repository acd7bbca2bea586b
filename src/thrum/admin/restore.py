"""Restoring a backup (cli.md 3.15), in two steps, so that a kill at any point loses nothing.

`stage` checks a backup and unpacks it beside the journals; its last act writes the plan. `finish` carries a plan out
under the daemon's lock, while nothing has the store open: first the safety archive, then branch, journals, settings.
A kill in between leaves the plan, and the next holder of the lock executes it again: each step may be repeated. Without
a plan nothing has happened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from thrum.admin import _bundle as bundle
from thrum.admin import backup
from thrum.admin._bundle import Bundle
from thrum.admin.backup import Source
from thrum.admin.exclusive import hold_lock, open_store_once, owner_of
from thrum.identity.daemon_key import load_key
from thrum.model import config, events, settings
from thrum.model.clock import SystemClock, format_ms
from thrum.model.errors import BackupInvalid, BackupNotFound, Busy, ConfigInvalid, StoreFailed, ThrumError, in_shell
from thrum.model.files import atomic_write, ensure_private_dir, set_times, sync_directory
from thrum.model.methods.admin import RestoreResult
from thrum.model.notes import roots
from thrum.model.paths import Layout, link_state
from thrum.store import audit
from thrum.store.journal import JournalFiles
from thrum.sync import branch, merge

log: Final = logging.getLogger("thrum.admin")

_STAGE: Final = "restore"
_PLAN: Final = "plan.json"
_SAFETY: Final = "safety"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Plan(msgspec.Struct, frozen=True):
    """What is to be done. `journals`: all that there shall be, each a name of a backup; `files`: name and where to."""

    source: str
    safety: str
    head: str
    journals: list[str]
    files: dict[str, str]


def source_of(layout: Layout, archive: str, given: str = "") -> Path:
    """The backup meant: an absolute path, an archive's name, or nothing for the last one. Raises BackupNotFound."""
    shelf = backup.shelf_of(layout, given)
    if not archive:
        found = shelf.current
    elif os.path.isabs(archive):
        found = Path(archive)
    else:
        names = (archive, f"{archive}.zip")
        found = next((shelf.archives / name for name in names if name in shelf.archive_names()), None)
        if found is None:
            raise BackupNotFound(f"no backup {archive} in {shelf.archives}", remedy="thrum backup status")
    if not found.exists():
        raise BackupNotFound(f"no backup in {found}", remedy="thrum backup status" if archive else "thrum backup")
    return found


# -- first step


def stage(
    layout: Layout, environ: Mapping[str, str], archive: str = "", given: str = "", *, other_repository: bool = False
) -> RestoreResult:
    """Check a backup, unpack it, and leave the plan. Raises BackupNotFound, BackupInvalid, StoreFailed, ConfigInvalid.

    Whatever is refused has changed nothing. `other_repository`: one of another project will do.
    """
    path = source_of(layout, archive, given)
    shelf = backup.shelf_of(layout, given)
    safety = shelf.archives / shelf.free_name(SystemClock().now_ms(), before_restore=True)
    try:
        ensure_private_dir(layout.thrum_sync_dir)
        for left in layout.thrum_sync_dir.glob(f"{_STAGE}-*"):
            shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"{_STAGE}-", dir=layout.thrum_sync_dir))
        try:
            with bundle.open_bundle(path) as found:
                if not other_repository:
                    _refuse_foreign(found, layout, environ)
                told, left_out = _told(found, layout)
                local_only = _kept_choice(found, told, layout)
                _check_space(found, fresh)
                plan = _unpack(found, fresh, layout, str(safety), told)
                plan = msgspec.structs.replace(plan, head=_safe_head(found, fresh, layout, environ))
            if (_stage_of(layout) / _PLAN).exists():
                raise Busy("another restore is under way", retry_after_ms=1_000)
            shutil.rmtree(_stage_of(layout), ignore_errors=True)
            fresh.rename(_stage_of(layout))
            atomic_write(_stage_of(layout) / _PLAN, msgspec.json.encode(plan))
            sync_directory(layout.thrum_sync_dir)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        name = error.filename or layout.thrum_sync_dir
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
    return RestoreResult(
        source=str(path),
        safety_backup=str(safety),
        daemon_restarted=False,
        local_only=local_only,
        left_out=tuple(left_out),
    )


def _stage_of(layout: Layout) -> Path:
    return layout.thrum_sync_dir / _STAGE


def _refuse_foreign(found: Bundle, layout: Layout, environ: Mapping[str, str]) -> None:
    """Its purges and cleanups would be executed here, and in all clones. Raises BackupInvalid, ConfigInvalid."""
    manifest = found.manifest
    if manifest.daemon_id and manifest.daemon_id in owner_of(layout).own:
        return
    here = branch.root_commits(layout, environ)
    if here and manifest.roots:
        is_foreign = not set(here) & set(manifest.roots)
    else:
        is_foreign = manifest.repo_name != layout.main_root.name
    if is_foreign:
        raise BackupInvalid(
            f"{found.path} is a backup of another repository, {manifest.repo_name}, not of {layout.main_root}",
            remedy=f"thrum backup restore {in_shell(found.path)} --other-repository",
        )


def _check_space(found: Bundle, target: Path) -> None:
    needed = sum(entry.bytes for entry in found.manifest.files.values())
    free = shutil.disk_usage(target).free
    # As much again for the projection, and for the archive of what is here now.
    if 2 * needed > free:
        raise StoreFailed(f"could not write {target}: {needed} bytes to restore, {free} bytes free")


def _unpack(found: Bundle, target: Path, layout: Layout, safety: str, told: dict[str, Any]) -> Plan:
    """Every file of the backup, each checked; those of worktrees that are not there any more are left out. `told`: its
    settings."""
    here = {str(root): root for root in roots(layout)}
    journals: list[str] = []
    files: dict[str, str] = {}
    for name in sorted(found.manifest.files):
        own = bundle.file_of_root(name)
        if own is not None:
            worktree, below = own
            root = here.get(found.manifest.worktrees.get(worktree, "")) if worktree else layout.main_root
            if root is None:
                found.read(name)
                continue
            _check_json(found, name)
            files[name] = str(root / ".thrum" / below)
        elif name == bundle.CONFIG:
            files[name] = str(layout.config_file)
        elif name == bundle.QUARANTINE:
            files[name] = str(layout.quarantine)
        else:
            journals.append(name)
        path = target / name
        ensure_private_dir(path.parent)
        if name == bundle.CONFIG:
            bundle.write_durably(path, [_settings(told, layout)])
        else:
            found.unpack(name, path)
        if name in journals and name != bundle.LOCAL:
            _leave_out_forged(path)
    for directory in (path for path in target.rglob("*") if path.is_dir()):
        sync_directory(directory)
    return Plan(str(found.path), safety, "", journals, files)


def _leave_out_forged(path: Path) -> None:
    """The projection believes what lies in a journal; a backup may have been through other hands."""
    data = path.read_bytes()
    kept = merge.sound(data)
    if kept is not data:
        atomic_write(path, kept)


def _check_json(found: Bundle, name: str) -> None:
    if not name.endswith(".json"):
        return
    try:
        value: Any = json.loads(found.read(name))
    except (ValueError, RecursionError) as error:
        raise found.invalid(f"{name}: {error}") from error
    if not isinstance(value, dict):
        raise found.invalid(f"{name} is not an object")


def _settings(told: dict[str, Any], layout: Layout) -> bytes:
    """`config.json` as it shall be: what the backup told, with the identity that this daemon shall have.

    Whether this clone talks to the remote, and what guards its agents from each other, is for its user to say: a
    backup, which an agent may have written and restored, changes nothing about it.
    """
    try:
        known = config.read_raw(layout.config_file)
    except ConfigInvalid:
        known = {}  # broken: what is restored takes its place
    key = load_key(layout.daemon_key)
    daemon_id = key.daemon_id if key else ""
    told["identity"] = merged_identity(_block(told), _block(known), str(layout.main_root), daemon_id)
    if known:
        settings.keep_guarded(told, known)
    local_only = _sync_choice(layout)
    if local_only is not None:
        settings.set_value(told, "daemon.local_only", local_only)
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


def _told(found: Bundle, layout: Layout) -> tuple[dict[str, Any], list[str]]:
    """The settings in a backup, and what was left out of them: the rest comes back
    although this version refuses a value that an earlier one may have taken. Raises BackupInvalid.
    """
    if bundle.CONFIG not in found.manifest.files:
        return {}, []
    with tempfile.TemporaryDirectory(prefix=f"{_STAGE}-", dir=layout.thrum_sync_dir) as directory:
        path = Path(directory) / "config.json"
        path.write_bytes(found.read(bundle.CONFIG))
        try:
            told = config.read_raw(path)
        except ConfigInvalid as error:
            raise found.invalid(error.message) from error
    return told, settings.leave_out_flaws(told)


def _sync_choice(layout: Layout) -> bool | None:
    """`daemon.local_only` as it is here; None without settings that can be read."""
    try:
        found = config.load_config(layout.config_file)
    except ConfigInvalid:
        return None
    return found[settings.LOCAL_ONLY] if found.raw else None


def _kept_choice(found: Bundle, told: dict[str, Any], layout: Layout) -> bool | None:
    """`daemon.local_only` as it is here, if the backup's is another."""
    here = _sync_choice(layout)
    if here is None or bundle.CONFIG not in found.manifest.files:
        return None
    return here if config.Config(told)[settings.LOCAL_ONLY] != here else None


def _block(raw: Mapping[str, Any]) -> dict[str, Any]:
    block: Any = raw.get("identity")
    return dict(cast("dict[str, Any]", block)) if isinstance(block, dict) else {}


def merged_identity(told: dict[str, Any], known: dict[str, Any], main_root: str, daemon_id: str = "") -> dict[str, Any]:
    """Who the daemon is after a restore. Pure. `daemon_id` is what its key certifies, if it has one: a backup holds no
    key, so that is who it stays.

    In the place where the backup was made it is who it was. Elsewhere the one that made it may live on: then this one
    keeps its own id, and takes the other's as a former one of its own, so that what it holds stays its own. The id of
    the repository comes along: ids of unnamed agents are made of it.
    """
    same_place = told.get("repo_path") == main_root and known.get("hostname", told.get("hostname")) == told.get(
        "hostname"
    )
    first, second = (told, known) if same_place or not known.get("daemon_id") else (known, told)
    if not first.get("daemon_id"):
        first, second = second, first
    merged = dict(first)
    former: list[Any] = []
    for block in (first, second):
        ids: Any = block.get("previous_ids")
        former += cast("list[Any]", ids) if isinstance(ids, list) else []
    former += [second.get("daemon_id"), first.get("daemon_id")]
    if daemon_id or first.get("daemon_id"):
        merged["daemon_id"] = daemon_id or first["daemon_id"]
    kept = [id for id in dict.fromkeys(former) if isinstance(id, str) and id and id != merged.get("daemon_id")]
    if kept:
        merged["previous_ids"] = kept
    if told.get("repo_id"):
        merged["repo_id"] = told["repo_id"]
    return merged


def _safe_head(found: Bundle, target: Path, layout: Layout, environ: Mapping[str, str]) -> str:
    """The commit that the branch goes back to: the backup's, if git has it and it holds no more than the journals."""
    head = found.manifest.head
    if not _COMMIT.fullmatch(head):
        return ""
    try:
        with branch.read_branch(layout, environ, at=head) as tip:
            if tip is None or not tip.is_thrums:
                return ""
            for entry in tip.entries:
                path = target / os.fsdecode(entry.path)
                if merge.missing(path.read_bytes() if path.is_file() else b"", tip.blob(entry)):
                    return ""
    except ThrumError:
        return ""
    return head


# -- second step


def restore_here(
    layout: Layout,
    environ: Mapping[str, str],
    hostname: str,
    archive: str,
    given: str,
    *,
    other_repository: bool = False,
) -> RestoreResult:
    """Both steps without a daemon, under its lock, and the projection rebuilt. Raises as they do, and DaemonLocked."""
    with hold_lock(layout):
        finish(layout, environ)
        result = stage(layout, environ, archive, given, other_repository=other_repository)
        finish(layout, environ)
        open_store_once(layout, hostname, environ)
    return result


def finish_at_start(layout: Layout, environ: Mapping[str, str]) -> None:
    """`finish` for a daemon that starts: an aborted restore is logged and does not keep it from starting. Raises
    StoreFailed."""
    try:
        finish(layout, environ)
    except (ThrumError, OSError) as error:
        if (_stage_of(layout) / _PLAN).exists():
            raise
        log.error("the restore was aborted, nothing was changed: %s", error)


def finish(layout: Layout, environ: Mapping[str, str]) -> str:
    """Execute the plan that lies there, if one does: the source of what was restored, else `""`.

    The caller holds the daemon's lock, and the store is not open anywhere. When the safety archive can't be made or git
    refuses, the restore is given up and nothing has changed: raises what was in the way. Later failures (a full disk)
    leave the plan: raises StoreFailed, and the next call goes on.
    """
    stage_dir = _stage_of(layout)
    try:
        plan = msgspec.json.decode((stage_dir / _PLAN).read_bytes(), type=Plan)
    except (FileNotFoundError, NotADirectoryError):
        for left in layout.thrum_sync_dir.glob(f"{_STAGE}*"):  # of a first step that was killed
            shutil.rmtree(left, ignore_errors=True)
        return ""
    except msgspec.MsgspecError as error:
        _give_up(stage_dir)
        raise StoreFailed(f"{stage_dir / _PLAN} can't be read: {error}", remedy="thrum backup restore") from error
    try:
        if layout.common_dir is not None:
            branch.verify_owner(layout.main_root, layout.common_dir, environ)
        _make_safe(layout, environ, stage_dir / _SAFETY, Path(plan.safety))
        branch.reset_branch(layout, environ, plan.head)
    except (ThrumError, OSError):
        _give_up(stage_dir)
        raise
    try:
        audit.remove_projection(layout.database)
        _put_journals(layout, stage_dir, plan)
        _put_files(layout, stage_dir, plan)
        atomic_write(_restored_file(layout), f"{format_ms(SystemClock().now_ms())}\n".encode())
    except OSError as error:
        name = error.filename or layout.branch_dir
        raise StoreFailed(
            f"could not write {name}: {(error.strerror or str(error)).lower()};"
            " the restore continues at the next start",
            remedy="free space, then: thrum daemon start",
        ) from error
    _give_up(stage_dir)
    log.warning("restored", extra={"fields": {"source": plan.source, "safety_backup": plan.safety}})
    return plan.source


def restored_at(layout: Layout) -> str:
    """When a backup was restored here last, empty if never: earlier facts may come back from the remote."""
    try:
        return _restored_file(layout).read_text().strip()
    except (OSError, UnicodeError):
        return ""


def _restored_file(layout: Layout) -> Path:
    return layout.thrum_sync_dir / "restored"


def _give_up(stage_dir: Path) -> None:
    """Take the plan away, then what it was for."""
    with contextlib.suppress(FileNotFoundError):
        (stage_dir / _PLAN).unlink()
        sync_directory(stage_dir)
    shutil.rmtree(stage_dir, ignore_errors=True)


def _make_safe(layout: Layout, environ: Mapping[str, str], directory: Path, target: Path) -> None:
    """The archive of what is here now, truncated last lines left out. Made once: a second try finds it. Raises
    StoreFailed.

    `directory` is where it is gathered: it goes with the plan, so that a kill leaves no copies of messages behind.
    """
    if target.exists():
        return
    try:
        shutil.rmtree(directory, ignore_errors=True)
        ensure_private_dir(directory)
        try:
            backup.copy_to(Source(layout, environ), directory)
        except ConfigInvalid as error:
            raise StoreFailed(error.message, remedy=error.remedy) from error
        bundle.pack(directory, target)
        shutil.rmtree(directory, ignore_errors=True)
    except OSError as error:
        name = error.filename or target
        raise StoreFailed(
            f"could not write {name}: {(error.strerror or str(error)).lower()}; nothing was restored"
        ) from error


def _put_journals(layout: Layout, stage_dir: Path, plan: Plan) -> None:
    """The journals of the plan, and no others. One that was put there before a kill is not staged any more."""
    journals = JournalFiles(layout.branch_dir, layout.local_journal)
    journals.prepare()
    wanted = {
        layout.local_journal if name == bundle.LOCAL else layout.branch_dir / name: name for name in plan.journals
    }
    for file in journals.names():
        if journals.path(file) not in wanted:
            journals.path(file).unlink()
    for target, name in wanted.items():
        with contextlib.suppress(FileNotFoundError):
            os.replace(stage_dir / name, target)
    for directory in (layout.local_journal.parent, layout.branch_dir, layout.branch_dir / events.MESSAGES_DIR):
        sync_directory(directory)


def _put_files(layout: Layout, stage_dir: Path, plan: Plan) -> None:
    for name, target in plan.files.items():
        path = layout.config_file if name == bundle.CONFIG else Path(target)
        if name == bundle.QUARANTINE and path.exists():
            continue  # it only ever grows
        data, times = (stage_dir / name).read_bytes(), (stage_dir / name).stat()
        own = bundle.file_of_root(name)
        if own is not None and own[0]:
            # A worktree that lost its `.thrum` leads to the state again.
            link_state(path.parents[2], layout.state_dir)
        ensure_private_dir(path.parent)
        atomic_write(path, data)
        set_times(path, times)
        if name == bundle.CONFIG:
            config.write_copy(layout.config_copy, config.read_raw(path))
