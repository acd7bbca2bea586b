"""What somebody who may push costs a clone: garbage, against as many messages; many journals, against a large one."""

from __future__ import annotations

import subprocess
import time

from bench.branches import BRANCH, Shape, Synced, force, open_synced
from bench.measure import Bench, Goal, Row, median
from bench.place import clean_environment
from bench.scenarios.signed import foreign
from thrum.rpc.client import BlockingClient

_AUTHOR_JOURNAL = "messages/slit.jsonl"


def measure(bench: Bench) -> list[Row]:
    """Rows for the round in which each flood arrives, and for the one after somebody added a line to it."""
    return [*_garbage(bench), *_journals(bench)]


def push(remote: str, files: dict[str, bytes]) -> None:
    """A commit on the branch of a bare repository in which these files are so."""
    who = "stranger <s@localhost> 1700000000 +0000"
    parts = [f"commit refs/heads/{BRANCH}\ncommitter {who}\ndata 1\nx\nfrom refs/heads/{BRANCH}^0\n".encode()]
    for path, data in files.items():
        parts.append(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force"],
        cwd=remote,
        env=clean_environment(),
        input=b"".join(parts),
        capture_output=True,
        check=True,
    )


def _seconds(synced: Synced, client: BlockingClient, files: dict[str, bytes]) -> float:
    """The round in which these files arrive."""
    push(str(synced.remote), files)
    begun = time.perf_counter()
    force(client)
    return time.perf_counter() - begun


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


# -- garbage


def _garbage(bench: Bench) -> list[Row]:
    count = bench.pick(500, 100_000, 300_000)
    flood = _joined([b"flood %d" % number for number in range(count)])
    messages = _joined([raw for _, raw in foreign(count // 10, False)])
    found: dict[str, list[float]] = {"garbage": [], "again": [], "messages": []}
    for turn in range(bench.pick(1, 2, 3)):
        bench.say(f"floods: {count:,} lines of garbage, {turn + 1}")
        for name, data in (("garbage", flood), ("messages", messages)):
            with open_synced(bench, Shape(2, 10, 2)) as synced, BlockingClient(synced.repository.socket) as client:
                found[name].append(_seconds(synced, client, {_AUTHOR_JOURNAL: data}))
                if name == "garbage":
                    found["again"].append(_seconds(synced, client, {_AUTHOR_JOURNAL: data + b"one more\n"}))
    floor = median(found["messages"]) * 10
    goal = Goal(at_most=1.0, of_ratio=True)
    name = f"{count:,} lines of garbage: the round"
    return [
        Row(name, median(found["garbage"]), "s", floor, "as many messages", goal),
        Row(f"{name} after", median(found["again"]), "s", floor, "as many messages", goal),
    ]


# -- journals


def _journals(bench: Bench) -> list[Row]:
    """As many messages, each in a journal of its own, or all in one: each is a file that is flushed, and a blob."""
    count = bench.pick(50, 2_000, 2_000)
    lines = [raw for _, raw in foreign(count, False)]
    many = {
        f"messages/a{number}.jsonl": raw.replace(b'"slit"', b'"a%d"' % number) + b"\n"
        for number, raw in enumerate(lines)
    }
    found: dict[str, list[list[float]]] = {"many": [], "one": []}
    for turn in range(bench.pick(1, 3, 5)):
        bench.say(f"floods: {count:,} journals, {turn + 1}")
        for name, files in (("many", many), ("one", {_AUTHOR_JOURNAL: _joined(lines)})):
            with open_synced(bench, Shape(2, 10, 2)) as synced, BlockingClient(synced.repository.socket) as client:
                first = _seconds(synced, client, files)
                more = [_seconds(synced, client, {"messages/more.jsonl": b'{"n":%d}\n' % n}) for n in range(3)]
                found[name].append([first, median(more)])
    rows: list[Row] = []
    for place, what, at_most in ((0, "the round", 8.0), (1, "a round after it", 2.0)):
        value, floor = (median([each[place] for each in found[name]]) for name in ("many", "one"))
        goal = Goal(at_most=at_most, of_ratio=True)
        rows.append(Row(f"{count:,} small journals: {what}", value, "s", floor, "one large journal", goal))
    return rows
