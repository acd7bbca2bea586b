"""Identity files: `<root>/.thrum/identities/{stem}.json`, version 5 (identity.md §4, §7).

Older versions are read, newer ones keep their number; what this program doesn't know survives every rewrite. Every
write holds the directory's lock, reads again inside it, and replaces the file as a whole. `write_pid` alone writes the
pid.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from thrum.identity.processes import Process
from thrum.identity.selection import Candidate
from thrum.model import limits
from thrum.model.clock import format_ms, parse_ms
from thrum.model.errors import IdentityInvalid, IdentityNotFound, StateTracked, ThrumError, in_shell
from thrum.model.files import (
    atomic_write,
    ensure_private_dir,
    is_file,
    locked,
    names_in,
    open_file,
    read_bytes,
    remove,
    rename,
    status,
    sync_directory,
)
from thrum.model.ids import agent_id_of, file_stem, parse_agent_id
from thrum.model.paths import is_tracked

VERSION = 5


class Pid(NamedTuple):
    """A recorded process: both are set or neither is."""

    pid: int = 0
    started: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an identity file says. Empty values are absent in the file."""

    name: str
    """The agent id."""
    role: str
    module: str
    kind: str = "agent"
    display: str = ""
    version: int = VERSION
    repo_id: str = ""
    worktree: str = ""
    branch: str = ""
    intent: str = ""
    session_id: str = ""
    agent_pid: int = 0
    agent_pid_started: str = ""
    preferred_runtime: str = ""
    runtime: str = ""
    tmux_session: str = ""
    agent_status: str = ""
    agent_status_updated_at: str = ""
    confirmed_by: str = ""
    context_file: str = ""
    reserved: bool = False
    updated_at: str = ""
    unknown: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of other programs, kept."""
    unknown_agent: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The same inside `agent`."""

    @property
    def owner(self) -> Pid:
        return Pid(self.agent_pid, self.agent_pid_started)

    @property
    def updated_seconds(self) -> float:
        """`updated_at` as seconds since 1970; 0 if it is none."""
        try:
            return parse_ms(self.updated_at) / 1000
        except ValueError:
            return 0.0


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a directory: an identity, or why it is none."""

    path: Path
    identity: Identity | None
    broken: str = ""

    @property
    def candidate(self) -> Candidate:
        """What the choice of an identity needs of it."""
        if self.identity is None:
            return Candidate(self.path.stem, broken=self.broken)
        each = self.identity
        return Candidate(each.name, each.worktree, each.updated_seconds, each.agent_pid, each.agent_pid_started)


# -- reading

_TEXTS_BEFORE_PID = ("worktree", "branch", "intent", "session_id")
_TEXTS_AFTER_PID = (
    "preferred_runtime",
    "runtime",
    "tmux_session",
    "agent_status",
    "agent_status_updated_at",
    "confirmed_by",
    "context_file",
)
_KNOWN = frozenset(
    {"version", "repo_id", "agent", "agent_pid", "agent_pid_started", "reserved", "updated_at"}
    | {*_TEXTS_BEFORE_PID, *_TEXTS_AFTER_PID}
)
_DROPPED = frozenset({"claude_pid"})
_TEXT_CHARS_MAX = 4_096
_AGENT_KNOWN = ("kind", "name", "role", "module", "display")


class _Broken(Exception):
    """The reason why a file is no identity."""


def identity_path(directory: Path, agent_id: str) -> Path:
    """Where an agent's file lies."""
    return directory / f"{file_stem(agent_id)}.json"


def list_identities(directory: Path) -> list[Listed]:
    """Every identity file of a root, by name, broken ones included; no links, hidden or retired files."""
    try:
        names = [name for name in names_in(directory) if name.endswith(".json") and not name.startswith(".")]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    names = [name for name in names if is_file(directory / name)]
    listed: list[Listed] = []
    for name in names:
        path = directory / name
        try:
            listed.append(Listed(path, _parse(_read(path), path.stem)))
        except FileNotFoundError:
            continue
        except (_Broken, OSError) as error:
            listed.append(Listed(path, None, str(error)))
    return listed


def list_retired(directory: Path) -> list[str]:
    """The names whose files were moved away in a root (`NAME.json.deleted`), the last one first."""
    try:
        names = [name for name in names_in(directory) if ".json.deleted" in name and not name.startswith(".")]
    except OSError:
        return []
    found = {name: status(directory / name) for name in names}
    last = sorted(names, key=lambda name: -(file.st_ctime if (file := found[name]) else 0))
    return list(dict.fromkeys(name.partition(".json.deleted")[0] for name in last))


def read_identity(path: Path) -> Identity:
    """The identity in a file. Raises IdentityNotFound or IdentityInvalid. Reading changes nothing."""
    if not is_file(path):
        raise IdentityNotFound(f".thrum/identities/{path.name} does not exist")
    try:
        return _parse(_read(path), path.stem)
    except (_Broken, OSError) as error:
        raise IdentityInvalid(f".thrum/identities/{path.name} is not a valid identity: {error}") from error


def _read(path: Path) -> bytes:
    """The bytes of a file that only its user can have written. Raises _Broken, OSError."""
    descriptor = open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Broken("it is not a regular file")
        if status.st_mode & stat.S_IWOTH:
            raise _Broken(f"others may write it: chmod 600 {in_shell(path)}")
        if status.st_uid not in (os.geteuid(), 0) and status.st_uid != _owner_of_root(path):
            raise _Broken(f"it belongs to another user (uid {status.st_uid})")
        if status.st_size > limits.read_bytes_max:
            raise _Broken(f"it is larger than {limits.read_bytes_max} bytes")
        return file.read()


def _owner_of_root(path: Path) -> int:
    """Whose the worktree is: a repository of another user may be allowed (`safe.directory`), and then this user is."""
    return path.parent.parent.parent.stat().st_uid


def _parse(data: bytes, stem: str) -> Identity:
    try:
        raw: Any = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _Broken(f"no JSON ({error})") from error
    if not isinstance(raw, dict):
        raise _Broken("no JSON object")
    fields = cast("dict[str, Any]", raw)
    inner: Any = fields.get("agent")
    unknown_agent: dict[str, Any] = {}
    agent: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", inner if isinstance(inner, dict) else {}).items():
        if key.lower() in _AGENT_KNOWN:
            agent[key.lower()] = value
        else:
            unknown_agent[key] = value
    role, module, repo_id = _text(agent, "role"), _text(agent, "module"), _text(fields, "repo_id")
    if not role:
        raise _Broken("agent.role is missing")
    for value in (*agent.values(), *(value for key, value in fields.items() if key in _KNOWN)):
        # What is printed, logged or used of a file that may come from anywhere is a line, and no longer than a name.
        if isinstance(value, str) and not (value.isprintable() and len(value) <= _TEXT_CHARS_MAX):
            raise _Broken("a value is not a line of text, or too long")
    version = fields.get("version")
    pid = fields.get("agent_pid")
    started = _text(fields, "agent_pid_started")
    pid = pid if isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else 0
    return Identity(
        name=_name_of(_text(agent, "name"), role, module, repo_id, stem),
        role=role,
        module=module,
        kind=_text(agent, "kind") or "agent",
        display=_text(agent, "display"),
        version=version if isinstance(version, int) and not isinstance(version, bool) else 1,
        repo_id=repo_id,
        agent_pid=pid,
        agent_pid_started=started if pid else "",
        reserved=fields.get("reserved") is True,
        updated_at=_text(fields, "updated_at"),
        unknown={key: value for key, value in fields.items() if key not in _KNOWN and key not in _DROPPED},
        unknown_agent=unknown_agent,
        **{key: _text(fields, key) for key in (*_TEXTS_BEFORE_PID, *_TEXTS_AFTER_PID)},
    )


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _name_of(name: str, role: str, module: str, repo_id: str, stem: str) -> str:
    """The agent id of a file; raises _Broken when it is not the file's own."""
    if not name:
        computed = agent_id_of(repo_id, role, module)
        if stem not in (computed, f"{role}_{module}"):
            raise _Broken("agent.name is missing")
        return computed
    if file_stem(name) != stem:
        raise _Broken(f'agent.name is "{name}", which differs from the file\'s name')
    return parse_agent_id(name).canonical if name.startswith("agent:") else name


# -- writing


def _render(identity: Identity) -> dict[str, Any]:
    """The file's object: known fields in the order of identity.md §4, then the others in their old order."""
    agent: dict[str, Any] = {key: getattr(identity, key) for key in ("kind", "name", "role", "module")}
    if identity.display:
        agent["display"] = identity.display
    agent.update(identity.unknown_agent)
    rendered: dict[str, Any] = {
        "version": max(identity.version, VERSION),
        "repo_id": identity.repo_id,
        "agent": agent,
        # Never absent, even if unknown.
        "worktree": identity.worktree,
    }
    optional: dict[str, Any] = {key: getattr(identity, key) for key in _TEXTS_BEFORE_PID}
    optional |= {"agent_pid": identity.agent_pid, "agent_pid_started": identity.agent_pid_started}
    optional |= {key: getattr(identity, key) for key in _TEXTS_AFTER_PID}
    optional |= {"reserved": identity.reserved}
    rendered |= {key: value for key, value in optional.items() if value}
    rendered["updated_at"] = identity.updated_at
    return rendered | dict(identity.unknown)


def _bytes_of(rendered: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(rendered, indent=2, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half a surrogate pair, as only an escape can write it.
        return json.dumps(rendered, indent=2).encode() + b"\n"


def lock_path(directory: Path) -> Path:
    """The lock that every writer of a root's identity files holds."""
    return directory / ".lock"


def update_identity(
    directory: Path, agent_id: str, change: Callable[[Identity | None], Identity | None], *, now_ms: int
) -> Identity | None:
    """Change one agent's file, or make it: `change` gets what is there now and gives what shall be.

    Under the directory's lock. None from `change` leaves the file alone. The recorded pid is kept whatever `change`
    says (see `write_pid`), `updated_at` is set here, and when nothing else changed nothing is written. An old file of
    an unnamed agent under another name is retired by the first write. Returns what is there afterwards. Raises
    IdentityInvalid for a broken file, OSError.
    """
    ensure_private_dir(directory)
    with locked(lock_path(directory)):
        path = identity_path(directory, agent_id)
        if is_tracked(path):
            raise StateTracked(f"git tracks {path}: nothing is written there")
        old_path = path if status(path) is not None else _old_form(directory, agent_id)
        before = None if old_path is None else read_identity(old_path)
        after = change(before)
        if after is None:
            return before
        if file_stem(after.name) != path.stem:
            raise ValueError(f"{after.name!r} is not {agent_id!r}")
        owner = Pid() if before is None else before.owner
        after = replace(after, agent_pid=owner.pid, agent_pid_started=owner.started)
        return _write(path, old_path, after, now_ms)


def rename_identity(directory: Path, old: str, new: str, *, now_ms: int) -> bool:
    """Let the file of `old` be that of `new`, with all that is in it; the old file is retired. False if there is none.
    One of the new name stays as it is: a kill came between the two. Under the directory's lock. Raises IdentityInvalid,
    StateTracked, OSError.
    """
    if status(directory) is None:
        return False
    with locked(lock_path(directory)):
        path = identity_path(directory, new)
        found = identity_path(directory, old)
        old_path = found if status(found) is not None else _old_form(directory, old)
        if old_path is None:
            return False
        if status(path) is not None:
            _retire(old_path)
            return True
        if is_tracked(path):
            raise StateTracked(f"git tracks {path}: nothing is written there")
        _write(path, old_path, replace(read_identity(old_path), name=new), now_ms)
        return True


def _old_form(directory: Path, agent_id: str) -> Path | None:
    """The file `{role}_{module}.json` in which older programs kept an unnamed agent."""
    if parse_agent_id(agent_id).kind != "unnamed":
        return None
    for listed in list_identities(directory):
        if listed.identity is not None and listed.identity.name == agent_id:
            return listed.path
    return None


def _write(path: Path, old_path: Path | None, identity: Identity, now_ms: int) -> Identity:
    """Write unless only `updated_at` would differ, and retire the file of an older name. Call it under the lock."""
    if old_path == path:
        known: Any = json.loads(read_bytes(path))
        if known == _render(replace(identity, updated_at=known.get("updated_at", ""))):
            return replace(identity, updated_at=_text(known, "updated_at"))
    identity = replace(identity, version=max(identity.version, VERSION), updated_at=format_ms(now_ms))
    atomic_write(path, _bytes_of(_render(identity)))
    if old_path is not None and old_path != path:
        _retire(old_path)
    return identity


def write_pid(
    path: Path,
    expected: Pid,
    process: Process | None,
    *,
    runtime_of: Callable[[Process], str | None],
    owner_of: Callable[[Process], str | None],
    now_ms: int,
) -> Pid:
    """Record which process an identity is, or None for none: the only writer of `agent_pid` (identity.md §7).

    Compares and sets: when the file no longer holds `expected`, nothing is written. Returns what the file holds
    afterwards. `runtime_of` tells a process's runtime, `owner_of` the identity that already has it. Raises
    IdentityNotFound without a file, ValueError for a process that is not a runtime or has pid 1 or less, ThrumError for
    one that has another identity.
    """
    if process is not None and (process.pid <= 1 or not process.started or runtime_of(process) is None):
        raise ValueError(f"pid {process.pid} is not a runtime")
    if status(path.parent) is None:
        raise IdentityNotFound(f".thrum/identities/{path.name} does not exist")
    with locked(lock_path(path.parent)):
        identity = read_identity(path)
        if identity.owner != expected:
            return identity.owner
        if process is not None:
            other = owner_of(process) or _sibling_with(path, process)
            if other is not None and other != identity.name:
                raise ThrumError(f"pid {process.pid} is already {other}; it can't also be {identity.name}")
        owner = Pid() if process is None else Pid(process.pid, process.started)
        after = replace(identity, agent_pid=owner.pid, agent_pid_started=owner.started)
        _write(identity_path(path.parent, identity.name), path, after, now_ms)
        return owner


def _sibling_with(path: Path, process: Process) -> str | None:
    owner = Pid(process.pid, process.started)
    for listed in list_identities(path.parent):
        if listed.identity is not None and listed.path != path and listed.identity.owner == owner:
            return listed.identity.name
    return None


def retire_identity(path: Path) -> Path | None:
    """Quarantine a file as `NAME.json.deleted`, `.deleted.2`, …; nothing is overwritten. None if there was none."""
    if status(path.parent) is None:
        return None
    with locked(lock_path(path.parent)):
        return _retire(path) if status(path) is not None else None


def remove_identity(directory: Path, agent_id: str) -> bool:
    """Take an agent's file away for good, also one of an older name. False if there was none. Raises OSError."""
    if status(directory) is None:
        return False
    with locked(lock_path(directory)):
        path = identity_path(directory, agent_id)
        found = path if status(path) is not None else _old_form(directory, agent_id)
        if found is None:
            return False
        remove(found)
        sync_directory(directory)
        return True


def _retire(path: Path) -> Path:
    target = path.with_name(f"{path.name}.deleted")
    number = 2
    while status(target) is not None:
        target = path.with_name(f"{path.name}.deleted.{number}")
        number += 1
    rename(path, target)
    sync_directory(path.parent)
    return target
