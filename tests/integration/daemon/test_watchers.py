"""Deaths where the kernel announces none, and what a daemon that starts finds (identity.md §5)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.daemon.in_process import Daemon, open_daemon
from thrum.daemon.watchers import Owners
from thrum.identity.processes import Process
from thrum.model import limits
from thrum.model.events import AgentPlaced
from thrum.store.api import Decision

PID = os.getpid()


async def placed(daemon: Daemon, agent_id: str, started: str) -> None:
    """The agent is this very process, by its pid; who it is by its start says `started`."""

    def decide(view: Any, stamp: Any) -> Decision[None]:
        row = view.agent(agent_id)
        fact = stamp.make(
            AgentPlaced,
            at=stamp.later_than(max(row.place_at, row.exited_at)),
            agent_id=agent_id,
            worktree_path=row.worktree_path,
            agent_pid=PID,
            agent_pid_started=started,
        )
        return Decision([fact], lambda _view, _seqs: None)

    await daemon.ctx.journal.commit(decide)


def alive(daemon: Daemon, started: str) -> None:
    daemon.processes.processes[PID] = Process(PID, 1, started, 1.0)


def has_exited(daemon: Daemon, agent_id: str) -> bool:
    row = daemon.ctx.view.agent(agent_id)
    assert row is not None
    return row.exited_at > row.place_at


async def wait_exited(daemon: Daemon, *agent_ids: str) -> None:
    with trio.fail_after(30):
        while not all(has_exited(daemon, agent_id) for agent_id in agent_ids):
            await daemon.parts.registrar.changed().wait()


@pytest.fixture(params=["no pidfds", "no more of them"])
def sweeping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if request.param == "no pidfds":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    monkeypatch.setattr(limits, "sweep_seconds", 0.005)


@pytest.mark.spec("ID-28")
@pytest.mark.usefixtures("sweeping")
async def test_without_pidfds_a_sweep_finds_the_dead_and_those_whose_pid_is_another_s(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        await daemon.registered("alice")
        alive(daemon, "b/1")
        await placed(daemon, "alice", "b/1")
        nursery.start_soon(Owners(daemon.ctx, daemon.parts.registrar.changed).watch)
        await trio.testing.wait_all_tasks_blocked()
        assert not has_exited(daemon, "alice")
        del daemon.processes.processes[PID]
        await wait_exited(daemon, "alice")
        alive(daemon, "b/2")
        await placed(daemon, "alice", "b/2")
        assert not has_exited(daemon, "alice")
        alive(daemon, "b/3")
        await wait_exited(daemon, "alice")
        nursery.cancel_scope.cancel()


@pytest.mark.spec("ID-26", "ID-28")
async def test_at_the_start_the_dead_are_told_once_each_also_two_that_were_one_process(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        for agent_id in ("alice", "bob"):
            await daemon.registered(agent_id)
            await placed(daemon, agent_id, "b/gone")
        alive(daemon, "b/another")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Owners(daemon.ctx, daemon.parts.registrar.changed).watch)
            await wait_exited(daemon, "alice", "bob")
            nursery.cancel_scope.cancel()
        head = daemon.ctx.view.head_seq()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Owners(daemon.ctx, daemon.parts.registrar.changed).watch)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        assert daemon.ctx.view.head_seq() == head
