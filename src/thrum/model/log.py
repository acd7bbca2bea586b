"""The daemon's log: one JSON object per line, rotated and gzipped. Other modules just use `logging.getLogger("thrum")`.

A record's own fields go in `extra={"fields": {...}}`; they stand beside `time`, `level` and `message`. No message
bodies, no secrets. Source: cli.md 3.13, `LogLine` in §4.
"""

from __future__ import annotations

import gzip
import logging
import logging.handlers
import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import msgspec

from thrum.model import clock, files, limits

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
        descriptor = files.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.write(descriptor, msgspec.json.encode(line, enc_hook=str) + b"\n")
    except OSError:
        pass
    finally:
        os.close(descriptor)


def open_to_append(path: Path | str) -> int:
    """A descriptor of the log. One that has another name too, is a link, or far too large is not a log of thrum: a new
    one takes its place. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
    found = files.status(path)
    is_log = found is not None and stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if found is not None and not (is_log and found.st_size <= 2 * limits.log_bytes_max):
        files.remove(path)
    return files.open_file(path, flags)


def _gzip(source: str, target: str) -> None:
    files.remove(target)
    with (
        os.fdopen(files.open_file(source, os.O_RDONLY), "rb") as plain,
        os.fdopen(files.open_file(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file,
        gzip.open(file, "wb", compresslevel=6) as packed,
    ):
        shutil.copyfileobj(plain, packed)
    files.remove(source)


def _forget_old(path: Path, now_seconds: float) -> None:
    for name in files.names_in(path.parent):
        if name.startswith(f"{path.name}.") and name.endswith(".gz"):
            old = files.status(path.with_name(name))
            if old is not None and now_seconds - old.st_mtime > AGE_SECONDS_MAX:
                files.remove(path.with_name(name))


class _Rotating(logging.handlers.RotatingFileHandler):
    """Opens its file as everything below `.thrum` is opened."""

    def _open(self) -> TextIOWrapper:
        return os.fdopen(open_to_append(self.baseFilename), "a", encoding="utf-8")

    def rotate(self, source: str, dest: str) -> None:
        _gzip(source, dest)

    def rotation_filename(self, default_name: str) -> str:
        return f"{default_name}.gz"


@contextmanager
def open_log(path: Path, level: str = "info") -> Generator[None]:
    """Send the log to `path` (0600) for as long as the block runs. A log that cannot be written is no reason to
    stop."""
    os.close(open_to_append(path))
    _forget_old(path, clock.SystemClock().now_ms() / 1000)
    handler = _Rotating(path, maxBytes=limits.log_bytes_max, backupCount=limits.log_files_max - 1, encoding="utf-8")
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
