"""Settings: read into structs, changed in place."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from thrum import limits
from thrum.config import Config, duration_seconds, load_config, set_value, update_config
from thrum.errors import BadConfigValue, ConfigInvalid


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / ".thrum"
    directory.mkdir()
    return directory / "config.json"


def test_without_a_file_all_is_default(file: Path) -> None:
    config = load_config(file)
    assert config == Config()
    assert config.daemon.local_only
    assert config.daemon.ws_port == "auto"
    assert config.sync.remote == "origin"
    assert (config.sync.interval_seconds, config.sync.debounce_seconds) == (15.0, 0.3)
    assert config.daemon.stale_session_end_seconds == 86_400
    assert config.permission_supervisors == ("coordinator",)
    assert not file.exists()


def test_known_keys_are_read_and_unknown_ones_kept(file: Path) -> None:
    raw = {"daemon": {"local_only": False, "ws_port": 9999, "later": 1}, "wing": {"x": [1]}, "project_name": "app"}
    file.write_text(json.dumps(raw))
    config = load_config(file)
    assert (config.daemon.local_only, config.daemon.ws_port, config.project_name) == (False, 9999, "app")
    assert config.raw == raw


def test_the_body_limit_can_be_lowered_but_not_raised(file: Path) -> None:
    file.write_text('{"daemon":{"max_message_body_bytes":1000}}')
    assert load_config(file).daemon.body_bytes_max == 1000
    file.write_text('{"daemon":{"max_message_body_bytes":99999999}}')
    assert load_config(file).daemon.body_bytes_max == limits.body_bytes_max


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "daemon": {\n', r"config\.json is not valid: .* at line 3"),
        ('{"a": 1,\n}', r"is not valid: .* at line 2"),
        ("", r"is not valid: .* at line 1"),
        ("[]", "is not valid: not an object at line 1"),
        ('{"a": NaN}', "is not valid: NaN is no JSON at line 1"),
        ('{\n"daemon": {\n"ws_port": "soon"}}', r"daemon\.ws_port: .* at line 3"),
        ('{\n"log_level": 3,\n"daemon": {"x": 1,\n"log_level": "loud"}}', r"daemon\.log_level: .* at line 4"),
        ('{\n"daemon": 3}', r"daemon: .* at line 2"),
        ('{\n"sync": {\n"interval": "soon"}}', r"sync\.interval: not a duration: 'soon' at line 3"),
        ("[" * 100_000, "is not valid"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigInvalid, match=message):
        load_config(file)


def test_a_file_that_is_not_utf8_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b'{\n"a": "\xff"}')
    with pytest.raises(ConfigInvalid, match="not UTF-8 at line 2"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("15s", 15), ("1h30m", 5400), ("2d", 172_800), ("1.5h", 5400), ("90", 90), (90, 90), (0.5, 0.5)],
)
def test_durations_are_seconds(text: str | float, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-1s", -1, "1h 30m", "s"])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_seconds(text)


def set_key(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: set_value(config, key, value)


def test_a_change_keeps_foreign_keys_and_their_order(file: Path) -> None:
    file.write_text('{"z": 1, "daemon": {"later": "é", "local_only": true}, "a": {"b": []}}')
    assert update_config(file, file.parent / "var" / "config.lock", set_key("daemon.local_only", False))
    config = json.loads(file.read_text())
    assert config == {"z": 1, "daemon": {"later": "é", "local_only": False}, "a": {"b": []}}
    assert list(config) == ["z", "daemon", "a"]
    assert "é" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_change_writes_nothing(file: Path) -> None:
    file.write_text('{"daemon":   {"local_only": true}}')
    before = file.stat().st_mtime_ns, file.read_bytes()
    assert not update_config(file, file.parent / "var" / "config.lock", set_key("daemon.local_only", True))
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before


def test_a_change_that_would_break_the_file_is_refused(file: Path) -> None:
    file.write_text('{"daemon": {}}')
    with pytest.raises(BadConfigValue, match=r"daemon\.ws_port"):
        update_config(file, file.parent / "config.lock", set_key("daemon.ws_port", "soon"))
    assert file.read_text() == '{"daemon": {}}'


def test_a_broken_file_is_not_changed(file: Path) -> None:
    file.write_text('{"daemon": ')
    with pytest.raises(ConfigInvalid):
        update_config(file, file.parent / "config.lock", set_key("daemon.local_only", False))
    assert file.read_text() == '{"daemon": '


def test_a_key_below_a_plain_value_is_refused(file: Path) -> None:
    file.write_text('{"wing": 3}')
    with pytest.raises(ConfigInvalid, match="wing is not an object"):
        update_config(file, file.parent / "config.lock", set_key("wing.x", 1))


def _count(file: Path) -> None:
    def up(config: dict[str, Any]) -> None:
        config["n"] = config.get("n", 0) + 1

    for _ in range(20):
        update_config(file, file.parent / "config.lock", up)


def test_no_change_of_two_at_once_is_lost(file: Path) -> None:
    context = get_context("spawn")
    workers = [context.Process(target=_count, args=(file,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert load_config(file).raw == {"n": 60}
