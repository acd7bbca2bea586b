"""Undo what `init` made, and report what stays (cli.md §2 "W3", decision 0029). Without a daemon, under its lock.

The order lets a killed call be repeated: `.thrum` of the main worktree, which shows that thrum is set up here, goes
last.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from thrum.admin import git_permissions
from thrum.admin.backup import directory_of
from thrum.admin.exclusive import hold_lock
from thrum.admin.hook_check import hook_callers
from thrum.admin.init import IGNORE_RULE
from thrum.git.ignore_rules import remove_rule
from thrum.git.refs import BRANCH, OWN_REFS
from thrum.git.runner import checked_git, run_git
from thrum.model import config, settings
from thrum.model.errors import NotAvailable, StoreFailed, ThrumError
from thrum.model.files import is_link, read_bytes
from thrum.model.notes import roots
from thrum.model.paths import Layout
from thrum.runtimes import installer, instructions, skills
from thrum.store.journal import JournalFiles
from thrum.sync import branch
from thrum.sync.maintenance import index_ids
from thrum.sync.worktree import find_admin_dir

_CREATE: Final = b'{"type":"message.create"'
_AT_ONCE: Final = 100
"""Blobs that are held in memory together."""
_KEPT_FOLDERS: Final = ("backup", "archive")
"""Below `.thrum`: copies of messages, which stay with them."""


class Uninstalled(msgspec.Struct, kw_only=True):
    """`Uninstall` of cli.md §2: each a thing, and behind it what else is to be known of it."""

    removed: list[str]
    kept: list[str]


@dataclass(frozen=True, slots=True)
class Loss:
    """What would be gone with the messages. `unpushed`: at no remote, as far as this clone has seen."""

    messages: int
    unpushed: int
    backups: bool

    def __str__(self) -> str:
        if not self.messages:
            return "no messages"
        there = f"{self.messages} message{'s' * (self.messages != 1)}"
        where = f"{self.unpushed} of them not at any remote" if self.unpushed else "all of them at the remote too"
        return f"{there}, {where}" + (", and the backups in .thrum/backup" if self.backups else "")


def loss(layout: Layout, environ: Mapping[str, str]) -> Loss:
    """How much is lost without `--keep-messages`. Raises UnsafeRepository, StoreFailed, ConfigInvalid."""
    journals = JournalFiles(layout.branch_dir, layout.local_journal)
    creates = {
        bytes(line)
        for name in journals.names()
        for line in journals.path(name).read_bytes().split(b"\n")
        if line.startswith(_CREATE)
    }
    pushed: set[bytes] = set()
    with branch.read_branch(layout, environ) as found:
        if found is not None:
            for entry in found.at_remote(config.load_config(layout.config_file)[settings.SYNC_REMOTE]) or ():
                pushed.update(found.blob(entry).split(b"\n"))
    return Loss(len(creates), len(creates - pushed), (layout.state_dir / "backup").is_dir())


def uninstall(layout: Layout, environ: Mapping[str, str], *, keep_messages: bool) -> Uninstalled:
    """Take thrum out of the repository; its daemon is stopped already. Each step may be done already.

    `keep_messages`: branch, journals, backups and archives stay. Raises DaemonLocked, NotAvailable, StoreFailed.
    """
    if keep_messages and layout.common_dir is None:
        raise NotAvailable(
            f"outside git, all messages are in {layout.var_dir}", remedy="thrum backup --dir DIR; then: thrum uninstall"
        )
    done = Uninstalled(removed=[], kept=[])
    try:
        with hold_lock(layout):
            _remove_hooks(layout, environ, done)
            _report_kept(layout, environ, done)
            if layout.common_dir is not None and not keep_messages:
                _remove_branch(layout, layout.common_dir, environ, done)
            elif layout.common_dir is not None:
                done.kept += [
                    f"branch {BRANCH}: git branch -D {BRANCH} would remove it",
                    f"{layout.thrum_sync_dir}: the journals, and who this clone is",
                ]
                if undo := git_permissions.undo_of(layout):
                    done.kept.append(f"the mode of git's directory, as messages stay: {undo} would open it")
            _remove_states(layout, keep_messages, done)
            if layout.common_dir is not None and not layout.state_dir.exists():
                exclude = layout.common_dir / "info" / "exclude"
                if remove_rule(exclude, IGNORE_RULE):
                    done.removed.append(f"the line {IGNORE_RULE} of {os.path.realpath(exclude)}")
            if layout.common_dir is not None and not keep_messages:
                shutil.rmtree(layout.thrum_sync_dir)
                done.removed.append(str(layout.thrum_sync_dir))
    except OSError as error:
        name = error.filename or layout.state_dir
        remedy = f"make {name} writable, then: thrum uninstall"
        raise StoreFailed(
            f"could not remove {name}: {(error.strerror or str(error)).lower()}", remedy=remedy
        ) from error
    return done


def _report_kept(layout: Layout, environ: Mapping[str, str], done: Uninstalled) -> None:
    done.kept += [f"{name}: it calls thrum; remove that by hand" for name in hook_callers(layout)]
    done.kept += [
        f"{each.name}: for all your repositories; thrum hook uninstall {each.runtime} --user"
        for each in installer.installed_files(None, environ)
    ]
    with contextlib.suppress(OSError):
        rules = read_bytes(layout.main_root / ".gitignore").splitlines()
        if IGNORE_RULE.encode() in rules:
            done.kept.append(f".gitignore: it is tracked; the line {IGNORE_RULE} may be removed")
    with contextlib.suppress(ThrumError):
        backups = directory_of(layout)
        if backups.is_dir() and not backups.is_relative_to(layout.state_dir):
            done.kept.append(f"{backups}: backups")
    if layout.common_dir is not None and (at := _at_remotes(layout.common_dir, environ)):
        done.kept.append(f"{BRANCH} at {', '.join(at)}: what was pushed stays there, and in other clones")


def _at_remotes(common_dir: Path, environ: Mapping[str, str]) -> list[str]:
    words = [f"--git-dir={common_dir}", "for-each-ref", "--format=%(refname)", f"refs/remotes/*/{BRANCH}", OWN_REFS]
    refs = checked_git(words, environ).decode(errors="replace").split()
    return list(dict.fromkeys(ref.split("/")[2] for ref in refs))


# -- git's part


def _remove_branch(layout: Layout, common_dir: Path, environ: Mapping[str, str], done: Uninstalled) -> None:
    """Branch, worktree, what git remembers of the remotes', and the objects that nothing else needs."""
    admin_dir = find_admin_dir(common_dir, layout.branch_dir)
    if admin_dir is not None:
        shutil.rmtree(admin_dir)
        with contextlib.suppress(OSError):
            (common_dir / "worktrees").rmdir()  # only where it is empty
    git = [f"--git-dir={common_dir}"]
    patterns = [f"refs/heads/{BRANCH}", f"refs/remotes/*/{BRANCH}", OWN_REFS]
    refs = checked_git([*git, "for-each-ref", "--format=%(refname)", *patterns], environ).decode().split()
    for ref in refs:
        checked_git([*git, "update-ref", "--no-deref", "-d", ref], environ)
    if refs:
        done.removed.append(f"branch {BRANCH}")
    left = _remove_objects(layout, common_dir, environ)
    reached = _reached(common_dir, environ)
    undo = git_permissions.undo_of(layout)
    stays, opens = (f", and so the mode of {common_dir}", f"; {undo}") if undo else ("", "")
    if reached is None:
        done.kept.append(f"what git cannot read{stays}: fix what git fsck names; git gc --prune=now{opens}")
    elif reached:
        done.kept.append(
            f"{reached} journals that a branch, tag, worktree, index or reflog of yours leads to{stays}: remove what"
            f" git log --all --reflog -- '*.jsonl' shows; git gc --prune=now{opens}"
        )
    elif left:
        done.kept.append(f"{left} objects with messages, packed together with yours{stays}: git gc --prune=now{opens}")
    elif changed := git_permissions.reopen(layout):
        done.removed.append(f"mode of {changed}")


def _remove_objects(layout: Layout, common_dir: Path, environ: Mapping[str, str]) -> int:
    """Remove journals' blobs that nothing reaches any more: they would be readable. How many could not be.

    Only what is a journal by its bytes, and packs that hold nothing else: a lost stash of the user's stays.
    """
    objects = common_dir / "objects"
    unreachable = dict(_unreachable(common_dir, environ))
    lost = _journals(common_dir, environ, [each for each, kind in unreachable.items() if kind == "blob"])
    joint = (objects / "pack" / "multi-pack-index").exists()
    for name in () if joint else _own_packs(layout):
        index = objects / "pack" / f"{name}.idx"
        if index.exists() and unreachable.keys() >= {each.hex() for each in index_ids(index)}:
            for path in (index, *objects.glob(f"pack/{name}.*")):
                path.unlink(missing_ok=True)
    for each in lost:
        (objects / each[:2] / each[2:]).unlink(missing_ok=True)
    return sum(
        not told.endswith(" missing") for told in _batch(common_dir, environ, "--batch-check", lost).splitlines()
    )


def _reached(common_dir: Path, environ: Mapping[str, str]) -> int | None:
    """How many journals are still led to: by a branch that somebody made of ours, a reflog, another worktree's index.

    None where git can't tell, in a damaged repository.
    """
    words = [f"--git-dir={common_dir}", "rev-list", "--all", "--reflog", "--indexed-objects", "--objects"]
    done = run_git([*words, "--missing=allow-any"], {**environ, "GIT_NO_LAZY_FETCH": "1"})
    if done is None or done.returncode != 0:
        return None
    named = [line.split(b" ", 1)[0].decode() for line in done.stdout.splitlines() if line.endswith(b".jsonl")]
    return len(_journals(common_dir, environ, named))


def _unreachable(common_dir: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Id and type of each object that no ref, reflog and index leads to."""
    words = [f"--git-dir={common_dir}", "fsck", "--unreachable", "--connectivity-only", "--no-progress"]
    done = run_git(words, environ)  # its status tells of other faults too, which are not ours to judge
    for told in (b"" if done is None else done.stdout).decode(errors="replace").splitlines():
        match told.split():
            case ["unreachable", kind, object_id]:
                yield object_id, kind
            case _:
                pass


def _journals(common_dir: Path, environ: Mapping[str, str], blobs: list[str]) -> list[str]:
    """Those that begin as a journal does."""
    found: list[str] = []
    for start in range(0, len(blobs), _AT_ONCE):
        data = _bytes(common_dir, environ, "--batch", blobs[start : start + _AT_ONCE])
        while data:
            head, _, data = data.partition(b"\n")
            object_id, kind, size = head.decode().split(" ") if head.count(b" ") == 2 else ("", "", "-1")
            content, data = data[: int(size)], data[int(size) + 1 :]
            if kind == "blob" and content.startswith(b'{"type":"') and b'"event_id":"evt_' in content:
                found.append(object_id)
    return found


def _batch(common_dir: Path, environ: Mapping[str, str], how: str, object_ids: list[str]) -> str:
    return _bytes(common_dir, environ, how, object_ids).decode(errors="replace")


def _bytes(common_dir: Path, environ: Mapping[str, str], how: str, object_ids: list[str]) -> bytes:
    asked = "".join(f"{each}\n" for each in object_ids).encode()
    # What is missing in a partial clone is not fetched for this.
    return checked_git([f"--git-dir={common_dir}", "cat-file", how], {**environ, "GIT_NO_LAZY_FETCH": "1"}, stdin=asked)


def _own_packs(layout: Layout) -> list[str]:
    """Packs that thrum made of the branch (`sync.maintenance`)."""
    try:
        known = msgspec.json.decode((layout.thrum_sync_dir / "packs.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return []
    names: Any = known.get("packs") or ()
    return [str(name) for name in names if re.fullmatch(r"pack-[0-9a-f]+", str(name))]


# -- the worktrees' part


def _remove_hooks(layout: Layout, environ: Mapping[str, str], done: Uninstalled) -> None:
    """Out of the files of runtimes in every worktree. What cannot be changed is named, and hinders nothing."""
    for root in roots(layout):
        for file in installer.installed_files(root, environ):
            if file.root is None:
                continue
            try:
                installer.uninstall(file, environ)
            except ThrumError as error:
                done.kept.append(f"hooks of {file.runtime} in {file.path}: {error.message}; {error.remedy}")
            else:
                done.removed.append(f"hooks of {file.runtime} in {file.path}")
        try:
            done.removed += [f"{file.path}" for file in skills.uninstall(root, environ)]
        except ThrumError as error:
            done.kept.append(f"the skill in {root}: {error.message}; {error.remedy}")
        for name in ("CLAUDE.md", "AGENTS.md"):
            with contextlib.suppress(OSError):
                if instructions.BEGIN.encode() in read_bytes(root / name):
                    done.kept.append(f"{root / name}: the block between the markers may be removed")


def _remove_states(layout: Layout, keep_messages: bool, done: Uninstalled) -> None:
    """Each worktree's `.thrum` that leads here, the main one's last. What is a link is only unlinked."""
    for root in [each for each in roots(layout) if each / ".thrum" != layout.state_dir]:
        own = root / ".thrum"
        if is_link(own) or _leads_to(own) == layout.state_dir:
            _remove(own)
            done.removed.append(str(own))
    kept = [name for name in _KEPT_FOLDERS if keep_messages and (layout.state_dir / name).is_dir()]
    if kept:
        for each in sorted(layout.state_dir.iterdir()):
            if each.name not in kept:
                _remove(each)
        done.kept += [f"{layout.state_dir / name}: copies of messages" for name in kept]
        done.removed.append(f"what else was in {layout.state_dir}")
    elif os.path.lexists(layout.state_dir):
        _remove(layout.state_dir)
        done.removed.append(str(layout.state_dir))


def _leads_to(own: Path) -> Path | None:
    try:
        return Path((own / "redirect").read_text().strip())
    except (OSError, UnicodeError):
        return None


def _remove(path: Path) -> None:
    if is_link(path) or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
