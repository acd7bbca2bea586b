"""Who this daemon is: the `identity` block of `config.json`, and its copy beside the journals (identity.md §13)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from thrum.clock import format_ms
from thrum.errors import ConfigInvalid, InvalidUrl, StoreFailed
from thrum.files import atomic_write, ensure_private_dir, locked
from thrum.ids import crockford_sha256, is_id, repo_id_of_url, without_credentials
from thrum.paths import Places, find_git

DaemonIdClass = Literal["missing", "legacy", "valid", "malformed"]

_LEGACY = re.compile(r"d_[0-9a-hjkmnp-tv-z]{12}")


@dataclass(frozen=True, slots=True)
class DaemonIdentity:
    """This daemon, as facts, `daemon status` and the table `daemon_identity` tell it."""

    daemon_id: str
    init_at: str
    repo_id: str
    repo_name: str
    repo_path: str
    hostname: str
    git_origin_url: str = ""
    previous_ids: tuple[str, ...] = ()
    """Rotated ids: their facts and records count as this daemon's own."""

    @property
    def own_ids(self) -> frozenset[str]:
        return frozenset((self.daemon_id, *self.previous_ids))


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The outcome of `bootstrap`, and lines for the log."""

    identity: DaemonIdentity
    notes: tuple[str, ...] = ()


def legacy_daemon_id(hostname: str) -> str:
    """The id that programs before 0.9 made of a host's name."""
    return "d_" + crockford_sha256(hostname, 12).lower()


def daemon_id_class(daemon_id: str) -> DaemonIdClass:
    """Which case of §13 an id is. Legacy ones are told by their shape: machines get renamed."""
    if not daemon_id:
        return "missing"
    if is_id("d_", daemon_id):
        return "valid"
    return "legacy" if _LEGACY.fullmatch(daemon_id) else "malformed"


def bootstrap(
    places: Places, *, new_ulid: Callable[[], str], now_ms: int, hostname: str, origin_url: str = ""
) -> Bootstrapped:
    """Load, make or rotate the daemon's identity; by `init` and every start, before anything uses the id.

    `origin_url` is git's effective URL of `origin`, empty without one. Nothing changed, nothing written. Raises
    ConfigInvalid for a broken `config.json` (not a byte of it changes) and StoreFailed when the backup can't be made.
    """
    for directory in (places.var_dir, places.thrum_sync_dir):
        try:
            ensure_private_dir(directory)
        except OSError as error:
            raise StoreFailed(f"could not write {directory}: {error.strerror}") from error
    with locked(places.config_lock):
        original, config = _read_config(places.config_file)
        block = config.get("identity")
        if block is not None and not isinstance(block, dict):
            raise ConfigInvalid(".thrum/config.json is not valid: identity is not an object")
        before = cast("dict[str, Any]", block or {})
        kept = _read_daemon_json(places.daemon_json)
        copied = _is_copy(before, kept, places)
        if copied:
            before = {key: value for key, value in before.items() if key not in ("daemon_id", "previous_ids")}
            kept = {}
        after, notes = _next_block(before, kept, places, new_ulid, now_ms, hostname, origin_url)
        if copied:
            # The ids of before are the original's: what it writes is not this daemon's own.
            old = _text(cast("dict[str, Any]", block or {}), "daemon_id")
            note = f"[identity] daemon_id rotated: {old} -> {after['daemon_id']} (reason: copied repository)"
            before, notes = cast("dict[str, Any]", block or {}), [note, *notes]
        if after != before:
            if original is not None and after["daemon_id"] != before.get("daemon_id"):
                _back_up(places.config_file, original)
            config["identity"] = after
            _write_json(places.config_file, config)
        identity = _identity_of(after, places, origin_url)
        _write_daemon_json(places, identity, str(after.get("repo_id", "")))
        return Bootstrapped(identity, tuple(notes))


def _is_copy(block: dict[str, Any], kept: dict[str, Any], places: Places) -> bool:
    """Whether somebody copied a repository that is still there, daemon id and all. One that was moved keeps its id."""
    daemon_id, state_dir = _text(kept, "daemon_id"), _text(kept, "state_dir")
    if not daemon_id or not state_dir or state_dir == str(places.state_dir):
        return False
    if _text(block, "daemon_id") not in ("", daemon_id):
        return False
    there = Path(state_dir)
    try:
        if there.samefile(places.state_dir):
            return False
        _, config = _read_config(there / "config.json")
    except (OSError, ConfigInvalid):
        return False
    theirs: Any = config.get("identity")
    git = find_git(there.parent)
    elsewhere = git is None or git.common_dir != places.common_dir
    return elsewhere and isinstance(theirs, dict) and _text(cast("dict[str, Any]", theirs), "daemon_id") == daemon_id


def _next_block(
    before: dict[str, Any],
    kept: dict[str, Any],
    places: Places,
    new_ulid: Callable[[], str],
    now_ms: int,
    hostname: str,
    origin_url: str,
) -> tuple[dict[str, Any], list[str]]:
    """The identity block as it shall be; keys keep their places. Pure but for `new_ulid`."""
    block = dict(before)
    notes: list[str] = []
    old: Any = block.get("daemon_id") or ""
    case = daemon_id_class(old) if isinstance(old, str) else "malformed"
    if case == "missing" and is_id("d_", _text(kept, "daemon_id")):
        # The state directory was lost, not the journals: no stranger may take them over.
        block["daemon_id"] = kept["daemon_id"]
        block["init_at"] = _text(kept, "init_at") or format_ms(now_ms)
        if previous := _texts(kept.get("previous_ids")):
            block["previous_ids"] = previous
        if not _text(block, "repo_id") and _text(kept, "repo_id"):
            block["repo_id"] = kept["repo_id"]
    elif case != "valid":
        block["daemon_id"] = "d_" + new_ulid()
        block["init_at"] = format_ms(now_ms)
    elif not _text(block, "init_at"):
        block["init_at"] = _text(kept, "init_at") or format_ms(now_ms)
    if case in ("legacy", "malformed"):
        block["previous_ids"] = list(dict.fromkeys([*_texts(block.get("previous_ids")), str(old)]))
        reason = "legacy hostname-derived" if case == "legacy" else "malformed"
        notes += [
            f"[identity] daemon_id rotated: {old} -> {block['daemon_id']} (reason: {reason})",
            "[identity] Paired peers must be re-paired manually. On each peer host:",
            f"[identity]   thrum peer remove {hostname}",
            f"[identity]   thrum peer add {hostname} ...",
        ]
    if not _text(block, "git_origin_url") and _repo_id_of(origin_url, places):
        block["git_origin_url"] = without_credentials(origin_url)
    block["repo_name"] = places.main_root.name
    block["repo_path"] = str(places.main_root)
    block["hostname"] = hostname
    if not _text(block, "repo_id") and not _derived_repo_id(block, places, origin_url):
        block["repo_id"] = "r_" + new_ulid()
    return block, notes


def _derived_repo_id(block: dict[str, Any], places: Places, origin_url: str) -> str:
    """The repository id of the origin there is, else of the one there was; empty without a usable one."""
    return _repo_id_of(origin_url, places) or _repo_id_of(_text(block, "git_origin_url"), places)


def _repo_id_of(url: str, places: Places) -> str:
    try:
        return repo_id_of_url(url, places.main_root)
    except InvalidUrl:
        return ""


def _identity_of(block: dict[str, Any], places: Places, origin_url: str) -> DaemonIdentity:
    return DaemonIdentity(
        daemon_id=block["daemon_id"],
        init_at=block["init_at"],
        # A made id wins over an origin that came later: the ids of unnamed agents must not change.
        repo_id=_text(block, "repo_id") or _derived_repo_id(block, places, origin_url),
        repo_name=block["repo_name"],
        repo_path=block["repo_path"],
        hostname=block["hostname"],
        git_origin_url=_text(block, "git_origin_url"),
        previous_ids=tuple(_texts(block.get("previous_ids"))),
    )


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [each for each in cast("list[Any]", value) if isinstance(each, str)] if isinstance(value, list) else []


def _read_config(path: Path) -> tuple[bytes | None, dict[str, Any]]:
    """The bytes of `config.json` (None: there is none) and what they say."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, {}
    except OSError as error:
        raise ConfigInvalid(f".thrum/config.json cannot be read: {error.strerror}") from error
    try:
        config: Any = json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigInvalid(f".thrum/config.json is not valid: {error.msg} at line {error.lineno}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f".thrum/config.json is not valid: {error}") from error
    if not isinstance(config, dict):
        raise ConfigInvalid(".thrum/config.json is not valid: not an object at line 1")
    return data, cast("dict[str, Any]", config)


def _read_daemon_json(path: Path) -> dict[str, Any]:
    """What the copy beside the journals says; a broken one says nothing and is written anew."""
    try:
        known: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", known) if isinstance(known, dict) else {}


def _write_daemon_json(places: Places, identity: DaemonIdentity, made_repo_id: str) -> None:
    kept: dict[str, Any] = {"daemon_id": identity.daemon_id, "previous_ids": list(identity.previous_ids)}
    if made_repo_id:
        # Only a made one: a derived id is never stored.
        kept["repo_id"] = made_repo_id
    kept |= {"init_at": identity.init_at, "state_dir": str(places.state_dir)}
    if kept != _read_daemon_json(places.daemon_json):
        _write_json(places.daemon_json, kept)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    try:
        atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {error.strerror}") from error


def _back_up(path: Path, data: bytes) -> None:
    """Keep the configuration from before the first id: made once, never overwritten. Renaming it back reverts."""
    backup = path.with_name(path.name + ".pre-identity-bak")
    if not backup.exists() and not backup.is_symlink():
        try:
            atomic_write(backup, data)
        except OSError as error:
            raise StoreFailed(f"could not write {backup}: {error.strerror}; daemon_id unchanged") from error
