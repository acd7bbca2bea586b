"""Codex executes a hook only if its user trusts it: by a digest of it in config.toml, which Codex itself computes.

Thrum trusts its own hooks alone, and only after its user said so. Codex is asked for the digests (`codex app-server`,
`hooks/list`), the file keeps what is others', to the byte, and is given back as it was. Measured with 0.171.0.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import trio

from thrum.model import files
from thrum.model.errors import ConfigInvalid, NotAvailable, in_shell
from thrum.runtimes import _written, hook_files
from thrum.runtimes._json_edit import NotJson
from thrum.runtimes._records import Records, digest
from thrum.runtimes.codex.server import hooks_in
from thrum.runtimes.settings_files import SettingsFile
from thrum.version import VERSION

ASK_SECONDS: Final = 30.0
_LINE_BYTES_MAX: Final = 16 << 20
_HEADER: Final = re.compile(r"^[ \t]*\[[ \t]*hooks[ \t]*\.[ \t]*state[ \t]*\.[ \t]*(.+?)[ \t]*\][ \t]*(?:#.*)?$")
_TABLE: Final = re.compile(r"^[ \t]*\[")
_HASH: Final = re.compile(r"^[ \t]*trusted_hash[ \t]*=")


@dataclass(frozen=True, slots=True)
class Trusted:
    """`count`: of thrum's hooks that are trusted now; `changed`: whether the file had to be written."""

    count: int
    changed: bool


async def trust(hooks_file: SettingsFile, program: str, environ: Mapping[str, str]) -> Trusted:
    """Trust thrum's hooks in a hooks.json of Codex. `program`: the absolute path of codex.

    Raises NotAvailable, if codex does not tell their digests; ConfigInvalid for a config.toml that cannot be edited;
    Busy, StoreFailed. Then nothing is changed.
    """
    found = await _digests(program, environ, hooks_file.path)
    if not found:
        raise NotAvailable("codex does not see the hooks", remedy=f"look into {in_shell(str(hooks_file.path))}")
    changed = await trio.to_thread.run_sync(partial(_write, config_file(hooks_file), found, environ))
    return Trusted(len(found), changed)


def untrust(hooks_file: SettingsFile, environ: Mapping[str, str]) -> bool:
    """Take back what `trust` wrote, before the hooks go; whether there was anything. Raises as `trust` does."""
    file = config_file(hooks_file)
    records = Records(environ)
    with _written.failing(file.path), records.alone():
        known, old = records.of(file.path), _written.read(file.path)
        if old is None:
            if known is not None:
                _written.clear(known, records)
            return False
        keys = _keys_of(hooks_file)
        if known is not None and digest(old) in known.after:
            new = known.before
        else:
            # Where none of thrum's are in it, it may have any form.
            new = _as_text(file, old, partial(without_trust, keys=keys)).encode() if keys else old
            if known is not None and known.before is None and not new.strip():
                new = None
        if new is None:
            files.remove(file.path)
            files.sync_directory(file.path.parent)
        elif new != old:
            _written.write(file.path, old, new, _written.PRIVATE)
        if known is not None:
            _written.clear(known, records)
        return new != old


def config_file(hooks_file: SettingsFile) -> SettingsFile:
    """The config.toml beside a hooks.json, whatever that one links to."""
    path = Path(os.path.realpath(hooks_file.path.parent / "config.toml"))
    name = f"{hooks_file.name.removesuffix('hooks.json')}config.toml"
    return SettingsFile(hooks_file.runtime, "user", path, name)


# -- the file's text, pure


class NotEditable(Exception):
    """A TOML file that is not to be changed line by line. Its text says why."""


def with_trust(text: str, hashes: Mapping[str, str]) -> str:
    """The file with these digests, by the keys of their hooks; all else stays. Raises NotEditable."""
    wanted = _state_of(text)
    lines = text.splitlines(keepends=True)
    for key, value in hashes.items():
        if isinstance(known := wanted.get(key), dict) and cast("dict[str, Any]", known).get("trusted_hash") == value:
            continue
        line = f"trusted_hash = {_quoted(value)}\n"
        place = _section(lines, key)
        if place is None:
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines += [*(["\n"] if lines else []), f"[hooks.state.{_quoted(key)}]\n", line]
        else:
            start, end = place
            at = next((number for number in range(start + 1, end) if _HASH.match(lines[number])), None)
            if at is None:
                lines.insert(start + 1, line)
            else:
                lines[at] = line
    new = "".join(lines)
    if any(_trusted_hash(_state_of(new), key) != value for key, value in hashes.items()):
        raise NotEditable("its hooks.state has a form that thrum does not edit")
    _check_rest(text, new, hashes)
    return new


def without_trust(text: str, keys: Sequence[str]) -> str:
    """The file without the tables of these hooks. Raises NotEditable."""
    lines = text.splitlines(keepends=True)
    for key in keys:
        while (place := _section(lines, key)) is not None:
            start, end = place
            if start and not lines[start - 1].strip():
                start -= 1
            while end > start + 1 and end < len(lines) and not lines[end - 1].strip():
                end -= 1  # the blank line before the next table is that one's
            del lines[start:end]
    new = "".join(lines)
    _check_rest(text, new, dict.fromkeys(keys, ""))
    return new


def keys_of(hooks: str, path: str) -> list[str]:
    """The keys that Codex gives thrum's hooks in the text of a hooks.json at `path`. Raises ValueError."""
    found: list[str] = []
    value = msgspec.json.decode(hooks, type=dict[str, Any]).get("hooks")
    for event, groups in cast("dict[str, Any]", value if isinstance(value, dict) else {}).items():
        for number, group in enumerate(cast("list[Any]", groups if isinstance(groups, list) else [])):
            inner = cast("dict[str, Any]", group).get("hooks") if isinstance(group, dict) else None
            for position, hook in enumerate(cast("list[Any]", inner if isinstance(inner, list) else [])):
                if isinstance(hook, dict) and hook_files.is_ours(cast("dict[str, Any]", hook).get("command")):
                    found.append(f"{path}:{_snake(event)}:{number}:{position}")
    return found


def _section(lines: Sequence[str], key: str) -> tuple[int, int] | None:
    """Where the table of a hook's state begins, and where the next one does."""
    start = next((number for number, line in enumerate(lines) if _key_of(line) == key), None)
    if start is None:
        return None
    end = next((number for number in range(start + 1, len(lines)) if _TABLE.match(lines[number])), len(lines))
    return start, end


def _key_of(line: str) -> str | None:
    found = _HEADER.match(line.rstrip("\r\n"))
    if found is None:
        return None
    try:
        (key,) = tomllib.loads(f"{found[1]} = 0")
    except (tomllib.TOMLDecodeError, ValueError):
        return None
    return key


def _state_of(text: str) -> dict[str, Any]:
    hooks = _parsed(text).get("hooks")
    state = cast("dict[str, Any]", hooks).get("state") if isinstance(hooks, dict) else None
    return cast("dict[str, Any]", state) if isinstance(state, dict) else {}


def _trusted_hash(state: Mapping[str, Any], key: str) -> object:
    found = state.get(key)
    return cast("dict[str, Any]", found).get("trusted_hash") if isinstance(found, dict) else None


def _check_rest(old: str, new: str, keys: Mapping[str, str]) -> None:
    """All but the state of these hooks has to mean the same as before."""
    if _rest(old, keys) != _rest(new, keys):
        raise NotEditable("its hooks.state has a form that thrum does not edit")


def _rest(text: str, keys: Mapping[str, str]) -> dict[str, Any]:
    found = _parsed(text)
    hooks = found.get("hooks")
    if isinstance(hooks, dict):
        inner = cast("dict[str, Any]", hooks)
        state = inner.get("state")
        if isinstance(state, dict):
            others = {key: value for key, value in cast("dict[str, Any]", state).items() if key not in keys}
            inner = {**inner, "state": others}
            if not others:
                del inner["state"]
        found = {**found, "hooks": inner}
        if not inner:
            del found["hooks"]
    return found


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotEditable(str(error)) from error


def _quoted(text: str) -> str:
    """A basic string: what JSON escapes, TOML reads the same."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _snake(event: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event).lower()


# -- files


def _write(file: SettingsFile, hashes: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    records = Records(environ)
    with _written.failing(file.path), records.alone():
        known, old = records.of(file.path), _written.read(file.path)
        new = _as_text(file, old or b"", partial(with_trust, hashes=hashes)).encode()
        if new == old:
            return False
        after: tuple[str, ...] = (digest(new),)
        before = old
        if known is not None:
            # What others changed since is not in what was before: then thrum's tables alone are cut out.
            is_ours = old is not None and digest(old) in known.after
            before, after = (known.before, (*known.after, *after)) if is_ours else (known.before, ())
        _written.put(file, _written.Rewrite(old, new, before, after), None, environ, records)
    return True


def _as_text(file: SettingsFile, data: bytes, edit: Any) -> str:
    try:
        return cast("str", edit(data.decode()))
    except (NotEditable, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigInvalid(f"{file.name}: {why}", remedy=f"fix {in_shell(str(file.path))}") from error


def _keys_of(hooks_file: SettingsFile) -> list[str]:
    """Of all spellings of the file's path that config.toml may have."""
    try:
        data = _written.read(hooks_file.path)
        text = (data or b"{}").decode()
        own = keys_of(text, "")
    except (NotJson, ValueError, OSError, msgspec.MsgspecError):
        return []
    config = _written.read(config_file(hooks_file).path) or b""
    with contextlib.suppress(NotEditable, UnicodeDecodeError):
        state = _state_of(config.decode())
        return [key for key in state if _is_at(key, hooks_file.path) and _tail(key) in own]
    return []


def _tail(key: str) -> str:
    return ":" + ":".join(key.rsplit(":", 3)[1:])


def _is_at(key: str, path: Path) -> bool:
    return os.path.realpath(key.rsplit(":", 3)[0]) == str(path)


# -- codex itself


async def _digests(program: str, environ: Mapping[str, str], path: Path) -> dict[str, str]:
    """The digests of thrum's hooks in that file as they are now, by their keys. Raises NotAvailable."""
    answer: dict[str, Any] = {}
    with trio.move_on_after(ASK_SECONDS) as scope:
        try:
            answer = await _ask(program, environ)
        except (OSError, trio.BrokenResourceError, msgspec.MsgspecError) as error:
            raise NotAvailable(f"codex does not tell its hooks: {error}", remedy="codex asks you once") from error
    if scope.cancelled_caught:
        raise NotAvailable("codex does not answer", remedy="codex asks you once to trust them")
    return _own(answer, path)


def _own(answer: Mapping[str, Any], path: Path) -> dict[str, str]:
    return {
        str(hook.get("key")): str(hook.get("currentHash"))
        for hook in hooks_in(answer)
        if hook_files.is_ours(hook.get("command"))
        and hook.get("source") == "user"
        and os.path.realpath(str(hook.get("sourcePath"))) == str(path)
        and isinstance(hook.get("currentHash"), str)
    }


async def _ask(program: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a `codex app-server` of its own, over its pipes, answers to `hooks/list`."""
    home = environ.get("HOME", "/")
    calls = (
        {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "thrum", "version": VERSION}}},
        {"method": "initialized"},
        {"id": 2, "method": "hooks/list", "params": {"cwds": [home]}},
    )
    process = await trio.lowlevel.open_process(
        [program, "app-server"],
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        await process.stdin.send_all(b"".join(msgspec.json.encode(call) + b"\n" for call in calls))
        data = b""
        async for chunk in process.stdout:
            data += chunk
            *lines, data = data.split(b"\n")
            for line in lines:
                if line.strip():
                    found = msgspec.json.decode(line, type=dict[str, Any])
                    if found.get("id") == 2:
                        result = found.get("result")
                        return cast("dict[str, Any]", result) if isinstance(result, dict) else {}
            if len(data) > _LINE_BYTES_MAX:
                break
        return {}
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(5):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()
