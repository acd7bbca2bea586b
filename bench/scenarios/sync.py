"""Rounds with a remote on this machine, against git's own commands doing the same on a clone of the same branch."""

from __future__ import annotations

import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Generator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path

from bench.branches import ByHand, Shape, Synced, begin_to_sync, bytes_below, force, git, open_by_hand, open_synced
from bench.measure import Bench, Goal, Row, alternate, median, number, percentile
from bench.place import TEXT, Repository, clean_environment, open_repository, thrum_command
from bench.scenarios.startup import run_ms
from thrum.model.methods.agents import AGENT_LIST, AgentListParams
from thrum.model.methods.daemon import EVENTS_SINCE, EventsSinceParams
from thrum.model.methods.messages import MESSAGE_SEND, SendParams
from thrum.model.methods.sync import SYNC_CONFIGURE, SyncConfigureParams
from thrum.rpc.client import BlockingClient

BY_HAND = "git by hand"
_PAUSE_SECONDS = 0.01
_CARE_SECONDS = 120.0


def measure(bench: Bench) -> list[Row]:
    """Rounds by the size of the branch; then what arrives, who waits, who sends meanwhile, and the disk."""
    rows: list[Row] = []
    large = Shape(*bench.pick((2, 40, 20), (10, 10_000, 1_000), (10, 10_000, 10_000)))
    with open_synced(bench, large) as synced:
        rows.append(_round(bench, synced, large, Goal(at_most=2.0, of_ratio=True)))
        with open_repository(bench.directory, 2, prefix="other", clone_of=synced.remote) as other:
            begin_to_sync(other)
            rows.append(_wakes(bench, synced, other))
            rows.append(_arrives(bench, synced, other))
        rows += _sends(bench, synced)
        rows += _disk(bench, synced, large)
    for shape in _shapes(bench):
        with open_synced(bench, shape) as synced:
            rows.append(_round(bench, synced, shape, Goal(at_most=100.0)))
    return rows


def _shapes(bench: Bench) -> list[Shape]:
    """Journals of 1,000 lines: their number and that of the commits in turns."""
    wanted: list[tuple[int, int, int]] = bench.pick(
        [(2, 10, 40)],
        [(10, 1_000, 1_000), (10, 1_000, 10_000)],
        [(10, 1_000, 1_000), (10, 1_000, 10_000), (10, 1_000, 100_000), (100, 1_000, 10_000)],
    )
    return [Shape(*each) for each in wanted]


@contextmanager
def _provenance(repository: Repository, agent: int = 0) -> Generator[BlockingClient]:
    """A connection of one agent, made where it stands."""
    with chdir(repository.worktrees[agent]), BlockingClient(repository.socket) as client:
        yield client


def _send(client: BlockingClient, repository: Repository, to: str = "") -> None:
    author, other = repository.agents[:2]
    client.call(MESSAGE_SEND, SendParams(caller_agent_id=author, content=TEXT, to=(f"@{to or other}",)))


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


# -- one round


def _round(bench: Bench, synced: Synced, shape: Shape, goal: Goal) -> Row:
    """A send, and the round that brings it to the remote."""
    repository = synced.repository
    name = f"round, {shape.author_journals} × {number(shape.lines)} lines, {number(shape.commits)} commits"
    with _provenance(repository) as client, open_by_hand(synced) as hand:

        def send_and_sync() -> float:
            began = time.perf_counter()
            _send(client, repository)
            if not force(client).sent:
                raise SystemExit("bench: a round had nothing to send")
            return _ms_since(began)

        samples = alternate(
            bench.pick(1, 15, 40),
            {"thrum": send_and_sync, BY_HAND: hand.round_ms},
            lambda text: bench.say(f"sync: {name}, {text}"),
        )
    found, floor = samples["thrum"], samples[BY_HAND]
    more: dict[str, float | str] = {
        "p90_ms": percentile(found, 90),
        "mean_ms": sum(found) / len(found),
        "floor_p90_ms": percentile(floor, 90),
    }
    return Row(f"{name}: p50", median(found), "ms", median(floor), BY_HAND, goal, more)


# -- from another clone


def _wakes(bench: Bench, synced: Synced, other: Repository) -> Row:
    """From a send here to the end of a `thrum wait` there, with the settings as they come."""
    repository, receiver = synced.repository, other.agents[0]
    _until_known(repository, receiver)
    with _provenance(repository) as client, open_by_hand(synced) as hand:
        second = hand.clone.with_name("second.git")
        git(second.parent, "clone", "-q", "--bare", "remote.git", second.name)
        fetches = ByHand(second, "", second)

        def wake() -> float:
            with _waiting(other) as finished:
                began = time.perf_counter()
                _send(client, repository, receiver)
                finished()
                return _ms_since(began)

        def carry() -> float:
            began = time.perf_counter()
            hand.round_ms()
            fetches.fetch()
            return _ms_since(began)

        samples = alternate(
            bench.pick(1, 10, 30), {"thrum": wake, BY_HAND: carry}, lambda text: bench.say(f"sync: wake, {text}")
        )
    found = samples["thrum"]
    more: dict[str, float | str] = {"p90_ms": percentile(found, 90), "min_ms": min(found)}
    name = "send here to the end of thrum wait in another clone: p50"
    return Row(name, median(found), "ms", median(samples[BY_HAND]), BY_HAND, Goal(at_most=1000.0), more)


def _until_known(repository: Repository, agent: str) -> None:
    """Until a clone has heard of another one's agent."""
    with BlockingClient(repository.socket) as client:
        for _ in range(20):
            force(client)
            if any(each.agent_id == agent for each in client.call(AGENT_LIST, AgentListParams()).agents):
                return
    raise SystemExit(f"bench: {agent} never arrived")


@contextmanager
def _waiting(repository: Repository) -> Generator[Callable[[], None]]:
    """`thrum wait` of the first agent, which sleeps by now; what is yielded waits for its end."""
    with subprocess.Popen(
        [thrum_command(), "wait", "--timeout", "30s"],
        cwd=repository.worktrees[0],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:

        def finish() -> None:
            said = process.communicate()[0]
            if process.returncode:
                raise SystemExit(f"bench: thrum wait ended with {process.returncode}: {said.decode()}")

        time.sleep(0.3)  # nothing is lost if it does not wait yet: it looks first
        yield finish


def _arrives(bench: Bench, synced: Synced, other: Repository) -> Row:
    """From the moment at which the remote has them to the last of them at one who asks for all that is new."""
    facts, rounds = bench.pick(20, 1_000, 1_000), bench.pick(1, 3, 7)
    home, here = synced.remote.parent, synced.repository
    # The other clone pushes beside, and git brings it over at a stroke.
    stage = home / "stage.git"
    git(home, "clone", "-q", "--bare", str(synced.remote), str(stage))
    git(other.main, "remote", "set-url", "origin", str(stage))
    samples: list[float] = []
    floors: list[float] = []
    behind = home / "behind.git"
    git(home, "clone", "-q", "--bare", str(synced.remote), str(behind))
    with _provenance(other) as sender, BlockingClient(here.socket) as client, BlockingClient(here.socket) as watcher:
        force(client)
        for turn in range(rounds):
            bench.say(f"sync: {facts:,} facts of another clone, {turn + 1}/{rounds}")
            for _ in range(facts):
                _send(sender, other)
            while force(sender).sent:
                pass
            git(synced.remote, "fetch", "-q", str(stage), "a-sync")
            head = watcher.call(EVENTS_SINCE, EventsSinceParams(after_seq=0, limit=1)).head_seq
            came: list[float] = []
            watching = threading.Thread(target=_watch, args=(watcher, head, facts, came))
            watching.start()
            began = time.perf_counter()
            git(synced.remote, "update-ref", "refs/heads/a-sync", "FETCH_HEAD")
            force(client)
            watching.join()
            samples.append((came[0] - began) * 1000)
            began = time.perf_counter()
            git(behind, "fetch", "-q", "origin", "+refs/heads/a-sync:refs/heads/a-sync")
            floors.append(_ms_since(began))
    name = f"{number(facts)} facts of another clone, from the round to the last on the bus: p50"
    goal = Goal(at_most=1000.0) if facts == 1_000 else None
    return Row(name, median(samples), "ms", median(floors), "git fetch", goal, {"max_ms": max(samples)})


def _watch(client: BlockingClient, head: int, facts: int, came: list[float]) -> None:
    """Note when so many facts behind `head` were announced."""
    seen, after = 0, head
    while seen < facts:
        found = client.call(
            EVENTS_SINCE, EventsSinceParams(after_seq=after, limit=1_000, wait_ms=30_000, types=("message.create",))
        )
        seen, after = seen + len(found.events), found.next_seq
    came.append(time.perf_counter())


# -- who sends meanwhile


def _sends(bench: Bench, synced: Synced) -> list[Row]:
    """Sends while rounds follow each other, and while there are none."""
    repository = synced.repository
    count = bench.pick(3, 100, 250)
    quiet: dict[str, list[float]] = {"rpc": [], "command": []}
    busy: dict[str, list[float]] = {"rpc": [], "command": []}
    rounds = 0
    with _provenance(repository) as client:
        for turn in range(bench.pick(1, 2, 4)):
            for samples, on in ((quiet, False), (busy, True)):
                bench.say(f"sync: sends {'while rounds run' if on else 'alone'}, {turn + 1}")
                client.call(SYNC_CONFIGURE, SyncConfigureParams(enabled=on, confirm_public=True))
                with ExitStack() as stack:
                    if on:
                        force(client)
                        done = stack.enter_context(_rounds_all_the_time(repository))
                    else:
                        time.sleep(bench.pick(0, 1, 2))  # for the round that `configure` began
                        done = [0]
                    for _ in range(count):
                        time.sleep(_PAUSE_SECONDS)
                        began = time.perf_counter()
                        _send(client, repository)
                        samples["rpc"].append(_ms_since(began))
                    for _ in range(count // 2):
                        samples["command"].append(_command_ms(repository))
                rounds += done[0]
    return [
        _beside(f"{what} while rounds run: p99", busy[key], quiet[key], rounds)
        for key, what in (("rpc", "message.send"), ("command", "thrum send"))
    ]


def _command_ms(repository: Repository) -> float:
    argv = [thrum_command(), "send", TEXT, "--to", f"@{repository.agents[1]}"]
    return run_ms(argv, clean_environment(), repository.worktrees[0])


def _beside(name: str, busy: list[float], quiet: list[float], rounds: int) -> Row:
    more: dict[str, float | str] = {
        "p50_ms": median(busy),
        "floor_p50_ms": median(quiet),
        "samples": float(len(busy)),
        "rounds": float(rounds),
    }
    goal = Goal(at_most=3.0, of_ratio=True)
    return Row(name, percentile(busy, 99), "ms", percentile(quiet, 99), "the same, no rounds", goal, more)


@contextmanager
def _rounds_all_the_time(repository: Repository) -> Generator[list[int]]:
    """One round begins when the last has ended; what is yielded counts them."""
    done, stop = [0], threading.Event()

    def run() -> None:
        with BlockingClient(repository.socket) as client:
            while not stop.is_set():
                force(client)
                done[0] += 1

    running = threading.Thread(target=run)
    running.start()
    try:
        yield done
    finally:
        stop.set()
        running.join()


# -- the disk


def _disk(bench: Bench, synced: Synced, shape: Shape) -> list[Row]:
    """What rounds leave in the git directory, the journals themselves not counted."""
    repository, rounds = synced.repository, bench.pick(3, 60, 1_000)
    directory = repository.main / ".git"
    before = bytes_below(directory, ("thrum-sync",))
    began = time.perf_counter()
    with _provenance(repository) as client:
        for turn in range(rounds):
            bench.say(f"sync: the disk, round {turn + 1:,}/{rounds:,}")
            _send(client, repository)
            force(client)
    elapsed = time.perf_counter() - began
    _until_cared_for(directory)
    grown = max(bytes_below(directory, ("thrum-sync",)) - before, 0) / 2**20
    whole = rounds * len(zlib.compress(repository.journal(repository.agents[0]).read_bytes(), 1)) / 2**20
    name = f"{number(rounds)} rounds on {number(shape.lines)} lines leave"
    goal = Goal(at_most=50.0) if rounds == 1_000 else None
    return [Row(name, grown, "MiB", whole, "whole blobs", goal, {"seconds": elapsed})]


def _until_cared_for(directory: Path) -> None:
    """Until nothing is being packed any more."""
    idle, end = 0, time.monotonic() + _CARE_SECONDS
    while idle < 4 and time.monotonic() < end:
        time.sleep(0.25)
        idle = 0 if (directory / "objects" / "thrum-packing").exists() else idle + 1
