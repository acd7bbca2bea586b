"""The daemon's own identity: made once, kept, rotated, never lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from thrum.errors import ConfigInvalid, StoreFailed
from thrum.identity.daemon_id import Bootstrapped, bootstrap, daemon_id_class, legacy_daemon_id
from thrum.ids import Ulids, is_id, repo_id_of_url
from thrum.paths import Places

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())
NOW = 1_770_141_730_000
NOW_TEXT = "2026-02-03T18:02:10.000Z"
ORIGIN = "https://github.com/user/repo.git"
LEGACY = "d_nywz3tk0vqkh"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    root = tmp_path / "app"
    (root / ".thrum").mkdir(parents=True)
    return Places(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")


def start(places: Places, *, hostname: str = "laptop", origin: str = ORIGIN, now_ms: int = NOW) -> Bootstrapped:
    source = Ulids()
    return bootstrap(places, new_ulid=lambda: source.at(now_ms), now_ms=now_ms, hostname=hostname, origin_url=origin)


def config_of(places: Places) -> dict[str, Any]:
    return json.loads(places.config_file.read_text())


def backup_of(places: Places) -> Path:
    return places.config_file.with_name("config.json.pre-identity-bak")


@pytest.mark.spec("ID-75")
@pytest.mark.parametrize("case", VECTORS["legacy_daemon_id"], ids=lambda case: str(case["hostname"]))
def test_the_old_id_is_made_of_the_host_name(case: dict[str, Any]) -> None:
    assert legacy_daemon_id(case["hostname"]) == case["expect"]


@pytest.mark.spec("ID-75")
@pytest.mark.parametrize("case", VECTORS["daemon_id_class"], ids=lambda case: str(case["daemon_id"]))
def test_an_id_is_classed_by_its_shape(case: dict[str, Any]) -> None:
    assert daemon_id_class(case["daemon_id"]) == case["expect"]


@pytest.mark.spec("ID-75", "ID-77")
def test_a_fresh_repository_gets_an_id_and_no_backup(places: Places) -> None:
    identity = start(places, origin="https://user:secret@github.com/user/repo.git").identity
    assert is_id("d_", identity.daemon_id)
    assert identity.init_at == NOW_TEXT
    assert identity.repo_id == repo_id_of_url(ORIGIN, "/")
    assert config_of(places) == {
        "identity": {
            "daemon_id": identity.daemon_id,
            "init_at": NOW_TEXT,
            "git_origin_url": "https://github.com/user/repo.git",
            "repo_name": "app",
            "repo_path": str(places.main_root),
            "hostname": "laptop",
        }
    }
    assert json.loads(places.daemon_json.read_text()) == {
        "daemon_id": identity.daemon_id,
        "previous_ids": [],
        "init_at": NOW_TEXT,
        "state_dir": str(places.state_dir),
    }
    assert places.config_file.stat().st_mode & 0o777 == places.daemon_json.stat().st_mode & 0o777 == 0o600
    assert not backup_of(places).exists()


@pytest.mark.spec("ID-76")
def test_a_second_bootstrap_writes_nothing(places: Places) -> None:
    first = start(places)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (places.config_file, places.daemon_json)]
    assert start(places, now_ms=NOW + 99_000).identity == first.identity
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in (places.config_file, places.daemon_json)]


@pytest.mark.spec("ID-75", "ID-77", "ID-78")
@pytest.mark.parametrize(("old", "reason"), [(LEGACY, "legacy hostname-derived"), ("daemon-1", "malformed")])
def test_an_old_or_malformed_id_is_rotated_with_a_backup(places: Places, old: str, reason: str) -> None:
    block = {"hostname": "old", "daemon_id": old, "init_at": "2025-01-01T00:00:00.000Z", "extra": 1}
    original = json.dumps({"z": {"y": 1}, "identity": block, "a": [1]})
    places.config_file.write_text(original)
    outcome = start(places)
    identity = outcome.identity
    assert is_id("d_", identity.daemon_id) and identity.init_at == NOW_TEXT
    assert identity.previous_ids == (old,)
    assert identity.own_ids == {old, identity.daemon_id}
    rotated = f"[identity] daemon_id rotated: {old} -> {identity.daemon_id} (reason: {reason})"
    assert outcome.notes[0] == rotated
    assert "thrum peer remove laptop" in "\n".join(outcome.notes)
    config = config_of(places)
    assert list(config) == ["z", "identity", "a"] and (config["z"], config["a"]) == ({"y": 1}, [1])
    assert list(config["identity"])[:4] == ["hostname", "daemon_id", "init_at", "extra"]
    assert backup_of(places).read_text() == original
    assert backup_of(places).stat().st_mode & 0o777 == 0o600
    assert start(places).notes == ()


@pytest.mark.spec("ID-77")
def test_a_backup_is_never_overwritten_and_a_stable_id_makes_none(places: Places) -> None:
    start(places)
    start(places, hostname="renamed")
    assert not backup_of(places).exists()
    backup_of(places).write_text("first")
    places.config_file.write_text(json.dumps({"identity": {"daemon_id": LEGACY}}))
    start(places)
    assert backup_of(places).read_text() == "first"


@pytest.mark.spec("ID-77")
def test_without_a_backup_there_is_no_rotation(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    original = json.dumps({"identity": {"daemon_id": LEGACY}})
    places.config_file.write_text(original)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("thrum.identity.daemon_id.atomic_write", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        start(places)
    assert places.config_file.read_text() == original


@pytest.mark.spec("ID-75")
def test_a_valid_id_stays_and_name_path_and_host_are_refreshed(places: Places) -> None:
    first = start(places).identity
    second = start(places, hostname="renamed", origin="https://example.com/other", now_ms=NOW + 5000).identity
    assert (second.daemon_id, second.init_at) == (first.daemon_id, first.init_at)
    assert (second.hostname, second.git_origin_url) == ("renamed", first.git_origin_url)


def test_a_lost_state_directory_makes_no_stranger(places: Places) -> None:
    places.config_file.write_text(json.dumps({"identity": {"daemon_id": LEGACY}}))
    first = start(places, origin="").identity
    places.config_file.unlink()
    backup_of(places).unlink()
    again = start(places, origin="", now_ms=NOW + 5000).identity
    assert again == first
    assert again.repo_id.startswith("r_") and again.previous_ids == (LEGACY,)


@pytest.mark.spec("ID-04")
def test_without_origin_the_repository_id_is_made_once_and_stays(places: Places) -> None:
    first = start(places, origin="").identity
    assert is_id("r_", first.repo_id)
    assert start(places, origin="git@github.com:").identity.repo_id == first.repo_id
    later = start(places, origin=ORIGIN).identity
    assert (later.repo_id, later.git_origin_url) == (first.repo_id, ORIGIN)


@pytest.mark.spec("ID-04")
def test_a_removed_origin_leaves_the_repository_id(places: Places) -> None:
    first = start(places).identity
    assert start(places, origin="").identity.repo_id == first.repo_id == repo_id_of_url(ORIGIN, "/")


@pytest.mark.spec("ID-78")
@pytest.mark.parametrize("broken", [b"{", b"[]", b"\xff", b'{"identity": 3}', b""])
def test_a_broken_configuration_is_refused_unchanged(places: Places, broken: bytes) -> None:
    places.config_file.write_bytes(broken)
    with pytest.raises(ConfigInvalid, match=r"\.thrum/config\.json is not valid"):
        start(places)
    assert places.config_file.read_bytes() == broken
    assert not places.daemon_json.exists()


@pytest.mark.spec("ID-76")
def test_two_at_once_give_one_id(places: Places) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(start(places).identity.daemon_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8 and len(set(found)) == 1
