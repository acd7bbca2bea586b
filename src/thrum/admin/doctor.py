"""Checks whether this machine, repository and clone are fit for thrum (cli.md 3.16). Read-only; needs no daemon.

Each check is a function from the present state to a finding. What a running daemon reports about itself is passed in.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec

from thrum.admin import git_permissions, hook_check
from thrum.git.runner import run_git
from thrum.identity.daemon_key import key_flaw, load_key
from thrum.identity.files import list_identities
from thrum.model import config, config_acceptance, events, files, ids, limits, settings
from thrum.model.clock import SystemClock, parse_ms
from thrum.model.errors import InvalidUrl, ThrumError, in_shell
from thrum.model.methods.daemon import HealthResult
from thrum.model.methods.sync import SyncStatusResult
from thrum.model.notes import roots
from thrum.model.paths import Layout, tracked_in
from thrum.model.wire_types import TeamMember
from thrum.rpc import sockets
from thrum.rpc.listener import few_open_files
from thrum.store.journal import JournalFiles, bare
from thrum.sync import branch
from thrum.sync.mirror_refspecs import meetings
from thrum.version import VERSION

GIT_OLDEST: Final = (2, 31)
_FREE_LITTLE: Final = 1024 * limits.MIB
_FREE_LEAST: Final = 100 * limits.MIB
_AHEAD_MS: Final = 120_000

Status = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, omit_defaults=True, kw_only=True):
    name: str
    status: Status
    detail: str
    remedy: str = ""


class Doctor(msgspec.Struct, kw_only=True):
    """`Doctor` of cli.md §4. `ok`: nothing fails."""

    ok: bool
    checks: list[Finding]


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. `refusal`: why there are no places; the rest: of the daemon, if it answers.

    `agents`: those of this machine with a session.
    """

    environ: Mapping[str, str]
    layout: Layout | None
    refusal: ThrumError | None = None
    health: HealthResult | None = None
    sync: SyncStatusResult | None = None
    agents: Sequence[TeamMember] = ()


def examine(patient: Patient) -> Doctor:
    """Every check that can be made. Raises nothing: what fails is a finding."""
    checks = [_python(), _guarded("git", lambda: _git(patient.environ))]
    checks.append(_guarded("tmux", lambda: _tmux(patient.environ)))
    layout = patient.layout
    if layout is None:
        refusal = patient.refusal
        detail, remedy = (refusal.message, refusal.remedy) if refusal else ("there is none here", "thrum init")
        checks.append(Finding(name="repository", status="fail", detail=detail, remedy=remedy))
    else:
        here: list[tuple[str, Callable[[], Finding]]] = [
            ("repository", lambda: _repository(layout, patient.environ)),
            ("readers", lambda: _readers(layout, patient.environ)),
            ("socket", lambda: _socket(layout)),
            ("space", lambda: _space(layout)),
            ("clock", lambda: _clock(layout)),
            ("open files", lambda: _open_files(patient.health)),
            ("daemon", lambda: _daemon(layout, patient.health)),
            ("config", lambda: _config(layout)),
            ("tracked", lambda: _tracked(layout)),
            ("hooks", lambda: _hooks(layout, patient)),
            ("key", lambda: _key(layout)),
            ("identities", lambda: _identities(layout)),
            ("repository id", lambda: _repository_id(layout, patient.environ)),
            ("sync", lambda: _sync(layout, patient)),
        ]
        checks += [_guarded(name, check) for name, check in here]
    return Doctor(ok=all(check.status != "fail" for check in checks), checks=checks)


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except ThrumError as error:
        return Finding(name=name, status="fail", detail=error.message, remedy=error.remedy)
    except OSError as error:
        detail = f"{error.filename or name}: {(error.strerror or str(error)).lower()}"
        return Finding(name=name, status="fail", detail=detail, remedy="fix its permissions, then: thrum doctor")


def _found(name: str, status: Status, detail: str, remedy: str = "") -> Finding:
    return Finding(name=name, status=status, detail=detail, remedy=remedy)


# -- the machine


def _python() -> Finding:
    return _found("python", "ok", f"Python {platform.python_version()}, thrum {VERSION}")


def _git(environ: Mapping[str, str]) -> Finding:
    done = run_git(["--version"], environ)
    if done is None or done.returncode != 0:
        return _found("git", "fail", "git is not installed, and thrum needs it", "install git")
    said = done.stdout.decode(errors="replace").strip()
    numbers = re.search(r"(\d+)\.(\d+)", said)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < GIT_OLDEST:
        oldest = ".".join(map(str, GIT_OLDEST))
        return _found("git", "warn", f"{said} is old", f"install git {oldest} or newer")
    return _found("git", "ok", said)


def _tmux(environ: Mapping[str, str]) -> Finding:
    found = shutil.which("tmux", path=environ.get("PATH"))
    if found is None:
        return _found(
            "tmux", "warn", "not installed: thrum tmux and waking through it are not available", "install tmux"
        )
    return _found("tmux", "ok", found)


def _space(layout: Layout) -> Finding:
    least = min(
        (shutil.disk_usage(directory).free, str(directory))
        for directory in (_existing(layout.thrum_sync_dir), _existing(layout.state_dir))
    )
    free, directory = least
    detail = f"{free // limits.MIB} MiB free in {directory}"
    if free < _FREE_LEAST:
        return _found("space", "fail", detail, "free space: a full disk refuses every message")
    return _found("space", "warn" if free < _FREE_LITTLE else "ok", detail, "free space" * (free < _FREE_LITTLE))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _clock(layout: Layout) -> Finding:
    newest_ms, file = _newest_fact(layout)
    ahead_ms = newest_ms - SystemClock().now_ms()
    if not newest_ms:
        return _found("clock", "ok", "no fact to compare it with yet")
    if ahead_ms <= _AHEAD_MS:
        return _found("clock", "ok", "not behind the newest fact")
    detail = f"the newest fact ({file}) is {ahead_ms // 60_000} min ahead of this clock"
    status = "fail" if ahead_ms > limits.future_stamp_ms_max else "warn"
    return _found("clock", status, detail, "set this clock, or that of the machine that wrote it (timedatectl, ntp)")


def _open_files(health: HealthResult | None) -> Finding:
    """Of the running daemon, else of one that would be started from here: it takes all that the hard limit gives."""
    if health is not None and sys.platform == "linux":
        allowed, of = resource.prlimit(health.pid, resource.RLIMIT_NOFILE)[0], "the daemon"
    else:
        allowed, of = resource.getrlimit(resource.RLIMIT_NOFILE)[1], "a daemon started here"
    if allowed == resource.RLIM_INFINITY:
        return _found("open files", "ok", "any number")
    few = few_open_files(allowed)
    remedy = "raise the limit: ulimit -n 4096 (ulimit -Hn shows how far it goes), then: thrum daemon restart"
    return _found("open files", "warn", few, remedy) if few else _found("open files", "ok", f"{allowed} for {of}")


def _newest_fact(layout: Layout) -> tuple[int, str]:
    """Time and journal of the newest of all last lines, 0 without any. Arrival is nearly the order of time."""
    journals = JournalFiles(layout.branch_dir, layout.local_journal)
    newest = (0, "")
    for file in journals.names():
        file_state = journals.accept_state(file)
        if file_state is None or not file_state.size:
            continue
        try:
            fact = events.decode(bare(journals.last_line(file, file_state.size).raw))
        except events.BadLine:
            continue
        newest = max(newest, (parse_ms(fact.timestamp), file))
    return newest


# -- the repository


def _repository(layout: Layout, environ: Mapping[str, str]) -> Finding:
    if layout.common_dir is None:
        return _found("repository", "warn", f"{layout.main_root} is not a git repository", "git init; thrum init")
    branch.verify_owner(layout.main_root, layout.common_dir, environ)
    # It looks at all that thrum needs of git, and refuses what it can't use.
    state = branch.branch_state(layout, environ)
    if state.branch == "made" or state.worktree_made:
        detail = f"{layout.main_root} lacks the branch {branch.BRANCH}, or its worktree"
        return _found("repository", "warn", detail, "thrum daemon restart")
    if where := branch.on_branch(layout.common_dir, layout.branch_dir):
        refusal = branch.checked_out(where)
        return _found("repository", "warn", f"{refusal.message}: nothing is committed or sent", refusal.remedy)
    for met in meetings(layout.common_dir, environ):
        return _found("repository", "warn", str(met), met.remedy)
    return _found("repository", "ok", f"{layout.main_root}, yours")


def _readers(layout: Layout, environ: Mapping[str, str]) -> Finding:
    """Which other users of this machine can read messages."""
    found = git_permissions.exposures(layout, environ)
    if found:
        remedy = "; ".join(each.remedy for each in found)
        return _found("readers", "warn", "; ".join(map(str, found)), remedy)
    return _found("readers", "ok", "no other user of this machine can read messages here (root can)")


def _socket(layout: Layout) -> Finding:
    """A socket made and connected where the daemon has its own."""
    bound = sockets.socket_paths(layout)
    directory = bound.rpc.parent
    if directory.exists() and (flaw := sockets.private_dir_flaw(directory)):
        remedy = f"chmod 700 {in_shell(directory)}; thrum daemon restart"
        if bound.private_dir is not None:
            remedy = sockets.flaw_remedy(directory, flaw)
        return _found("socket", "fail", f"{directory} {flaw}", remedy)
    if not os.access(_existing(directory), os.W_OK | os.X_OK):
        return _found("socket", "fail", f"{directory} can't be written", f"make {directory} writable")
    found = files.status(bound.rpc)
    if found is not None and stat.S_IMODE(found.st_mode) & 0o077:
        return _found("socket", "fail", f"{bound.rpc} is open to other users", "thrum daemon restart")
    try:
        _try_socket(_existing(directory))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            remedy = f"run thrum outside it, or allow it the socket {bound.rpc}"
            return _found("socket", "fail", "a sandbox forbids Unix sockets", remedy)
        why = (error.strerror or str(error)).lower()
        return _found("socket", "warn", f"{directory} takes no sockets ({why}): the daemon uses a short path in /tmp")
    where = f"{bound.rpc} (a short one: the repository's path is long)" if bound.private_dir else f"{bound.rpc}"
    return _found("socket", "ok", where)


def _try_socket(directory: Path) -> None:
    """Raises OSError when no socket can be made there and connected."""
    path = f"{directory}/.doctor-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        if len(os.fsencode(path)) > limits.socket_path_bytes_max_macos:
            # Too long for a test of its own; whether sockets may be made at all shows without a path.
            one, other = socket.socketpair()
            one.close()
            other.close()
            return
        try:
            listener.bind(path)
            listener.listen(1)
            caller.settimeout(1.0)
            caller.connect(path)
        finally:
            Path(path).unlink(missing_ok=True)


def _daemon(layout: Layout, health: HealthResult | None) -> Finding:
    if health is not None:
        if health.problems:
            return _found("daemon", "warn", "; ".join(health.problems), "thrum daemon logs -n 20")
        if health.version != VERSION:
            detail = f"running (pid {health.pid}) is thrum {health.version}, this command {VERSION}"
            return _found("daemon", "warn", detail, "thrum daemon restart")
        return _found("daemon", "ok", f"running (pid {health.pid})")
    holder = files.lock_holder(layout.lock_file)
    if holder is not None:
        return _found("daemon", "fail", f"one runs (pid {holder}) but does not answer", "thrum daemon restart")
    stopped = files.is_file(layout.stopped_mark)
    return _found("daemon", "ok", f"not running{' (stopped)' * stopped}; commands start it when they need it")


def _config(layout: Layout) -> Finding:
    counts = config.load_config(layout.config_file)
    if notice := config_acceptance.notice(layout):
        return _found("config", "warn", notice, "thrum config diff; thrum config accept, or: thrum doctor --fix")
    if unknown := settings.unknown(counts.raw):
        detail = f"unknown, so ignored: {', '.join(unknown)}"
        return _found("config", "warn", detail, "thrum config show lists the keys; edit .thrum/config.json")
    return _found("config", "ok", str(layout.config_file))


def _tracked(layout: Layout) -> Finding:
    """Whether a branch has something at or below `.thrum`: it is a person's to look at."""
    found = [f"{root / path}" for root in roots(layout) for path in tracked_in(root)]
    if not found:
        return _found("tracked", "ok", "git tracks no file of thrum")
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    detail = f"git tracks {', '.join(found[:3])}{more}: nothing is written there"
    return _found(
        "tracked", "warn", detail, "leave the branch; or: git rm -r --cached .thrum, then: thrum doctor --fix"
    )


def _hooks(layout: Layout, patient: Patient) -> Finding:
    return _found("hooks", *hook_check.check(layout, patient.environ, patient.agents))


# -- identities


def _identities(layout: Layout) -> Finding:
    homes: dict[str, list[str]] = {}
    flaws: list[str] = []
    for root in roots(layout):
        for listed in list_identities(root / ".thrum" / "identities"):
            if listed.identity is None:
                flaws.append(f"{listed.path} is broken: {listed.broken}")
            else:
                homes.setdefault(listed.identity.name, []).append(str(listed.path))
    flaws += [f"{name} is in two roots: {', '.join(files)}" for name, files in homes.items() if len(files) > 1]
    if flaws:
        remedy = "delete the file of the root that the agent does not live in (thrum agent list), or fix it"
        return _found("identities", "warn", "; ".join(flaws), remedy)
    count = len(homes)
    return _found("identities", "ok", f"{count} agent{'s' * (count != 1)} with a file here")


def _key(layout: Layout) -> Finding:
    flaw, remedy = key_flaw(layout.daemon_key)
    if flaw:
        return _found("key", "fail", flaw, remedy)
    key = load_key(layout.daemon_key)
    if key is None:
        return _found("key", "ok", "made when the daemon starts")
    return _found("key", "ok", f"of {ids.short_daemon_id(key.daemon_id)}")


def _repository_id(layout: Layout, environ: Mapping[str, str]) -> Finding:
    block: Any = config.read_raw(layout.config_file).get("identity")
    made: Any = cast("dict[str, Any]", block).get("repo_id", "") if isinstance(block, dict) else ""
    origin = "" if layout.common_dir is None else branch.origin_url(layout.common_dir, environ)
    try:
        derived = ids.repo_id_of_url(origin, layout.main_root) if origin else ""
    except InvalidUrl:
        derived = ""
    if made and derived and made != derived:
        detail = f"{made} is kept, although the origin added later would give {derived}: unnamed agents keep their ids"
        remedy = "leave it so; in a clone of the origin unnamed agents have other ids, so give agents names"
        return _found("repository id", "warn", detail, remedy)
    return _found("repository id", "ok", str(made or derived or "made when the daemon starts"))


# -- sync


def _sync(layout: Layout, patient: Patient) -> Finding:
    told = patient.sync
    if told is not None and told.local_only:
        return _found("sync", "ok", f"local only: {told.local_only_reason}", "")
    if told is not None:
        where = f"{told.remote} ({told.remote_url})" if told.remote else "no remote"
        if told.last_error:
            return _found("sync", "warn", f"{where}: {told.last_error}", told.remedy or "thrum sync force --wait")
        waiting = f", {told.pending} not pushed yet" if told.pending else ""
        return _found("sync", "ok", f"{where}: {told.sync_state}{waiting}")
    try:
        found = config.load_config(layout.config_file)
    except ThrumError:
        return _found("sync", "warn", "not known while config.json is broken", "fix it, then: thrum doctor")
    if found[settings.LOCAL_ONLY] or layout.common_dir is None:
        return _found("sync", "ok", "local only")
    name = found[settings.SYNC_REMOTE]
    done = run_git([f"--git-dir={layout.common_dir}", "remote", "get-url", name], patient.environ)
    if done is None or done.returncode != 0:
        return _found("sync", "warn", f"turned on, but there is no remote {name}", f"git remote add {name} URL")
    url = ids.without_credentials(os.fsdecode(done.stdout).strip())
    return _found("sync", "ok", f"{name} ({url}); the daemon does it when it runs")
