"""The remote: fetch and push by the git command, so that the user's whole configuration applies to thrum too.

`insteadOf`, ssh commands, credential helpers, proxies, partial clones, SHA-256: git handles them. What it must not do
is prompt, run the user's hooks, touch other refs, or hang.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote

from thrum.git.refs import BRANCH, REF, seen_ref
from thrum.git.runner import DURABLE, Finished, GitRunner, configured, git_missing, run_git
from thrum.model.clock import SystemClock
from thrum.model.errors import StoreFailed, in_shell
from thrum.model.ids import without_credentials
from thrum.sync.failures import clean, disk_full, remote_failed, secrets_in
from thrum.sync.ports import RemoteFailed, RemoteInfo
from thrum.sync.worktree import LOCK_REASON, admin_dirs, read_text

SILENT_SECONDS_MAX: Final = 60.0
"""A git that reports nothing for so long hangs."""
SECONDS_MAX: Final = 900.0

_BELIEVED_SECONDS: Final = 60.0
_LOCK_TRIES: Final = 3
_LOCK_SECONDS: Final = 0.1
_SSH: Final = (
    "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"  # for plain `ssh`
)
_SETTINGS: Final = (
    *DURABLE,
    "-c",
    "gc.auto=0",
    "-c",
    "http.lowSpeedLimit=1",
    "-c",
    f"http.lowSpeedTime={SILENT_SECONDS_MAX:.0f}",
    # Small fetches become loose objects, which `maintenance` packs with ours.
    "-c",
    "fetch.unpackLimit=100",
    # Of all history, the user's too.
    "-c",
    "fetch.writeCommitGraph=false",
    # One flush of the disk for all of them.
    "-c",
    "core.fsyncMethod=batch",
)
_PUSH_PREFIX: Final = "thrum:"
"""Before the name of the remote that is pushed to. No remote of the user's can have a colon in its name."""
_NOT_FOR_A_PUSH: Final = frozenset({"fetch", "mirror", "partialclonefilter", "promisor", "push"})
_RACES: Final = (
    "[rejected]",
    "failed to update ref",
    "failed to lock",
    "cannot lock ref",
    "incorrect old value",
    "reference already exists",
    "non-fast-forward",
    "fetch first",
    "stale info",
)
"""How a push is refused because another push was quicker."""
_NOT_RACES: Final = (
    "permission denied",
    "no space left",
    "read-only",
    "file exists",
    "disk quota",
    "exists; cannot create",
    "there are still refs under",
)
_IN_THE_WAY: Final = re.compile(rf"'({REF}/[^']+)' exists; cannot create '{REF}'")

Pushed = Literal["pushed", "raced", "refused"]


class Remote:
    """One configured remote of a repository. Blocks."""

    def __init__(self, common_dir: Path, root: Path, environ: Mapping[str, str], name: str, runner: GitRunner) -> None:
        """`root`: where git takes relative paths of remotes from."""
        self.name: Final = name
        self.seen_ref: Final = seen_ref(name)
        self._common_dir = common_dir
        self._root = root
        self._environ = environ
        self._runner = runner
        self._info: RemoteInfo | None = None
        self._push_infos: tuple[RemoteInfo, ...] = ()
        self._secrets: frozenset[str] = frozenset()
        self._own_ssh = False
        self._push_settings: list[tuple[str, str]] = []
        self._believed: tuple[object, float] | None = None

    # -- what is configured

    def info(self) -> RemoteInfo | None:
        """Where is fetched from."""
        self._look()
        return self._info

    def push_infos(self) -> tuple[RemoteInfo, ...]:
        """Where is pushed to: other URLs if `pushurl` or `pushInsteadOf` say so; git pushes to each of them."""
        self._look()
        return self._push_infos

    def _look(self) -> None:
        """Ask git again when a configuration file changed, and from time to time, since those include others."""
        stamp, now = self._configuration_stamp(), time.monotonic()
        if self._believed is not None and self._believed[0] == stamp and now < self._believed[1]:
            return
        fetched: list[str] = []
        pushed_to: list[str] = []
        if self.name and not self.name.startswith("-"):
            fetched = self._ask("remote", "get-url", "--all", self.name)
            pushed_to = self._ask("remote", "get-url", "--push", "--all", self.name)
        self._info = self._info_of(fetched[0]) if fetched else None
        self._push_infos = tuple(self._info_of(url) for url in dict.fromkeys(pushed_to or fetched))
        self._secrets = frozenset(secret for url in (*fetched, *pushed_to) for secret in secrets_in(url))
        chosen = self._environ.get("GIT_SSH_COMMAND") or self._environ.get("GIT_SSH")
        self._own_ssh = bool(chosen or self._ask("config", "--get", "core.sshCommand"))
        self._push_settings = self._ask_push_settings()
        self._believed = (stamp, now + _BELIEVED_SECONDS)

    def _ask_push_settings(self) -> list[tuple[str, str]]:
        """What is configured of the remote, for another name: all that a push needs, and no refspec.

        By its own name git would move the user's remote-tracking ref after a push, under a fetch of the user's that
        runs meanwhile (it fails then); by its URL it would not obey what is set for that remote.
        """
        settings: list[tuple[str, str]] = []
        for key, value in configured(self._common_dir, r"^remote\.", self._environ, cwd=self._cwd()):
            word = key.removeprefix(f"remote.{self.name}.")
            if word != key and "." not in word and word not in _NOT_FOR_A_PUSH:
                settings.append((f"remote.{_PUSH_PREFIX}{self.name}.{word}", value))
        return settings

    def _configuration_stamp(self) -> object:
        home = self._environ.get("HOME", "")
        xdg = self._environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        user = self._environ.get("GIT_CONFIG_GLOBAL")
        files = [str(self._common_dir / "config"), *([user] if user else [f"{home}/.gitconfig", f"{xdg}/git/config"])]
        return [_stamp(file) for file in files]

    def _ask(self, *arguments: str) -> list[str]:
        """The lines that git answers; none if it has nothing to say."""
        done = run_git([f"--git-dir={self._common_dir}", *arguments], self._environ, cwd=self._cwd())
        if done is None:
            raise git_missing()
        lines = [line.strip() for line in os.fsdecode(done.stdout).split("\n")] if done.returncode == 0 else []
        return [line for line in lines if line]

    def _info_of(self, url: str) -> RemoteInfo:
        return RemoteInfo(self.name, clean(without_credentials(url)), local_path(url, self._root))

    def _cwd(self) -> str:
        return str(self._root if self._root.is_dir() else self._common_dir)

    # -- the talk

    def fetch(self, known: list[str]) -> bool:
        """Bring our ref to where the remote's branch is; False if there is no such branch.

        `known`: commits that the remote may have; git offers no others. No ref of the user's moves: without a refmap
        git leaves the remote-tracking ones alone. Raises RemoteFailed, StoreFailed.
        """
        arguments = ["-c", f"remote.{self.name}.followRemoteHEAD=never"]
        arguments += ["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        arguments += ["--no-auto-maintenance", "--no-prune", "--no-filter", "--no-show-forced-updates", "--refmap="]
        arguments += [f"--negotiation-tip={commit}" for commit in known]
        arguments += [self.name, f"+{REF}:{self.seen_ref}"]
        done = self._run(arguments, "fetch")
        for attempt in range(_LOCK_TRIES):
            if "cannot lock ref" not in done.err and "unable to update local ref" not in done.err:
                break
            remove_stale_lock(self._common_dir, self.seen_ref)
            time.sleep(_LOCK_SECONDS * attempt)
            done = self._run(arguments, "fetch")
        if done.status == 0:
            return True
        if "couldn't find remote ref" in done.err.lower():
            return False
        if disk_full(done.err) or "cannot lock ref" in done.err:
            reason = remote_failed(done, self.name, "fetch", self._secrets).reason
            raise StoreFailed(f"could not store what {self.name} has: {reason}", remedy="fix what git names")
        raise self._failure(done, "fetch")

    def push(self, commit: str) -> bool:
        """Push a commit, never by force. False: another push was quicker. Raises RemoteFailed."""
        for info in self.push_infos():
            self._refuse_to_overwrite(info)
        arguments = ["push", "--porcelain", "--progress", "--no-verify", "--no-follow-tags", "--no-signed"]
        arguments += ["--recurse-submodules=no", f"{_PUSH_PREFIX}{self.name}", f"{commit}:{REF}"]
        done = self._run(arguments, "push")
        outcome = pushed(done)
        if outcome == "refused":
            raise self._failure(done, "push")
        return outcome == "pushed"

    def _refuse_to_overwrite(self, info: RemoteInfo) -> None:
        """Raise RemoteFailed where git would write into the journals there: an older thrum is on the branch."""
        git_dir = _common_dir(info.path) if info.path else None
        for record in [] if git_dir is None else admin_dirs(git_dir):
            if read_text(record / "locked") != LOCK_REASON or read_text(record / "HEAD") != f"ref: {REF}":
                continue
            words = [f"--git-dir={git_dir}", "config", "--get", "receive.denyCurrentBranch"]
            done = run_git(words, self._environ)
            if done is not None and done.stdout.strip().lower() == b"updateinstead":
                raise _on_branch_there(info)

    def _run(self, arguments: list[str], verb: str) -> Finished:
        info = self._first_contact(verb)
        if info is None:
            raise RemoteFailed("missing", f"there is no remote {self.name}", f"git remote add {self.name} URL")
        if info.path and not os.path.lexists(info.path) and not os.path.lexists(os.path.dirname(info.path)):
            raise RemoteFailed("offline", f"{info.path} is not there", f"git ls-remote {self.name}")
        return self._runner.run(
            [f"--git-dir={self._common_dir}", *_SETTINGS, *arguments],
            self._quiet_environ(),
            extra=self._push_variables() if verb == "push" else None,
            cwd=self._cwd(),
            silent_seconds_max=SILENT_SECONDS_MAX + 5,
            seconds_max=SECONDS_MAX,
        )

    def _first_contact(self, verb: str) -> RemoteInfo | None:
        """With whom a `fetch` or `push` talks first."""
        return self.info() if verb == "fetch" else next(iter(self.push_infos()), None)

    def _quiet_environ(self) -> dict[str, str]:
        """No one is at the keyboard: no dialogues. A program that the user named for passwords may answer by itself."""
        environ = dict(self._environ)
        environ.pop("SSH_ASKPASS", None)
        if "VSCODE_GIT_ASKPASS_MAIN" in environ:
            environ.pop("GIT_ASKPASS", None)  # it asks in the window whose terminal started the daemon
        if not self._own_ssh:
            environ["GIT_SSH_COMMAND"] = _SSH
        return environ | {"GCM_INTERACTIVE": "never", "SSH_ASKPASS_REQUIRE": "never"}

    def _push_variables(self) -> dict[str, str]:
        """Not by `-c`: URLs may hold passwords, and every user of the machine sees the words of a command."""
        variables = {"GIT_CONFIG_COUNT": str(len(self._push_settings))}
        for number, (key, value) in enumerate(self._push_settings):
            variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return variables

    def _failure(self, done: Finished, verb: str) -> RemoteFailed:
        info = self._first_contact(verb)
        if "branch is currently checked out" in done.out and info is not None:
            return _on_branch_there(info)
        if found := _IN_THE_WAY.search(done.err + done.out):
            name = clean(found[1].removeprefix("refs/heads/"), self._secrets)
            reason = f"the remote has a branch {name}, which conflicts with {BRANCH}"
            remedy = f"delete or rename it: git push {self.name} {in_shell(f':{name}')}"
            return RemoteFailed("refused", reason, remedy)
        return remote_failed(done, self.name, verb, self._secrets)

    # -- a look from beside

    def stands_at(self, commit: str) -> bool:
        """Whether the branch of a remote on this machine is at a commit; False if that can't be told without git."""
        info = self.info()
        return info is not None and bool(info.path) and ref_stamp(info.path).split(" ")[0] == commit

    def peek(self) -> str | None:
        """A text that changes when the branch of a remote on this machine moves; None for other remotes. Cheap."""
        info = self.info()
        return None if info is None or not info.path else ref_stamp(info.path)


def _on_branch_there(info: RemoteInfo) -> RemoteFailed:
    return RemoteFailed(
        "refused",
        f"branch {BRANCH} is checked out in {info.url}: an older thrum uses it, or someone switched to it",
        "there: thrum daemon restart, with this version; or git switch to another branch",
    )


def pushed(done: Finished) -> Pushed:
    """What `git push --porcelain` of one ref says."""
    lines = [line for line in done.out.splitlines() if "\t" in line]
    if done.status == 0 and lines:
        return "pushed"
    refused = [line for line in lines if line.startswith("!")]
    words = "\n".join([*refused, done.err]).lower()
    raced = bool(refused) and any(race in "\n".join(refused).lower() for race in _RACES)
    return "raced" if raced and not any(sign in words for sign in _NOT_RACES) else "refused"


def remove_stale_lock(common_dir: Path, ref: str) -> bool:
    """Remove the lock of a ref of ours that a killed git left behind: no git holds one for a minute."""
    lock = common_dir / f"{ref}.lock"
    try:
        if SystemClock().now_ms() / 1000 - lock.stat().st_mtime < SILENT_SECONDS_MAX:
            return False
        lock.unlink()
    except OSError:
        return False
    return True


def local_path(url: str, root: Path) -> str:
    """The directory on this machine that a remote's URL names, absolute; `""` for everything else. By git's rules."""
    scheme, mark, rest = url.partition("://")
    if mark:
        path = unquote(rest) if scheme.lower() == "file" and rest.startswith("/") else ""
        return "" if "\0" in path else path
    colon, slash = url.find(":"), url.find("/")
    if colon >= 0 and not 0 <= slash < colon:
        return ""  # host:path, or a helper's address
    return os.path.normpath(os.path.join(root, url))


def ref_stamp(path: str) -> str:
    """What changes on disk when the branch of the repository at a path moves."""
    try:
        git_dir = _common_dir(path)
        if git_dir is None:
            return "none"
        tip = read_text(git_dir / REF)
    except OSError as error:
        return f"closed: {error.strerror}"
    return " ".join([tip, *(_stamp(str(git_dir / name)) for name in ("packed-refs", "reftable/tables.list"))])


def _common_dir(path: str) -> Path | None:
    """Where the refs of the repository at a path lie. Raises OSError."""
    git_dir = _git_dir(path)
    common = "" if git_dir is None else read_text(git_dir / "commondir")
    return git_dir / common if git_dir is not None and common else git_dir


def _git_dir(path: str) -> Path | None:
    """The git directory of a repository at a path, in the order in which git looks."""
    for end in ("/.git", "", ".git/.git", ".git"):
        found = Path(path + end)
        if (found / "objects").is_dir() and (found / "HEAD").exists():
            return found
        if found.is_file() and (target := read_text(found).removeprefix("gitdir:").strip()):
            return found.parent / target
    return None


def _stamp(file: str) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return "-"
    return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"
