"""From a send, and from the publisher alone, to ZeroMQ subscribers in processes of their own, against plain pyzmq."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

from bench import listener, mouth
from bench.measure import Bench, Goal, Row, median, percentile
from bench.place import TEXT, Repository, open_repository
from thrum.model.methods.daemon import BUS_INFO
from thrum.model.methods.messages import MESSAGE_SEND, SendParams
from thrum.rpc.client import BlockingClient

PAUSE_SECONDS = 0.005
"""Between two messages, so that one is through before the next: a latency, not a queue."""


def measure(bench: Bench) -> list[Row]:
    """Rows for 1, 10 and 100 subscriber processes."""
    rows: list[Row] = []
    with open_repository(bench.directory) as repository:
        for count in bench.pick((2,), (1, 10, 100), (1, 10, 100)):
            rows += _rows(bench, repository, count)
        bench.say("bus: one subscriber with thrum.bus.subscriber")
        frames = bench.pick(5, 100, 300)
        api = send_to(
            [sys.executable, listener.__file__, "--api", str(repository.main), str(frames)], repository, frames
        )
    rows.append(Row("send → thrum.bus.subscriber, 1 process: p50", median(api), "ms", more=_tail(api)))
    return rows


def _rows(bench: Bench, repository: Repository, count: int) -> list[Row]:
    frames = bench.pick(5, 60, 200)
    endpoint = _endpoint(repository)
    sent: list[float] = []
    found: dict[str, list[float]] = {"thrum": [], "raw": []}
    for turn in range(bench.pick(1, 2, 3)):
        bench.say(f"bus: {count} subscribers, round {turn + 1}")
        listening = [sys.executable, listener.__file__, endpoint, "all/", str(frames), str(count)]
        sent += send_to(listening, repository, frames)
        for kind, samples in found.items():
            samples += publish_to(kind, count, frames)
    raw, published = median(found["raw"]), median(found["thrum"])
    processes = f"{count} process{'es' * (count > 1)}"
    # With a hundred processes on two processors the sum of their wake-ups is what is measured.
    goal = Goal(at_most=2.0) if count <= 10 else None
    return [
        Row(f"send → subscriber, {processes}: p50", median(sent), "ms", raw, "raw pyzmq", goal, _tail(sent)),
        Row(
            f"publish → subscriber, {processes}: p50",
            published,
            "ms",
            raw,
            "raw pyzmq",
            Goal(at_most=1.5, of_ratio=True),
            _tail(found["thrum"]) | {"floor_p99_ms": percentile(found["raw"], 99)},
        ),
    ]


def _tail(samples: Sequence[float]) -> dict[str, float | str]:
    return {"p99_ms": percentile(samples, 99)}


def _endpoint(repository: Repository) -> str:
    with BlockingClient(repository.socket) as client:
        return client.call(BUS_INFO).endpoint


def send_to(listening: list[str], repository: Repository, frames: int) -> list[float]:
    """Milliseconds from the start of each send to its arrival at each subscriber."""
    begun: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        subscribers = _start([*listening, directory])
        _wait_ready(subscribers)
        with chdir(repository.worktrees[0]), BlockingClient(repository.socket) as client:
            for _ in range(frames):
                time.sleep(PAUSE_SECONDS)
                params = SendParams(content=TEXT, to=("@agent1",))
                at = time.perf_counter_ns()
                begun[client.call(MESSAGE_SEND, params).seq] = at
        return _latencies(begun, subscribers, Path(directory))


def publish_to(kind: str, count: int, frames: int) -> list[float]:
    """Milliseconds from the publisher's call to the arrival at each subscriber. `kind`: thrum or raw."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "bus.sock")
        results = Path(directory, "results")
        results.mkdir()
        publisher = _start(
            [sys.executable, mouth.__file__, kind, str(path), str(count), str(frames), str(PAUSE_SECONDS)]
        )
        subscribers = _start(
            [sys.executable, listener.__file__, f"ipc://{path}", "all/", str(frames), str(count), str(results)]
        )
        _wait_ready(publisher)
        _wait_ready(subscribers)
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        if subscribers.wait():
            raise SystemExit("bench: a subscriber failed")
        begun = json.loads(publisher.communicate("done\n")[0])
        return _latencies({int(seq): at for seq, at in begun.items()}, subscribers, results)


def _start(argv: list[str]) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    return subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("bench: a helper process did not start")


def _latencies(begun: Mapping[int, int], subscribers: subprocess.Popen[str], directory: Path) -> list[float]:
    subscribers.communicate()
    if subscribers.returncode:
        raise SystemExit("bench: a subscriber failed")
    samples: list[float] = []
    for file in directory.iterdir():
        arrived = json.loads(file.read_text())
        samples += [(arrived[str(seq)] - at) / 1e6 for seq, at in begun.items()]
    return samples
