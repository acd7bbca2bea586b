"""The settings files: read completely or not at all, and the one way to change them (cli.md 3.19).

What each setting must be is in `settings`; unknown keys are kept in the file and ignored. The block `identity` belongs
to `identity.daemon_id`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from thrum.model import json_text, settings
from thrum.model.errors import BadConfigValue, ConfigInvalid, StoreFailed, ThrumError
from thrum.model.files import atomic_write, ensure_private_dir, locked, read_bytes, status
from thrum.model.paths import Layout, is_tracked
from thrum.model.settings import Setting, Value

log: Final = logging.getLogger("thrum.model.settings")

T = TypeVar("T")

_FIX: Final = "fix the file, then: thrum config show"


def sync_override(environ: Mapping[str, str]) -> bool | None:
    """What THRUM_LOCAL says in place of `daemon.local_only` (cli.md §1.10): sync, don't, or None, nothing."""
    wish = environ.get("THRUM_LOCAL", "").strip().lower()
    return wish in ("0", "false") if wish else None


@dataclass(frozen=True, slots=True)
class Config:
    """Settings that keep to their rules: `config[settings.SYNC_INTERVAL]`, the default where the file says nothing."""

    raw: dict[str, Any] = field(default_factory=dict[str, Any])
    """The file as it is."""

    def __getitem__(self, setting: Setting[T]) -> T:
        return setting.of(self.raw)


# -- reading


def load_config(path: Path) -> Config:
    """The settings in a file; without a file the defaults. Raises ConfigInvalid with every key that `config set` would
    refuse, and its line.
    """
    document = _read(path)
    if found := settings.flaws(document.value):
        reasons = "; ".join(f"{flaw.message} at line {document.lines[flaw.path]}" for flaw in found)
        key = ".".join(map(str, found[0].path))
        remedy = f"thrum config set {key} VALUE, or: thrum config unset {key}" if key in settings.SETTINGS else _FIX
        raise ConfigInvalid(f"{_name(path)} is not valid: {reasons}", remedy=remedy)
    return Config(document.value)


def read_raw(path: Path) -> dict[str, Any]:
    """The file as it is, values unchecked; without a file nothing. Raises ConfigInvalid if it is no JSON object."""
    return _read(path).value


class LiveConfig:
    """What a running daemon goes by: the file, read again when it is another one; the last good one while it is broken.

    Cheap to ask: a `stat` while nothing changes.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigInvalid: nothing starts with settings that are broken."""
        self._path = path
        self._seen = self._look()
        self._config = load_config(path)
        self.problem = ""
        """Why the file does not count as it is now."""

    def current(self) -> Config:
        """The settings, now."""
        seen = self._look()
        if seen is not None and seen != self._seen:
            # As it was before it was read: what is written meanwhile is found the next time.
            self._seen = seen
            self._read_again()
        return self._config

    def _read_again(self) -> None:
        try:
            self._config, self.problem = load_config(self._path), ""
        except ConfigInvalid as error:
            self.problem = f"{error.message}: the previous settings stay in effect"
            log.warning("%s", self.problem)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


# -- changing


def change(layout: Layout, key: str, value: Any) -> Value:
    """Set one key, nothing else. Raises BadConfigKey, BadConfigValue, ConfigInvalid, StoreFailed."""
    settings.check_value(key, value)
    update_settings(layout, lambda raw: settings.set_value(raw, key, value))
    return Value(value, "config.json")


def unset(layout: Layout, key: str) -> Value:
    """Take one key out of the file, and objects that it leaves empty; fine if it is not there. Raises as above."""
    settings.find(key)
    update_settings(layout, partial(settings.remove, key=key))
    return settings.setting_value({}, key)


def update_config(path: Path, lock: Path, change: Callable[[dict[str, Any]], None]) -> bool:
    """Change the settings in place: read again under the lock, changed, replaced whole; True if anything changed.

    Keys that `change` leaves alone keep value and order. Nothing changed, nothing written. Raises ConfigInvalid (a
    broken file: not a byte of it changes), BadConfigValue (the change would break it) and StoreFailed.
    """
    try:
        ensure_private_dir(lock.parent)
        with locked(lock):
            config = read_raw(path)
            before = copy.deepcopy(config)
            change(config)
            if json.dumps(config) == json.dumps(before):
                return False
            _check(before, config)
            ensure_private_dir(path.parent)
            atomic_write(path, encoded(config))
            return True
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error


def update_settings(layout: Layout, change: Callable[[dict[str, Any]], None]) -> bool:
    """Change the settings that count, and the copy of them that people edit; True if anything changed. Raises as above.

    What was changed in the copy outside thrum stays there, uncounted, and takes the change in too. A copy that git
    tracks is left alone (identity.md §3 "Trust").
    """
    before: dict[str, Any] = {}

    def noting(raw: dict[str, Any]) -> None:
        before.update(copy.deepcopy(raw))
        change(raw)

    changed = update_config(layout.config_file, layout.config_lock, noting)
    try:
        with locked(layout.config_lock):
            follow(layout, before, change)
    except OSError as error:
        name = error.filename or layout.config_copy
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
    return changed


def follow(layout: Layout, before: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    """Make the copy what counts, after a change of what was `before`. Raises OSError."""
    counts = read_raw(layout.config_file)
    try:
        file = read_raw(layout.config_copy) if status(layout.config_copy) is not None else before
    except ConfigInvalid:
        return  # another process is at work there
    if file == before:
        file = counts
    else:
        with contextlib.suppress(ThrumError):
            change(file)
    if status(layout.config_file) is not None and not is_tracked(layout.config_copy):
        write_copy(layout.config_copy, file)


def write_copy(path: Path, raw: dict[str, Any]) -> None:
    """Write settings to the file that people edit, unless they are there already. Raises OSError."""
    with contextlib.suppress(ConfigInvalid):
        if status(path) is not None and read_raw(path) == raw:
            return
    atomic_write(path, encoded(raw))


def encoded(raw: dict[str, Any]) -> bytes:
    """Settings as they are in a file."""
    return json.dumps(raw, indent=2, ensure_ascii=False).encode() + b"\n"


def _check(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuse a change that adds a flaw; those that were there are fixed one by one. Raises BadConfigValue."""
    known = settings.flaws(before)
    for flaw in settings.flaws(after):
        if flaw not in known:
            raise BadConfigValue(flaw.message)


def _read(path: Path) -> json_text.Document:
    try:
        return json_text.decode(read_bytes(path))
    except FileNotFoundError:
        return json_text.Document({}, {})
    except OSError as error:
        raise ConfigInvalid(f"{_name(path)} cannot be read: {error.strerror}", remedy=_FIX) from error
    except json_text.NotJson as error:
        raise ConfigInvalid(f"{_name(path)} is not valid: {error}", remedy=_FIX) from error


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
