"""message.wait: nothing is told twice, nothing slips between two waits (rpc.md §7)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.daemon.in_process import Agent, open_daemon
from thrum.identity.processes import Process
from thrum.model import errors
from thrum.store.queries.views import View, Wanted


async def arrived(agent: Agent, results: list[Any], **params: Any) -> None:
    results.append(await agent("message.wait", **{"timeout_ms": 60_000} | params))


def contents(result: Any) -> list[str]:
    return [message.body.content for message in result.messages]


async def test_a_message_that_is_there_ends_a_wait_at_once_and_is_not_told_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        for word in ("one", "two"):
            await furiosa("message.send", content=word, to=["nux"])
        first = await nux("message.wait", timeout_ms=0)
        assert first.status == "received" and contents(first) == ["one", "two"] and first.remaining == 0
        again = await nux("message.wait", timeout_ms=0)
        assert again.status == "timeout" and again.messages == ()
        assert (await nux("message.list", for_agent="nux")).unread == 2, "seen is not read"


async def test_a_sleeping_wait_is_woken_by_the_commit(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrived, nux, results)
            await trio.testing.wait_all_tasks_blocked()
            await furiosa("message.send", content="wake", to=["@implementer"])
        assert contents(results[0]) == ["wake"]


async def test_team_posts_edits_and_own_messages_wake_nobody(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="old", to=["nux"])
        await nux("message.wait", timeout_ms=0)
        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrived, nux, results)
            await furiosa("message.send", content="for the team")
            await furiosa("message.edit", message_id=sent.message_id, content="new")
            await nux("message.send", content="to myself", to=["nux"])
            await trio.testing.wait_all_tasks_blocked()
            assert results == []
            await furiosa("message.send", content="now", to=["nux"])
        assert contents(results[0]) == ["now"]


async def test_of_several_waits_each_message_ends_one_the_newest_first(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        results: list[list[Any]] = [[], [], []]
        async with trio.open_nursery() as nursery:
            for each in results:
                nursery.start_soon(arrived, nux, each)
                await trio.testing.wait_all_tasks_blocked()
            for word in ("one", "two", "three"):
                await furiosa("message.send", content=word, to=["nux"])
                await trio.testing.wait_all_tasks_blocked()
        assert [contents(result) for (result,) in results] == [["three"], ["two"], ["one"]]


async def test_who_waits_below_the_agents_live_process_comes_before_what_a_dead_session_left(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        root = nux.connection.evidence.root
        dead, live = (Process(pid, 1, f"boot/{pid}", 1.0, comm="claude") for pid in (100, 200))
        daemon.processes.processes[live.pid] = live

        async def session_of(process: Process) -> Agent:
            daemon.processes.processes[process.pid] = process
            again = daemon.as_agent("", root, process)
            again.connection.evidence.state = "dead"  # whoever was recorded before
            answer = await again("agent.register", name="nux", role="implementer", module="nux", re_register=True)
            assert answer.status == "updated"
            return daemon.as_agent("nux", root, process)

        left = await session_of(dead)
        del daemon.processes.processes[dead.pid]
        now = await session_of(live)
        results: dict[str, list[Any]] = {"left": [], "live": [], "newer": []}
        async with trio.open_nursery() as nursery:
            for name, agent in (("left", left), ("live", now), ("newer", daemon.as_agent("nux", root))):
                nursery.start_soon(arrived, agent, results[name])
                await trio.testing.wait_all_tasks_blocked()
            for word in ("to the live one", "to the newest", "to what is left"):
                await furiosa("message.send", content=word, to=["nux"])
                await trio.testing.wait_all_tasks_blocked()
        told = {name: contents(found[0]) for name, found in results.items()}
        assert told == {"live": ["to the live one"], "newer": ["to the newest"], "left": ["to what is left"]}


async def test_an_answer_that_is_lost_goes_to_the_next_wait(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        other = daemon.as_agent("nux")
        await furiosa("message.send", content="precious", to=["nux"])
        held = await nux.undelivered("message.wait", timeout_ms=0)
        assert contents(held) == ["precious"]
        assert (await other("message.wait", timeout_ms=0)).status == "timeout", "handed out, its fate still open"
        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrived, other, results)
            await trio.testing.wait_all_tasks_blocked()
            await nux.client.aclose()
        assert contents(results[0]) == ["precious"]


async def test_a_cancelled_wait_keeps_nothing_from_the_next(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrived, nux, [])
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await furiosa("message.send", content="later", to=["nux"])
        assert contents(await nux("message.wait", timeout_ms=0)) == ["later"]


async def test_filters_narrow_and_what_does_not_fit_stays_for_the_next_wait(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux, max_ = [await daemon.registered(name) for name in ("furiosa", "nux", "max")]
        await furiosa("message.send", content="f", to=["nux"])
        await max_("message.send", content="m", to=["nux"], scopes=[{"type": "module", "value": "auth"}])
        narrowed = await nux("message.wait", timeout_ms=0, author_id="max")
        assert contents(narrowed) == ["m"]
        assert contents(await nux("message.wait", timeout_ms=0, since="now")) == []
        assert contents(await nux("message.wait", timeout_ms=0)) == ["f"]
        by_scope = await nux("message.wait", timeout_ms=0, since=0, scope={"type": "module", "value": "auth"})
        assert contents(by_scope) == ["m"], "a number replaces the rule of unseen"


async def test_mark_read_and_mark_none(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        await furiosa("message.send", content="x", to=["nux"])
        assert contents(await nux("message.wait", timeout_ms=0, mark="none")) == ["x"]
        assert contents(await nux("message.wait", timeout_ms=0, mark="read")) == ["x"]
        assert (await nux("message.list", for_agent="nux")).unread == 0


async def test_a_limit_leaves_the_rest_counted(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        for number in range(5):
            await furiosa("message.send", content=str(number), to=["nux"])
        first = await nux("message.wait", timeout_ms=0, limit=2)
        assert contents(first) == ["0", "1"] and first.remaining == 3
        assert contents(await nux("message.wait", timeout_ms=0, limit=100)) == ["2", "3", "4"]


async def test_waits_end_with_shutting_down_when_the_daemon_stops(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        async with trio.open_nursery() as nursery:

            async def refused() -> None:
                with pytest.raises(errors.ShuttingDown):
                    await nux("message.wait", timeout_ms=60_000)

            nursery.start_soon(refused)
            await trio.testing.wait_all_tasks_blocked()
            daemon.parts.wait_queues.close()


async def test_a_wait_ends_when_its_agent_is_called_otherwise_and_mail_handed_on_wakes_the_new_name(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path, key_number=1) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        results: list[Any] = []

        async def wait() -> None:
            with pytest.raises(errors.AgentNotRegistered, match="you are @rictus now"):
                await nux("message.wait", timeout_ms=60_000)
            results.append("ended")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert (await nux("agent.rename", name="rictus")).agent_id == "rictus"
        assert results == ["ended"]
        sent = await furiosa("message.send", content="by the old name", to=["nux"])
        assert [each.agent_id for each in sent.recipients] == ["rictus"]


async def test_hundreds_of_agents_wait_and_each_gets_its_own_message_once(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = 1_000 if request.config.getoption("--long") else 300
    async with open_daemon(tmp_path) as daemon:
        home = str(tmp_path / "home")
        (tmp_path / "home" / ".thrum" / "identities").mkdir(parents=True)
        furiosa = await daemon.registered("furiosa")
        names = [f"agent_{number}" for number in range(count)]
        at_once = trio.CapacityLimiter(40)

        async def register(name: str) -> None:
            async with at_once:
                await daemon.registered(name, "worker", name, home)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(register, name)
        results: dict[str, list[str]] = {}

        async def wait(name: str) -> None:
            results[name] = contents(await daemon.as_agent(name)("message.wait", timeout_ms=600_000))

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(wait, name)
                async with trio.open_nursery() as senders:
                    for name in names:
                        senders.start_soon(lambda to=name: furiosa("message.send", content=to, to=[to]))
        assert results == {name: [name] for name in names}


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@contextlib.contextmanager
def looks_by_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """How many looks at messages are made in each turn of the loop: steps through an inbox, and looks at what came."""
    turns, looks = Turns(), Counter[int]()
    steps_of, among = View.matching_steps, View.matching_among

    def matching_steps(self: View, wanted: Wanted) -> Iterator[Any]:
        for step in steps_of(self, wanted):
            looks[turns.count] += 1
            yield step

    def matching_among(self: View, wanted: Wanted, ids: Sequence[str]) -> Any:
        looks[turns.count] += 1
        return among(self, wanted, ids)

    with monkeypatch.context() as patch:
        patch.setattr(View, "matching_steps", matching_steps)
        patch.setattr(View, "matching_among", matching_among)
        trio.lowlevel.add_instrument(turns)
        try:
            yield looks
        finally:
            trio.lowlevel.remove_instrument(turns)


async def test_a_wait_goes_through_a_long_inbox_in_steps_of_a_turn_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.store.queries._wait_scan.STEP_ROWS", 10)
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        for number in range(250):
            await furiosa("message.send", content=str(number), to=["nux"])
        with looks_by_turn(monkeypatch) as looks:
            told = await nux("message.wait", timeout_ms=0, limit=20, mark="none")
        assert contents(told) == [str(number) for number in range(20)] and told.remaining == 230
        assert sum(looks.values()) > 25 and max(looks.values()) <= 2
        # Those that are handed out count for nobody else.
        others = [await nux("message.wait", timeout_ms=0, limit=100, mark="seen") for _ in range(3)]
        found = [content for other in others for content in contents(other)]
        assert sorted(found, key=int) == [str(number) for number in range(250)]
        assert [other.remaining for other in others] == [150, 50, 0]


async def test_many_waits_of_one_agent_look_a_bounded_number_of_times_a_turn_and_never_twice_at_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 300
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        await furiosa("message.send", content="fits nobody", to=["nux"])
        results: list[Any] = []
        with looks_by_turn(monkeypatch) as looks:
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    author = "furiosa" if number == count - 1 else "nobody"
                    since = "now" if number == count - 1 else "unseen"
                    nursery.start_soon(lambda a=author, s=since: arrived(nux, results, author_id=a, since=s))
                await trio.testing.wait_all_tasks_blocked()
                # Each went once through what was there: not once more for each that came after it.
                assert sum(looks.values()) <= 2 * count
                looks.clear()
                await furiosa("message.send", content="for the last", to=["nux"])
                while not results:
                    await trio.testing.wait_all_tasks_blocked()
                assert contents(results[0]) == ["for the last"]
                assert sum(looks.values()) <= 2 * count and max(looks.values()) <= 30
                nursery.cancel_scope.cancel()


async def test_what_comes_while_a_wait_looks_back_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.store.queries._wait_scan.STEP_ROWS", 1)
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        for number in range(50):
            await furiosa("message.send", content=str(number), to=["nux"], tags=["old"])
        results: list[Any] = []
        scope = {"type": "tag", "value": "new"}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: arrived(nux, results, scope=scope))
            # By its number it is in front of where the wait is by now, or behind: it is told all the same.
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            await furiosa("message.send", content="new", to=["nux"], tags=["new"])
        assert contents(results[0]) == ["new"]


async def test_what_fell_back_while_others_look_through_more_than_they_keep_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.model.limits.wait_limit_max", 2)
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        for number in range(30):
            await furiosa("message.send", content=str(number), to=["nux"])
        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            for _ in range(15):
                nursery.start_soon(lambda: arrived(nux, results, limit=2))
        assert sorted((c for result in results for c in contents(result)), key=int) == [str(n) for n in range(30)]


async def test_who_waits_for_an_answer_is_told_that_alone_be_it_quiet(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        asked = (await furiosa("message.send", content="ready?", to=["nux"])).message_id
        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(arrived, furiosa, results, reply_to=asked))
            await trio.testing.wait_all_tasks_blocked()
            await nux("message.send", content="by the way", to=["furiosa"])
            await nux("message.send", content="psst", to=["furiosa"], quiet=True)
            await nux("message.send", content="yes", reply_to=asked, quiet=True)
        assert contents(results[0]) == ["yes"]
        assert contents(await furiosa("message.wait", timeout_ms=0)) == ["by the way"]
        await nux("message.send", content="still", reply_to=asked, quiet=True)
        assert contents(await furiosa("message.wait", timeout_ms=0, reply_to=asked)) == ["still"], "it was there before"
