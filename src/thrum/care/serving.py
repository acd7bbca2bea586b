"""The methods that care for the data, as the running daemon carries them out (rpc.md §5).

Each works in a thread, at a point at which nothing is being flushed; the daemon goes on serving meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from thrum import api
from thrum.care import verify
from thrum.care.lock import Owner
from thrum.care.verify import Point
from thrum.errors import NewerFormat
from thrum.ops.house import House
from thrum.rpc.dispatch import Call, Handler
from thrum.store import audit
from thrum.store.committer import Committer
from thrum.store.door import Decision, Stamp
from thrum.store.journal import JournalFiles
from thrum.store.views import View


@dataclass(frozen=True, slots=True)
class Care:
    """`environ` is for git processes."""

    house: House
    committer: Committer
    journals: JournalFiles
    environ: Mapping[str, str]
    _one: trio.Lock = field(default_factory=trio.Lock)
    """One at a time: each reads all there is."""

    def handlers(self) -> dict[str, Handler]:
        return {"verify.run": self._verify}

    async def _verify(self, call: Call, params: api.VerifyParams) -> api.VerifyResult:
        """With `repair`: what will be true once the store was opened anew, which begins with the answer."""
        here = self.house.here
        async with self._one:
            ends, beyond = await self._standing()
            point = Point(here.places, self.environ, Owner(here.daemon_id, here.own), ends, beyond)
            work = partial(verify.verify, point)
            found = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        if not (params.repair and verify.is_mendable(found)):
            return found
        call.when_delivered(self.committer.condemn, self.committer.condemn)
        return verify.as_mended(found)

    async def _standing(self) -> tuple[dict[str, int], dict[str, int]]:
        """How far each journal counts, at a moment at which the committer flushes nothing."""

        def look(_view: View, _stamp: Stamp) -> Decision[tuple[dict[str, int], dict[str, int]]]:
            found = audit.standing(self.journals)
            return Decision((), lambda _view, _seqs: found)

        try:
            return await self.house.journal.commit(look)
        except NewerFormat:
            return audit.standing(self.journals)  # nobody writes at all
