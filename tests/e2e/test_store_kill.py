"""`kill -9` at any moment: no answered message is missing, none occurs twice, and a repeated call finds the first."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.store.opened import key_of, layout_at, opened, projection_of, resent, sending
from tests.support.store.writing_child import AUTHORS
from thrum.model import events
from thrum.model.clock import SystemClock
from thrum.model.events import MessageCreated

Answered = dict[str, tuple[str, int]]


def run_until_killed(
    directory: Path, round_: int, delay_seconds: float, *, from_start: bool
) -> tuple[set[str], Answered]:
    """What one process began and what it was answered before it was killed, `delay_seconds` after it was ready (or
    after it began to recover, if `from_start`)."""
    command = [sys.executable, "-m", "tests.support.store.writing_child", str(directory), str(round_)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout is not None
    timer = threading.Timer(delay_seconds, child.send_signal, [signal.SIGKILL])
    begun: set[str] = set()
    answered: Answered = {}
    if from_start:
        timer.start()
    for line in child.stdout:
        if not line.endswith(b"\n"):
            break
        word, *rest = line.decode().split()
        if word == "ready" and not from_start:
            timer.start()
        elif word == "?":
            begun.add(rest[0])
        elif word == "!":
            answered[rest[0]] = (rest[1], int(rest[2]))
    timer.join()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return begun, answered


def creates(directory: Path) -> list[MessageCreated]:
    """Every create in the journals, which must be whole."""
    found: list[MessageCreated] = []
    for path in sorted(layout_at(directory).branch_dir.glob("messages/*.jsonl")):
        data = path.read_bytes()
        assert data.endswith(b"\n")
        facts = [events.decode(line) for line in data.splitlines()]
        found += [fact for fact in facts if isinstance(fact, MessageCreated)]
    return found


async def check(directory: Path, begun: set[str], answered: Answered) -> None:
    async with opened(directory, wall=SystemClock()) as store:
        for name, (message_id, seq) in answered.items():
            row = store.view.message(message_id)
            assert row is not None, f"{name} was answered and is lost"
            assert row.seq == seq, "the numbers that went out are the numbers that stay"
            assert row.body_content.split()[0].rstrip("!") == name
        assert store.recovery.rebuilt == ""
        for name in sorted(begun):
            author = f"agent{int(name.split('.')[1]) % AUTHORS}"
            sent = await store.committer.commit(
                sending(name, author=author), key=key_of(name, author=author), replay=resent
            )
            if name in answered:
                assert sent == (*answered[name], True)
    per_key = Counter(fact.client_key for fact in creates(directory))
    assert per_key == Counter(begun), "every call is there once, answered or not"
    assert not list(layout_at(directory).database.parent.glob("*.new*"))
    live = projection_of(directory)
    layout_at(directory).database.unlink()
    async with opened(directory, wall=SystemClock()):
        pass
    assert projection_of(directory) == live


async def kill_many_times(directory: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    begun: set[str] = set()
    answered: Answered = {}
    for round_ in range(kills):
        from_start = chance.random() < 0.15
        delay = chance.uniform(0.1, 0.5) if from_start else chance.uniform(0, 0.15)
        more_begun, more_answered = run_until_killed(directory, round_, delay, from_start=from_start)
        begun |= more_begun
        answered |= more_answered
    assert len(answered) >= kills, "it was really under load"
    await check(directory, begun, answered)


async def test_no_answered_message_is_lost_or_doubled_by_kill_9(tmp_path: Path) -> None:
    await kill_many_times(tmp_path, 5, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
async def test_no_answered_message_is_lost_or_doubled_by_hundreds_of_kills(tmp_path: Path, seed: int) -> None:
    await kill_many_times(tmp_path, 30, seed)


async def test_a_kill_while_the_projection_is_rebuilt_leaves_nothing_that_harms(tmp_path: Path) -> None:
    begun, answered = run_until_killed(tmp_path, 0, 0.2, from_start=False)
    database = layout_at(tmp_path).database
    for delay in (0.15, 0.25, 0.3, 0.35):
        database.unlink()
        more = run_until_killed(tmp_path, int(delay * 100), delay, from_start=True)
        begun |= more[0]
        if not database.exists():
            database.write_bytes(b"")
    async with opened(tmp_path, wall=SystemClock()) as store:
        for message_id, _ in answered.values():
            assert store.view.message(message_id) is not None
    assert Counter(fact.client_key for fact in creates(tmp_path)).most_common(1)[0][1] == 1
    assert not list(database.parent.glob("*.new*"))
