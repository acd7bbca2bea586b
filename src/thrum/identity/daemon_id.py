"""Who this daemon is: its key, the `identity` block of `config.json`, and `daemon.json` (identity.md §13).

The key file is written first and decides who the daemon is; the others follow. So a kill at any point leaves the old id
or the new one, and an id that was replaced becomes a former one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from thrum.identity.daemon_key import DaemonKey, load_key, make_key
from thrum.identity.signing import Signer
from thrum.model import json_text
from thrum.model.clock import format_ms
from thrum.model.dot_git import find_git
from thrum.model.errors import ConfigInvalid, InvalidUrl, StoreFailed
from thrum.model.files import atomic_write, ensure_private_dir, is_link, is_same, locked, read_bytes
from thrum.model.ids import is_id, repo_id_of_url, ulid_ms, without_credentials
from thrum.model.paths import Layout

DaemonIdClass = Literal["missing", "legacy", "valid", "malformed"]

_LEGACY = re.compile(r"d_[0-9a-hjkmnp-tv-z]{12}")
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_REASONS: dict[DaemonIdClass, str] = {
    "missing": "",
    "legacy": "legacy hostname-derived",
    "malformed": "malformed",
    "valid": "no key",
}


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
    signer: Signer
    notes: tuple[str, ...] = ()


def daemon_id_class(daemon_id: str) -> DaemonIdClass:
    """Which case of §13 an id is. Legacy ones are recognized by their form, as machines get renamed."""
    if not daemon_id:
        return "missing"
    if is_id("d_", daemon_id):
        return "valid"
    return "legacy" if _LEGACY.fullmatch(daemon_id) else "malformed"


def bootstrap(
    layout: Layout, *, new_ulid: Callable[[], str], now_ms: int, hostname: str, origin_url: str = ""
) -> Bootstrapped:
    """Load, make or rotate the daemon's identity; by `init` and every start, before anything uses the id.

    `origin_url` is git's effective URL of `origin`, empty without one. Nothing changed, nothing written. Raises
    ConfigInvalid for a broken `config.json` (not a byte of it changes) and StoreFailed when the backup can't be made or
    the key can't be read.
    """
    for directory in (layout.var_dir, layout.thrum_sync_dir):
        try:
            ensure_private_dir(directory)
        except OSError as error:
            raise StoreFailed(f"could not write {directory}: {error.strerror}") from error
    with locked(layout.config_lock):
        original, config = _read_config(layout.config_file)
        block = config.get("identity")
        if block is not None and not isinstance(block, dict):
            raise ConfigInvalid(".thrum/config.json is not valid: identity must be an object")
        before = cast("dict[str, Any]", block or {})
        kept = _read_daemon_json(layout.daemon_json)
        key = load_key(layout.daemon_key)
        past = _look_back(before, kept, key, layout)
        if past.key_is_copied:
            key = None
        if original is not None and (key is None or key.daemon_id != before.get("daemon_id")):
            _back_up(layout.config_copy, original)
        is_new = key is None
        if key is None:
            key = make_key(layout.daemon_key, now_ms)
        after = _next_block(before, {} if past.is_copy else kept, key.daemon_id, past, layout)
        if is_new or not _text(after, "init_at"):
            after["init_at"] = format_ms(now_ms)
        if not _text(after, "git_origin_url") and _repo_id_of(origin_url, layout):
            after["git_origin_url"] = without_credentials(origin_url)
        after |= {"repo_name": layout.main_root.name, "repo_path": str(layout.main_root), "hostname": hostname}
        if not _text(after, "repo_id") and not _derived_repo_id(after, layout, origin_url):
            after["repo_id"] = "r_" + new_ulid()
        if after != before:
            config["identity"] = after
            _write_json(layout.config_file, config)
        identity = _identity_of(after, layout, origin_url)
        _write_daemon_json(layout, identity, str(after.get("repo_id", "")), key.inode)
        return Bootstrapped(identity, key.signer, tuple(_notes(past, key.daemon_id, hostname)))


class _Past(NamedTuple):
    """Who this daemon was, by its files. `is_copy`: another repository was, which is still there; of a copy whose
    original is gone, and of one that was moved, what was written before is this daemon's own.
    """

    daemon_id: str
    previous_ids: tuple[str, ...]
    key_is_copied: bool
    is_copy: bool


def _look_back(block: dict[str, Any], kept: dict[str, Any], key: DaemonKey | None, layout: Layout) -> _Past:
    """A copy is where state directory *and* inode of the key are other ones than `daemon.json` says: a moved
    repository, a bind mount, a restore in place and a file system without lasting inodes change one at most.
    """
    daemon_id = _text(kept, "daemon_id") or _recorded_id(block)
    previous_ids = (*_texts(block.get("previous_ids")), *_texts(kept.get("previous_ids")))
    state_dir = _text(kept, "state_dir")
    same_key = key is not None and kept.get("key_inode") == key.inode
    if same_key or not state_dir or is_same(state_dir, layout.state_dir):
        return _Past(daemon_id, previous_ids, False, False)
    # A key that `daemon.json` does not know yet was made here, by a start that was killed.
    key_is_copied = key is not None and key.daemon_id == _text(kept, "daemon_id")
    return _Past(daemon_id, previous_ids, key_is_copied, _is_original_there(block, kept, key, layout))


def _recorded_id(block: dict[str, Any]) -> str:
    told: Any = block.get("daemon_id")
    return "" if told is None else str(told)


def _is_original_there(block: dict[str, Any], kept: dict[str, Any], key: DaemonKey | None, layout: Layout) -> bool:
    """Whether the repository that `daemon.json` was written for is still there, with that id, and is another one."""
    daemon_id, there = _text(kept, "daemon_id"), Path(_text(kept, "state_dir"))
    if not daemon_id or _text(block, "daemon_id") not in ("", daemon_id, key.daemon_id if key else ""):
        return False
    git = find_git(there.parent)
    if git is not None and git.common_dir == layout.common_dir:
        return False
    # What counts there lies beside its journals, or in the state directory if no thrum of today ran there yet.
    for directory in (*(() if git is None else (git.common_dir / layout.thrum_sync_dir.name,)), there):
        try:
            _, config = _read_config(directory / "config.json")
        except (OSError, ConfigInvalid):
            continue
        block_there: Any = config.get("identity")
        theirs = cast("dict[str, Any]", block_there) if isinstance(block_there, dict) else {}
        # It may have got a key, and with it another id, since it was copied.
        if daemon_id in (_text(theirs, "daemon_id"), *_texts(theirs.get("previous_ids"))):
            return True
    return False


def _next_block(
    before: dict[str, Any], kept: dict[str, Any], daemon_id: str, past: _Past, layout: Layout
) -> dict[str, Any]:
    """The identity block with that id; keys keep their places. Pure."""
    block = dict(before)
    if block.get("daemon_id") != daemon_id:
        block["daemon_id"] = daemon_id
        block["init_at"] = ""
    if not _text(block, "init_at"):
        same = _text(kept, "daemon_id") == daemon_id
        block["init_at"] = (_text(kept, "init_at") if same else "") or format_ms(ulid_ms(daemon_id) or 0)
    former = () if past.is_copy else (*past.previous_ids, past.daemon_id)
    if previous := [id for id in dict.fromkeys(former) if id not in ("", daemon_id)]:
        block["previous_ids"] = previous
    else:
        block.pop("previous_ids", None)
    if not _text(block, "repo_id") and _text(kept, "repo_id"):
        block["repo_id"] = kept["repo_id"]
    return block


def _notes(past: _Past, daemon_id: str, hostname: str) -> list[str]:
    """What the log says of another id."""
    if past.daemon_id in ("", daemon_id):
        return []
    reason = "copied repository" if past.key_is_copied or past.is_copy else _REASONS[daemon_id_class(past.daemon_id)]
    return [
        f"[identity] daemon_id rotated: {_shown(past.daemon_id)} -> {daemon_id} (reason: {reason})",
        "[identity] Paired peers must be re-paired manually. On each peer host:",
        f"[identity]   thrum peer remove {hostname}",
        f"[identity]   thrum peer add {hostname} ...",
    ]


def _shown(daemon_id: str) -> str:
    """An id from a file, as the log takes it: what is no word may be anything."""
    return daemon_id if _WORD.fullmatch(daemon_id) else "?"


def _derived_repo_id(block: dict[str, Any], layout: Layout, origin_url: str) -> str:
    """The repository id of the origin there is, else of the one there was; empty without a usable one."""
    return _repo_id_of(origin_url, layout) or _repo_id_of(_text(block, "git_origin_url"), layout)


def _repo_id_of(url: str, layout: Layout) -> str:
    try:
        return repo_id_of_url(url, layout.main_root)
    except InvalidUrl:
        return ""


def _identity_of(block: dict[str, Any], layout: Layout, origin_url: str) -> DaemonIdentity:
    return DaemonIdentity(
        daemon_id=block["daemon_id"],
        init_at=block["init_at"],
        # A made id wins over an origin that came later: the ids of unnamed agents must not change.
        repo_id=_text(block, "repo_id") or _derived_repo_id(block, layout, origin_url),
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
        data = read_bytes(path)
    except FileNotFoundError:
        return None, {}
    except OSError as error:
        raise ConfigInvalid(f".thrum/config.json cannot be read: {error.strerror}") from error
    try:
        return data, json_text.decode(data).value
    except json_text.NotJson as error:
        raise ConfigInvalid(f".thrum/config.json is not valid: {error}") from error


def _read_daemon_json(path: Path) -> dict[str, Any]:
    """What the copy beside the journals says; a broken one says nothing and is rewritten."""
    try:
        known: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", known) if isinstance(known, dict) else {}


def _write_daemon_json(layout: Layout, identity: DaemonIdentity, made_repo_id: str, key_inode: int) -> None:
    kept: dict[str, Any] = {"daemon_id": identity.daemon_id, "previous_ids": list(identity.previous_ids)}
    if made_repo_id:
        # Only a made one: a derived id is never stored.
        kept["repo_id"] = made_repo_id
    kept |= {"init_at": identity.init_at, "state_dir": str(layout.state_dir), "key_inode": key_inode}
    if kept != _read_daemon_json(layout.daemon_json):
        _write_json(layout.daemon_json, kept)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    try:
        atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {error.strerror}") from error


def _back_up(path: Path, data: bytes) -> None:
    """Keep the configuration from before the first id: made once, never overwritten. Renaming it back reverts."""
    backup = path.with_name(path.name + ".pre-identity-bak")
    if not backup.exists() and not is_link(backup):
        try:
            atomic_write(backup, data)
        except OSError as error:
            raise StoreFailed(f"could not write {backup}: {error.strerror}; daemon_id unchanged") from error
