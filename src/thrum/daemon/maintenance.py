"""The maintenance methods, as the running daemon executes them (rpc.md §5).

Each works in a thread, at a point at which nothing is being flushed; the daemon keeps serving meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from thrum.admin import backup, repair, restore, verify
from thrum.admin.backup import Source
from thrum.admin.exclusive import Owner
from thrum.admin.verify import Point
from thrum.daemon.compaction import Compactor
from thrum.model.errors import Busy, ConfirmationRequired, InvalidParams, NewerFormat
from thrum.model.methods.admin import (
    BACKUP_CONFIG,
    BACKUP_CREATE,
    BACKUP_RESTORE,
    BACKUP_STATUS,
    VERIFY_RUN,
    BackupConfigResult,
    BackupParams,
    BackupResult,
    RestoreParams,
    RestoreResult,
    VerifyParams,
    VerifyResult,
)
from thrum.model.methods.method import AnyMethod, Empty
from thrum.model.paths import Layout
from thrum.ops.context import Context
from thrum.rpc.dispatch import Call, Handler, row
from thrum.store import audit
from thrum.store.api import Decision, Stamp
from thrum.store.committer import Committer
from thrum.store.journal import JournalFiles
from thrum.store.queries.views import View

_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Care:
    """`environ` is for git processes."""

    ctx: Context
    committer: Committer
    journals: JournalFiles
    environ: Mapping[str, str]
    _one: trio.Lock = field(default_factory=trio.Lock)
    """One at a time: each reads all there is."""
    compactor: Compactor = field(init=False)

    def __post_init__(self) -> None:
        here, wall = self.ctx.here, self.ctx.clock
        compactor = Compactor(self.committer, self.journals, here.layout.database, here.own, wall, self._one)
        object.__setattr__(self, "compactor", compactor)

    async def serve(self) -> None:
        """Keep the journals short, until cancelled. What an earlier run did not come to is done first."""
        if self.ctx.view.watermark("purge", "") or self.ctx.view.tombstones().authors:
            self.compactor.ask()
        await self.compactor.serve()

    def handlers(self) -> dict[AnyMethod, Handler]:
        return dict(
            (
                row(VERIFY_RUN, self._verify),
                row(BACKUP_CREATE, self._back_up),
                row(BACKUP_STATUS, self._backup_status),
                row(BACKUP_CONFIG, self._backup_config),
                row(BACKUP_RESTORE, self._restore),
            )
        )

    async def _verify(self, call: Call, params: VerifyParams) -> VerifyResult:
        """With `repair`: what will be true once the store has been reopened, which begins with the answer."""
        here = self.ctx.here
        async with self._one:
            journal_states = await self._journal_states()
            point = Point(here.layout, self.environ, Owner(here.daemon_id, here.own), journal_states)
            work = partial(verify.verify, point)
            found = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        if not (params.repair and repair.is_fixable(found)):
            return found
        call.when_delivered(self.committer.request_reopen, self.committer.request_reopen)
        return repair.as_fixed(found)

    async def _back_up(self, _call: Call, params: BackupParams) -> BackupResult:
        async with self._one:
            for _ in range(_TRIES):
                source = Source(self._layout, self.environ, await self._journal_states())
                with suppress(backup.JournalMoved):
                    work = partial(backup.create, source, _absolute(params.dir, "dir"))
                    return await trio.to_thread.run_sync(work)
        raise Busy("the journals are being rewritten", retry_after_ms=1_000)

    async def _backup_status(self, _call: Call, params: BackupParams) -> BackupResult:
        work = partial(backup.status, self._layout, _absolute(params.dir, "dir"))
        return await trio.to_thread.run_sync(work)

    async def _backup_config(self, _call: Call, _params: Empty) -> BackupConfigResult:
        return await trio.to_thread.run_sync(backup.settings_of, self._layout)

    async def _restore(self, call: Call, params: RestoreParams) -> RestoreResult:
        """Make all ready. With the answer the store is closed; when it is reopened, it is the backup's."""
        if not params.confirm:
            raise ConfirmationRequired("use --yes to confirm the restore", remedy="repeat with --yes")
        archive = params.archive
        if "/" in archive:
            _absolute(archive, "archive")
        given = _absolute(params.dir, "dir")
        insisted = params.other_repository
        work = partial(restore.stage, self._layout, self.environ, archive, given, other_repository=insisted)
        async with self._one:
            result = await trio.to_thread.run_sync(work)
            # From here on it happens, whatever becomes of the caller.
            reopen = partial(self.committer.request_reopen, "restored")
            call.when_delivered(reopen, reopen)
        result.daemon_restarted = True
        return result

    @property
    def _layout(self) -> Layout:
        return self.ctx.here.layout

    async def _journal_states(self) -> audit.JournalStates:
        """The state of the journals, at a moment when the committer flushes nothing."""

        def look(_view: View, _stamp: Stamp) -> Decision[audit.JournalStates]:
            found = audit.journal_states(self.journals)
            return Decision((), lambda _view, _seqs: found)

        try:
            return await self.ctx.journal.commit(look)
        except NewerFormat:
            return audit.journal_states(self.journals)  # nothing is being written at all


def _absolute(path: str, field: str) -> str:
    if path and not os.path.isabs(path):
        raise InvalidParams(f"{field} must be an absolute path", field=field)
    return path
