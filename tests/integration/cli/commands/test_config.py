"""`thrum config …`: on the file itself, or through a daemon that runs (cli.md 3.19)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import open_daemon
from tests.support.trusted import accept, trust_here
from thrum.cli.commands.config import HEADINGS
from thrum.model import limits, settings
from thrum.model.paths import find_layout


@pytest.fixture
def alone(tmp_path: Path) -> Terminal:
    """A root without daemon and without identity."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".thrum").mkdir()
    (tmp_path / ".thrum" / "config.json").write_text('{"daemon": {"local_only": true}}')
    trust_here(tmp_path)
    accept(find_layout(tmp_path))
    return Terminal(tmp_path, None)


async def test_settings_are_changed_without_a_daemon(alone: Terminal) -> None:
    file = alone.root / ".thrum" / "config.json"
    assert await alone.says("config", "set", "daemon.max_message_body_bytes", "9999") == (
        "✓ daemon.max_message_body_bytes = 9999\n"
    )
    assert alone.err == b"", "no daemon, no restart"
    assert await alone.says("config", "get", "daemon.max_message_body_bytes") == "9999\n"
    assert await alone.says("config", "set", "project_name", "a") == "✓ project_name = a\n"
    assert alone.err.decode() == "warning: nothing reads project_name yet: what uses it is not built\n"
    assert json.loads(file.read_text())["project_name"] == "a"
    assert await alone.says("config", "unset", "daemon.max_message_body_bytes") == (
        "✓ daemon.max_message_body_bytes unset\n"
    )
    assert await alone.json("config", "get", "daemon.max_message_body_bytes") == {
        "key": "daemon.max_message_body_bytes",
        "value": limits.body_bytes_max,
        "source": "default",
    }
    assert await alone.says("config", "get", "runtime.primary") == "\n", "a bare value, also an empty one"


async def test_a_bad_key_or_value_is_refused_and_changes_nothing(alone: Terminal) -> None:
    file = alone.root / ".thrum" / "config.json"
    before = file.read_bytes()
    error = await alone.refused("config", "set", "daemon.log_levle", "info")
    assert (error["kind"], error["details"]["suggestions"][0]) == ("bad_config_key", "daemon.log_level")
    error = await alone.refused("config", "set", "daemon.log_level", "loud")
    assert (error["kind"], error["message"]) == (
        "bad_config_value",
        "daemon.log_level must be debug, info, warn or error",
    )
    assert (await alone.refused("config", "set", "identity.daemon_id", "x"))["kind"] == "bad_config_key"
    assert (await alone.refused("config", "unset", "nothing"))["kind"] == "bad_config_key"
    assert (await alone.refused("config", "get", "nothing"))["kind"] == "bad_config_key"
    assert file.read_bytes() == before


async def test_show_names_each_source(alone: Terminal) -> None:
    alone.env = {"THRUM_LOCAL": "0", "THRUM_WS_PORT": "7777", "THRUM_TS_AUTHKEY": "secret"}
    shown = await alone.json("config", "show")
    assert set(shown["values"]) == set(settings.SETTINGS)
    assert shown["daemon"] == {
        "local_only": {"value": "false", "source": "environment"},
        "ws_port": {"value": "7777", "source": "environment"},
        "status": "stopped",
    }
    assert shown["runtime"] == {"primary": "", "source": "default"}
    assert {each["env_var"]: each["value"] for each in shown["overrides"]} == {
        "THRUM_LOCAL": "0",
        "THRUM_WS_PORT": "7777",
    }
    assert "secret" not in json.dumps(shown)
    assert "identity" not in shown
    text = await alone.says("config", "show")
    assert "Daemon:    not running\n" in text
    assert "Override:  THRUM_WS_PORT=7777\n" in text
    rows = [row.split() for row in text.splitlines()]
    assert ["daemon.local_only", "false", "environment"] in rows
    hidden = [heading for heading in HEADINGS.values() if f"\n\n{heading}\n" not in text]
    to_come = {key for key, row in settings.SETTINGS.items() if not row.built}
    built = {key.partition(".")[0] for key in settings.SETTINGS.keys() - to_come}
    assert hidden == [HEADINGS[key] for key in HEADINGS if key not in built]
    assert {row[0] for row in rows if row} & to_come == {"daemon.ws_port"}, "what the environment sets is shown"
    assert len(HEADINGS) == len({key.partition(".")[0] for key in settings.SETTINGS}), "a section each"
    assert ["daemon.log_level", "info", "default"] in rows
    alone.env = {}
    await alone.says("config", "set", "peers.pairing_code_length", "8")
    rows = [row.split() for row in (await alone.says("config", "show")).splitlines()]
    assert ["peers.pairing_code_length", "8", "config.json", "(not", "built", "yet)"] in rows, "who sets it sees it"
    assert ["daemon.local_only", "true", "config.json"] in rows


async def test_a_runtime_that_nobody_knows_is_refused_where_it_is_named(alone: Terminal) -> None:
    alone.env = {"HOME": str(alone.root)}
    for words in (("init",), ("quickstart", "nux", "--role", "tester", "--module", "auth")):
        error = await alone.refused(*words, "--runtime", "cladue")
        assert (error["kind"], error["message"]) == ("runtime_not_found", 'no runtime "cladue" is known')
        assert error["remedy"].startswith("did you mean claude")
    assert await alone.says("config", "get", "runtime.primary") == "\n", "and nothing is stored"
    (alone.root / ".thrum" / "runtimes.json").write_text('{"custom_runtimes": {"fast": {"command": "claude --fast"}}}')
    assert "fast" in (await alone.refused("init", "--runtime", "bogus"))["remedy"]
    assert "setting runtime.primary = fast" in await alone.says("init", "--runtime", "fast", "--dry-run")


async def test_the_environment_is_said_to_override_what_is_set(alone: Terminal) -> None:
    alone.env = {"THRUM_LOCAL": "1"}
    await alone.says("config", "set", "daemon.local_only", "false")
    assert alone.err.decode() == "warning: the environment overrides daemon.local_only here: true\n"
    assert await alone.says("config", "get", "daemon.local_only") == "true\n"


async def test_flaws_of_the_file_are_warnings_and_can_be_fixed(alone: Terminal) -> None:
    file = alone.root / ".thrum" / "config.json"
    find_layout(alone.root).config_file.write_text('{"daemon": {"log_level": "loud", "nap": 1}}')
    file.unlink()
    await alone.says("config", "show")
    assert alone.err.decode() == (
        "warning: thrum-sync/config.json is not valid: daemon.log_level must be debug, info, warn or error at line 1:"
        " no daemon starts with it, a running one keeps the previous settings\n"
        "warning: unknown setting daemon.nap in config.json: it is ignored\n"
    )
    await alone.says("config", "set", "daemon.log_level", "warn")
    assert json.loads(file.read_text()) == {"daemon": {"log_level": "warn", "nap": 1}}
    find_layout(alone.root).config_file.write_text("{")
    assert (await alone.refused("config", "show"))["kind"] == "config_invalid"


async def test_a_running_daemon_makes_the_change_and_what_needs_a_restart_says_so(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        daemon.ctx.here.layout.config_file.write_text("{}")
        desk = await open_terminal(daemon, "furiosa")
        await desk.says("config", "set", "daemon.max_message_body_bytes", "9999")
        assert desk.err.decode().startswith("hint: takes effect when the daemon is restarted")
        await desk.says("config", "set", "daemon.max_message_body_bytes", "9999")
        assert desk.err == b""
        changed = await desk.json("config", "unset", "daemon.max_message_body_bytes")
        assert changed["restart_needed"] and changed["hints"][0]["code"] == "config.restart-daemon"
        await desk.says("config", "set", "backup.dir", "there")
        assert desk.err == b""
        shown = await desk.json("config", "show")
        assert shown["daemon"]["status"] == "running"
        assert shown["identity"] == {
            "agent": "furiosa",
            "role": "implementer",
            "module": "furiosa",
            "file": ".thrum/identities/furiosa.json",
        }
