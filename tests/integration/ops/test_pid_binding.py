"""Adoption: whose first act records which process, in the record and in the file (identity.md §7)."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.support.daemon.in_process import Daemon, open_daemon
from thrum.daemon.watchers import StaleSessions
from thrum.identity.caller import Caller
from thrum.identity.evidence import PeerEvidence
from thrum.identity.processes import Process, Program
from thrum.model.errors import CrossWorktree, DaemonWriterLiveness
from thrum.model.events import AgentExited, AgentPlaced
from thrum.model.guards import DEFAULT_MODES, Mode
from thrum.ops.context import Context
from thrum.ops.identity_file import check_writable, note_in_file
from thrum.ops.pid_binding import adopt
from thrum.store.api import Decision


def session(daemon: Daemon, pid: int, runtime: str = "claude", *, shell: bool = False) -> Any:
    """Evidence of a `thrum` that a runtime, or a shell, of this pid runs."""
    table = daemon.processes
    table.processes[pid] = Process(pid, 1, f"b/{pid}", 1_700_000_000.0, comm=runtime)
    table.programs[pid] = Program(exe="/bin/bash" if shell else f"/usr/bin/{runtime}")
    table.processes[pid + 1] = Process(pid + 1, pid, f"b/{pid + 1}", 1_700_000_001.0, comm="thrum")
    table.programs[pid + 1] = Program(exe="/usr/bin/thrum")
    return PeerEvidence(table, daemon.ctx.here.layout, pid=pid + 1, uid=os.getuid())


def call(evidence: PeerEvidence, agent_id: str | None = "alice", rule: str = "C14") -> Any:
    caller = Caller(agent_id, "agent", "/w", evidence.pid, rule=rule)
    return SimpleNamespace(caller=caller, connection=SimpleNamespace(evidence=evidence))


def in_mode(daemon: Daemon, **modes: Mode) -> Context:
    return replace(daemon.ctx, modes=lambda: {**DEFAULT_MODES, **modes})


def owner(daemon: Daemon, agent_id: str = "alice") -> tuple[int, str]:
    row = daemon.ctx.view.agent(agent_id)
    assert row is not None
    data = json.loads((Path(row.worktree_path) / f".thrum/identities/{agent_id}.json").read_text())
    assert (data.get("agent_pid", 0), data.get("agent_pid_started", "")) == (row.agent_pid, row.agent_pid_started)
    return row.agent_pid, row.agent_pid_started


def fires(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        getattr(each, "fields") | {"level": each.levelname}  # noqa: B009
        for each in caplog.records
        if each.getMessage() == "identity_guard_fire"
    ]


@pytest.mark.spec("ID-37")
async def test_the_first_act_under_a_runtime_records_its_process(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        assert owner(daemon) == (0, "")
        evidence = session(daemon, 500)
        await adopt(daemon.ctx, call(evidence), "message.send")
        assert owner(daemon) == (500, "b/500")
        row = daemon.ctx.view.agent("alice")
        assert row is not None and row.runtime == "claude"
        before = daemon.ctx.view.head_seq()
        await adopt(daemon.ctx, call(evidence), "message.send")
        assert daemon.ctx.view.head_seq() == before, "the second act finds it done"


TOLD = {"runtime_session": "s-1", "transcript": "/t", "pane": "%3", "hooks_seen_at": "2026-02-03T10:00:00.000Z"}


async def tell_place(daemon: Daemon, agent_id: str) -> None:
    """What a hook tells of the process that an agent has, or has not yet."""
    row = daemon.ctx.view.agent(agent_id)
    assert row is not None
    place = {"agent_id": agent_id, "worktree_path": row.worktree_path, "runtime": row.runtime}
    process = {"agent_pid": row.agent_pid, "agent_pid_started": row.agent_pid_started}

    def decide(_view: Any, stamp: Any) -> Decision[None]:
        fact = stamp.make(AgentPlaced, at=stamp.later_than(row.place_at), **place, **process, **TOLD)
        return Decision([fact], lambda _view, _seqs: None)

    await daemon.ctx.journal.commit(decide)


def told_of(daemon: Daemon, agent_id: str) -> dict[str, str]:
    row = daemon.ctx.view.agent(agent_id)
    assert row is not None
    return {name: getattr(row, name) for name in TOLD}


async def test_what_was_told_of_a_process_stays_with_it_and_goes_with_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        await tell_place(daemon, "alice")
        await adopt(daemon.ctx, call(session(daemon, 500)), "message.send")
        assert owner(daemon) == (500, "b/500")
        assert told_of(daemon, "alice") == TOLD, "it was told before anybody knew the process"
        await alice("agent.rename", name="alma")
        assert told_of(daemon, "alma") == TOLD
        del daemon.processes.processes[500]
        await adopt(daemon.ctx, call(session(daemon, 900, "codex"), "alma"), "message.send")
        row = daemon.ctx.view.agent("alma")
        assert row is not None and (row.agent_pid, row.agent_pid_started) == (900, "b/900")
        assert told_of(daemon, "alma") == dict.fromkeys(TOLD, "")


@pytest.mark.spec("ID-42")
async def test_a_shell_and_nobody_and_a_proved_caller_adopt_nothing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        await adopt(daemon.ctx, call(session(daemon, 500, "bash", shell=True)), "message.send")
        await adopt(daemon.ctx, call(session(daemon, 600), None, "C8"), "message.send")
        await adopt(daemon.ctx, call(session(daemon, 700), rule="C4"), "message.send")
        await adopt(daemon.ctx, call(session(daemon, 800), rule="C5"), "message.send")
        assert owner(daemon) == (0, "")


@pytest.mark.spec("ID-38", "ID-73")
@pytest.mark.parametrize(("mode", "level"), [("warn", "WARNING"), ("strict", "INFO")])
async def test_a_dead_owner_s_agent_is_taken_over_and_one_event_says_so(
    tmp_path: Path, mode: Mode, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        await adopt(daemon.ctx, call(session(daemon, 500)), "message.send")
        first = (await alice("session.start")).session_id
        del daemon.processes.processes[500]
        ctx = in_mode(daemon, dead_pid_auto_reclaim=mode)
        with caplog.at_level(logging.INFO, "thrum"):
            await adopt(ctx, call(session(daemon, 900, "codex")), "message.send")
        assert owner(daemon) == (900, "b/900")
        [fired] = fires(caplog)
        assert fired == {
            "guard": "dead_pid_auto_reclaim",
            "reason": "dead_owner_reclaimed",
            "mode": mode,
            "outcome": "auto_reclaimed",
            "expected_agent": "alice",
            "expected_pid": 500,
            "caller_pid": 901,
            "method": "message.send",
            "level": level,
        }
        ended = daemon.ctx.view.session(first)
        assert ended is not None and ended.end_reason == "crash_recovered"


@pytest.mark.spec("ID-38")
async def test_with_reclaim_off_cross_worktree_fires_instead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        await adopt(daemon.ctx, call(session(daemon, 500)), "message.send")
        del daemon.processes.processes[500]
        evidence = session(daemon, 900)
        with caplog.at_level(logging.INFO, "thrum"):
            with pytest.raises(CrossWorktree):
                await adopt(in_mode(daemon, dead_pid_auto_reclaim="off"), call(evidence), "message.send")
            lax = in_mode(daemon, dead_pid_auto_reclaim="off", cross_worktree="warn")
            await adopt(lax, call(evidence), "message.send")
        assert owner(daemon) == (500, "b/500")
        assert [(each["guard"], each["outcome"]) for each in fires(caplog)] == [
            ("cross_worktree", "denied"),
            ("cross_worktree", "allowed"),
        ]


@pytest.mark.spec("ID-26", "ID-38")
async def test_a_reused_pid_is_a_dead_owner(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        await adopt(daemon.ctx, call(session(daemon, 500)), "message.send")
        daemon.processes.processes[500] = Process(500, 1, "b/later", 1_800_000_000.0, comm="claude")
        await adopt(daemon.ctx, call(session(daemon, 900)), "message.send")
        assert owner(daemon) == (900, "b/900")


@pytest.mark.spec("ID-39")
async def test_an_owner_elsewhere_is_never_overwritten_nor_a_process_recorded_twice(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        await daemon.registered("bob")
        first = session(daemon, 500)
        await adopt(daemon.ctx, call(first), "message.send")
        await adopt(daemon.ctx, call(session(daemon, 900)), "message.send")
        assert owner(daemon) == (500, "b/500")
        await adopt(daemon.ctx, call(first, "bob"), "message.send")
        assert owner(daemon, "bob") == (0, "")


@pytest.mark.spec("ID-40")
async def test_of_twenty_that_adopt_at_once_one_wins_and_the_others_are_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        refused: list[CrossWorktree] = []

        async def act(pid: int) -> None:
            try:
                await adopt(daemon.ctx, call(session(daemon, pid)), "message.send")
            except CrossWorktree as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(act, 1000 + 10 * number)
        pid, _ = owner(daemon)
        assert pid in range(1000, 1200, 10)
        assert len(refused) == 19
        assert {error.details["expected_pid"] for error in refused} == {pid}


# -- the daemon writes for others


@pytest.mark.spec("ID-23", "ID-69")
async def test_the_daemon_writes_no_file_of_a_dead_agent_but_to_tidy_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("alice")
        path = tmp_path / "w-alice/.thrum/identities/alice.json"

        def said(key: str) -> Any:
            return json.loads(path.read_text()).get(key)

        await note_in_file(daemon.ctx, "alice", by="bob", agent_status="blocked", tmux_session="s:1.1")
        assert said("agent_status") == "blocked", "without a pid nobody can be dead"
        await adopt(daemon.ctx, call(session(daemon, 500)), "message.send")
        assert check_writable(daemon.ctx, "alice", "bob") == ""
        del daemon.processes.processes[500]
        with pytest.raises(DaemonWriterLiveness):
            check_writable(daemon.ctx, "alice", "bob")
        assert check_writable(daemon.ctx, "alice", "alice") == ""
        caplog.clear()
        with caplog.at_level(logging.INFO, "thrum"):
            await note_in_file(daemon.ctx, "alice", by="bob", agent_status="idle")
        assert said("agent_status") == "blocked"
        assert [each["outcome"] for each in fires(caplog)] == ["denied"]
        assert "subject_pid_dead" in fires(caplog)[0]["reason"]
        await note_in_file(daemon.ctx, "alice", by="bob", housekeeping=True, tmux_session="")
        assert said("tmux_session") is None
        await note_in_file(daemon.ctx, "alice", intent="back")
        assert said("intent") == "back"
        lax = in_mode(daemon, daemon_writer_liveness="warn")
        assert "daemon_writer_liveness" in check_writable(lax, "alice", "bob")
        assert check_writable(in_mode(daemon, daemon_writer_liveness="off"), "alice", "bob") == ""


# -- abandoned sessions


@pytest.mark.spec("ID-28")
async def test_sessions_of_the_dead_end_a_day_later_and_those_of_nobody_when_unseen_as_long(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice, bob = await daemon.registered("alice"), await daemon.registered("bob")
        await daemon.registered("carol")
        for agent in (alice, bob):
            await agent("session.start")
        await adopt(daemon.ctx, call(session(daemon, 500)), "message.send")
        stale = StaleSessions(daemon.ctx, trio.Event, 86_400)
        assert [each.reason for each in stale.ripe(daemon.ctx.view)] == ["normal"], "the living end by themselves"
        del daemon.processes.processes[500]

        def died(view: Any, stamp: Any) -> Decision[None]:
            row = view.agent("alice")
            at = stamp.later_than(row.place_at)
            fact = stamp.make(AgentExited, at=at, agent_id="alice", agent_pid=500, agent_pid_started="b/500")
            return Decision([fact], lambda _view, _seqs: None)

        daemon.clock.ms += 3_600_000
        await daemon.ctx.journal.commit(died)
        found = {each.session.agent_id: (each.reason, each.at_ms) for each in stale.ripe(daemon.ctx.view)}
        hour_later = daemon.clock.ms + 86_400_000
        assert found["alice"] == ("crash", hour_later)
        assert found["bob"][0] == "normal" and found["bob"][1] < hour_later
