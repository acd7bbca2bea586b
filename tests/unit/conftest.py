"""A unit test starts no process, and no thread that it would have to wait for: what does lies in `tests/integration`.

So that this stays true, each way to start one fails the test here, in its fixtures too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Generator, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, Final, NoReturn

import pytest
import zmq
from trio._core import _thread_cache

_WAYS: Final[tuple[tuple[Any, str], ...]] = (
    (subprocess.Popen, "__init__"),
    (BaseProcess, "start"),
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (os, "system"),
    (threading.Thread, "start"),
    (_thread_cache.ThreadCache, "start_thread_soon"),  # a worker that another test left would else start unseen
    (zmq.Context, "__init__"),
)


def _refuse(*_arguments: Any, **_options: Any) -> NoReturn:
    pytest.fail("a unit test starts no process and no thread: it belongs in tests/integration")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for where, name in _WAYS:
            patch.setattr(where, name, _refuse)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    with _alone():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    with _alone():
        return (yield)
