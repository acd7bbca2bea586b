"""The settings that are read again for every decision: the guards' modes, and which programs are runtimes.

Three files are looked at each time and parsed only when they changed: `guard-daemon.json` for incidents, `config.json`,
both as they count, and the user's own `~/.thrum/runtimes.json` (identity.md §3 "Trust", §5, §12). What is malformed
counts as missing, with a warning in the log; so does `config.json` as a whole if one of its values is against its rule.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from thrum.identity.runtimes import KNOWN_RUNTIMES, RuntimeNames, runtime_names
from thrum.model import json_text, limits
from thrum.model.guards import DEFAULT_MODES, Mode, Refusal, guard_modes, refusal_error, refusal_fields, remedy_of
from thrum.model.paths import Layout
from thrum.model.settings import Flaw, flaws

log = logging.getLogger("thrum.model.guards")

FIRE: Final = "identity_guard_fire"
"""The message of every record that a guard leaves in the log."""

_Seen = tuple[int, int, int] | None


class _Watched:
    """A JSON object in a file, read again when the file is another one."""

    def __init__(self, path: Path, flaws: Callable[[dict[str, Any]], Sequence[Flaw]] = lambda value: ()) -> None:
        self.name = path.name
        self.problem = ""
        self.value: dict[str, Any] | None = None
        self._path = str(path)
        self._flaws = flaws
        self._seen: _Seen = None

    def changed(self) -> bool:
        """Look at the file; whether `value` is another one now."""
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino) if stat.S_ISREG(found.st_mode) else None
        except (OSError, ValueError):
            seen = None
        if seen == self._seen:
            return False
        self.value, self.problem = (None, "") if seen is None else self._read()
        # As it was before it was read: what is written meanwhile is found the next time.
        self._seen = seen
        return True

    def _read(self) -> tuple[dict[str, Any] | None, str]:
        try:
            value = json_text.decode(Path(self._path).read_bytes()).value
        except OSError as error:
            return None, f"{self.name}: cannot be read: {(error.strerror or str(error)).lower()}"
        except json_text.NotJson as error:
            return None, f"{self.name}: {error}"
        if found := self._flaws(value):
            return None, f"{self.name}: {found[0].message}"
        return value, ""


def runtimes_file(environ: Mapping[str, str]) -> Path | None:
    """Where a user with these variables keeps runtimes of their own (cli.md 3.20); None without a home."""
    home = environ.get("HOME", "")
    return Path(home, ".thrum", "runtimes.json") if os.path.isabs(home) else None


class OwnRuntimes:
    """What the user's own file of runtimes has, read again when it changed."""

    def __init__(self, file: Path | None) -> None:
        """`file`: as `runtimes_file` gives it."""
        self._file = _Watched(file or Path(os.devnull))

    def now(self) -> Mapping[str, Any]:
        """The whole of it; empty for none, and for one with a `problem`."""
        self._file.changed()
        return self._file.value or {}

    @property
    def problem(self) -> str:
        """What is wrong with it as it was read last; empty: nothing."""
        return self._file.problem


class LiveSettings:
    """The settings that need no restart. Cheap to ask: a `stat` for each file while nothing changes."""

    def __init__(self, layout: Layout | None, runtimes_file: Path | None = None) -> None:
        """`layout`: None where thrum is not set up. `runtimes_file`: the user's own runtimes (`runtimes_file`), wanted
        where processes are looked at.
        """
        self._daemon = _Watched(Path(os.devnull) if layout is None else layout.guard_file)
        self._config = _Watched(Path(os.devnull) if layout is None else layout.config_file, flaws)
        self._runtimes = None if runtimes_file is None else _Watched(runtimes_file)
        self._modes: Mapping[str, Mode] = DEFAULT_MODES
        self._names = KNOWN_RUNTIMES
        self.warnings: tuple[str, ...] = ()
        """What is wrong in the guards' two files."""

    def modes(self) -> Mapping[str, Mode]:
        """The mode of every guard, now."""
        self._look()
        return self._modes

    def runtime_names(self) -> RuntimeNames:
        """Which programs are runtimes, now."""
        self._look()
        return self._names

    def _look(self) -> None:
        own_changed = self._runtimes is not None and self._runtimes.changed()
        daemon_changed, config_changed = self._daemon.changed(), self._config.changed()
        if (own_changed or config_changed) and not self._config.problem:
            self._name_runtimes()
        if daemon_changed or config_changed:
            self._set_modes()
        if own_changed and self._runtimes is not None and self._runtimes.problem:
            log.warning("runtimes: %s", self._runtimes.problem)

    def _name_runtimes(self) -> None:
        own = self._runtimes.value if self._runtimes is not None else None
        self._names = _names_of((self._config.value or {}).get("runtime"), (own or {}).get("custom_runtimes"))

    def _set_modes(self) -> None:
        config = self._config.value or {}
        modes, warnings = guard_modes(self._daemon.value, config.get("identity_guard"))
        problems = (each.problem for each in (self._config, self._daemon) if each.problem)
        self._modes, self.warnings = modes, (*problems, *warnings)
        for text in self.warnings:
            log.warning("identity guards: %s", text)


def _names_of(runtime: Any, own: Any) -> RuntimeNames:
    """The known runtimes as `runtime.processes` and the user's own ones change them; what is malformed is passed over.

    `own`: `custom_runtimes` (cli.md 3.20), objects by name, each with its `command`.
    """
    entries = _object(_object(runtime).get("processes")).items()
    lists = {name: cast("list[Any]", words) for name, words in entries if isinstance(words, list)}
    processes = {name: [word for word in words if isinstance(word, str)] for name, words in lists.items()}
    commands = {name: _object(each).get("command") for name, each in _object(own).items() if _is_name(name)}
    started = {name: command for name, command in commands.items() if isinstance(command, str)}
    return runtime_names(processes, started) if processes or started else KNOWN_RUNTIMES


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _is_name(text: str) -> bool:
    """Whether it can be recorded as what runs an agent."""
    return 0 < len(text) <= limits.name_chars_max and text.isprintable()


def fire(
    refusal: Refusal,
    modes: Mapping[str, Mode],
    *,
    caller_pid: int = 0,
    caller_cwd: str = "",
    method: str = "",
    record: Callable[[str, dict[str, Any]], None] | None = None,
    passable: bool = True,
) -> str:
    """What a guard that fired does: `strict` raises its error, `warn` gives the line to print, `off` gives nothing.

    Each leaves one record in the log but `off` (identity.md §12). Reasons that no mode switches off always raise, and
    so does what is not `passable`.
    `record(outcome, fields)`: where the record goes, if not to this process's log.
    """
    mode = modes[refusal.guard] if refusal.by_mode and passable else "strict"
    if mode == "off":
        return ""
    fields = refusal_fields(refusal, caller_pid=caller_pid, caller_cwd=caller_cwd, mode=mode, method=method)
    (record or record_fire)("denied" if mode == "strict" else "allowed", fields)
    if mode == "strict":
        raise refusal_error(refusal, caller_pid=caller_pid, caller_cwd=caller_cwd, mode=mode, method=method)
    return fire_line(refusal)


def fire_line(refusal: Refusal) -> str:
    """A fired guard on one line, for a warning."""
    who = f" (you are {refusal.detected}, not {refusal.expected})" if refusal.expected and refusal.detected else ""
    return f'identity guard "{refusal.guard}" fired: {refusal.reason}{who}: {remedy_of(refusal)}'


def record_fire(outcome: str, fields: Mapping[str, Any], *, level: int = logging.WARNING) -> None:
    """One guard, one line in this process's log."""
    log.log(level, FIRE, extra={"fields": {**fields, "outcome": outcome}})
