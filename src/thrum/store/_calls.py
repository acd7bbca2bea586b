"""What the writer is asked for, and what it says of each fact."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from thrum.model.events import AnyFact, UnknownEvent
from thrum.model.methods.method import ClientKey
from thrum.store.api import Decide, Decision, Stamp
from thrum.store.queries.views import View

if TYPE_CHECKING:
    from thrum.store.writer import Writer


class Committed(NamedTuple):
    """A fact that is on disk and in the projection. `state` is the projection's word for what became of it."""

    seq: int
    fact: AnyFact | UnknownEvent
    state: str


Replay = Callable[[View, AnyFact, int], Any]


class Call:
    """One call's way through a batch: what it wants, then its answer or its error. `heavy`: see `api.Journal`."""

    __slots__ = ("answer", "decide", "error", "heavy", "key", "replay")

    def __init__(self, decide: Decide[Any], key: ClientKey | None = None, replay: Replay | None = None) -> None:
        self.decide = decide
        self.key = key
        self.replay = replay
        self.heavy = False
        self.answer: Any = None
        self.error: Exception | None = None


class Errand(Call):
    """A call that decides no facts of its own: `work` is a method of the writer that says so, with its arguments."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Writer], Any]) -> None:
        super().__init__(_nothing)
        self.work = work


def _nothing(_view: View, _stamp: Stamp) -> Decision[None]:
    return Decision((), lambda _view, _seqs: None)
