"""The daemon's log: one JSON object a line, rotated and gzipped. Everybody else just uses `logging.getLogger("thrum")`.

A record's own fields go in `extra={"fields": {...}}`; they stand beside `time`, `level` and `message`. No message
bodies, no secrets. Source: cli.md 3.13, `LogLine` in §4.
"""

from __future__ import annotations

import gzip
import logging
import logging.handlers
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from thrum import clock, limits

LOGGER = logging.getLogger("thrum")
AGE_SECONDS_MAX = 28 * 86_400


class JsonLines(logging.Formatter):
    """`{"time", "level", "message", …}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": clock.format_ms(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode("utf-8", "replace")


def append_line(path: Path, level: str, message: str, fields: dict[str, Any]) -> None:
    """One line from another process than the daemon. A log that is not there, or can't be written, stays as it is."""
    line = {"time": clock.format_ms(clock.SystemClock().now_ms()), "level": level, "message": message, **fields}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.write(descriptor, msgspec.json.encode(line, enc_hook=str) + b"\n")
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _gzip(source: str, target: str) -> None:
    with Path(source).open("rb") as plain, gzip.open(target, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed)
    Path(target).chmod(0o600)
    Path(source).unlink()


def _forget_old(path: Path, now_seconds: float) -> None:
    for old in path.parent.glob(f"{path.name}.*.gz"):
        if now_seconds - old.stat().st_mtime > AGE_SECONDS_MAX:
            old.unlink(missing_ok=True)


@contextmanager
def open_log(path: Path, level: str = "info") -> Generator[None]:
    """Send the log to `path` (0600) for as long as the block runs. A log that cannot be written stops nobody."""
    path.touch(mode=0o600, exist_ok=True)
    _forget_old(path, clock.SystemClock().now_ms() / 1000)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=limits.log_bytes_max, backupCount=limits.log_files_max - 1, encoding="utf-8"
    )
    handler.namer = lambda name: f"{name}.gz"
    handler.rotator = _gzip
    handler.setFormatter(JsonLines())
    handler.handleError = lambda record: None
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()
