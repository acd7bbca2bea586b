"""The example of docs/bus.md is run as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.daemon.bus_daemon import make_repo, open_bus_daemon
from tests.support.places import ROOT

PAGE = ROOT / "docs" / "bus.md"
SECONDS = 120


@pytest.fixture
def repo() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="thrum-bus-"))
    yield make_repo(directory)
    shutil.rmtree(directory)


async def test_the_python_example_without_thrum_prints_each_fact_once(repo: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    program = repo / "listen.py"
    program.write_text(next(block for block in blocks if "import json, socket" in block))
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-u", str(program), str(daemon.var / "thrum.sock"), "agent/bob/"],
                stdout=subprocess.PIPE,
            )
            try:
                assert daemon.publisher is not None and process.stdout is not None
                while not daemon.publisher.statistics().audiences:
                    await trio.lowlevel.checkpoint()
                for number in range(20):
                    daemon.commit(daemon.message(("bob",), f"hello {number}"))
                printed = b""
                while printed.count(b"\n") < 20:
                    printed += await process.stdout.receive_some()
            finally:
                process.kill()
                await process.wait()
            await process.stdout.aclose()
    lines = printed.decode().splitlines()
    assert lines == [f"{number + 1} message.create alice hello {number}" for number in range(20)]
