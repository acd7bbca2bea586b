"""`message.send` over the socket, answered after the flush, against what disk and SQLite alone allow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import load
from bench.measure import Bench, Goal, Row, cpu_seconds, median, percentile
from bench.place import TEXT, Repository, open_repository
from thrum.model import clock, events
from thrum.model.methods.daemon import HEALTH
from thrum.rpc.client import BlockingClient
from thrum.store import database
from thrum.store.projection.core import Projection
from thrum.store.projection.entry import Entry
from thrum.store.queries.fts import FullTextIndex

AGENTS = 10


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of clients got in a window of time."""

    rate: float
    """Answers a second."""
    p50: float
    """Milliseconds, as p99."""
    p99: float
    client_cpu: float
    """CPUs that the load generator used."""
    daemon_cpu: float | None


def measure(bench: Bench) -> list[Row]:
    """Rows for 1, 10 and 100 clients."""
    rows: list[Row] = []
    with open_repository(bench.directory, bench.pick(3, AGENTS, AGENTS)) as repository:
        pid = _pid(repository)
        for clients in bench.pick((3,), (1, 10, 100), (1, 10, 100)):
            rows += _rows(bench, repository, pid, clients)
        rows += _remarks(bench, repository, pid)
    return rows


def _rows(bench: Bench, repository: Repository, pid: int, clients: int) -> list[Row]:
    seconds = bench.pick(0.1, 1.0, 3.0)
    rounds = bench.pick(1, 3, 5)
    run_load(repository, pid, clients, message_request, min(seconds, 0.5))
    lines = journal_lines(repository)
    found: list[Load] = []
    disk: list[float] = []
    projection: list[float] = []
    for turn in range(rounds):
        bench.say(f"send: {clients} clients, round {turn + 1}/{rounds}")
        found.append(run_load(repository, pid, clients, message_request, seconds))
        disk += group_commit(bench.directory, lines, clients, seconds / 3)
        projection += projection_alone(bench.directory, lines, clients, seconds / 3)
    rate = median([load.rate for load in found])
    latency = median([load.p50 for load in found])
    floor = median(disk)
    more = {
        "p99_ms": median([load.p99 for load in found]),
        "client_cpus": median([load.client_cpu for load in found]),
        "daemon_cpus": median([load.daemon_cpu or 0 for load in found]),
        "picture_alone_per_second": clients / median(projection) * 1000,
    }
    name = f"message.send, {clients} client{'s' * (clients > 1)}"
    goal_p50 = Goal(at_most=1.0) if clients == 1 else None
    goal_rate = Goal(at_least=5000) if clients == 100 else None
    return [
        Row(f"{name}: p50", latency, "ms", floor, "append + fdatasync", goal_p50, more),
        Row(f"{name}: rate", rate, "/s", clients / floor * 1000, "group commit", goal_rate),
    ]


def _remarks(bench: Bench, repository: Repository, pid: int) -> list[Row]:
    """Where the time goes: the same with client keys, and the road alone, without a store."""
    clients, seconds = bench.pick(3, 100, 100), bench.pick(0.1, 1.0, 3.0)
    bench.say("send: with client keys; the road alone")
    lines = journal_lines(repository)
    alone = median(projection_alone(bench.directory, lines, clients, seconds / 3))
    keyed = run_load(repository, pid, clients, keyed_request, seconds)
    road = run_load(repository, pid, clients, info_request, seconds)
    return [
        Row(f"with client keys, {clients} clients: rate", keyed.rate, "/s", clients / alone * 1000, "SQLite alone"),
        Row(f"bus.info, {clients} clients: rate", road.rate, "/s", more={"client_cpus": road.client_cpu}),
    ]


def _pid(repository: Repository) -> int:
    with BlockingClient(repository.socket) as client:
        return client.call(HEALTH).pid


# -- the load


def message_request(author: str, to: str) -> bytes:
    """One send."""
    params = {"caller_agent_id": author, "content": TEXT, "to": [f"@{to}"]}
    return _line("message.send", params)


def keyed_request(author: str, to: str) -> bytes:
    """One send as the command line makes it."""
    return _line("message.send", {"caller_agent_id": author, "content": TEXT, "to": [f"@{to}"], "client_key": "@KEY@"})


def info_request(author: str, to: str) -> bytes:
    """A call that asks nothing of the store but a number."""
    del author, to
    return _line("bus.info", {})


def _line(method: str, params: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + b"\n"


def run_load(
    repository: Repository, pid: int, clients: int, request_of: Callable[[str, str], bytes], seconds: float
) -> Load:
    """Let `clients` connections, spread over the agents, each standing in its worktree, send for that long."""
    agents = repository.agents
    senders = min(clients, len(agents))
    started: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as directory:
        for index in range(senders):
            request = Path(directory, f"{index}")
            request.write_bytes(request_of(agents[index], agents[(index + 1) % len(agents)]))
            connections = clients // senders + (index < clients % senders)
            started.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        load.__file__,
                        repository.socket,
                        str(connections),
                        str(seconds),
                        str(request),
                    ],
                    cwd=repository.worktrees[index],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        before, began = cpu_seconds(pid), time.perf_counter()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate()[0]) for process in started]
        after, elapsed = cpu_seconds(pid), time.perf_counter() - began
    if any(process.returncode for process in started):
        raise SystemExit("bench: a load generator failed")
    latencies = [each / 1000 for answer in answers for each in answer["latencies_us"]]
    begin = min(answer["window"][0] for answer in answers)
    end = max(answer["window"][1] for answer in answers)
    return Load(
        rate=len(latencies) / (end - begin),
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        client_cpu=sum(answer["cpu_seconds"] for answer in answers) / elapsed,
        daemon_cpu=None if before is None or after is None else (after - before) / elapsed,
    )


def journal_lines(repository: Repository) -> list[list[bytes]]:
    """The last lines of each agent's journal that has any: what the floors write."""
    found: list[list[bytes]] = []
    for agent in repository.agents:
        path = repository.journal(agent)
        if path.exists():
            found.append(path.read_bytes().splitlines(keepends=True)[-200:])
    return found


# -- the floors


def group_commit(directory: Path, lines: Sequence[list[bytes]], writers: int, seconds: float) -> list[float]:
    """Milliseconds of each batch in which that many writers each add a line, to a file per agent, flushed once."""
    with tempfile.TemporaryDirectory(dir=directory) as home:
        files = [
            os.open(Path(home, f"{index}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for index in range(min(writers, len(lines)))
        ]
        batches = [b"".join((lines[index] * writers)[: writers // len(files)]) for index in range(len(files))]

        def flush(index: int) -> None:
            os.write(files[index], batches[index])
            os.fdatasync(files[index]) if hasattr(os, "fdatasync") else os.fsync(files[index])

        samples: list[float] = []
        end = time.perf_counter() + seconds
        with ThreadPoolExecutor(8) as pool:
            while (begin := time.perf_counter()) < end or not samples:
                if len(files) == 1:
                    flush(0)
                else:
                    list(pool.map(flush, range(len(files))))
                samples.append((time.perf_counter() - begin) * 1000)
        for file in files:
            os.close(file)
        return samples


def projection_alone(directory: Path, lines: Sequence[list[bytes]], writers: int, seconds: float) -> list[float]:
    """Milliseconds of each SQLite transaction that holds that many messages: the rows thrum keeps, nothing else."""
    facts = [events.decode(line.rstrip(b"\n")) for file in lines for line in file]
    with tempfile.TemporaryDirectory(dir=directory) as home, closing(database.open_writer(Path(home, "db"))) as db:
        database.create_tables(db, epoch="", created_at="", program="bench")
        database.create_indexes(db)
        database.create_search(db)
        now_ms = clock.SystemClock().now_ms
        projection = Projection(db, frozenset({""}), lambda _file, _offset, _length: b"", now_ms)
        words = FullTextIndex(db)
        samples: list[float] = []
        number = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not samples:
            entries: list[Entry] = []
            for _ in range(writers):
                number += 1
                fact = facts[number % len(facts)]
                assert isinstance(fact, events.MessageCreated)
                fresh = msgspec.structs.replace(fact, event_id=f"evt_{number:026}", message_id=f"msg_{number:026}")
                entries.append(Entry(fresh, b"", "messages/a.jsonl", number, 450, False))
            begin = time.perf_counter()
            db.execute("BEGIN IMMEDIATE")
            for entry in entries:
                projection.apply(entry)
            words.wrote(writers, 450 * writers, swept=False)
            db.execute("COMMIT")
            samples.append((time.perf_counter() - begin) * 1000)
        return samples
