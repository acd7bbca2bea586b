"""`kill -9` at each step of a compaction: nothing is lost, nothing comes back, and the next one goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.here import START_MS
from tests.support.places import ROOT
from tests.support.store.compacting import compact
from tests.support.store.compacting_child import STEPS
from tests.support.store.factmaker import Maker
from tests.support.store.opened import layout_at, open_here, projection_of, sending
from thrum.model import clock, events
from thrum.model.events import AnyFact
from thrum.store.api import Decision
from thrum.store.writer import Call

HOUR_MS = 3_600_000
REBUILDS = ("one renamed", "all renamed", "directories synced")
"""Where a journal is another file than the projection remembers."""


def history() -> list[AnyFact]:
    """Two journals, events and local lines, all with something that goes and something that stays."""
    make = Maker(START_MS - HOUR_MS)
    facts: list[AnyFact] = []
    for author in ("furiosa", "nux"):
        facts.append(make(events.AgentRegistered, agent_id=author, kind="agent", role="r", module="m"))
        facts.append(make(events.SessionStarted, session_id=f"ses_{author}", agent_id=author))
        facts += [make.message(author, "max", text=f"old {number}") for number in range(20)]
        facts += [make(events.AgentSeen, agent_id=author) for _ in range(5)]
        facts.append(make(events.SessionEnded, session_id=f"ses_{author}", agent_id=author))
    make.ms = START_MS
    facts += [
        make.message(author, "max", text=f"young {number}") for author in ("furiosa", "nux") for number in range(5)
    ]
    return [*facts, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1))]


def projection(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    found = projection_of(directory)
    del found["client_keys"]  # they go with their lines
    return found


def lines(directory: Path) -> set[str]:
    layout = layout_at(directory)
    paths = [*layout.branch_dir.rglob("*.jsonl"), layout.local_journal]
    return {events.decode(line).event_id for path in paths for line in path.read_bytes().splitlines()}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_each_step_of_a_compaction_harms_nothing(tmp_path: Path, step: str) -> None:
    facts = history()
    store = open_here(tmp_path)
    call = Call(lambda _view, _stamp: Decision(facts, lambda _view, _seqs: None))
    store.writer.begin()
    store.writer.execute(call)
    store.writer.flush()
    store.close()
    expected, before = projection(tmp_path), lines(tmp_path)

    command = [sys.executable, "-m", "tests.support.store.compacting_child", str(tmp_path), step]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL

    store = open_here(tmp_path)
    assert bool(store.recovery.rebuilt) is (step in REBUILDS)
    assert not list(tmp_path.rglob(".compact.*"))
    compact(store)
    assert compact(store) == 0
    sent = Call(sending("goes on", to="eve"))
    store.writer.begin()
    store.writer.execute(sent)
    store.writer.flush()
    assert store.view.event_at(sent.answer.seq) is not None
    store.close()

    after = lines(tmp_path)
    gone = before - after
    kinds = {type(fact) for fact in facts if fact.event_id in gone}
    assert kinds == {events.MessageCreated, events.SessionStarted, events.AgentSeen}
    assert len(gone) == 2 * (20 + 1 + 4)
    live = projection(tmp_path)
    assert [row for row in live["messages"] if "goes on" not in row] == expected["messages"]
    for table in ("agents", "sessions", "message_recipients", "horizons"):
        assert [row for row in live[table] if "eve" not in row] == expected[table], table
    layout_at(tmp_path).database.unlink()
    open_here(tmp_path).close()
    assert projection(tmp_path) == live
