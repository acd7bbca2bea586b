"""One suite for both transports of the bus: ZeroMQ and the one in memory (rpc.md §8, §11.5, §11.6)."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
import trio

from thrum.bus._cursor import Cursor, Do
from thrum.bus.memory import MemoryBus
from thrum.bus.publisher import Outlet, Publisher
from thrum.bus.socket import SubSocket, XpubSocket, open_xpub_socket
from thrum.bus.topics import Frame, Head, read_frame
from thrum.model import clock, events
from thrum.model.events import Pair
from thrum.model.wire_types import Hint

SECONDS = 120


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


class Inlet(Protocol):
    def subscribe(self, prefix: bytes) -> None: ...
    def unsubscribe(self, prefix: bytes) -> None: ...
    def receive_nowait(self) -> Frame | None: ...
    async def wait(self) -> None: ...
    def close(self) -> None: ...


class Bus:
    """A publisher, and subscribers of it."""

    def __init__(self, outlet: Outlet, open_inlet: Callable[[], Inlet], epoch: str = "one", head_seq: int = 0) -> None:
        self.publisher = Publisher(outlet, epoch=epoch, head_seq=head_seq, wall_clock=clock.SystemClock())
        self.outlet = outlet
        self.open_inlet = open_inlet
        self.stack = contextlib.ExitStack()

    def subscribe(self, *prefixes: str) -> Inlet:
        inlet = self.open_inlet()
        self.stack.callback(inlet.close)
        for prefix in prefixes:
            inlet.subscribe(prefix.encode())
        return inlet

    def say(self, seq: int, *to: str) -> None:
        self.publisher.publish(seq, message(seq, *to))


def message(seq: int, *to: str) -> events.MessageCreated:
    return events.MessageCreated(
        timestamp="2026-02-03T10:00:00.000Z",
        event_id=f"evt_{seq}",
        v=1,
        message_id=f"msg_{seq}",
        agent_id="alice",
        body=events.Body("markdown", str(seq)),
        audiences=tuple(Pair("agent", name) for name in to),
        recipients=to,
    )


async def receive(inlet: Inlet) -> Frame:
    with trio.fail_after(SECONDS):
        while (frame := inlet.receive_nowait()) is None:
            await inlet.wait()
    return frame


async def said(inlet: Inlet) -> Hint | Head:
    frame = await receive(inlet)
    told = read_frame(frame)
    assert told is not None and int.from_bytes(frame.seq, "big") == told.seq
    return told


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="thrum-bus-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["zeromq", "memory"])
async def bus(request: pytest.FixtureRequest, directory: Path, nursery: trio.Nursery) -> Any:
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            memory = MemoryBus(high_water_mark=50)
            made = Bus(memory, memory.open_inlet)
        else:
            outlet = stack.enter_context(open_xpub_socket(directory / "bus", high_water_mark=50))
            made = Bus(outlet, lambda: connected(outlet))
        ended = trio.Event()
        serving = await nursery.start(serve, made.publisher, ended)
        stack.enter_context(made.stack)
        yield made
        serving.cancel()
        await ended.wait()  # the socket is closed next


def connected(outlet: XpubSocket) -> SubSocket:
    inlet = SubSocket(high_water_mark=50)
    inlet.connect(outlet.endpoint)
    return inlet


async def serve(publisher: Publisher, ended: trio.Event, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await publisher.serve_bus()
    ended.set()


async def test_a_subscription_is_answered_with_a_head(bus: Bus) -> None:
    bus.say(1, "bob")
    bob = bus.subscribe("agent/bob/")
    frame = await receive(bob)
    assert frame.topic == b"agent/bob/head"
    head = read_frame(frame)
    assert isinstance(head, Head) and (head.epoch, head.seq, head.head) == ("one", 1, 1)


async def test_hints_of_an_audience_chain_by_prev(bus: Bus) -> None:
    bob, everything = bus.subscribe("agent/bob/"), bus.subscribe("all/")
    assert isinstance(await said(bob), Head) and isinstance(await said(everything), Head)
    bus.say(1, "bob")
    bus.say(2, "carol")
    bus.say(3, "bob", "carol")
    hints = [await said(bob) for _ in range(2)]
    assert [(hint.seq, hint.prev) for hint in hints if isinstance(hint, Hint)] == [(1, 0), (3, 1)]
    hints = [await said(everything) for _ in range(3)]
    assert [(hint.seq, hint.prev) for hint in hints if isinstance(hint, Hint)] == [(1, 0), (2, 1), (3, 2)]


async def test_bob_never_hears_of_bob2(bus: Bus) -> None:
    bob = bus.subscribe("agent/bob/")
    await said(bob)
    bus.say(1, "bob2")
    bus.say(2, "bob")
    hint = await said(bob)
    assert (hint.seq, bob.receive_nowait()) == (2, None)


async def test_coarser_and_finer_subscriptions_filter(bus: Bus) -> None:
    agents, creates = bus.subscribe("agent/"), bus.subscribe("agent/bob/message.create")
    sign = bus.subscribe("team/")
    await said(sign)
    while bus.publisher.statistics().filters < 2:
        await trio.lowlevel.checkpoint()
    bus.say(1, "bob", "carol")
    assert [(await receive(agents)).topic for _ in range(2)] == [
        b"agent/bob/message.create",
        b"agent/carol/message.create",
    ]
    hint = await said(creates)
    assert isinstance(hint, Hint) and hint.seq == 1


async def test_the_last_unsubscribe_ends_an_audience(bus: Bus) -> None:
    one, two = bus.subscribe("agent/bob/"), bus.subscribe("agent/bob/")
    await said(one)
    await said(two)
    one.unsubscribe(b"agent/bob/")
    two.close()
    with trio.fail_after(SECONDS):
        while bus.publisher.statistics().audiences:
            await trio.lowlevel.checkpoint()


async def test_a_slow_subscriber_loses_frames_and_sees_the_gap_while_nobody_waits_for_it(bus: Bus) -> None:
    slow = bus.subscribe("agent/bob/")
    await said(slow)
    total = 20_000
    for seq in range(1, total + 1):
        bus.say(seq, "bob")
    cursor, last, seen = Cursor("one", 0), total, 0
    with trio.fail_after(SECONDS):
        while True:
            if (frame := slow.receive_nowait()) is None:
                # Everything that was kept is read: the next frame shows what was not.
                last += 1
                bus.say(last, "bob")
                await trio.lowlevel.checkpoint()
                continue
            told = read_frame(frame)
            assert told is not None
            do = cursor.see(told)
            if do is Do.FETCH:
                break
            if do is Do.HANDLE:
                seen += 1
                assert told.seq == seen, "in order and without a gap"
    assert 0 < seen < total


async def test_200_joiners_under_load_miss_nothing(bus: Bus) -> None:
    with trio.fail_after(SECONDS):

        async def join() -> None:
            begun = bus.publisher.head_seq
            inlet, cursor = bus.subscribe("agent/bob/"), Cursor("one", begun)
            while cursor.seq < 400:
                told = await said(inlet)
                if cursor.see(told) is Do.FETCH:
                    cursor.fetched(bus.publisher.head_seq)  # the store knows everything up to here
            inlet.close()

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(join)
                bus.say(number + 1, "bob")
                await trio.lowlevel.checkpoint()
            seq = 200
            while nursery.child_tasks:
                # Whoever lost frames at the mark sees it at the next one, if not at the next tick.
                seq += 1
                bus.say(seq, "bob")
                await trio.lowlevel.checkpoint()


async def test_state_frames_come_as_they_are(bus: Bus) -> None:
    inlet = bus.subscribe("daemon/", "all/")
    await said(inlet)
    bus.publisher.publish_state("sync.status", {"state": "idle"})
    frame = await receive(inlet)
    told = msgspec.json.decode(frame.body)
    assert frame.topic == b"daemon/sync.status"
    assert (told["type"], told["state"], told["seq"], "event_id" in told) == ("sync.status", "idle", 0, False)


async def test_malformed_subscriptions_are_ignored(bus: Bus) -> None:
    bus.subscribe("nonsense/", "agent/bob\x00", "agent/" + "x" * 500 + "/")
    inlet = bus.open_inlet()
    bus.stack.callback(inlet.close)
    inlet.subscribe(b"\xff\xfe")
    inlet.subscribe(b"team/")
    await said(inlet)
    assert bus.publisher.statistics().audiences == 1
    bus.say(1, "bob")


async def test_a_flood_of_subscriptions_is_taken_in_slices_and_each_gets_its_head(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1_000
    taken: Counter[int] = Counter()
    turns = Turns()
    take = bus.outlet.take_nowait

    def counted() -> Iterator[bytes]:
        for message in take():
            taken[turns.count] += 1
            yield message

    monkeypatch.setattr(bus.outlet, "take_nowait", counted)
    trio.lowlevel.add_instrument(turns)
    inlets = [bus.subscribe() for _ in range(count // 25)]
    for number in range(count):
        inlets[number // 25].subscribe(b"agent/a%d/" % number)
    # Facts that are committed meanwhile do not make the daemon take more at once.
    for seq in range(1, 20):
        bus.publisher.publish(seq, message(seq, "a7", "a999"))
    heard: dict[str, int] = {}
    for number in range(count):
        while f"a{number}" not in heard:
            frame = await receive(inlets[number // 25])
            told = read_frame(frame)
            if isinstance(told, Head):
                heard[frame.topic.split(b"/")[1].decode()] = told.seq
    trio.lowlevel.remove_instrument(turns)
    assert max(taken.values()) <= 200, taken
    assert sum(taken.values()) >= count


async def test_heads_are_repeated_for_those_who_lost_one(autojump_clock: Any) -> None:
    memory = MemoryBus()
    publisher = Publisher(memory, epoch="one", head_seq=5, wall_clock=clock.SystemClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.serve_bus)
        inlet = memory.open_inlet()
        inlet.subscribe(b"all/")
        await said(inlet)
        inlets = [memory.open_inlet() for _ in range(300)]
        for number, other in enumerate(inlets):
            other.subscribe(f"agent/a{number}/".encode())
        await trio.testing.wait_all_tasks_blocked()
        while memory_frame := inlet.receive_nowait():
            del memory_frame
        began = trio.current_time()
        for _ in range(2):
            head = await said(inlet)
            assert isinstance(head, Head) and head.seq == 5
        assert trio.current_time() - began <= 10.1
        assert all(other.receive_nowait() for other in inlets)
        nursery.cancel_scope.cancel()


async def test_without_subscribers_nothing_is_sent_and_nobody_wakes(autojump_clock: Any) -> None:
    memory = MemoryBus()
    publisher = Publisher(memory, epoch="one", head_seq=0, wall_clock=clock.SystemClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.serve_bus)
        publisher.publish(1, message(1, "bob"))
        # With nothing but sleepers the clock would jump to the next tick, if there was one.
        with trio.move_on_after(3600):
            await trio.sleep_forever()
        assert publisher.statistics() == type(publisher.statistics())(0, 0, 0, 0, 0)
        nursery.cancel_scope.cancel()


async def test_a_transport_that_fails_is_a_problem_and_no_error() -> None:
    class Broken(MemoryBus):
        def send_nowait(self, frame: Frame) -> None:
            raise OSError("no buffers")

    memory = Broken()
    publisher = Publisher(memory, epoch="one", head_seq=0, wall_clock=clock.SystemClock())
    memory.open_inlet().subscribe(b"all/")
    publisher.publish(1, message(1, "bob"))
    publisher.publish(2, message(2, "bob"))
    assert publisher.problems() == ("bus: 2 frames could not be sent",)


def test_the_socket_file_is_private_and_goes_with_its_owner(directory: Path) -> None:
    path = directory / "bus"
    with open_xpub_socket(path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_a_path_where_nothing_can_be_bound_is_an_os_error(directory: Path) -> None:
    with pytest.raises(OSError), open_xpub_socket(directory / "missing" / "bus"):
        pass
    with pytest.raises(OSError), open_xpub_socket(directory / ("x" * 200)):
        pass


async def test_rubbish_on_the_socket_disturbs_nobody(directory: Path) -> None:
    with open_xpub_socket(directory / "bus") as outlet:
        bus = Bus(outlet, lambda: connected(outlet))
        with bus.stack, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(bus.publisher.serve_bus)
                for rubbish in (b"\x00" * 100, b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 100_000):
                    with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(OSError):
                        raw.connect(str(directory / "bus"))
                        raw.sendall(rubbish)
                inlet = bus.subscribe("all/")
                await said(inlet)
                bus.say(1, "bob")
                assert (await said(inlet)).seq == 1
                scope.cancel()
