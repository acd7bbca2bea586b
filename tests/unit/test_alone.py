"""What keeps the unit tests apart from the others (`conftest.py` beside this file) sees every way to leave them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import zmq


def _fork() -> None:
    os.fork() or os._exit(0)


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(["true"]),
        lambda: trio.run(trio.run_process, ["true"]),
        lambda: multiprocessing.get_context("spawn").Process(target=int).start(),
        _fork,
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.system("true"),
        lambda: threading.Thread(target=int).start(),
        lambda: trio.run(trio.to_thread.run_sync, int),
        zmq.Context,
    ],
    ids=["subprocess", "trio process", "multiprocessing", "fork", "spawn", "system", "thread", "trio thread", "zmq"],
)
def test_a_unit_test_that_starts_a_process_or_a_thread_fails(start: Callable[[], Any]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"belongs in tests/integration"):
        start()
