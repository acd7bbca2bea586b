"""The stream rules against random loss, repetition, restarts and rebuilds: every fact once and in order (rpc.md §8)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thrum.bus._cursor import Cursor, Do, Position, parse_position
from thrum.bus.topics import Head
from thrum.model.wire_types import Hint

AT = "2026-02-03T10:00:00.000Z"


class OneStream(RuleBasedStateMachine):
    """A daemon with a store, a lossy pipe of frames, and one subscriber that follows the table."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 1
        self.mine: list[tuple[int, int]] = []
        """(seq, id) of the audience's facts."""
        self.head = self.last = 0
        self.made = 0
        self.pipe: list[Hint | Head] = []
        self.cursor = Cursor("1", 0)
        self.handled: list[int] = []

    # -- the daemon

    @rule(mine=st.booleans(), lost=st.booleans())
    def commit(self, mine: bool, lost: bool) -> None:
        self.head += 1
        if not mine:
            return
        self.made += 1
        self.mine.append((self.head, self.made))
        hint = Hint(
            epoch=str(self.epoch), seq=self.head, prev=self.last, event_id=str(self.made), type="message.create", at=AT
        )
        self.last = self.head
        if not lost:
            self.pipe.append(hint)

    @rule(lost=st.booleans())
    def send_head(self, lost: bool) -> None:
        if not lost:
            self.pipe.append(Head(epoch=str(self.epoch), seq=self.last, head=self.head, at=AT))

    @rule(keep=st.integers(0, 3))
    def restart(self, keep: int) -> None:
        """Frames on the way are lost, the numbers go on, and `prev` begins at the head."""
        del self.pipe[keep:]
        self.last = self.head

    @rule(gap=st.integers(0, 5))
    def rebuild(self, gap: int) -> None:
        self.pipe.clear()
        self.epoch += 1
        self.mine = [(gap + number, item) for number, (_, item) in enumerate(self.mine, 1)]
        self.head = self.last = gap + len(self.mine)

    # -- the subscriber

    @rule(again=st.booleans())
    def receive(self, again: bool) -> None:
        if self.pipe:
            self.take(self.pipe[0])
            if again:
                self.take(self.pipe[0])
            self.pipe.pop(0)

    def take(self, said: Hint | Head) -> None:
        do = self.cursor.see(said)
        if do is Do.HANDLE:
            assert isinstance(said, Hint)
            self.handled.append(int(said.event_id))
        elif do is Do.FETCH:
            self.fetch()
        elif do is Do.RESET:
            self.cursor.reset(str(self.epoch), 0)
            self.fetch()

    def fetch(self) -> None:
        for seq, item in self.mine:
            # After a rebuild facts repeat and are known by their id.
            if seq > self.cursor.seq and item not in self.handled:
                self.handled.append(item)
        self.cursor.fetched(self.head)

    @rule()
    def a_tick_later_everything_is_there(self) -> None:
        while self.pipe:
            self.receive(False)
        self.take(Head(epoch=str(self.epoch), seq=self.last, head=self.head, at=AT))
        assert self.handled == [item for _, item in self.mine]
        assert self.cursor.position == Position(str(self.epoch), self.head)

    @invariant()
    def each_once_and_in_order(self) -> None:
        assert self.handled == list(range(1, len(self.handled) + 1))


TestOneStream = OneStream.TestCase
TestOneStream.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True), st.integers(0, 10**17))
def test_a_position_survives_its_text(epoch: str, seq: int) -> None:
    position = Position(epoch, seq)
    assert parse_position(str(position)) == position
