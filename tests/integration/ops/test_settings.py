"""Settings through the daemon: shown, changed, and in force at once (cli.md 3.19, rpc.md §5)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.in_process import open_daemon
from thrum.model import errors, settings


async def test_the_daemon_shows_gets_sets_and_unsets(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        file = daemon.ctx.here.layout.config_file
        file.write_text("{}")
        nobody = daemon.as_agent("")
        shown = await nobody("config.show")
        assert shown.config_file == str(daemon.ctx.here.layout.config_copy)
        assert shown.daemon["status"] == "running"
        assert set(shown.values) == set(settings.SETTINGS)
        assert (shown.values["permission_supervisors"].value, shown.values["daemon.local_only"].value) == (
            '["coordinator"]',
            "true",
        )
        changed = await nobody("config.set", key="daemon.ws_port", value=9999)
        assert (changed.value, changed.source, changed.restart_needed) == (9999, "config.json", True)
        assert not (await nobody("config.set", key="daemon.ws_port", value=9999)).restart_needed, "it was that already"
        assert not (await nobody("config.set", key="project_name", value="shop")).restart_needed
        assert (await nobody("config.get", key="project_name")).value == "shop"
        unset = await nobody("config.unset", key="project_name")
        assert (unset.value, unset.source) == ("", "default")
        assert json.loads(file.read_text()) == {"daemon": {"ws_port": 9999}}
        before = file.read_bytes()
        refused: list[tuple[str, dict[str, Any], type[errors.ThrumError]]] = [
            ("config.set", {"key": "daemon.foo", "value": 1}, errors.BadConfigKey),
            ("config.set", {"key": "identity.daemon_id", "value": "d_"}, errors.BadConfigKey),
            ("config.set", {"key": "daemon.ws_port", "value": "soon"}, errors.BadConfigValue),
            ("config.unset", {"key": "daemon"}, errors.BadConfigKey),
            ("config.get", {"key": "x"}, errors.BadConfigKey),
        ]
        for method, params, error in refused:
            with pytest.raises(error):
                await nobody(method, **params)
        assert file.read_bytes() == before


async def test_the_log_level_counts_at_once(tmp_path: Path) -> None:
    logger = logging.getLogger("thrum")
    before = logger.level
    try:
        async with open_daemon(tmp_path) as daemon:
            daemon.ctx.here.layout.config_file.write_text("{}")
            changed = await daemon.as_agent("")("config.set", key="daemon.log_level", value="debug")
            assert not changed.restart_needed
            assert logger.level == logging.DEBUG
            await daemon.as_agent("")("config.unset", key="daemon.log_level")
            assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)


@pytest.mark.spec("ID-78")
async def test_a_broken_file_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        file = daemon.ctx.here.layout.config_file
        file.write_text('{"daemon": ')
        for method, params in (
            ("config.show", {}),
            ("config.get", {"key": "project_name"}),
            ("config.set", {"key": "project_name", "value": "x"}),
        ):
            with pytest.raises(errors.ConfigInvalid, match="line 1"):
                await daemon.as_agent("")(method, **params)
        assert file.read_text() == '{"daemon": '
