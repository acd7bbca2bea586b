"""The settings: one row for each, and what follows from the rows. Pure. Source: cli.md §3.19.

A row says what a setting must be, its default, and what it is for. `config set`, `config show`, the daemon's reading
of the file (`config`), `doctor`, docs/settings.md and the completion of the shells know a setting by its row alone.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, cast

from thrum.model import limits
from thrum.model.durations import duration_ms
from thrum.model.errors import BadConfigKey, BadConfigValue, ConfigInvalid
from thrum.model.guards import GUARDS
from thrum.model.json_text import Path

T = TypeVar("T")

Source = Literal["config.json", "environment", "default"]
LogLevel = Literal["debug", "info", "warn", "error"]
Port = Literal["auto"] | int


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """What a value must be: in words that follow "must be", and as the function that makes of it what the program uses.

    `read` raises ValueError for anything else. `text`: text, whatever it looks like.
    """

    words: str
    read: Callable[[Any], T]
    text: bool = False

    def fits(self, value: Any) -> bool:
        try:
            self.read(value)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Setting(Generic[T]):
    """One row. `restart`: a running daemon has read it at its start, and does not look again.

    `guarded`: no agent's to change (rpc.md §3, Na).
    """

    key: str
    rule: Rule[T]
    default: Any
    """As it would be written in the file."""
    help: str
    restart: bool = False
    guarded: bool = False
    built: bool = True
    """Whether anything reads it yet. What is to come is kept in the file like the others, and said to do nothing."""

    def of(self, raw: Mapping[str, Any]) -> T:
        """What the program uses, of a file whose values keep to their rules."""
        value = lookup(raw, self.key)
        return self.rule.read(self.default if value is MISSING else value)


class Value(NamedTuple):
    """A setting's value, and where it comes from."""

    value: Any
    source: Source


class Flaw(NamedTuple):
    """What is wrong in a file: where, and why."""

    path: Path
    message: str


# -- rules


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError


def _read_bool(value: Any) -> bool:
    _require(isinstance(value, bool))
    return value


def _read_whole(value: Any, least: int, most: int) -> int:
    _require(isinstance(value, int) and not isinstance(value, bool) and least <= value <= most)
    return value


def _read_port(value: Any) -> Port:
    return "auto" if value == "auto" else _read_whole(value, 1, 65_535)


def _read_seconds(value: Any) -> float:
    _require(isinstance(value, str | int | float) and not isinstance(value, bool))
    return duration_ms(value) / 1000


def _read_period(value: Any) -> float:
    seconds = _read_seconds(value)
    _require(seconds > 0)
    return seconds


def _read_number_of_seconds(value: Any) -> float:
    _require(not isinstance(value, str))
    return _read_seconds(value)


def _read_line(value: Any) -> str:
    _require(isinstance(value, str) and value.isprintable() and len(value) <= limits.setting_chars_max)
    return value


def _read_word(value: Any) -> str:
    word = _read_line(value)
    _require(word.strip() == word != "" and not word.startswith("-"))
    return word


def _read_word_or_none(value: Any) -> str:
    return "" if value == "" else _read_word(value)


def _read_path_or_none(value: Any) -> str:
    path = _read_line(value)
    _require(path == "" or os.path.isabs(path) or path.startswith("~/"))
    return path


def _read_words(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, list) and len(cast("list[Any]", value)) <= limits.setting_names_max)
    words = tuple(map(_read_line, cast("list[Any]", value)))
    _require("" not in words)
    return words


def _read_processes(value: Any) -> dict[str, tuple[str, ...]]:
    _require(isinstance(value, dict) and len(cast("dict[str, Any]", value)) <= limits.setting_names_max)
    return {_read_word(name): _read_words(words) for name, words in cast("dict[str, Any]", value).items()}


def _one_of(*words: T) -> Rule[T]:
    def read(value: Any) -> T:
        _require(value in words)
        return value

    names = list(map(str, words))
    return Rule(f"{', '.join(names[:-1])} or {names[-1]}", read, text=True)


def _whole(least: int, most: int = limits.setting_number_max) -> Rule[int]:
    return Rule(f"a whole number from {least} to {most}", lambda value: _read_whole(value, least, most))


_BOOL: Final = Rule("true or false", _read_bool)
_PORT: Final = Rule("auto or a port from 1 to 65535", _read_port)
_DURATION: Final = Rule("a duration, e.g. 30s, 5m, 1h30m or seconds", _read_seconds)
_PERIOD: Final = Rule("a duration above 0, e.g. 15s", _read_period)
_SECONDS: Final = Rule("seconds, 0 or more", _read_number_of_seconds)
_LINE: Final = Rule("a line of text", _read_line, text=True)
_NAME: Final = Rule("a name", _read_word, text=True)
_NAME_OR_NONE: Final = Rule("a name, or empty", _read_word_or_none, text=True)
_PATH_OR_NONE: Final = Rule("an absolute path, one that begins with ~/, or empty", _read_path_or_none, text=True)
_PROCESSES: Final = Rule('an object of lists of names, e.g. {"mytool": ["mytool"]}', _read_processes)
_NAMES: Final = Rule('a list of names, e.g. ["coordinator"]', _read_words)
_LEVEL: Final[Rule[LogLevel]] = _one_of("debug", "info", "warn", "error")
_MODE: Final = _one_of("strict", "warn", "off")

# -- the rows

SETTINGS: Final[dict[str, Setting[Any]]] = {}
"""Every setting that `config set` takes, by its key."""


def _setting(
    key: str,
    rule: Rule[T],
    default: Any,
    help: str,
    *,
    restart: bool = False,
    guarded: bool = False,
    built: bool = True,
) -> Setting[T]:
    row = SETTINGS[key] = Setting(key, rule, default, help, restart=restart, guarded=guarded, built=built)
    return row


LOCAL_ONLY = _setting("daemon.local_only", _BOOL, True, "fetch and push nothing", guarded=True)
_setting("daemon.ws_port", _PORT, "auto", "port of web UI and WebSocket", restart=True, built=False)
_setting("daemon.peer_port", _PORT, "auto", "port that peers connect to", restart=True, built=False)
SINGLE_AGENT_MODE = _setting("daemon.single_agent_mode", _BOOL, False, "leave out advice about messages")
LOG_LEVEL = _setting("daemon.log_level", _LEVEL, "info", "lowest level that is logged")
BODY_BYTES_MAX = _setting(
    "daemon.max_message_body_bytes",
    _whole(1, limits.body_bytes_max),
    limits.body_bytes_max,
    "the largest message body",
    restart=True,
)
STALE_SESSION_END = _setting(
    "daemon.stale_session_end", _PERIOD, "24h", "end a session this long after its agent vanished", restart=True
)
SYNC_REMOTE = _setting("sync.remote", _NAME, "origin", "the git remote to sync with")
SYNC_INTERVAL = _setting("sync.interval", _PERIOD, "15s", "how often to fetch what others have sent")
SYNC_DEBOUNCE = _setting("sync.debounce", _DURATION, "300ms", "minimum time between two pushes")
PRIMARY_RUNTIME = _setting("runtime.primary", _NAME_OR_NONE, "", "runtime of agents that don't name one")
_setting("runtime.processes", _PROCESSES, {}, "additional process names of runtimes", guarded=True)
WORKTREES_BASE = _setting("worktrees.base_path", _PATH_OR_NONE, "", "where new worktrees go")
WORKTREES_THRUM = _setting("worktrees.thrum_enabled", _BOOL, True, "set thrum up in new worktrees")
BACKUP_DIR = _setting("backup.dir", _LINE, "", "where backups go; empty: .thrum/backup")
KEPT_DAILY = _setting("backup.retention.daily", _whole(-1), 5, "days whose last backup is kept; -1: all")
KEPT_WEEKLY = _setting("backup.retention.weekly", _whole(-1), 4, "weeks whose last backup is kept; -1: all")
KEPT_MONTHLY = _setting("backup.retention.monthly", _whole(-1), -1, "months whose last backup is kept; -1: all")
RESTART_LINES = _setting("restart.max_lines", _whole(0), 200, "lines of the snapshot when an agent is restarted")
_setting(
    "restart.auto_threshold", _whole(0), 0, "restart an agent when its context is this full; 0: never", built=False
)
RESTART_PATIENCE = _setting(
    "restart.graceful_timeout", _DURATION, "30s", "how long an agent has to save what it knows; 0s: it is not asked"
)
_setting(
    "restart.silence_watchdog_seconds",
    _SECONDS,
    30,
    "how long an agent may be silent meanwhile",
    restart=True,
    built=False,
)
_setting("peers.auto_connect", _BOOL, True, "connect to known peers at start", restart=True, built=False)
_setting("peers.pairing_code_length", _whole(8, 64), 16, "digits of a pairing code", built=False)
GUARD_KEYS: Final = "identity_guard"
for _name, _row in GUARDS.items():
    _setting(f"{GUARD_KEYS}.{_name}", _MODE, _row.mode, _row.about, guarded=True)
PERMISSION_SUPERVISORS = _setting(
    "permission_supervisors", _NAMES, ["coordinator"], "roles and agents that are told when a runtime asks its person"
)
_setting("project_name", _LINE, "", "name of the project", built=False)

_GUARDED: Final = (GUARD_KEYS, "guard-daemon", *(key for key, row in SETTINGS.items() if row.guarded))
_GROUPS: Final = tuple(
    dict.fromkeys(key.rsplit(".", depth)[0] for key in SETTINGS for depth in range(key.count("."), 0, -1))
)
"""The objects that contain settings, the outer ones first."""

assert all(row.rule.fits(row.default) for row in SETTINGS.values()), "a default may be set"
assert not set(_GROUPS) & set(SETTINGS), "settings are not nested in each other"

# -- by key


def find(key: str) -> Setting[Any]:
    """The known setting of that key. Raises BadConfigKey, with what is close or lies below it."""
    found = SETTINGS.get(key)
    if found is not None:
        return found
    import difflib  # for this refusal alone: commands start without it

    if key == "identity" or key.startswith("identity."):
        raise BadConfigKey(f'setting "{key}" is read-only', remedy="thrum daemon status shows it; init wrote it")
    below = [known for known in SETTINGS if known.startswith(f"{key}.")]
    close = below or difflib.get_close_matches(key, SETTINGS, n=limits.suggestions_max, cutoff=0.65)
    advice = f"{'one of' if below else 'did you mean'} {', '.join(close)}{';' if below else '?'} " if close else ""
    raise BadConfigKey(f'unknown setting "{key}"', remedy=f"{advice}thrum config show", suggestions=close or None)


def is_guarded(key: str) -> bool:
    """Whether a setting is no agent's to change (rpc.md §3, Na): what guards agents from each other, what keeps their
    mail on this machine, and what says who is an agent. A key above such a one counts too.
    """
    return any(key == each or key.startswith(f"{each}.") or each.startswith(f"{key}.") for each in _GUARDED)


def parse_value(key: str, text: str) -> Any:
    """What a value given as text means: JSON, else the text. Raises BadConfigKey; the value is not checked here."""
    rule = find(key).rule
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if rule.text and not isinstance(value, str) else value


def check_value(key: str, value: Any) -> None:
    """Raise BadConfigKey, or BadConfigValue with the rule."""
    rule = find(key).rule
    if not rule.fits(value):
        raise BadConfigValue(_against(key, rule), remedy=f"thrum config set {key} VALUE; thrum config show")


def setting_value(raw: Mapping[str, Any], key: str, overrides: Mapping[str, Any] | None = None) -> Value:
    """What counts for a key: `overrides` (what the environment says, by key), the file `raw`, the default.

    The read-only block `identity` can be read too. Raises BadConfigKey.
    """
    value = lookup(raw, key)
    if key.startswith("identity.") and value is not MISSING:
        return Value(value, "config.json")
    row = find(key)
    if overrides and key in overrides:
        return Value(overrides[key], "environment")
    return Value(row.default, "default") if value is MISSING else Value(value, "config.json")


def all_settings(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Value]:
    """What counts for every known key."""
    return {key: setting_value(raw, key, overrides) for key in SETTINGS}


def setting_text(value: Any) -> str:
    """A value on one line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- a whole file

_VALUE_CHARS: Final = 80
"""Of a value that is told of."""


def flaws(raw: Mapping[str, Any]) -> list[Flaw]:
    """What keeps a file from being read: values that `config set` refuses, and groups that are not objects."""
    found = [
        Flaw(tuple(group.split(".")), f"{group} must be an object")
        for group in _GROUPS
        if not isinstance(lookup(raw, group, {}), dict)
    ]
    identity = raw.get("identity")
    if identity is not None and not isinstance(identity, dict):
        found.append(Flaw(("identity",), "identity must be an object"))
    for key, row in SETTINGS.items():
        value = lookup(raw, key)
        if value is not MISSING and not row.rule.fits(value):
            found.append(Flaw(tuple(key.split(".")), _against(key, row.rule)))
    return found


def leave_out_flaws(raw: dict[str, Any]) -> list[str]:
    """Take out what keeps a file from being read; each with its value and the reason, for people."""
    left_out: list[str] = []
    while found := flaws(raw):
        for flaw in found:
            key = ".".join(map(str, flaw.path))
            value = json.dumps(lookup(raw, key), ensure_ascii=False)
            shown = value if len(value) <= _VALUE_CHARS else f"{value[:_VALUE_CHARS]}…"
            left_out.append(f"{key} {shown} ({flaw.message})")
            remove(raw, key)
    return left_out


def unknown(raw: Mapping[str, Any]) -> list[str]:
    """The keys of a file that no setting has: they are kept, and ignored."""
    return list(_unknown(raw, ""))


def _unknown(raw: Mapping[str, Any], above: str) -> Iterator[str]:
    for name, value in raw.items():
        key = f"{above}{name}"
        if key in SETTINGS or key == "identity":
            continue
        if isinstance(value, dict) and (value or key in _GROUPS):
            yield from _unknown(cast("dict[str, Any]", value), f"{key}.")
        elif key not in _GROUPS:
            yield key


def _against(key: str, rule: Rule[Any]) -> str:
    return f"{key} must be {rule.words}"


# -- an object by dotted keys

MISSING: Final = object()
"""What `lookup` gives for a key that is not there."""


def lookup(raw: Mapping[str, Any], key: str, missing: Any = MISSING) -> Any:
    """The value at a dotted key."""
    value: Any = raw
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return missing
        value = cast("dict[str, Any]", value)[name]
    return value


def set_value(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, creating the objects on its way. Raises ConfigInvalid if something else is there."""
    *groups, last = key.split(".")
    for depth, group in enumerate(groups, 1):
        inner: Any = raw.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigInvalid(f".thrum/config.json is not valid: {'.'.join(groups[:depth])} must be an object")
        raw = cast("dict[str, Any]", inner)
    raw[last] = value


def remove(raw: dict[str, Any], key: str) -> None:
    """Take a dotted key out, and the objects that it leaves empty; fine if it is not there."""
    name, _, below = key.partition(".")
    inner = raw.get(name)
    if not below:
        raw.pop(name, None)
    elif isinstance(inner, dict):
        inner = cast("dict[str, Any]", inner)
        there = below.partition(".")[0] in inner
        remove(inner, below)
        if there and not inner:
            del raw[name]


def keep_guarded(told: dict[str, Any], here: Mapping[str, Any]) -> None:
    """Let `told`, settings from elsewhere, say of those that are no agent's to change what `here` says, or nothing."""
    for key in filter(is_guarded, SETTINGS):
        value = lookup(here, key)
        remove(told, key)
        if value is not MISSING:
            set_value(told, key, value)
