"""Settings: read into structs, changed in place."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thrum.model import settings
from thrum.model.config import Config, LiveConfig, load_config, update_config
from thrum.model.errors import BadConfigValue, ConfigInvalid


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / ".thrum"
    directory.mkdir()
    return directory / "config.json"


def test_without_a_file_all_is_default(file: Path) -> None:
    config = load_config(file)
    assert config == Config()
    assert config[settings.LOCAL_ONLY]
    assert config[settings.SYNC_REMOTE] == "origin"
    assert (config[settings.SYNC_INTERVAL], config[settings.SYNC_DEBOUNCE]) == (15.0, 0.3)
    assert config[settings.STALE_SESSION_END] == 86_400
    assert not file.exists()


def test_known_keys_are_read_and_unknown_ones_kept(file: Path) -> None:
    raw = {
        "daemon": {"local_only": False, "log_level": "warn", "later": 1},
        "wing": {"x": [1]},
        "sync": {"interval": 9},
    }
    file.write_text(json.dumps(raw))
    config = load_config(file)
    assert (config[settings.LOCAL_ONLY], config[settings.LOG_LEVEL], config[settings.SYNC_INTERVAL]) == (
        False,
        "warn",
        9,
    )
    assert config.raw == raw
    assert settings.unknown(raw) == ["daemon.later", "wing.x"]


def test_the_body_limit_can_be_lowered_but_not_raised(file: Path) -> None:
    file.write_text('{"daemon":{"max_message_body_bytes":1000}}')
    assert load_config(file)[settings.BODY_BYTES_MAX] == 1000
    file.write_text('{"daemon":{"max_message_body_bytes":99999999}}')
    with pytest.raises(ConfigInvalid, match=r"must be a whole number from 1 to 1048576 at line 1$"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "daemon": {\n', r"config\.json is not valid: .* at line 3"),
        ('{"a": 1,\n}', r"is not valid: .* at line 2"),
        ("", r"is not valid: .* at line 1"),
        ("[]", "is not valid: not an object at line 1"),
        ('{"a": NaN}', "is not valid: NaN is not JSON at line 1"),
        ('{\n"daemon": {\n"ws_port": "soon"}}', r"daemon\.ws_port must be auto or a port from 1 to 65535 at line 3$"),
        ('{\n"log_level": 3,\n"daemon": {"x": 1,\n"log_level": "loud"}}', r"daemon\.log_level must be .* at line 4$"),
        ('{\n"daemon": 3}', "daemon must be an object at line 2$"),
        ('{"backup": {\n"retention": []}}', r": backup\.retention must be an object at line 2$"),
        ('{"identity": 0}', "identity must be an object at line 1$"),
        ('{\n"sync": {\n"interval": "0s"}}', r"sync\.interval must be a duration above 0, e\.g\. 15s at line 3$"),
        ('{"sync": {"interval":\n"15s", "interval": "0s"}}', '"interval" occurs twice at line 2$'),
        (
            '{"daemon": {"local_only": "yes"},\n"sync": {"interval": -1}}',
            r"daemon\.local_only must be true or false at line 1; sync\.interval must be a duration .* at line 2$",
        ),
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


def test_a_refusal_names_the_command_that_fixes_it(file: Path) -> None:
    file.write_text('{"wing": {"sync": 1}, "sync": {"interval": "0s"}}')
    with pytest.raises(ConfigInvalid) as refused:
        load_config(file)
    assert refused.value.remedy == "thrum config set sync.interval VALUE, or: thrum config unset sync.interval"


def test_a_daemon_that_runs_keeps_the_last_good_settings_and_says_why(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text('{"sync": {"interval": "20s"}}')
    live = LiveConfig(file)
    assert (live.current()[settings.SYNC_INTERVAL], live.problem) == (20, "")
    file.write_text('{"sync": {"interval": "0s"}, "daemon": {"local_only": false}}')
    for _ in range(3):
        assert (live.current()[settings.SYNC_INTERVAL], live.current()[settings.LOCAL_ONLY]) == (20, True), "none of it"
    reason = "sync.interval must be a duration above 0, e.g. 15s at line 1"
    assert live.problem == f".thrum/config.json is not valid: {reason}: the previous settings stay in effect"
    assert [record.getMessage() for record in caplog.records] == [live.problem], "once, not at every look"
    file.unlink()
    assert live.current()[settings.SYNC_INTERVAL] == 20, "a file that is not there says nothing new"
    file.write_text('{"sync": {"interval": "30s"}}')
    assert (live.current()[settings.SYNC_INTERVAL], live.problem) == (30, "")


def test_nothing_starts_with_broken_settings(file: Path) -> None:
    file.write_text('{"sync": {"interval": "0s"}}')
    with pytest.raises(ConfigInvalid):
        LiveConfig(file)


def test_several_bad_values_are_fixed_one_by_one(file: Path) -> None:
    file.write_text('{"sync": {"interval": "0s", "remote": ""}}')
    lock = file.parent / "config.lock"
    assert update_config(file, lock, set_key("sync.interval", "15s"))
    assert update_config(file, lock, set_key("sync.remote", "origin"))
    assert load_config(file)[settings.SYNC_REMOTE] == "origin"


def set_key(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: settings.set_value(config, key, value)


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
    with pytest.raises(ConfigInvalid, match="wing must be an object"):
        update_config(file, file.parent / "config.lock", set_key("wing.x", 1))
