"""Long histories: rebuilding, the daemon's start, one page of an inbox."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import chdir

import msgspec

from bench import rebuilder
from bench.measure import Bench, Goal, Row, median, number, percentile
from bench.place import Repository, clean_environment, open_repository, write_history
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.messages import MESSAGE_LIST, MessageListParams
from thrum.rpc.client import BlockingClient

_LIBRARIES = "import trio, zmq, msgspec, sqlite3, psutil, dulwich.repo"


def measure_start(bench: Bench) -> list[Row]:
    """A history of 100k messages: rebuilding it, and how soon a daemon over it answers."""
    messages = bench.pick(500, 20_000, 100_000)
    with open_repository(bench.directory, bench.pick(2, 20, 100)) as repository:
        write_history(repository, messages, bench.say)
        rows = _rebuild(bench, repository, messages, Goal(at_most=2.0) if messages == 100_000 else None)
        rows += _start(bench, repository, messages)
    if bench.scale == "smoke":
        return rows
    with open_repository(bench.directory, bench.pick(2, 20, 100)) as repository:
        write_history(repository, messages, bench.say, receipts=True)
        rows += _rebuild(bench, repository, messages, None, " with as many read marks")
    return rows


def measure_large(bench: Bench) -> list[Row]:
    """A history of 1M messages and 100 agents: rebuilding it, and one page of an inbox of 10k unread messages."""
    messages, agents = bench.pick((500, 2), (100_000, 20), (1_000_000, 100))
    with open_repository(bench.directory, agents) as repository:
        write_history(repository, messages, bench.say)
        full = messages == 1_000_000
        rows = _rebuild(bench, repository, messages, Goal(at_most=20.0) if full else None, "", full)
        rows += _inbox(bench, repository, messages, agents, full)
    return rows


def _rebuild(
    bench: Bench, repository: Repository, messages: int, goal: Goal | None, what: str = "", memory_goal: bool = False
) -> list[Row]:
    """The database is deleted and the store opened, in a process of its own: seconds and the most memory."""
    rebuilt: list[dict[str, float]] = []
    floors: list[float] = []
    for turn in range(bench.pick(1, 2, 3)):
        bench.say(f"history: rebuilding {messages:,} messages{what}, round {turn + 1}")
        for file in repository.layout.var_dir.glob("messages.db*"):
            file.unlink()
        rebuilt.append(_child(repository, "paint"))
        floors.append(_child(repository, "floor")["seconds"])
    seconds = median([each["seconds"] for each in rebuilt])
    name = f"rebuild, {number(messages)} messages{what}"
    return [
        Row(name, seconds, "s", median(floors), "decode, insert in one bare table", goal),
        Row(
            f"{name}: peak memory",
            max(each["peak_mib"] for each in rebuilt),
            "MiB",
            goal=Goal(at_most=400) if memory_goal else None,
        ),
    ]


def _child(repository: Repository, what: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, rebuilder.__file__, what, str(repository.main)],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"bench: rebuilder failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


# -- start


def _start(bench: Bench, repository: Repository, messages: int) -> list[Row]:
    samples: list[float] = []
    floors: list[float] = []
    for turn in range(bench.pick(1, 3, 9)):
        bench.say(f"history: daemon start, round {turn + 1}")
        began = time.perf_counter()
        repository.start()
        with BlockingClient(repository.socket) as client:
            client.call(HEALTH)
        samples.append((time.perf_counter() - began) * 1000)
        repository.stop()
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _LIBRARIES], env=clean_environment(), check=True)
        floors.append((time.perf_counter() - began) * 1000)
    name = f"daemon start with {number(messages)} messages to its first answer"
    return [Row(name, median(samples), "ms", median(floors), "importing the libraries", Goal(at_most=600))]


# -- inbox


def _inbox(bench: Bench, repository: Repository, messages: int, agents: int, full: bool) -> list[Row]:
    repository.start()
    rows: list[Row] = []
    agent, worktree = repository.agents[1], repository.worktrees[1]
    page = MessageListParams(for_agent=agent, caller_agent_id=agent, page_size=10)
    deep = MessageListParams(
        for_agent=agent, caller_agent_id=agent, page_size=10, page=max(1, messages // agents // 20)
    )
    unread = MessageListParams(for_agent=agent, caller_agent_id=agent, page_size=10, unread=True)
    with chdir(worktree), BlockingClient(repository.socket) as client:
        calls = {
            "inbox page and unread count": (MESSAGE_LIST, page),
            "the same, unread only": (MESSAGE_LIST, unread),
            "the same, a page from the middle": (MESSAGE_LIST, deep),
            "health": (HEALTH, None),
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        answers = {name: client.call(*call) for name, call in calls.items()}
        for turn in range(bench.pick(5, 100, 400)):
            if turn % 50 == 0:
                bench.say(f"history: inbox pages of {messages:,} messages, {turn}")
            for name, (method, params) in calls.items():
                began = time.perf_counter()
                client.call(method, msgspec.structs.replace(params) if params else None)
                samples[name].append((time.perf_counter() - began) * 1000)
    floor = median(samples.pop("health"))
    for name, found in samples.items():
        goal = Goal(at_most=3.0) if full and not rows else None
        more = {"p99_ms": percentile(found, 99), "total": answers[name].total, "unread": answers[name].unread}
        where = f" of {number(messages)} messages, {agents} agents" if not rows else ""
        rows.append(Row(f"{name}{where}: p50", median(found), "ms", floor, "a call of health", goal, more))
    repository.stop()
    return rows
