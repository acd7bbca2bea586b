"""How long a command takes, whole process, against the interpreter that does nothing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.measure import Bench, Goal, Row, alternate, median, percentile
from bench.place import clean_environment, open_repository, thrum_command

FLOOR = "python -c pass"
OWN_PROCESS = (sys.executable, "-c", "import sys; from thrum.cli import app; app.main(sys.argv[1:])")
"""What the launcher does when it reaches no daemon: the same command, parsed here, sent to the daemon as RPC."""

COMMANDS = {
    "thrum send": (("send", "Token refresh is in; can you review it?", "--to", "@agent1"), Goal(1.3, of_ratio=True)),
    "thrum inbox": (("inbox",), Goal(1.3, of_ratio=True)),
    "thrum --help": (("--help",), Goal(2.0, of_ratio=True)),
}


def measure(bench: Bench) -> list[Row]:
    """A row for each command warm, and for the same command in a process of its own."""
    with open_repository(bench.directory) as repository:
        worktree = repository.worktrees[0]
        warm = clean_environment()
        runs = {FLOOR: ([sys.executable, "-c", "pass"], warm)}
        for name, (words, _) in COMMANDS.items():
            runs[name] = ([thrum_command(), *words], warm)
        samples = alternate(
            bench.pick(1, 25, 100),
            {name: lambda argv=argv, env=env: run_ms(argv, env, worktree) for name, (argv, env) in runs.items()},
            lambda text: bench.say(f"startup: warm, {text}"),
        )
        cold = alternate(
            bench.pick(1, 5, 15),
            {name: lambda w=w: run_ms([*OWN_PROCESS, *w], warm, worktree) for name, (w, _) in COMMANDS.items()},
            lambda text: bench.say(f"startup: in its own process, {text}"),
        )
    floor = median(samples[FLOOR])
    return [
        Row(name, median(samples[name]), "ms", floor, FLOOR, goal, {"p90_ms": percentile(samples[name], 90)})
        for name, (_, goal) in COMMANDS.items()
    ] + [Row(f"{name}, no warm path", median(cold[name]), "ms", floor, FLOOR) for name in COMMANDS]


def run_ms(argv: list[str], environ: dict[str, str], cwd: Path) -> float:
    """Milliseconds from the start of a process to its end, as its parent sees it."""
    null = os.open(os.devnull, os.O_RDWR)
    before = Path.cwd()
    os.chdir(cwd)
    try:
        redirect = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)]
        began = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, environ, file_actions=redirect)
        _, status = os.waitpid(pid, 0)
        elapsed = (time.perf_counter() - began) * 1000
    finally:
        os.chdir(before)
        os.close(null)
    if status:
        raise SystemExit(f"bench: {' '.join(argv)} ended with status {os.waitstatus_to_exitcode(status)}")
    return elapsed
