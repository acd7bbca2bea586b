"""The daemon's own identity: made once, kept, rotated, never lost."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.vectors import VECTORS
from thrum.identity.daemon_id import Bootstrapped, bootstrap, daemon_id_class
from thrum.identity.daemon_key import key_flaw, load_key
from thrum.model import files, signatures
from thrum.model.errors import ConfigInvalid, StoreFailed
from thrum.model.ids import Ulids, is_id, repo_id_of_url
from thrum.model.paths import Layout

NOW = 1_770_141_730_000
NOW_TEXT = "2026-02-03T18:02:10.000Z"
ORIGIN = "https://github.com/user/repo.git"
LEGACY = "d_nywz3tk0vqkh"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "app"
    (root / ".thrum").mkdir(parents=True)
    (root / ".git" / "thrum-sync").mkdir(parents=True)
    return Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")


def start(layout: Layout, *, hostname: str = "laptop", origin: str = ORIGIN, now_ms: int = NOW) -> Bootstrapped:
    source = Ulids()
    return bootstrap(layout, new_ulid=lambda: source.at(now_ms), now_ms=now_ms, hostname=hostname, origin_url=origin)


def config_of(layout: Layout) -> dict[str, Any]:
    return json.loads(layout.config_file.read_text())


def backup_of(layout: Layout) -> Path:
    return layout.config_copy.with_name("config.json.pre-identity-bak")


@pytest.mark.spec("ID-75")
@pytest.mark.parametrize("case", VECTORS["legacy_daemon_id"], ids=lambda case: str(case["hostname"]))
def test_an_id_that_older_programs_made_of_the_host_name_is_known_for_one(case: dict[str, Any]) -> None:
    assert daemon_id_class(case["expect"]) == "legacy"


@pytest.mark.spec("ID-75")
@pytest.mark.parametrize("case", VECTORS["daemon_id_class"], ids=lambda case: str(case["daemon_id"]))
def test_an_id_is_classed_by_its_shape(case: dict[str, Any]) -> None:
    assert daemon_id_class(case["daemon_id"]) == case["expect"]


@pytest.mark.spec("ID-75", "ID-77")
def test_a_fresh_repository_gets_an_id_and_no_backup(layout: Layout) -> None:
    identity = start(layout, origin="https://user:secret@github.com/user/repo.git").identity
    assert is_id("d_", identity.daemon_id)
    assert identity.init_at == NOW_TEXT
    assert identity.repo_id == repo_id_of_url(ORIGIN, "/")
    assert config_of(layout) == {
        "identity": {
            "daemon_id": identity.daemon_id,
            "init_at": NOW_TEXT,
            "git_origin_url": "https://github.com/user/repo.git",
            "repo_name": "app",
            "repo_path": str(layout.main_root),
            "hostname": "laptop",
        }
    }
    assert json.loads(layout.daemon_json.read_text()) == {
        "daemon_id": identity.daemon_id,
        "previous_ids": [],
        "init_at": NOW_TEXT,
        "state_dir": str(layout.state_dir),
        "key_inode": layout.daemon_key.stat().st_ino,
    }
    assert layout.daemon_key.stat().st_mode & 0o777 == 0o600
    key = load_key(layout.daemon_key)
    assert key is not None and key.daemon_id == identity.daemon_id
    assert layout.config_file.stat().st_mode & 0o777 == layout.daemon_json.stat().st_mode & 0o777 == 0o600
    assert not backup_of(layout).exists()


@pytest.mark.spec("ID-76")
def test_a_second_bootstrap_writes_nothing(layout: Layout) -> None:
    first = start(layout)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (layout.config_file, layout.daemon_json)]
    assert start(layout, now_ms=NOW + 99_000).identity == first.identity
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in (layout.config_file, layout.daemon_json)]


@pytest.mark.spec("ID-75", "ID-77", "ID-78")
@pytest.mark.parametrize(("old", "reason"), [(LEGACY, "legacy hostname-derived"), ("daemon-1", "malformed")])
def test_an_old_or_malformed_id_is_rotated_with_a_backup(layout: Layout, old: str, reason: str) -> None:
    block = {"hostname": "old", "daemon_id": old, "init_at": "2025-01-01T00:00:00.000Z", "extra": 1}
    original = json.dumps({"z": {"y": 1}, "identity": block, "a": [1]})
    layout.config_file.write_text(original)
    outcome = start(layout)
    identity = outcome.identity
    assert is_id("d_", identity.daemon_id) and identity.init_at == NOW_TEXT
    assert identity.previous_ids == (old,)
    assert identity.own_ids == {old, identity.daemon_id}
    rotated = f"[identity] daemon_id rotated: {old} -> {identity.daemon_id} (reason: {reason})"
    assert outcome.notes[0] == rotated
    assert "thrum peer remove laptop" in "\n".join(outcome.notes)
    config = config_of(layout)
    assert list(config) == ["z", "identity", "a"] and (config["z"], config["a"]) == ({"y": 1}, [1])
    assert list(config["identity"])[:4] == ["hostname", "daemon_id", "init_at", "extra"]
    assert backup_of(layout).read_text() == original
    assert backup_of(layout).stat().st_mode & 0o777 == 0o600
    assert start(layout).notes == ()


@pytest.mark.parametrize("old", ['$(touch "$HOME/owned")', "d_\x1b[2J", "d_1\n{}", "x" * 65])
def test_an_id_that_is_no_word_is_not_logged(layout: Layout, old: str) -> None:
    layout.config_file.write_text(json.dumps({"identity": {"daemon_id": old}}))
    outcome = start(layout)
    assert outcome.notes[0].startswith("[identity] daemon_id rotated: ? -> d_")
    assert old not in "\n".join(outcome.notes)


@pytest.mark.spec("ID-77")
def test_a_backup_is_never_overwritten_and_a_stable_id_makes_none(layout: Layout) -> None:
    start(layout)
    start(layout, hostname="renamed")
    assert not backup_of(layout).exists()
    backup_of(layout).write_text("first")
    layout.config_file.write_text(json.dumps({"identity": {"daemon_id": LEGACY}}))
    start(layout)
    assert backup_of(layout).read_text() == "first"


@pytest.mark.spec("ID-77")
def test_without_a_backup_there_is_no_rotation(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    original = json.dumps({"identity": {"daemon_id": LEGACY}})
    layout.config_file.write_text(original)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("thrum.identity.daemon_id.atomic_write", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        start(layout)
    assert layout.config_file.read_text() == original


@pytest.mark.spec("ID-75")
def test_a_valid_id_stays_and_name_path_and_host_are_refreshed(layout: Layout) -> None:
    first = start(layout).identity
    second = start(layout, hostname="renamed", origin="https://example.com/other", now_ms=NOW + 5000).identity
    assert (second.daemon_id, second.init_at) == (first.daemon_id, first.init_at)
    assert (second.hostname, second.git_origin_url) == ("renamed", first.git_origin_url)


def test_a_lost_state_directory_makes_no_stranger(layout: Layout) -> None:
    layout.config_file.write_text(json.dumps({"identity": {"daemon_id": LEGACY}}))
    first = start(layout, origin="").identity
    layout.config_file.unlink()
    backup_of(layout).unlink()
    again = start(layout, origin="", now_ms=NOW + 5000).identity
    assert again == first
    assert again.repo_id.startswith("r_") and again.previous_ids == (LEGACY,)


@pytest.mark.spec("ID-04")
def test_without_origin_the_repository_id_is_made_once_and_stays(layout: Layout) -> None:
    first = start(layout, origin="").identity
    assert is_id("r_", first.repo_id)
    assert start(layout, origin="git@github.com:").identity.repo_id == first.repo_id
    later = start(layout, origin=ORIGIN).identity
    assert (later.repo_id, later.git_origin_url) == (first.repo_id, ORIGIN)


@pytest.mark.spec("ID-04")
def test_a_removed_origin_leaves_the_repository_id(layout: Layout) -> None:
    first = start(layout).identity
    assert start(layout, origin="").identity.repo_id == first.repo_id == repo_id_of_url(ORIGIN, "/")


@pytest.mark.spec("ID-78")
@pytest.mark.parametrize("broken", [b"{", b"[]", b"\xff", b'{"identity": 3}', b""])
def test_a_broken_configuration_is_refused_unchanged(layout: Layout, broken: bytes) -> None:
    layout.config_file.write_bytes(broken)
    with pytest.raises(ConfigInvalid, match=r"\.thrum/config\.json is not valid"):
        start(layout)
    assert layout.config_file.read_bytes() == broken
    assert not layout.daemon_json.exists()


# -- the key


def a_valid_id_without_key(layout: Layout) -> str:
    old = "d_01KGH87Y00BBBBBBBBBBBBBBBB"
    layout.config_file.write_text(json.dumps({"identity": {"daemon_id": old, "init_at": "2025-01-01T00:00:00.000Z"}}))
    return old


@pytest.mark.parametrize("lost", [(), ("config_file",), ("daemon_json",), ("config_file", "daemon_json")])
def test_the_id_is_the_keys_whatever_else_is_lost(layout: Layout, lost: tuple[str, ...]) -> None:
    old = a_valid_id_without_key(layout)
    first = start(layout)
    assert first.identity.previous_ids == (old,)
    for name in lost:
        getattr(layout, name).unlink()
    again = start(layout, now_ms=NOW + 5000)
    assert (again.identity.daemon_id, again.identity.init_at) == (first.identity.daemon_id, NOW_TEXT)
    assert again.signer.public_key == first.signer.public_key
    # Without either file nobody knows any more who it was before; it is no stranger all the same.
    assert again.identity.previous_ids == ((old,) if len(lost) < 2 else ())
    assert again.notes == ()


def test_an_id_that_no_key_certifies_rotates_once(layout: Layout) -> None:
    old = a_valid_id_without_key(layout)
    first = start(layout)
    assert first.identity.previous_ids == (old,)
    assert first.notes[0] == f"[identity] daemon_id rotated: {old} -> {first.identity.daemon_id} (reason: no key)"
    assert backup_of(layout).exists()
    again = start(layout, now_ms=NOW + 5000)
    assert (again.identity, again.notes) == (first.identity, ())


@pytest.mark.parametrize("spoiled", [b"", b"d_01KGH87Y00BBBBBBBBBBBBBBBB " + b"A" * 43 + b"\n", b"\0" * 80, None])
def test_a_key_that_is_none_is_as_a_lost_one(layout: Layout, spoiled: bytes | None) -> None:
    first = start(layout).identity
    if spoiled is None:
        layout.daemon_key.unlink()
    else:
        layout.daemon_key.write_bytes(spoiled)
        assert key_flaw(layout.daemon_key)[0]
    again = start(layout, now_ms=NOW + 5000)
    assert again.identity.previous_ids == (first.daemon_id,)
    assert again.notes[0].endswith("(reason: no key)")


def test_a_key_that_cannot_be_read_rotates_nothing(layout: Layout, tmp_path: Path) -> None:
    start(layout)
    there = tmp_path / "elsewhere"
    layout.daemon_key.rename(there)
    layout.daemon_key.symlink_to(there)
    before = layout.config_file.read_bytes()
    with pytest.raises(StoreFailed, match="it is a link"):
        start(layout)
    assert "no file of its own" in key_flaw(layout.daemon_key)[0]
    layout.daemon_key.unlink()
    layout.daemon_key.mkdir()
    with pytest.raises(StoreFailed, match="it is not a file"):
        start(layout)
    assert layout.config_file.read_bytes() == before


def test_a_key_that_others_can_read_is_told(layout: Layout) -> None:
    assert key_flaw(layout.daemon_key) == ("", "")
    start(layout)
    assert key_flaw(layout.daemon_key) == ("", "")
    layout.daemon_key.chmod(0o640)
    flaw, remedy = key_flaw(layout.daemon_key)
    assert "mode 640" in flaw and remedy == f"chmod 600 {layout.daemon_key}"


def copied(layout: Layout, to: Path, move: bool = False) -> Layout:
    root = layout.main_root
    if move:
        root.rename(to)
    else:
        shutil.copytree(root, to, symlinks=True)
    return Layout(root=to, state_dir=to / ".thrum", main_root=to, common_dir=to / ".git")


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("original_upgraded", [True, False])
def test_a_copy_of_a_repository_that_is_still_there_is_a_stranger(
    layout: Layout, tmp_path: Path, with_key: bool, original_upgraded: bool
) -> None:
    first = start(layout).identity
    if not with_key:
        layout.daemon_key.unlink()
    copy = copied(layout, tmp_path / "copy")
    if original_upgraded:
        start(layout)
    outcome = start(copy, now_ms=NOW + 5000)
    assert outcome.identity.daemon_id != first.daemon_id
    assert outcome.identity.previous_ids == ()
    assert outcome.notes[0].endswith("(reason: copied repository)")
    assert start(copy, now_ms=NOW + 9000).identity == outcome.identity
    if with_key:
        assert start(layout).identity == first


def test_a_copy_whose_original_is_gone_knows_who_it_was(layout: Layout, tmp_path: Path) -> None:
    first = start(layout).identity
    copy = copied(layout, tmp_path / "copy")
    shutil.rmtree(layout.main_root)
    outcome = start(copy, now_ms=NOW + 5000)
    assert outcome.identity.previous_ids == (first.daemon_id,)
    assert outcome.notes[0].endswith("(reason: copied repository)")


def test_a_moved_repository_a_bind_mount_and_a_restore_in_place_are_no_copies(layout: Layout, tmp_path: Path) -> None:
    first = start(layout)
    # Another name for the same directory, as a bind mount or a container gives it.
    (tmp_path / "mount").symlink_to(layout.main_root)
    mount = tmp_path / "mount"
    mounted = Layout(root=mount, state_dir=mount / ".thrum", main_root=mount, common_dir=mount / ".git")
    assert start(mounted).identity.daemon_id == first.identity.daemon_id
    # The same path, another inode: restored from somewhere, or a file system that numbers anew.
    data = layout.daemon_key.read_bytes()
    layout.daemon_key.rename(tmp_path / "kept-so-that-the-inode-is-not-used-again")
    layout.daemon_key.write_bytes(data)
    assert start(layout).identity.daemon_id == first.identity.daemon_id
    moved = copied(layout, tmp_path / "moved", move=True)
    outcome = start(moved)
    assert (outcome.identity.daemon_id, outcome.notes) == (first.identity.daemon_id, ())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("case", ["no key", "legacy", "copied, original there", "copied, original gone", "fresh"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_any_write_it_is_the_old_daemon_or_the_new_one(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, before: bool
) -> None:
    former: tuple[str, ...] = ()
    if case == "no key":
        former = (a_valid_id_without_key(layout),)
    elif case == "legacy":
        layout.config_file.write_text(json.dumps({"identity": {"daemon_id": LEGACY}}))
        former = (LEGACY,)
    elif case.startswith("copied"):
        first = start(layout).identity.daemon_id
        copy = copied(layout, tmp_path / "copy")
        if case == "copied, original gone":
            # Its inode stays taken: a file system gives a free one to the next file, which would be the copy's key.
            (tmp_path / "held").hardlink_to(layout.daemon_key)
            shutil.rmtree(layout.main_root)
            former = (first,)
        layout = copy
    state = tmp_path / "state"
    shutil.copytree(layout.main_root, state)
    for number in range(5):
        # In place, so that the path stays; what was rewritten has another inode, as after a real kill.
        shutil.rmtree(layout.main_root)
        shutil.copytree(state, layout.main_root)
        left = [number]

        def dying(path: Path, data: bytes, left: list[int] = left, **kwargs: Any) -> None:
            left[0] -= 1
            if left[0] < 0 and before:
                raise Killed
            files.atomic_write(path, data, **kwargs)
            if left[0] < 0:
                raise Killed

        for module in ("daemon_id", "daemon_key"):
            monkeypatch.setattr(f"thrum.identity.{module}.atomic_write", dying)
        with suppress(Killed):
            start(layout)
        died = left[0] < 0
        made = load_key(layout.daemon_key)
        for module in ("daemon_id", "daemon_key"):
            monkeypatch.setattr(f"thrum.identity.{module}.atomic_write", files.atomic_write)
        identity = start(layout, now_ms=NOW + 5000).identity
        assert identity.previous_ids == former
        assert signatures.certifies(identity.daemon_id, start(layout).signer.public_key)
        if made is not None and made.daemon_id not in former and not case.startswith("copied"):
            assert identity.daemon_id == made.daemon_id
        assert start(layout, now_ms=NOW + 9000).identity == identity
        if not died:
            return
    raise AssertionError("more writes than expected")
