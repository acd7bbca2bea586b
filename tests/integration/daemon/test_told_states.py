"""What a sender is told of how far a message came, and what the team is told of a dialog; no runtime runs here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.daemon.in_process import Agent, Daemon, open_daemon
from thrum.identity.processes import Process
from thrum.model.attempt_ids import new_token
from thrum.runtimes import hooks
from thrum.wake.attempts import NO_PROOF, Record

CLAUDE = Process(100, 1, "boot/100", 1.0, comm="claude")


async def in_claude(daemon: Daemon, name: str, process: Process = CLAUDE) -> Agent:
    """An agent that is a process of Claude."""
    daemon.processes.processes[process.pid] = process
    await daemon.registered(name)
    root = str(daemon.ctx.here.layout.root.parent / f"w-{name}")
    await daemon.as_agent("", root, process)("agent.register", name=name, role="r", module=name, re_register=True)
    return daemon.as_agent(name, root, process)


async def whys(author: Agent, message_id: str) -> dict[str, str]:
    """Why each recipient has not seen it, as `message.get` and `message.outbox` say alike."""
    got = (await author("message.get", message_id=message_id)).message.recipients
    sent = (await author("message.outbox")).messages
    assert next(each.recipients for each in sent if each.message_id == message_id) == got
    return {each.agent_id: each.why for each in got}


async def test_the_reason_is_of_the_moment_and_ends_when_it_is_seen(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice, shell = await daemon.registered("alice"), await daemon.registered("shell")
        await in_claude(daemon, "bob")
        sent = await alice("message.send", content="hi", to=["shell", "bob"])
        expected = {"shell": "plain shell: nobody polls", "bob": "no hooks: thrum hook install claude"}
        assert {each.agent_id: each.why for each in sent.recipients} == expected
        assert await whys(alice, sent.message_id) == expected
        del daemon.processes.processes[100]
        assert (await whys(alice, sent.message_id))["bob"].startswith("process gone ")
        await shell("message.markRead", message_ids=[sent.message_id])
        assert (await whys(alice, sent.message_id))["shell"] == ""


async def test_of_one_that_waits_no_reason_is_given_for_it_has_the_message(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        alice, shell = await daemon.registered("alice"), await daemon.registered("shell")
        nursery.start_soon(partial(shell, "message.wait", timeout_ms=60_000))
        await wait_all_tasks_blocked()
        sent = await alice("message.send", content="hi", to=["@shell"])
        assert [each.why for each in sent.recipients] == [""]


async def test_a_send_that_is_repeated_tells_what_was_tried_meanwhile(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice, wake = await daemon.registered("alice"), daemon.parts.wake
        await in_claude(daemon, "bob")
        first = await alice("message.send", content="hi", to=["bob"], client_key="key")
        told = Record("bob", new_token(), "typed", (first.message_id,), "offered", NO_PROOF, (100, "boot/100"))
        await wake.record(told)
        again = await alice("message.send", content="hi", to=["bob"], client_key="key")
        assert again.replayed
        assert [each.why for each in again.recipients] == ["offered: this door has no proof"]


async def test_a_process_that_was_gone_before_anybody_looked_counts_from_when_it_was_last_seen(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        await in_claude(daemon, "bob")
        del daemon.processes.processes[100]
        daemon.clock.ms += 12 * 60_000 + 30_000
        sent = await alice("message.send", content="hi", to=["bob"])
        assert [each.why for each in sent.recipients] == ["process gone 12m"]


@pytest.mark.parametrize("more", [{"quiet": True}, {"expires_in_ms": 1}])
async def test_of_what_wakes_no_one_no_reason_is_given(tmp_path: Path, more: dict[str, Any]) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        await daemon.registered("shell")
        sent = await alice("message.send", content="hi", to=["shell"], **more)
        daemon.clock.ms += 1000
        assert await whys(alice, sent.message_id) == {"shell": ""}


async def test_a_send_to_many_looks_at_a_few(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        for number in range(40):
            await in_claude(daemon, f"worker_{number}")
        looks: list[str] = []
        state_of = daemon.parts.wake.states.of

        def counted(agent_id: str, row: Any) -> Any:
            looks.append(agent_id)
            return state_of(agent_id, row)

        daemon.parts.wake.states = type("Counted", (), {"of": staticmethod(counted)})()  # type: ignore[assignment]
        sent = await alice("message.send", content="hi", to=["r"])
        assert len(sent.recipients) == 40 and 0 < len(looks) <= 20
        assert sum(each.why != "" for each in sent.recipients) == len(looks)
        looks.clear()
        await daemon.registered("shell")
        told = await alice("message.send", content="hi", to=["@shell"])
        assert (told.recipients[0].why, looks) == ("plain shell: nobody polls", [])


async def test_an_agent_is_blocked_while_a_dialog_is_open_and_gets_its_own_status_back(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        bob = await in_claude(daemon, "bob")
        await bob("agent.set-status", status="working")
        wake = daemon.parts.wake

        async def fire(event: str, **payload: Any) -> None:
            told = hooks.read("claude", event, payload)
            wake.states.note((100, "boot/100"), told)
            await wake.note_event("bob", told)

        async def seen() -> tuple[str, str]:
            members = (await alice("team.list")).members
            return next((each.agent_status, each.asks) for each in members if each.agent_id == "bob")

        await fire("PermissionRequest", tool_name="Bash", tool_input={"command": "rm -r build"})
        assert await seen() == ("blocked", "Bash: rm -r build")
        await fire("UserPromptSubmit", prompt="next")
        assert await seen() == ("working", "")
        await fire("PermissionRequest", tool_name="Bash", tool_input={"command": "make"})
        await bob("agent.set-status", status="stuck")
        await fire("Stop")
        assert await seen() == ("stuck", ""), "what it said itself stays"
        await fire("PermissionRequest", tool_name="Bash", tool_input={"command": "make"})
        del daemon.processes.processes[100]
        await wake.dialogs.look()
        assert (await seen())[0] == "blocked", "one look is not enough"
        await wake.dialogs.look()
        assert await seen() == ("stuck", "")


async def test_the_state_and_the_doors_of_an_agent_are_told(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        alice = await daemon.registered("alice")
        await in_claude(daemon, "bob")
        [told] = (await alice("wake.status", agent_id="bob")).agents
        assert (told.runtime, told.state) == ("claude", "unknown")
        assert [(door.door, door.health, door.resting_until) for door in told.doors] == [
            ("claude.waiter", "closed", ""),
            ("claude.socket", "closed", ""),
            ("typed", "closed", ""),
        ]
        del daemon.processes.processes[100]
        [told] = (await alice("wake.status", agent_id="bob")).agents
        assert told.state == "gone" and told.state_since
