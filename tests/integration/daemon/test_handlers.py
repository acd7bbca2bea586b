"""Every method has an answer."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon.in_process import open_daemon
from thrum.model.methods.daemon import CLI_RUN
from thrum.model.methods.table import METHODS


async def test_every_method_has_a_handler(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        without = [method.name for method in METHODS.values() if daemon.dispatcher.method(method.name) is not method]
    assert without == [CLI_RUN.name], "which the server of launchers adds"
