"""The store as sync sees it: `sync.ports.Journals` over an open store.

Every method blocks and is called in one worker thread of the running trio loop: it reads there, from the files and over
a connection of its own, and hops to the loop for what the committer has to write.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import trio

from thrum.model import events
from thrum.model.errors import StoreFailed
from thrum.model.tombstones import Tombstones
from thrum.store.journal import FileState, refusal
from thrum.store.queries.views import View
from thrum.store.receipts import RECEIPTS_SEQ, Copies, Receipts
from thrum.store.recovery import Store
from thrum.sync.ports import Arrived, FilePosition, Ingested, JournalMoved, Surplus


class SyncStore:
    """Implements `sync.ports.Journals`. Raises StoreFailed, Busy, ShuttingDown."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_closed = False
        self._receipts = Receipts(store.journals, store.signer)

    def file_positions(self) -> dict[str, FilePosition]:
        """See `sync.ports.Journals`. What is appended and not yet committed does not count."""
        file_states = self._store.journals.file_states()
        return {
            file: FilePosition(*file_state) for file, file_state in file_states.items() if file != events.LOCAL_FILE
        }

    def head_seq(self) -> int:
        """See `sync.ports.Journals`."""
        with self._reading() as view:
            return view.head_seq()

    def read(self, file: str, position: FilePosition) -> bytes:
        """See `sync.ports.Journals`. StoreFailed when another program replaced or cut it."""
        journals = self._store.journals
        with self._reporting_damage():
            try:
                return journals.read_start(file, FileState(*position))
            except OSError as error:
                raise refusal(error, "read") from error
            except StoreFailed as error:
                with journals.still:
                    now = journals.file_states().get(file)
                if now is None or now.inode != position.inode:
                    raise JournalMoved(file) from error  # by the committer itself: compaction
                raise

    def tombstones(self) -> Tombstones:
        """See `sync.ports.Journals`. It is of one moment, and does not look at the store again."""
        with self._reading() as view:
            tombstones = view.still_tombstones()
            return replace(tombstones, origins=replace(tombstones.origins, exact=True)) if tombstones else tombstones

    def ingest(self, arrived: Sequence[Arrived]) -> Ingested:
        """See `sync.ports.Journals`."""
        taken = trio.from_thread.run(self._store.committer.ingest, arrived)
        return Ingested(taken.new, taken.quarantined)

    def count_quarantined(self, surplus: Sequence[Surplus]) -> None:
        """See `sync.ports.Journals`."""
        trio.from_thread.run(self._store.committer.count_quarantined, surplus)

    def project(self) -> frozenset[str]:
        """See `sync.ports.Journals`."""
        with self._reading() as view:
            return frozenset(view.origins().ours)

    def is_read_only(self) -> bool:
        """See `sync.ports.Journals`."""
        with self._reading() as view:
            return view.foreign_format()

    def close_before(self) -> None:
        """See `sync.ports.Journals`."""
        if not self._is_closed:
            trio.from_thread.run(self._store.committer.close_before)
            self._is_closed = True

    def copy_receipts(self) -> int:
        """See `sync.ports.Journals`."""
        found = self._find_receipts()
        try:
            if found.lines or found.keep:
                trio.from_thread.run(self._store.committer.remember, {RECEIPTS_SEQ: str(found.seq)}, found.lines)
        except BaseException:
            self._receipts.failed()
            raise
        self._receipts.done(found)
        return len(found.lines)

    def _find_receipts(self) -> Copies:
        """Raises JournalMoved too: the rows are of one moment, the lines may be of a later one."""
        journals = self._store.journals
        since = journals.exchanged
        with self._reporting_damage():
            try:
                with self._store.reading() as view:
                    return self._receipts.find(view)
            except StoreFailed as error:
                if journals.is_exchanged(since):
                    raise JournalMoved(events.LOCAL_FILE) from error
                raise

    def recall(self) -> Mapping[str, str]:
        """See `sync.ports.Journals`."""
        with self._reading() as view:
            return {key: value for key, value in view.sync_state().items() if key != RECEIPTS_SEQ}

    def release_due_facts(self) -> None:
        """Let facts count that waited for their day (events.md §13)."""
        trio.from_thread.run(self._store.committer.release_due_facts)

    def remember(self, values: Mapping[str, str]) -> None:
        """See `sync.ports.Journals`."""
        trio.from_thread.run(self._store.committer.remember, values)

    @contextmanager
    def _reading(self) -> Generator[View]:
        with self._reporting_damage(), self._store.reading() as view:
            yield view

    @contextmanager
    def _reporting_damage(self) -> Generator[None]:
        """If something changed or damaged is found here, the store is reopened, as when the committer finds it."""
        try:
            yield
        except StoreFailed as error:
            if "cause" in error.details:
                trio.from_thread.run_sync(self._store.committer.request_reopen, str(error.details["cause"]))
            raise
