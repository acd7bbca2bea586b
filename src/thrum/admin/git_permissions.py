"""Who on this machine can read messages through git's objects, and closing that access (decision 0029).

Git writes objects readable by everyone (0444 in 0755), and they contain the messages, though thrum's own files are
0600. So `init` makes the git directory 0700 once, records the previous mode in `thrum-sync/modes.json`, and `uninstall`
restores it. What is shared on purpose is left alone and reported. A mode that was changed since is left as it is.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from thrum.git.runner import run_git
from thrum.model.errors import in_shell
from thrum.model.files import atomic_write, ensure_private_dir, is_link, open_nofollow
from thrum.model.paths import Layout
from thrum.sync.worktree import admin_dirs, linked_worktree

EVERYBODY: Final = "every user of this machine"
UNDO: Final = "if another user, web server, container or borrowing clone needs it"
_OTHERS: Final = 0o077
_UNSHARED: Final = ("", "0", "false", "no", "off", "umask")
"""What `core.sharedRepository` says where nothing is shared (git-config)."""


class Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`modes.json`. `directory` is relative to the git directory, so that a moved repository has it still."""

    directory: str
    mode: str
    """Octal, as it was."""
    state: Literal["closing", "closed", "kept"]
    """`closing`: begun, maybe by a process that was killed; `kept`: `init --keep-modes` was told to leave it."""


@dataclass(frozen=True, slots=True)
class AccessPath:
    """The directory through which objects are reached, and whether `init` may close it."""

    path: Path
    shown: str
    """As it is named to people: from the worktree on."""
    mode: int
    obstacle: str = ""
    """Why thrum leaves it as it is: it is another user's, or shared with intent."""
    decided: Record | None = None

    @property
    def is_open(self) -> bool:
        return bool(self.mode & _OTHERS)

    @property
    def will_close(self) -> bool:
        undecided = self.decided is None or self.decided.state == "closing"
        return self.is_open and not self.obstacle and undecided

    @property
    def reason(self) -> str:
        """Why it stays open; empty if it would not."""
        if self.obstacle or self.decided is None or self.will_close:
            return self.obstacle
        return "init --keep-modes left it so" if self.decided.state == "kept" else "it was reopened since"


@dataclass(frozen=True, slots=True)
class Exposure:
    """Messages that others can read."""

    path: Path
    readers: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.readers} can read the messages in {self.path}{why}"


# -- the door


def find_access_path(layout: Layout, environ: Mapping[str, str]) -> AccessPath | None:
    """The git directory; only its `objects` where worktrees lie inside it, or where `objects` is a link out of it.

    None outside git: there everything lies in `.thrum`, which is 0700. Raises OSError.
    """
    common_dir = layout.common_dir
    if common_dir is None:
        return None
    objects = Path(os.path.realpath(common_dir / "objects"))
    if not objects.is_dir():
        return None  # not a directory of git; later steps report what is missing
    inside = _has_worktrees_inside(layout, common_dir) or not objects.is_relative_to(common_dir)
    path = objects if inside else common_dir
    shown = str(path.relative_to(layout.root)) if path.is_relative_to(layout.root) else str(path)
    obstacle = _obstacle(common_dir, path, objects, environ)
    return AccessPath(path, shown, _mode(path), obstacle, _record(layout))


def _has_worktrees_inside(layout: Layout, common_dir: Path) -> bool:
    """Whether somebody works below the git directory, as in a bare one with its worktrees beside `objects`."""
    worktrees = [linked_worktree(each) for each in admin_dirs(common_dir)]
    folders = [Path(os.path.realpath(each)) for each in worktrees if each is not None]
    folders = [each for each in folders if each != layout.branch_dir]
    return any(each.is_relative_to(common_dir) for each in (*folders, layout.main_root))


def _obstacle(common_dir: Path, path: Path, objects: Path, environ: Mapping[str, str]) -> str:
    for each in dict.fromkeys((common_dir, path, objects)):
        found = each.stat()
        if found.st_uid != os.geteuid():
            return f"it belongs to {_user(found.st_uid)}"
        if found.st_mode & 0o002 or (found.st_mode & 0o020 and (_crowd(found.st_gid) or _has_acl(each))):
            # A umask of 002 gives write to the user's own group, which has no other member: that shares nothing.
            return "others may write there"
    done = run_git([f"--git-dir={common_dir}", "config", "--get", "core.sharedRepository"], environ)
    told = "" if done is None else os.fsdecode(done.stdout).strip()
    if told.lower() not in _UNSHARED:
        return f"core.sharedRepository is {told}"
    if (common_dir / "git-daemon-export-ok").exists():
        return "git-daemon-export-ok says that it is served"
    return ""


def close(layout: Layout, door: AccessPath, *, keep: bool) -> str:
    """Make it 0700 if it is to be, what it was first kept on disk; why that did not work, or nothing.

    `keep`: only remember that it is to stay.
    """
    if not door.will_close or layout.common_dir is None:
        return ""
    directory = os.path.relpath(door.path, layout.common_dir)
    record = Record(directory=directory, mode=f"{door.mode:04o}", state="kept" if keep else "closing")
    try:
        _remember(layout, record)
        if keep:
            return ""
        _set_mode(door.path, door.mode & ~_OTHERS)
        if _mode(door.path) & _OTHERS:
            return "the file system keeps no modes"
        _remember(layout, msgspec.structs.replace(record, state="closed"))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _remember(layout: Layout, record: Record) -> None:
    ensure_private_dir(layout.thrum_sync_dir)
    atomic_write(_record_file(layout), msgspec.json.encode(record) + b"\n")


def reopen(layout: Layout) -> str:
    """Put back what `close` changed: the directory's name and mode, or nothing. Raises OSError.

    A mode that somebody changed since stays.
    """
    closed = _closed(layout)
    if closed is None:
        return ""
    path, mode = closed
    if layout.common_dir and path == Path(os.path.realpath(layout.common_dir / "objects")):
        _reopen_objects(path, mode)
    _set_mode(path, mode)
    return f"{path}, {mode & ~_OTHERS:04o}→{mode:04o}"


def undo_of(layout: Layout) -> str:
    """The command that puts back what `close` changed; empty if there is nothing to put back."""
    closed = _closed(layout)
    return f"chmod {closed[1]:o} {in_shell(closed[0])}" if closed else ""


def _closed(layout: Layout) -> tuple[Path, int] | None:
    """What `close` closed and is unchanged since, and the mode that it had."""
    record = _record(layout)
    if record is None or layout.common_dir is None or record.state == "kept":
        return None
    path = Path(os.path.normpath(layout.common_dir / record.directory))
    mode = int(record.mode, 8)
    return (path, mode) if path.is_dir() and _mode(path) == mode & ~_OTHERS else None


def _reopen_objects(objects: Path, mode: int) -> None:
    """What was written while `objects` was closed took its mode from there; the user's own may be among it."""
    for folder in [each for each in objects.iterdir() if each.is_dir() and not is_link(each)]:
        with contextlib.suppress(OSError):
            for file in [each for each in folder.iterdir() if each.is_file() and not is_link(each)]:
                _set_mode(file, _mode(file) | mode & 0o044)
            _set_mode(folder, _mode(folder) | mode & _OTHERS)


def _record_file(layout: Layout) -> Path:
    return layout.thrum_sync_dir / "modes.json"


def _record(layout: Layout) -> Record | None:
    try:
        found = msgspec.json.decode(_record_file(layout).read_bytes(), type=Record)
        return found if 0 <= int(found.mode, 8) <= 0o7777 else None
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _set_mode(path: Path, mode: int) -> None:
    descriptor = open_nofollow(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


# -- in init


class Planned(msgspec.Struct, kw_only=True):
    """What `init` says of it: `path`, `action`, `undo` and `skip_reason` of an `InitFile`."""

    path: str
    action: Literal["merge", "skip"]
    undo: str = ""
    skip_reason: str = ""


def planned(layout: Layout, door: AccessPath | None, *, keep: bool, failed: str = "") -> Planned | None:
    """What is to be said; nothing if the path is closed or out of others' reach."""
    if door is None or not door.is_open:
        return None
    if door.will_close and not keep and not failed:
        changed = f"mode of {door.shown}, {door.mode:04o}→{door.mode & ~_OTHERS:04o}"
        return Planned(path=changed, action="merge", undo=f"chmod {door.mode:o} {in_shell(door.shown)}  # {UNDO}")
    readers = readers_of(layout.common_dir / "objects") if layout.common_dir else ""
    if not readers:
        return None
    why = failed or door.reason or "--keep-modes"
    reason = f"{readers} can read the messages in it ({why})"
    return Planned(path=f"mode of {door.shown}, {door.mode:04o}", action="skip", skip_reason=reason)


# -- who can read


def exposures(layout: Layout, environ: Mapping[str, str]) -> list[Exposure]:
    """Every place of messages that somebody else can read: git's objects, and thrum's own directories. Raises OSError.

    Root can always read, and so can processes that had the directory open before it was closed, until they leave it.
    """
    found: list[Exposure] = []
    door = find_access_path(layout, environ)
    if door is not None and layout.common_dir is not None:
        objects = layout.common_dir / "objects"
        if readers := readers_of(objects):
            remedy = "thrum init" if door.will_close else f"chmod go-rwx {in_shell(door.path)}"
            if door.obstacle:
                remedy = f"leave it so if they may read what agents write; otherwise: {remedy}"
            found.append(Exposure(objects, readers, door.reason, remedy))
    backups = layout.state_dir / "backup"
    for own in (layout.thrum_sync_dir, layout.state_dir, layout.var_dir, backups):
        inner = found[-1].path if found else None
        if own.is_dir() and (readers := readers_of(own)) and (inner is None or not own.is_relative_to(inner)):
            found.append(Exposure(own, readers, "", f"chmod go-rwx {in_shell(own)}"))
    return found


def readers_of(path: Path) -> str:
    """Who but the owner and root can reach what is in a directory, in words; empty if no one can. Raises OSError.

    As the kernel does: every directory on the way has to let them through. What lies inside is taken as readable.
    """
    real = Path(os.path.realpath(path))
    groups: dict[int, None] = {}
    named = False
    for each in (real, *real.parents):
        found = each.stat()
        if not found.st_mode & 0o011:
            return ""
        if not found.st_mode & 0o001:
            groups[found.st_gid] = None
        named = named or _has_acl(each)
    if not groups:
        return EVERYBODY
    crowds = [name for gid in groups if (name := _crowd(gid))]
    if len(crowds) < len(groups) and not named:
        return ""  # a group on the way has no other member
    words = [f"every member of group {' and of '.join(crowds)}"] if len(crowds) == len(groups) else []
    return " and ".join([*words, *(["everyone on its access list"] if named else [])])


def _has_acl(path: Path) -> bool:
    """Whether more is granted than the mode tells (Linux)."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except (OSError, AttributeError):
        return False


def _crowd(gid: int) -> str:
    """A group's name; empty if this user is all of it, as far as can be told without listing every user."""
    try:
        group = grp.getgrgid(gid)
        me = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(gid)
    private = group.gr_name == me and all(member == me for member in group.gr_mem)
    return "" if private else group.gr_name


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
