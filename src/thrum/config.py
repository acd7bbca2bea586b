"""The settings, read into frozen structs, and the one way to change it (cli.md 3.19).

Unknown keys are kept in the file and ignored here. The block `identity` belongs to `identity.daemon_id`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec

from thrum import limits
from thrum.errors import BadConfigValue, ConfigInvalid, StoreFailed, ThrumError
from thrum.files import atomic_write, ensure_private_dir, locked, read_bytes, status
from thrum.paths import Places, is_tracked

LogLevel = Literal["debug", "info", "warn", "error"]
Port = Literal["auto"] | int

_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+|\d+(?:\.\d+)?")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def duration_seconds(value: str | float) -> float:
    """Seconds of a duration as settings have it: `250ms`, `15s`, `1h30m`, `2d`, or bare seconds. ValueError if none."""
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            raise ValueError(f"not a duration: {value!r}")
        return sum(float(number) * _SECONDS[unit or None] for number, unit in _DURATION_PART.findall(value))
    if value < 0:
        raise ValueError(f"not a duration: {value!r}")
    return float(value)


def wishes_sync(environ: Mapping[str, str]) -> bool | None:
    """What THRUM_LOCAL says in place of `daemon.local_only` (cli.md §1.10): sync, don't, or None, nothing."""
    wish = environ.get("THRUM_LOCAL", "").strip().lower()
    return wish in ("0", "false") if wish else None


class DaemonConfig(msgspec.Struct, frozen=True, kw_only=True):
    local_only: bool = True
    ws_port: Port = "auto"
    peer_port: Port = "auto"
    single_agent_mode: bool = False
    log_level: LogLevel = "info"
    max_message_body_bytes: int = limits.body_bytes_max
    stale_session_end: str | float = "24h"

    @property
    def stale_session_end_seconds(self) -> float:
        return duration_seconds(self.stale_session_end)

    @property
    def body_bytes_max(self) -> int:
        """The setting may lower the limit, never raise it."""
        return min(self.max_message_body_bytes, limits.body_bytes_max)


class SyncConfig(msgspec.Struct, frozen=True, kw_only=True):
    remote: str = "origin"
    interval: str | float = "15s"
    debounce: str | float = "300ms"

    @property
    def interval_seconds(self) -> float:
        return duration_seconds(self.interval)

    @property
    def debounce_seconds(self) -> float:
        return duration_seconds(self.debounce)


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    primary: str = ""
    processes: dict[str, Any] = {}
    """More process names of runtimes (identity.md §5)."""


class WorktreesConfig(msgspec.Struct, frozen=True, kw_only=True):
    base_path: str = ""
    thrum_enabled: bool = True


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How many backups are kept; -1: all, 0: none."""

    daily: int = 5
    weekly: int = 4
    monthly: int = -1


class BackupConfig(msgspec.Struct, frozen=True, kw_only=True):
    dir: str = ""
    retention: RetentionConfig = RetentionConfig()


class RestartConfig(msgspec.Struct, frozen=True, kw_only=True):
    max_lines: int = 200
    auto_threshold: int = 0
    graceful_timeout: str | float = "30s"
    silence_watchdog_seconds: float = 30


class PeersConfig(msgspec.Struct, frozen=True, kw_only=True):
    auto_connect: bool = True
    pairing_code_length: int = 16


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every known setting with its value or default; `raw` is the file as it is."""

    daemon: DaemonConfig = DaemonConfig()
    sync: SyncConfig = SyncConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    worktrees: WorktreesConfig = WorktreesConfig()
    backup: BackupConfig = BackupConfig()
    restart: RestartConfig = RestartConfig()
    peers: PeersConfig = PeersConfig()
    identity_guard: Any = {}
    """Not checked here: a bad guard mode is a missing one, with a warning (identity.md §12)."""
    permission_supervisors: tuple[str, ...] = ("coordinator",)
    project_name: str = ""
    raw: dict[str, Any] = {}


def load_config(path: Path) -> Config:
    """The settings in a file; without a file the defaults. Raises ConfigInvalid, naming the line."""
    text, raw = _read(path)
    try:
        config = msgspec.convert({key: value for key, value in raw.items() if key != "raw"}, Config)
        _check_duration("daemon.stale_session_end", config.daemon.stale_session_end)
        _check_duration("sync.interval", config.sync.interval)
        _check_duration("sync.debounce", config.sync.debounce)
        _check_duration("restart.graceful_timeout", config.restart.graceful_timeout)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        keys = re.findall(r"[^.\[\]`]+", where)
        name = f"{'.'.join(keys)}: " if keys else ""
        raise ConfigInvalid(f"{_name(path)} is not valid: {name}{reason} at line {_line_of(text, keys)}") from error
    return msgspec.structs.replace(config, raw=raw)


def read_raw(path: Path) -> dict[str, Any]:
    """The file as it is, values unchecked; without a file nothing. Raises ConfigInvalid if it is no JSON object."""
    return _read(path)[1]


def update_config(path: Path, lock: Path, change: Callable[[dict[str, Any]], None]) -> bool:
    """Change the settings in place: read again under the lock, changed, replaced whole; True if anything changed.

    Keys that `change` leaves alone keep value and order. Nothing changed, nothing written. Raises ConfigInvalid (a
    broken file: not a byte of it changes), BadConfigValue (the change would break it) and StoreFailed.
    """
    try:
        ensure_private_dir(lock.parent)
        with locked(lock):
            _, config = _read(path)
            before = json.dumps(config)
            change(config)
            if json.dumps(config) == before:
                return False
            _check(config)
            ensure_private_dir(path.parent)
            atomic_write(path, encoded(config))
            return True
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error


def update_settings(places: Places, change: Callable[[dict[str, Any]], None]) -> bool:
    """Change the settings that count, and the copy of them that people edit; True if anything changed. Raises as above.

    What was changed in the copy outside thrum stays there, uncounted, and takes the change in too. A copy that git
    tracks is left alone (identity.md §3 "Trust").
    """
    before: dict[str, Any] = {}

    def noting(raw: dict[str, Any]) -> None:
        before.update(copy.deepcopy(raw))
        change(raw)

    changed = update_config(places.config_file, places.config_lock, noting)
    try:
        with locked(places.config_lock):
            follow(places, before, change)
    except OSError as error:
        name = error.filename or places.config_copy
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
    return changed


def follow(places: Places, before: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    """Make the copy what counts, after a change of what was `before`. Raises OSError."""
    counts = _read(places.config_file)[1]
    try:
        file = _read(places.config_copy)[1] if status(places.config_copy) is not None else before
    except ConfigInvalid:
        return  # somebody is at work there
    if file == before:
        file = counts
    else:
        with contextlib.suppress(ThrumError):
            change(file)
    if status(places.config_file) is not None and not is_tracked(places.config_copy):
        write_copy(places.config_copy, file)


def write_copy(path: Path, raw: dict[str, Any]) -> None:
    """Write settings where people edit them, unless they stand there. Raises OSError."""
    with contextlib.suppress(ConfigInvalid):
        if status(path) is not None and _read(path)[1] == raw:
            return
    atomic_write(path, encoded(raw))


def encoded(raw: dict[str, Any]) -> bytes:
    """Settings as they stand in a file."""
    return json.dumps(raw, indent=2, ensure_ascii=False).encode() + b"\n"


def set_value(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making the objects on its way. Raises ConfigInvalid if something else stands there."""
    *groups, last = key.split(".")
    for depth, group in enumerate(groups, 1):
        inner: Any = config.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigInvalid(f".thrum/config.json is not valid: {'.'.join(groups[:depth])} is not an object")
        config = cast("dict[str, Any]", inner)
    config[last] = value


def _check_duration(key: str, value: str | float) -> None:
    try:
        duration_seconds(value)
    except ValueError as error:
        raise msgspec.ValidationError(f"{error} - at `$.{key}`") from error


def _check(raw: dict[str, Any]) -> None:
    try:
        msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        raise BadConfigValue(f"{where.rstrip('`') or 'config.json'}: {reason}") from error


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise ConfigInvalid(f"{_name(path)} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8")
        raw: Any = json.loads(text, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(f"{_name(path)} is not valid: not UTF-8 at line {line}") from error
    except json.JSONDecodeError as error:
        raise ConfigInvalid(f"{_name(path)} is not valid: {error.msg} at line {error.lineno}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{_name(path)} is not valid: {error} at line 1") from error
    if not isinstance(raw, dict):
        raise ConfigInvalid(f"{_name(path)} is not valid: not an object at line 1")
    return text, cast("dict[str, Any]", raw)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def refuse_constant(name: str) -> float:
    """For `parse_constant`: Python's `NaN` and `Infinity` are no JSON."""
    raise ValueError(f"{name} is no JSON")


def _line_of(text: str, keys: list[str]) -> int:
    """The line on which a key stands, below those that hold it."""
    at = 0
    for key in keys:
        at = max(at, text.find(json.dumps(key), at))
    return text.count("\n", 0, at) + 1
