"""What it costs to know who calls, who is there, who is at a file, and that somebody died (identity.md)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast

import trio

from bench.measure import Bench, Goal, Row, alternate, median, percentile
from bench.place import TEXT, Repository, clean_environment, open_repository, thrum_command
from bench.scenarios.startup import FLOOR, run_ms
from thrum.identity.caller import Caller, decide
from thrum.identity.evidence import AgentPlace, PeerEvidence, Registry
from thrum.identity.processes import ProcessTable, open_process_table
from thrum.identity.runtimes import RuntimeNames
from thrum.model import clock
from thrum.model.methods.agents import AGENT_LIST_CONTEXT, ListContextParams
from thrum.model.methods.daemon import EVENTS_SINCE, EventsSinceParams
from thrum.ops.context import Call, Context
from thrum.ops.pid_binding import adopt
from thrum.rpc.client import BlockingClient

ANCESTORS = 15
SEND = ("send", "Token refresh is in; can you review it?", "--to", "@agent1")
NO_NAMES = RuntimeNames({})
"""No program counts as a runtime, wherever the bench itself is run from: each of the chain is looked at, none found."""

_NEST = """
import json, os, sys, time
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
print(os.getpid(), flush=True)
null = os.open(os.devnull, os.O_RDWR)
streams = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)]
for line in sys.stdin:
    argv = json.loads(line)
    began = time.perf_counter()
    _, status = os.waitpid(os.posix_spawn(argv[0], argv, os.environ, file_actions=streams), 0)
    elapsed = time.perf_counter() - began
    print(json.dumps([os.waitstatus_to_exitcode(status), elapsed * 1000]), flush=True)
"""


class Nest:
    """A process below `depth` parents of its own, which runs commands and says how long each took."""

    def __init__(self, at: Path, depth: int, program: str = sys.executable) -> None:
        argv = [program, "-S", "-E", "-c", _NEST, str(depth)]
        self._top = subprocess.Popen(
            argv, cwd=at, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(self._line())
        """Of the innermost."""

    @property
    def top_pid(self) -> int:
        """Of the outermost."""
        return self._top.pid

    def _line(self) -> str:
        assert self._top.stdout is not None
        return self._top.stdout.readline()

    def run_ms(self, *argv: str) -> float:
        """Milliseconds that one command took as its parent saw it."""
        assert self._top.stdin is not None
        self._top.stdin.write(json.dumps(argv) + "\n")
        self._top.stdin.flush()
        status, elapsed = json.loads(self._line())
        if status:
            raise SystemExit(f"bench: {' '.join(argv)} ended with status {status}")
        return elapsed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # At the end of its input the innermost ends, and with it all others.
        for stream in (self._top.stdin, self._top.stdout):
            if stream is not None:
                stream.close()
        self._top.wait()


def measure(bench: Bench) -> list[Row]:
    """The caller check, commands with many agents, live work, and deaths."""
    rows: list[Row] = []
    with open_repository(bench.directory, bench.pick(3, 50, 50)) as repository:
        rows += _check(bench, repository)
        rows += _sends(bench, repository)
        rows += _commands(bench, repository)
        if hasattr(os, "pidfd_open"):
            rows.append(_deaths(bench, repository))
    with open_repository(bench.directory, bench.pick(2, 10, 10)) as repository:
        rows += _who_has(bench, repository)
    return rows


# -- the caller check


def _check(bench: Bench, repository: Repository) -> list[Row]:
    """Evidence, decision and a look whether to adopt, as the daemon does for a new connection; nothing is kept."""
    rounds = bench.pick(3, 200, 1000)
    bench.say("identity: the caller check")
    with Nest(repository.worktrees[0], ANCESTORS) as nest:
        table = open_process_table()
        started = next(each.started for each in table.chain(nest.pid) if each.pid == nest.top_pid)
        ancestors = len(table.chain(nest.pid)) - 1
        rows: list[Row] = []
        for name, pid in (("by its place", 0), ("by its processes", nest.top_pid)):
            layout = zip(repository.agents, repository.worktrees, strict=True)
            first, *others = (AgentPlace(agent, str(root)) for agent, root in layout)
            first = AgentPlace(
                first.agent_id, first.root, pid, started if pid else "", clock.SystemClock().now_ms() / 1000
            )
            registry = Registry([first, *others])
            samples = trio.run(_check_samples, table, repository, nest.pid, registry, rounds)
            more: dict[str, float | str] = {"p90_ms": percentile(samples, 90), "ancestors": ancestors}
            goal = Goal(at_most=1.0)
            rows.append(Row(f"caller check, {name}: p50", median(samples), "ms", goal=goal, more=more))
    return rows


async def _check_samples(
    table: ProcessTable, repository: Repository, pid: int, registry: Registry, rounds: int
) -> list[float]:
    ctx = cast("Context", SimpleNamespace(registry=lambda: registry))
    layout = repository.layout
    samples: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        # Without `roots` and `runtimes` of its daemon: as for one that calls seldom.
        evidence = PeerEvidence(table, layout, pid=pid, uid=os.getuid(), names=lambda: NO_NAMES)
        caller = decide(evidence.gather(registry, now=trio.current_time()), "agent")
        if not isinstance(caller, Caller) or caller.agent_id != repository.agents[0]:
            raise SystemExit(f"bench: the caller is not recognised: {caller}")
        call: Any = SimpleNamespace(caller=caller, connection=SimpleNamespace(evidence=evidence))
        await adopt(ctx, cast("Call", call), "message.send")
        samples.append((time.perf_counter() - began) * 1000)
    return samples


def _sends(bench: Bench, repository: Repository) -> list[Row]:
    """The whole command where the most is to be looked at, and where the least is."""
    with ExitStack() as stack:
        small = stack.enter_context(open_repository(bench.directory))
        deep = stack.enter_context(Nest(repository.worktrees[0], ANCESTORS))
        flat = stack.enter_context(Nest(small.worktrees[0], 0))
        command = (thrum_command(), *SEND)
        samples = alternate(
            bench.pick(1, 25, 100),
            {"deep": lambda: deep.run_ms(*command), "flat": lambda: flat.run_ms(*command)},
            lambda text: bench.say(f"identity: send, {text}"),
        )
    more: dict[str, float | str] = {"p90_ms": percentile(samples["deep"], 90)}
    floor = median(samples["flat"])
    name = f"thrum send, 50 agents, {ANCESTORS} ancestors"
    return [Row(name, median(samples["deep"]), "ms", floor, "2 agents, none", more=more)]


# -- commands


def _commands(bench: Bench, repository: Repository) -> list[Row]:
    goals = {"whoami": Goal(1.5, of_ratio=True), "team": Goal(2.0, of_ratio=True)}
    environ, at = clean_environment(), repository.worktrees[0]
    samples = alternate(
        bench.pick(1, 25, 100),
        {FLOOR: lambda: run_ms([sys.executable, "-c", "pass"], environ, at)}
        | {word: lambda word=word: run_ms([thrum_command(), word], environ, at) for word in goals},
        lambda text: bench.say(f"identity: commands, {text}"),
    )
    floor = median(samples[FLOOR])
    return [
        Row(f"thrum {word}, 50 agents", median(samples[word]), "ms", floor, FLOOR, goal, _p90(samples[word]))
        for word, goal in goals.items()
    ]


def _p90(samples: Sequence[float]) -> dict[str, float | str]:
    return {"p90_ms": percentile(samples, 90)}


# -- live work


def _who_has(bench: Bench, repository: Repository) -> list[Row]:
    """Each worktree has some files, is a commit ahead, and changed the file in question."""
    bench.say("identity: who-has, files")
    file = _dirty(repository, bench.pick(5, 500, 500))
    with BlockingClient(repository.socket) as client:

        def ask() -> float:
            began = time.perf_counter()
            result = client.call(AGENT_LIST_CONTEXT, ListContextParams(file=file))
            elapsed = (time.perf_counter() - began) * 1000
            if len(result.contexts) != len(repository.agents):
                raise SystemExit(f"bench: who-has found {len(result.contexts)} of {len(repository.agents)}")
            return elapsed

        environ, at = clean_environment(), repository.worktrees[0]
        samples = alternate(
            bench.pick(1, 25, 100),
            {
                "rpc": ask,
                "command": lambda: run_ms([thrum_command(), "who-has", file], environ, at),
                "status": lambda: _statuses_ms(repository),
            },
            lambda text: bench.say(f"identity: who-has, {text}"),
        )
    floor, floor_name = median(samples["status"]), "10 × git status"
    rpc, command = samples["rpc"], samples["command"]
    return [
        Row("who-has, 10 worktrees: p50", median(rpc), "ms", floor, floor_name, Goal(at_most=50.0), _p90(rpc)),
        Row("thrum who-has, 10 worktrees", median(command), "ms", floor, floor_name, more=_p90(command)),
    ]


def _dirty(repository: Repository, files: int) -> str:
    """The file that all of them changed."""
    first, *others = repository.worktrees
    for index in range(files):
        path = first / f"src/part{index % 20}/module{index}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXT * 10)
    _git(first, "add", "-A", "src")
    _git(first, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "Files")
    commit = _git(first, "rev-parse", "HEAD")
    for worktree in others:
        _git(worktree, "checkout", "-q", "--detach", commit)
    file = "src/part0/module0.py"
    for worktree in repository.worktrees:
        (worktree / file).write_text(TEXT)
    return file


def _git(at: Path, *words: str) -> str:
    argv = ["git", "-C", str(at), *words]
    return subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, check=True).stdout.strip()


def _statuses_ms(repository: Repository) -> float:
    """The least that a fresh answer needs: git looks at each work tree, all at the same time."""
    environ = clean_environment() | {"GIT_OPTIONAL_LOCKS": "0"}
    began = time.perf_counter()
    running = [
        subprocess.Popen(["git", "status", "--porcelain"], cwd=at, env=environ, stdout=subprocess.DEVNULL)
        for at in repository.worktrees
    ]
    for each in running:
        each.wait()
    return (time.perf_counter() - began) * 1000


# -- deaths


def _deaths(bench: Bench, repository: Repository) -> Row:
    """From `kill -9` of an agent's process to the fact, as one who waits for it on the socket sees it."""
    program = repository.main.parent / "claude"
    program.symlink_to(Path(sys.executable).resolve())
    facts: list[float] = []
    descriptors: list[float] = []
    rounds = bench.pick(1, 10, 30)
    for turn in range(rounds):
        bench.say(f"identity: deaths, round {turn + 1}/{rounds}")
        fact, descriptor = _death(repository, str(program))
        facts.append(fact)
        descriptors.append(descriptor)
    floor, goal = median(descriptors), Goal(at_most=2000.0)
    more: dict[str, float | str] = {"max_ms": max(facts)}
    return Row("kill -9 to agent.exit: p50", median(facts), "ms", floor, "pidfd readable", goal, more)


def _death(repository: Repository, program: str) -> tuple[float, float]:
    """Milliseconds from the kill to the fact, and to a pidfd that became readable."""
    with Nest(repository.worktrees[-1], 0, program) as agent, BlockingClient(repository.socket) as client:
        # The first act below a runtime records that process as the agent's.
        agent.run_ms(thrum_command(), "send", "I am here.", "--to", "@agent0")
        head = client.call(EVENTS_SINCE, EventsSinceParams(after_seq=0, limit=1)).head_seq
        wanted = EventsSinceParams(after_seq=head, types=("agent.exit",), wait_ms=10_000)
        came: list[float] = []

        def wait() -> None:
            if client.call(EVENTS_SINCE, wanted).events:
                came.append(time.perf_counter())

        waiting = threading.Thread(target=wait)
        descriptor = os.pidfd_open(agent.pid)
        waiting.start()
        time.sleep(0.05)  # for the daemon to hear of it; nothing is lost if it does not
        began = time.perf_counter()
        os.kill(agent.pid, signal.SIGKILL)
        select.select([descriptor], [], [])
        readable = time.perf_counter()
        waiting.join()
        os.close(descriptor)
    if not came:
        raise SystemExit("bench: nobody noticed that the agent died")
    return (came[0] - began) * 1000, (readable - began) * 1000
