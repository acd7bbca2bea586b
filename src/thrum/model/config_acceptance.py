"""Changes made outside thrum to the settings that people edit, and accepting them (identity.md §3 "Trust").

`.thrum/config.json` and `.thrum/var/guard-daemon.json` are copies: the files in effect are beside the journals. The two
are compared by content; thrum changes both, so any difference was made by a person with an editor, or by a branch that
was checked out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from thrum.model import config, files
from thrum.model.errors import ConfigInvalid, StateTracked, StoreFailed
from thrum.model.paths import Layout, index_of, is_tracked, tracked_in
from thrum.model.settings import is_guarded
from thrum.model.wire_types import SettingChange

_GUARDS: Final = "guard-daemon"
"""What the keys of the second file are shown under."""
_KEYS_SHOWN: Final = 5
_PATHS_SHOWN: Final = 3
_ROOTS_MAX: Final = 1024
_DAY_SECONDS: Final = 86_400.0


class Outside(NamedTuple):
    """What differs. `problem`: why a copy can't be read."""

    changed: tuple[SettingChange, ...] = ()
    problem: str = ""

    def __bool__(self) -> bool:
        return bool(self.changed or self.problem)


def look(layout: Layout) -> Outside:
    """What was changed outside thrum. A `config.json` that is not there is none; thrum puts it back."""
    try:
        before, after = _both(layout)
    except ConfigInvalid as error:
        return Outside(problem=error.message)
    keys = list(dict.fromkeys([*before, *after]))
    return Outside(
        tuple(SettingChange(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key))
    )


def notice(layout: Layout) -> str:
    """The sentence that says so, empty if there is nothing to say."""
    if problem := _problem(layout):
        return problem
    found = look(layout)
    if not found:
        return ""
    keys = [each.key for each in found.changed]
    more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    said = ", ".join(key if key.isprintable() and len(key) <= 64 else "?" for key in keys[:_KEYS_SHOWN])
    guards = any(key.startswith(_GUARDS) for key in keys)
    name = ".thrum/var/guard-daemon.json" if guards else ".thrum/config.json"
    return f"{name} was changed outside thrum (keys {said}{more}): thrum config diff, thrum config accept"


def _problem(layout: Layout) -> str:
    """Why one of the files is not taken as it is, empty if each could be."""
    try:
        config.load_config(layout.config_file)
    except ConfigInvalid as error:
        return f"{error.message}: no daemon starts with it, a running one keeps the previous settings"
    try:
        config.load_config(layout.config_copy)
        for path in (layout.guard_file, layout.guard_copy):
            config.read_raw(path)
    except ConfigInvalid as error:
        return f"{error.message}: the previous settings stay in effect"
    return ""


class Notices:
    """What the commands of one daemon report about it: each sentence once a day; and what git tracks.

    `now` is a monotonic clock in seconds. Cheap to ask: files are read again only when one of them was touched.
    """

    def __init__(self, layout: Layout, now: Callable[[], float]) -> None:
        self._layout = layout
        self._now = now
        self._told: dict[str, float] = {}
        copies, counts = (layout.config_copy, layout.guard_copy), (layout.config_file, layout.guard_file)
        self._settings = _Seen(tuple(map(str, (*copies, *counts))))
        self._indexes: dict[Path, _Seen] = {}

    def take(self, root: Path) -> list[str]:
        """The sentences to print now for a caller in that root, without those already printed."""
        index = self._indexes.get(root)
        if index is None:
            if len(self._indexes) >= _ROOTS_MAX:
                self._indexes.clear()
            index = self._indexes[root] = _Seen(tuple(map(str, index_of(root))))
        found = (
            self._settings.sentence(lambda: notice(self._layout)),
            index.sentence(lambda: state_tracked(tracked_in(root))),
        )
        return [sentence for sentence in found if sentence and self._is_new(sentence)]

    def _is_new(self, sentence: str) -> bool:
        now = self._now()
        if now < self._told.get(sentence, -_DAY_SECONDS) + _DAY_SECONDS:
            return False
        self._told = {each: at for each, at in self._told.items() if now < at + _DAY_SECONDS} | {sentence: now}
        return True


class _Seen:
    """What is said of some files, as of the last time that one of them was touched."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = paths
        self._seen: list[tuple[int, int, int] | None] | None = None
        self._sentence = ""

    def sentence(self, look: Callable[[], str]) -> str:
        seen = [_touched(path) for path in self._paths]
        if seen != self._seen:
            self._seen, self._sentence = seen, look()
        return self._sentence


def state_tracked(paths: Sequence[str]) -> str:
    """The sentence that git tracks these paths at or below a `.thrum`; empty without any (identity.md §3)."""
    if not paths:
        return ""
    names = ", ".join(path if path.isprintable() else "?" for path in paths[:_PATHS_SHOWN])
    more = " …" if len(paths) > _PATHS_SHOWN else ""
    return f"this branch tracks {names}{more}: nothing is written there (git rm -r --cached .thrum; thrum doctor --fix)"


def _touched(path: str) -> tuple[int, int, int] | None:
    try:
        found = files.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def protects(changed: tuple[SettingChange, ...]) -> bool:
    """Whether a key among them is no agent's to change (rpc.md §3, Na)."""
    return any(is_guarded(each.key) for each in changed)


def accept(layout: Layout, seen: tuple[SettingChange, ...]) -> tuple[SettingChange, ...]:
    """Let what the copies say count; what that changed. Raises ConfigInvalid, StateTracked, StoreFailed.

    `seen`: what was looked at before, and judged; nothing else counts. Who this daemon is (`identity`) is not for the
    file to say.
    """
    for path in (layout.config_copy, layout.guard_copy):
        if is_tracked(path):
            raise StateTracked(f"git tracks {path}: what a branch brings is not accepted")
    found = look(layout)
    if found.problem:
        raise ConfigInvalid(found.problem, remedy="fix the file, then: thrum config accept")
    if not found.changed:
        return ()
    try:
        files.ensure_private_dir(layout.var_dir)
        with files.locked(layout.config_lock):
            if look(layout).changed != seen:
                raise ConfigInvalid(
                    "the settings were changed again meanwhile", remedy="look at them again: thrum config diff"
                )
            counts = config.read_raw(layout.config_file)
            if files.status(layout.config_copy) is not None:
                config.load_config(layout.config_copy)
                raw = {key: value for key, value in config.read_raw(layout.config_copy).items() if key != "identity"}
                raw |= {"identity": counts["identity"]} if "identity" in counts else {}
                files.atomic_write(layout.config_file, config.encoded(raw))
                config.write_copy(layout.config_copy, raw)
            if files.status(layout.guard_copy) is not None:
                files.atomic_write(layout.guard_file, config.encoded(config.read_raw(layout.guard_copy)))
            else:
                files.remove(layout.guard_file)
    except OSError as error:
        name = error.filename or layout.config_file
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
    return found.changed


def put_back(layout: Layout) -> bool:
    """Write the copies as what counts says; False if they said so already. Raises StoreFailed, ConfigInvalid.

    Nothing where git tracks the path.
    """
    done = False
    try:
        files.ensure_private_dir(layout.var_dir)
        with files.locked(layout.config_lock):
            for path, file in ((layout.config_copy, layout.config_file), (layout.guard_copy, layout.guard_file)):
                if is_tracked(path):
                    continue
                if files.status(file) is None:
                    done = done or (path == layout.guard_copy and files.status(path) is not None)
                    if path == layout.guard_copy:
                        files.remove(path)
                    continue
                raw = config.read_raw(file)
                if not _says(path, raw):
                    files.atomic_write(path, config.encoded(raw))
                    done = True
    except OSError as error:
        name = error.filename or layout.config_copy
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
    return done


def _says(path: Path, raw: dict[str, Any]) -> bool:
    try:
        return files.status(path) is not None and config.read_raw(path) == raw
    except ConfigInvalid:
        return False


def _both(layout: Layout) -> tuple[dict[str, Any], dict[str, Any]]:
    """What counts and what the copies say, by dotted key. Raises ConfigInvalid."""
    counts, guards = config.read_raw(layout.config_file), config.read_raw(layout.guard_file)
    there = files.status(layout.config_copy) is not None
    copy = config.read_raw(layout.config_copy) if there else counts
    before = {**dict(_leaves(counts, "")), **dict(_leaves(guards, f"{_GUARDS}."))}
    after = {**dict(_leaves(copy, "")), **dict(_leaves(config.read_raw(layout.guard_copy), f"{_GUARDS}."))}
    return before, after


def _leaves(raw: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in raw.items():
        key = f"{above}{name}"
        if key == "identity":
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(cast("dict[str, Any]", value), f"{key}.")
        else:
            yield key, value
