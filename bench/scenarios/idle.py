"""What a daemon costs while nobody talks: memory, and how often it wakes up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.measure import Bench, Goal, Row
from bench.place import clean_environment, open_repository

_LIBRARIES = (
    "import trio, zmq, msgspec, sqlite3, psutil, dulwich.repo, cyclopts, sys; print(flush=True); sys.stdin.read()"
)


def measure(bench: Bench) -> list[Row]:
    """Nothing where there is no /proc."""
    if not Path("/proc/self/status").exists():
        return []
    with open_repository(bench.directory) as repository:
        # It has worked: its imports are done, its pages are touched.
        for _ in range(bench.pick(1, 20, 20)):
            repository.run("send", "hello", "--to", "@agent1", cwd=repository.worktrees[0])
            repository.run("inbox", cwd=repository.worktrees[1])
        pid = repository.start()
        time.sleep(bench.pick(0.2, 3.0, 12.0))
        seconds = bench.pick(0.3, 6.0, 20.0)
        bench.say(f"idle: counting wake-ups for {seconds:g} s")
        before, began = switches(pid), time.perf_counter()
        time.sleep(seconds)
        after, elapsed = switches(pid), time.perf_counter() - began
        memory = resident_mib(pid)
    woken = sum(count - before.get(thread, 0) for thread, count in after.items())
    return [
        Row("idle memory", memory, "MiB", _libraries_mib(), "the libraries alone", Goal(at_most=70)),
        Row("idle wake-ups", woken / elapsed, "/s", goal=Goal(at_most=2), more={"threads": float(len(after))}),
    ]


def switches(pid: int) -> dict[str, int]:
    """Voluntary context switches of each thread so far: each is a wait that began, so a wake-up that ended it."""
    found: dict[str, int] = {}
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        found[status.parent.name] = int(fields["voluntary_ctxt_switches"])
    return found


def resident_mib(pid: int | str, field: str = "VmRSS") -> float:
    """Resident memory of a process now, or with `VmHWM` at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {field} of process {pid}")


def _libraries_mib() -> float:
    with subprocess.Popen(
        [sys.executable, "-c", _LIBRARIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        memory = resident_mib(process.pid)
        process.stdin.close()
    return memory
