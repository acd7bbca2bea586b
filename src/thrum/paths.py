"""Where things lie: repository, root, state directory, redirects, git's directories and sockets (identity.md §3).

Everything is read from files, without a git process. Nothing here reads the environment: values are handed in.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from thrum.errors import BadRedirect, DaemonStartFailed, NotARepository, NotInitialized
from thrum.files import atomic_write, ensure_private_dir, sync_directory
from thrum.limits import socket_path_bytes_max, socket_path_bytes_max_macos

_KNOWN_MAX = 4_096
_BELIEVED_SECONDS = 1.0
_SOCKET_PATH_BYTES_MAX = socket_path_bytes_max_macos if sys.platform == "darwin" else socket_path_bytes_max


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one root. All paths are absolute and free of links."""

    root: Path
    """The worktree one stands in; identities and context files are its own."""
    state_dir: Path
    """The `.thrum` with config, socket and database; another root's under a redirect."""
    main_root: Path
    """The root that holds the state."""
    common_dir: Path | None
    """Git's common directory of the main root; None outside git."""

    @property
    def identities_dir(self) -> Path:
        return self.root / ".thrum" / "identities"

    @property
    def context_dir(self) -> Path:
        return self.root / ".thrum" / "context"

    @property
    def config_file(self) -> Path:
        return self.state_dir / "config.json"

    @property
    def config_lock(self) -> Path:
        """Held by whoever rewrites `config.json`."""
        return self.var_dir / "config.lock"

    @property
    def var_dir(self) -> Path:
        return self.state_dir / "var"

    @property
    def database(self) -> Path:
        return self.var_dir / "messages.db"

    @property
    def log_file(self) -> Path:
        return self.var_dir / "daemon.log"

    @property
    def socket_link(self) -> Path:
        """The daemon's socket, or a link to it when the path would be too long."""
        return self.var_dir / "thrum.sock"

    @property
    def thrum_sync_dir(self) -> Path:
        return self.var_dir if self.common_dir is None else self.common_dir / "thrum-sync"

    @property
    def branch_dir(self) -> Path:
        return self.thrum_sync_dir / "a-sync"

    @property
    def local_journal(self) -> Path:
        return self.thrum_sync_dir / "local.jsonl"

    @property
    def quarantine(self) -> Path:
        return self.thrum_sync_dir / "quarantine.jsonl"

    @property
    def lock_file(self) -> Path:
        """Held by the one daemon of the repository."""
        return self.thrum_sync_dir / "daemon.lock"

    @property
    def daemon_json(self) -> Path:
        return self.thrum_sync_dir / "daemon.json"

    @property
    def daemon_key(self) -> Path:
        """Who reads it can sign as this daemon."""
        return self.thrum_sync_dir / "daemon.key"


# -- git


_BARE = re.compile(r"^\s*bare\s*=\s*(\w+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GitPlace:
    """A git repository as its files tell it."""

    root: Path
    """The worktree; of a bare repository the repository itself."""
    git_dir: Path
    common_dir: Path
    """Shared by all worktrees of the repository."""
    linked: bool
    """Made by `git worktree add`; submodules and main worktrees are not."""
    bare: bool


def find_git(start: Path) -> GitPlace | None:
    """The git repository at `start` or above, a bare one included; None if there is none."""
    for directory in _upwards(os.path.realpath(start)):
        found = _git_at(directory)
        if found is not None:
            return replace(found, bare=not found.linked and _configured_bare(found.common_dir))
        if _is_git_dir(directory) and os.path.basename(directory) != ".git":
            path = Path(directory)
            return GitPlace(path, path, path, linked=False, bare=True)
    return None


def main_worktree(git: GitPlace) -> Path | None:
    """The worktree that `git clone` or `git init` made; None if the repository is bare."""
    common = git.common_dir
    return common.parent if common.name == ".git" and not _configured_bare(common) else None


def _configured_bare(common_dir: Path) -> bool:
    """Whether git's configuration says that no worktree belongs to this directory (`git clone --bare PATH/.git`)."""
    for name in ("config.worktree", "config"):
        try:
            text = (common_dir / name).read_text(errors="replace")
        except OSError:
            continue
        if match := _BARE.search(text):
            return match[1].lower() in ("true", "yes", "on", "1")
    return False


def _upwards(directory: str) -> list[str]:
    chain = [directory]
    while (parent := os.path.dirname(directory)) != directory:
        chain.append(parent)
        directory = parent
    return chain


def _is_git_dir(directory: str) -> bool:
    return (
        os.path.isfile(f"{directory}/HEAD")
        and os.path.isdir(f"{directory}/objects")
        and os.path.isdir(f"{directory}/refs")
    )


def _git_at(directory: str) -> GitPlace | None:
    """The repository whose worktree `directory` is, by its `.git`."""
    dot_git = f"{directory.rstrip('/')}/.git"
    try:
        mode = os.stat(dot_git).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(mode):
        path = Path(os.path.realpath(dot_git))
        return GitPlace(Path(directory), path, path, linked=False, bare=False)
    text = _first_line(dot_git)
    if text is None or not text.startswith("gitdir:"):
        return None
    git_dir = os.path.realpath(os.path.join(directory, text.removeprefix("gitdir:").strip()))
    common = _first_line(f"{git_dir}/commondir")
    if not common:
        return GitPlace(Path(directory), Path(git_dir), Path(git_dir), linked=False, bare=False)
    common_dir = os.path.realpath(os.path.join(git_dir, common))
    return GitPlace(Path(directory), Path(git_dir), Path(common_dir), linked=True, bare=False)


def _first_line(path: str) -> str | None:
    """The stripped text of a small file, or None if it can't be read."""
    try:
        return _small_text(path)
    except OSError:
        return None


def _small_text(path: str) -> str:
    """The stripped text of a small file. Raises OSError, also for what is no plain file: a pipe would be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", path)
        return os.fsdecode(os.read(descriptor, 65536)).strip()
    finally:
        os.close(descriptor)


# -- thrum


def find_places(start: Path) -> Places:
    """Root and state directory for whoever stands in `start`: the walk of identity.md §3, first hit wins.

    Raises BadRedirect (never passed over: that would raise a second daemon), NotInitialized, or NotARepository when
    there is no git repository either.
    """
    try:
        directory = os.path.realpath(start)
    except ValueError:
        directory = ""  # a NUL in it: no file system has such a name
    if not os.path.isdir(directory):
        raise NotARepository(f"no such directory: {start}", remedy="correct the path")
    seen_git: GitPlace | None = None
    for candidate in _upwards(directory):
        git = _git_at(candidate)
        seen_git = seen_git or git
        state_dir = _state_at(candidate, git)
        if state_dir is not None:
            return places_of(Path(candidate), Path(state_dir))
    if seen_git is not None:
        raise NotInitialized(f"thrum is not initialized in {seen_git.root}")
    bare = find_git(start)
    if bare is not None:
        message = f"not a git worktree: {bare.root} is a bare repository"
        raise NotARepository(message, remedy="git worktree add PATH, then cd there and run: thrum init")
    raise NotARepository(f"not a git repository: {start}")


class KnownPlaces:
    """The places of the directories that commands come from, believed for a second: agents come from few, and often.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._found: dict[Path, tuple[Places, float]] = {}

    def find(self, start: Path) -> Places:
        """As `find_places`; what it raises is not remembered."""
        now = self._now()
        known = self._found.get(start)
        if known is not None and now < known[1]:
            return known[0]
        if len(self._found) >= _KNOWN_MAX:
            self._found.clear()
        places = find_places(start)
        self._found[start] = (places, now + _BELIEVED_SECONDS)
        return places


def places_of(root: Path, state_dir: Path) -> Places:
    """The places of a root whose state directory is known. Both must be real paths."""
    git = find_git(state_dir.parent)
    common_dir = None if git is None else git.common_dir
    return Places(root=root, state_dir=state_dir, main_root=state_dir.parent, common_dir=common_dir)


def _state_at(directory: str, git: GitPlace | None) -> str | None:
    """The state directory that a root at `directory` has; None if `directory` is no root."""
    own = f"{directory.rstrip('/')}/.thrum"
    if os.path.lexists(f"{own}/redirect"):
        return _redirect_target(own)
    linked = git is not None and git.linked
    if os.path.isfile(f"{own}/config.json") or (not linked and os.path.isdir(f"{own}/identities")):
        return os.path.realpath(own)
    if git is None or not linked or (main := main_worktree(git)) is None:
        return None
    # As if redirected to the main worktree; its own redirect, if it has one, is the single hop.
    return None if str(main) == directory else _state_at(str(main), None)


def _redirect_target(own: str) -> str:
    """Where `.thrum/redirect` in the directory `own` leads. Raises BadRedirect, each case with its own words."""
    try:
        target = _small_text(f"{own}/redirect")
    except OSError as error:
        raise BadRedirect(f"redirect file cannot be read: {own}/redirect ({error.strerror})") from error
    pointing = f"{own}/redirect points to {target}"
    if not target:
        raise BadRedirect(f"redirect file is empty: {own}/redirect")
    if not os.path.isabs(target):
        raise BadRedirect(f"redirect target must be absolute path: {pointing}")
    if not os.path.exists(target):
        raise BadRedirect(f"redirect target does not exist: {pointing}, which is not there")
    if not os.path.isdir(target):
        raise BadRedirect(f"redirect target is not a directory: {pointing}")
    real = os.path.realpath(target)
    if real == os.path.realpath(own):
        raise BadRedirect(f"redirect points to itself: {own}/redirect")
    if os.path.lexists(f"{real}/redirect"):
        message = f"redirect chain detected: {pointing}, which has a redirect of its own"
        raise BadRedirect(f"{message}; only single-hop redirects are supported")
    return real


def runtimes_file(environ: Mapping[str, str]) -> Path | None:
    """Where a user with these variables keeps runtimes of their own (cli.md 3.20); None without a home."""
    home = environ.get("HOME", "")
    return Path(home, ".thrum", "runtimes.json") if os.path.isabs(home) else None


def link_state(root: Path, state_dir: Path) -> None:
    """Give a linked worktree a `.thrum` of its own, redirected to the state (identity.md §3 "Local always").

    What is there stays: a redirect, or a state of its own. Raises OSError.
    """
    own = root / ".thrum"
    if own == state_dir or (own / "config.json").exists():
        return
    for directory in (own, own / "context", own / "identities"):
        ensure_private_dir(directory)
    if not os.path.lexists(own / "redirect"):
        atomic_write(own / "redirect", os.fsencode(f"{state_dir}\n"))


def standing_root(directory: str, common_dir: str | None, main_root: str) -> str | None:
    """The root of this repository that a process in `directory` (a real path) stands in; None: in none of them.

    Going up: the first directory whose `.git` has this repository's common directory, or that holds the state; foreign
    repositories on the way are passed (identity.md §11).
    """
    for candidate in _upwards(directory):
        if candidate == main_root:
            return candidate
        git = _git_at(candidate) if common_dir is not None else None
        if git is not None and str(git.common_dir) == common_dir:
            return candidate
    return None


def path_matches(path: str, wanted: str) -> bool:
    """Whether a path of the repository is the one wanted: the same, its end from a `/` on, or below a directory that is
    named with its trailing `/`.
    """
    if wanted.endswith("/"):
        return path.startswith(wanted)
    return path == wanted or path.endswith(f"/{wanted}")


# -- sockets


@dataclass(frozen=True, slots=True)
class SocketPaths:
    """Where the daemon binds."""

    rpc: Path
    bus: Path
    private_dir: Path | None
    """The short directory that holds both, when the paths beside the state are too long; None when they fit."""


def socket_paths(places: Places, runtime_dir_base: Path, *, short: bool = False) -> SocketPaths:
    """Where both sockets lie: `.thrum/var/` if the paths fit, else a directory of this user under `runtime_dir_base`.

    `short` forces the latter, for a file system that takes no sockets (rpc.md §1). The same state directory gives the
    same paths; clients find a short one by the link `.thrum/var/thrum.sock`.
    """
    rpc, bus = places.socket_link, places.var_dir / "bus.sock"
    if not short and _fits(rpc) and _fits(bus):
        return SocketPaths(rpc, bus, None)
    import hashlib

    digest = hashlib.sha256(os.fsencode(os.path.realpath(places.state_dir))).hexdigest()[:16]
    name = f"thrum-{os.getuid()}-{digest}"
    directory = Path(os.path.realpath(runtime_dir_base)) / name
    if not _fits(directory / "thrum.sock"):
        directory = Path("/tmp") / name
    return SocketPaths(directory / "thrum.sock", directory / "bus.sock", directory)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX


def prepare_socket_dir(places: Places, sockets: SocketPaths) -> None:
    """Make the directories to bind in, and the link to a short one. Call it under the daemon's lock.

    Raises DaemonStartFailed when the short directory is a link, belongs to another user or is open to others: whoever
    made it could put a socket of their own there.
    """
    ensure_private_dir(places.var_dir)
    link = places.socket_link
    if sockets.private_dir is None:
        if link.is_symlink():
            link.unlink()
        return
    _make_private(sockets.private_dir)
    if link.is_symlink() and os.readlink(link) == str(sockets.rpc):
        return
    temporary = link.with_name(f".thrum.sock.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(sockets.rpc)
    temporary.replace(link)
    sync_directory(places.var_dir)


Flaw = Literal["is not a directory", "belongs to another user", "is open to other users"]


def private_dir_flaw(path: Path) -> Flaw | None:
    """What makes a directory unfit for sockets, or None. Raises FileNotFoundError if there is none."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    if status.st_uid != os.getuid():
        return "belongs to another user"
    return "is open to other users" if status.st_mode & 0o077 else None


def _make_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    flaw = private_dir_flaw(path)
    if flaw is not None:
        raise DaemonStartFailed(
            f"the socket directory {path} {flaw}", remedy=f"remove {path}, then: thrum daemon start"
        )
