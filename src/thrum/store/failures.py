"""What callers get when the database or the program fails while it writes."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from typing import Final

from thrum.model.errors import InternalError, StoreFailed, ThrumError
from thrum.model.files import shortage
from thrum.store import database

log: Final = logging.getLogger("thrum.store")

_DISK_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def is_failure_of_the_disk(error: Exception) -> bool:
    """Whether the database failed, not the statement: then no call of the batch can be kept. False for other errors."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DISK_CODES


def database_refusal(error: sqlite3.Error, verb: str = "write") -> StoreFailed:
    """The error of every call of a batch; its `cause` says whether the projection has to be rebuilt."""
    cause = "database_damaged" if database.is_damage(error) else None
    return StoreFailed(f"could not {verb} the database: {error}", cause=cause)


def internal(error: Exception) -> ThrumError:
    """What a caller sees of a bug: a number by which the log can be searched. A lack of open files is none."""
    if (busy := shortage(error)) is not None:
        return busy
    reference = secrets.token_hex(4)
    log.error("internal error %s", reference, exc_info=error)
    return InternalError(f"internal error {reference}", id=reference)
