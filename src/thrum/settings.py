"""Settings by their dotted key: what each must be, what counts, and how one is changed (cli.md 3.19).

`config` reads the same file into structs for the program; this is what people and `config.*` see of it.
"""

from __future__ import annotations

import difflib
import json
import math
import os.path
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from thrum import limits
from thrum.config import Config, duration_seconds, refuse_constant, set_value, update_settings
from thrum.errors import BadConfigKey, BadConfigValue
from thrum.guards import DEFAULT_MODES, GUARDS
from thrum.methods.settings import is_guarded
from thrum.paths import Places

Source = Literal["config.json", "environment", "default"]


class Rule(NamedTuple):
    """What a value must be: in words that follow "must be", and as a test. `text`: text, whatever it looks like."""

    words: str
    fits: Callable[[Any], bool]
    text: bool = False


class Setting(NamedTuple):
    """A known key. `restart`: a running daemon has read it at its start, and does not look again."""

    rule: Rule
    restart: bool = False


class Value(NamedTuple):
    """A setting's value, and where it comes from."""

    value: Any
    source: Source


def _one_of(*words: str) -> Rule:
    def fits(value: Any) -> bool:
        return value in words

    return Rule(f"{', '.join(words[:-1])} or {words[-1]}", fits, text=True)


def _whole(least: int, most: int | None = None) -> Rule:
    def fits(value: Any) -> bool:
        return _is_whole(value) and least <= value and (most is None or value <= most)

    return Rule(f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}", fits)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_port(value: Any) -> bool:
    return value == "auto" or (_is_whole(value) and 1 <= value <= 65535)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_duration(value: Any) -> bool:
    if not isinstance(value, str):
        return _is_seconds(value)
    try:
        return math.isfinite(duration_seconds(value))
    except ValueError:
        return False


def _is_period(value: Any) -> bool:
    return _is_duration(value) and duration_seconds(value) > 0


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _is_line(value) and value.strip() == value != ""


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and _is_line(value) and (os.path.isabs(value) or value.startswith("~/"))


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word for word in cast("list[Any]", value))


def _is_processes(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_words, cast("dict[str, Any]", value).values()))


_BOOL: Final = Rule("true or false", _is_bool)
_PORT: Final = Rule("auto or a port from 1 to 65535", _is_port)
_DURATION_RULE: Final = Rule("a duration, e.g. 30s, 5m, 1h30m or seconds", _is_duration)
_PERIOD_RULE: Final = Rule("a duration above 0, e.g. 15s", _is_period)
_SECONDS_RULE: Final = Rule("seconds, 0 or more", _is_seconds)
_LINE: Final = Rule("a line of text", _is_line, text=True)
_WORD_RULE: Final = Rule("a name", _is_word, text=True)
_PATH: Final = Rule("an absolute path, or one that begins with ~/", _is_path, text=True)
_PROCESSES: Final = Rule('an object of lists of names, e.g. {"mytool": ["mytool"]}', _is_processes)
_NAMES: Final = Rule('a list of names, e.g. ["coordinator"]', _is_words)
_MODE: Final = _one_of("strict", "warn", "off")

SETTINGS: Final[Mapping[str, Setting]] = {
    "daemon.local_only": Setting(_BOOL),
    "daemon.ws_port": Setting(_PORT, restart=True),
    "daemon.peer_port": Setting(_PORT, restart=True),
    "daemon.single_agent_mode": Setting(_BOOL),
    "daemon.log_level": Setting(_one_of("debug", "info", "warn", "error")),
    "daemon.max_message_body_bytes": Setting(_whole(1, limits.body_bytes_max), restart=True),
    "daemon.stale_session_end": Setting(_PERIOD_RULE, restart=True),
    "sync.remote": Setting(_WORD_RULE),
    "sync.interval": Setting(_PERIOD_RULE),
    "sync.debounce": Setting(_DURATION_RULE),
    "runtime.primary": Setting(_WORD_RULE),
    "runtime.processes": Setting(_PROCESSES),
    "worktrees.base_path": Setting(_PATH),
    "worktrees.thrum_enabled": Setting(_BOOL),
    "backup.dir": Setting(_LINE),
    "backup.retention.daily": Setting(_whole(-1)),
    "backup.retention.weekly": Setting(_whole(-1)),
    "backup.retention.monthly": Setting(_whole(-1)),
    "restart.max_lines": Setting(_whole(0)),
    "restart.auto_threshold": Setting(_whole(0)),
    "restart.graceful_timeout": Setting(_DURATION_RULE),
    "restart.silence_watchdog_seconds": Setting(_SECONDS_RULE, restart=True),
    "peers.auto_connect": Setting(_BOOL, restart=True),
    "peers.pairing_code_length": Setting(_whole(8, 64)),
    **{f"identity_guard.{guard}": Setting(_MODE) for guard in GUARDS},
    "permission_supervisors": Setting(_NAMES),
    "project_name": Setting(_LINE),
}
"""Every setting that `config set` takes."""

_MISSING: Final = object()
_DEFAULTS: Final[dict[str, Any]] = {
    **msgspec.json.decode(msgspec.json.encode(Config())),
    "identity_guard": dict(DEFAULT_MODES),
}


def find(key: str) -> Setting:
    """The known setting of that key. Raises BadConfigKey, with what is close or lies below it."""
    found = SETTINGS.get(key)
    if found is not None:
        return found
    if key == "identity" or key.startswith("identity."):
        raise BadConfigKey(f'setting "{key}" is read-only', remedy="thrum daemon status shows it; init wrote it")
    below = [known for known in SETTINGS if known.startswith(f"{key}.")]
    close = below or difflib.get_close_matches(key, SETTINGS, n=limits.suggestions_max, cutoff=0.65)
    advice = f"{'one of' if below else 'did you mean'} {', '.join(close)}{';' if below else '?'} " if close else ""
    raise BadConfigKey(f'unknown setting "{key}"', remedy=f"{advice}thrum config show", suggestions=close or None)


def parse_value(key: str, text: str) -> Any:
    """What a value given as text means: JSON, else the text. Raises BadConfigKey; the value is not checked here."""
    rule = find(key).rule
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return text
    return text if rule.text and not isinstance(value, str) else value


def check_value(key: str, value: Any) -> None:
    """Raise BadConfigKey, or BadConfigValue with the rule."""
    rule = find(key).rule
    if not rule.fits(value):
        raise BadConfigValue(f"{key} must be {rule.words}", remedy=f"thrum config set {key} VALUE; thrum config show")


def setting_value(raw: Mapping[str, Any], key: str, overrides: Mapping[str, Any] | None = None) -> Value:
    """What counts for a key: `overrides` (what the environment says, by key), the file `raw`, the default.

    The read-only block `identity` can be read too. Raises BadConfigKey.
    """
    if key.startswith("identity."):
        value = _lookup(raw, key)
        if value is not _MISSING:
            return Value(value, "config.json")
    find(key)
    if overrides and key in overrides:
        return Value(overrides[key], "environment")
    value = _lookup(raw, key)
    return Value(_lookup(_DEFAULTS, key), "default") if value is _MISSING else Value(value, "config.json")


def all_settings(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Value]:
    """What counts for every known key."""
    return {key: setting_value(raw, key, overrides) for key in SETTINGS}


def change(places: Places, key: str, value: Any) -> Value:
    """Set one key, nothing else. Raises BadConfigKey, BadConfigValue, ConfigInvalid, StoreFailed."""
    check_value(key, value)
    update_settings(places, lambda raw: set_value(raw, key, value))
    return Value(value, "config.json")


def unset(places: Places, key: str) -> Value:
    """Take one key out of the file, and objects that it leaves empty; fine if it is not there. Raises as above."""
    find(key)
    update_settings(places, lambda raw: _remove(raw, key.split(".")))
    return setting_value({}, key)


def keep_guarded(told: dict[str, Any], here: Mapping[str, Any]) -> None:
    """Let `told`, settings from elsewhere, say of those that are no agent's to change what `here` says, or nothing."""
    for key in filter(is_guarded, SETTINGS):
        value = _lookup(here, key)
        _remove(told, key.split("."))
        if value is not _MISSING:
            set_value(told, key, value)


def setting_text(value: Any) -> str:
    """A value on one line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flaws(raw: Mapping[str, Any]) -> list[str]:
    """What is wrong in a file: unknown keys, which are kept and ignored, and values against their rule."""
    found: list[str] = []
    for key, value in _leaves(raw, ""):
        if key not in SETTINGS:
            found.append(f"unknown setting {key} in config.json: it is ignored")
        elif not SETTINGS[key].rule.fits(value):
            found.append(f"{key} must be {SETTINGS[key].rule.words}")
    return found


def _leaves(raw: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in raw.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and key not in SETTINGS:
            if key != "identity":
                yield from _leaves(cast("dict[str, Any]", value), f"{key}.")
        else:
            yield key, value


def _lookup(raw: Mapping[str, Any], key: str) -> Any:
    value: Any = raw
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = cast("dict[str, Any]", value)[name]
    return value


def _remove(raw: dict[str, Any], names: list[str]) -> None:
    inner = raw.get(names[0])
    if len(names) == 1:
        raw.pop(names[0], None)
    elif isinstance(inner, dict):
        inner = cast("dict[str, Any]", inner)
        there = names[1] in inner
        _remove(inner, names[1:])
        if there and not inner:
            del raw[names[0]]
