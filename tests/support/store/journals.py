"""Journals in a temporary directory, and lines for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.support.here import DAEMON, START_MS
from thrum.model import clock, events, ids
from thrum.model.events import AnyFact, Body, MessageCreated
from thrum.store.journal import JournalFiles

_ulids = ids.Ulids()


def message(text: str = "hi", *, author: str = "furiosa", to: str = "nux", ms: int = START_MS) -> MessageCreated:
    """A stamped create with one recipient."""
    ulid = _ulids.at(ms)
    return MessageCreated(
        timestamp=clock.format_ms(ms),
        event_id=f"evt_{ulid}",
        v=1,
        origin_daemon=DAEMON,
        message_id=f"msg_{ulid}",
        agent_id=author,
        body=Body("markdown", text),
        recipients=(to,),
    )


def line_of(fact: AnyFact) -> bytes:
    """The fact's line with its newline."""
    return events.encode(fact) + b"\n"


def journals_at(directory: Path) -> JournalFiles:
    """Prepared, empty journals."""
    journals = JournalFiles(directory / "a-sync", directory / "local.jsonl")
    journals.prepare()
    return journals


def append(journals: JournalFiles, file: str, facts: Iterable[AnyFact]) -> None:
    """Append and settle, as a batch does."""
    journals.settle(journals.append({file: b"".join(map(line_of, facts))}))
