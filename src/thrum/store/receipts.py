"""Receipts that are synced: which lines of the local journal the sender's daemon has to see (events.md §5).

Every receipt goes to `local.jsonl`, at once. Of those for another daemon's message the line of the highest state is
copied, signed, into the journal of its recipient, by the next sync round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from thrum.identity.signing import Signer
from thrum.model import events, signatures
from thrum.model.errors import StoreFailed
from thrum.model.events import MessageReceipt
from thrum.model.tombstones import branch_file_of
from thrum.store.ingest import Found
from thrum.store.journal import JournalFiles, refusal
from thrum.store.projection.merge_messages import receipt_rank
from thrum.store.queries.rows import EventRow
from thrum.store.queries.views import View

RECEIPTS_SEQ: Final = "receipts_seq"
"""The key of `sync_state` with the number up to which local receipts were looked at."""

_KEEP_EVERY: Final = 10_000
"""How many facts are looked at again after a restart at most, when nothing was to be copied."""


class Copies(NamedTuple):
    """Lines to append, `(journal, line without newline)`, and the number up to which was looked."""

    lines: list[Found]
    seq: int
    keep: bool
    """Whether the number is to be remembered although there are no lines."""


class Receipts:
    """Finds what is to be copied. Not for several threads at once; blocks, reads journals.

    How far it looked is kept beside the projection, in one transaction with the copies. That is lost with a projection,
    and with a kill between append and commit: so the first time after a start the journals themselves say what they
    hold.
    """

    def __init__(self, journals: JournalFiles, signer: Signer | None = None) -> None:
        self._journals = journals
        self._signer = signer
        self._seq = 0
        self._kept = 0
        self._certain = False

    def find(self, view: View) -> Copies:
        """What is to be copied as of now. Until `done` says that it was, the same is found again."""
        if not self._certain:
            self._seq = self._kept = int(view.sync_state().get(RECEIPTS_SEQ, "0"))
        head = view.head_seq()
        lines: dict[str, dict[str, bytes]] = {}
        for message_id, agent_id in view.receipts_to_copy(self._seq):
            found = self._highest(view.local_receipts(message_id, agent_id))
            if found is not None and found[0].seq > self._seq:
                row, fact, raw = found
                lines.setdefault(branch_file_of(fact), {})[row.event_id] = self._signed(fact, raw)
        if not self._certain:
            lines = {file: self._absent(file, wanted) for file, wanted in lines.items()}
        due = [(file, raw) for file, wanted in lines.items() for raw in wanted.values()]
        return Copies(due, head, head - self._kept > _KEEP_EVERY)

    def done(self, copies: Copies) -> None:
        """What was found is in the journals now, and the number remembered if it was to be."""
        self._seq = copies.seq
        if copies.lines or copies.keep:
            self._kept = copies.seq
        self._certain = True

    def failed(self) -> None:
        """It is not known how much of what was found is in the journals."""
        self._certain = False

    def _signed(self, fact: MessageReceipt, raw: bytes) -> bytes:
        """Receipts of the time before this daemon had its key are another's word: they travel as they are."""
        signer = self._signer
        if signer is None or not signatures.certifies(fact.origin_daemon, signer.public_key):
            return raw
        return signer.sign(raw)

    def _highest(self, rows: Iterable[EventRow]) -> tuple[EventRow, MessageReceipt, bytes] | None:
        """The first receipt of the highest state. That something was delivered never travels by itself."""
        best: tuple[EventRow, MessageReceipt, bytes] | None = None
        rank = 0
        for row in rows:
            fact, raw = self._read(row)
            if receipt_rank(fact.receipt_type) > rank:
                best, rank = (row, fact, raw), receipt_rank(fact.receipt_type)
        return best

    def _read(self, row: EventRow) -> tuple[MessageReceipt, bytes]:
        fact: object = None
        try:
            raw = self._journals.read_line(row.file, row.offset, row.length)
            fact = events.decode(raw)
        except OSError as error:
            raise refusal(error, "read") from error
        except events.BadLine:
            raw = b""
        if not isinstance(fact, MessageReceipt) or fact.event_id != row.event_id:
            raise StoreFailed(
                f"{row.file} was edited: it does not hold {row.event_id} where the database has it",
                remedy="repeat the command: the database is rebuilt",
                cause="database_damaged",
            )
        return fact, raw

    def _absent(self, file: str, wanted: Mapping[str, bytes]) -> dict[str, bytes]:
        """Those lines, by event id, that a journal does not hold."""
        absent = dict(wanted)
        lines = {signatures.unsigned(raw): event_id for event_id, raw in wanted.items()}
        try:
            for line in self._journals.iter_lines(file, 0, self._journals.end(file)):
                absent.pop(lines.get(signatures.unsigned(line.raw), ""), None)
        except OSError as error:
            raise refusal(error, "read") from error
        return absent
