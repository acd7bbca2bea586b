"""Which projection is this daemon's own: a secret in the database that is also stored beside the journals.

The database lies below `.thrum`, where a branch can put another one, with forged messages. Whatever does not
know the secret is rebuilt (identity.md §3 "Trust").
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import stat
from pathlib import Path
from typing import Any, cast

from thrum.model import files
from thrum.store import database

_KEY = "seal"
_LOGS = ("-wal", "-shm", "-journal")


class Seal:
    """The secret of the projection at `database_path`, as `path` says. All methods raise OSError."""

    def __init__(self, path: Path, database_path: Path) -> None:
        self._path = path
        self._database = database_path

    def remove_foreign_files(self) -> None:
        """Take away what lies in the place of the database or its logs and is not the daemon's own: links, files with
        another name too, and logs where the last daemon left none. Before anything is opened."""
        _, clean = self._read()
        for suffix in ("", *_LOGS):
            path = Path(f"{self._database}{suffix}")
            found = files.status(path)
            if found is None:
                continue
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or (clean and suffix):
                files.remove(path)

    def fits(self, db: sqlite3.Connection) -> bool:
        """Whether the projection knows the secret."""
        known, _ = self._read()
        # A view of that name could run for ever.
        row = db.execute("SELECT type FROM sqlite_master WHERE name = 'schema_meta'").fetchone()
        if not known or row != ("table",):
            return False
        return secrets.compare_digest(str(database.get_meta(db, _KEY)).encode(), known.encode())

    def put(self, db: sqlite3.Connection) -> None:
        """Give a projection that was just rebuilt a secret of its own; in the caller's transaction."""
        secret = secrets.token_hex(16)
        database.set_meta(db, _KEY, secret)
        self._write(secret, clean=False)

    def note(self, *, clean: bool) -> None:
        """The database is in use, or was closed with all in it."""
        secret, before = self._read()
        if secret and clean != before:
            self._write(secret, clean=clean)

    def _read(self) -> tuple[str, bool]:
        try:
            raw: Any = json.loads(files.read_bytes(self._path))
        except (FileNotFoundError, ValueError, RecursionError):
            return "", False
        fields = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        secret = fields.get("secret")
        return (secret if isinstance(secret, str) else ""), fields.get("clean") is True

    def _write(self, secret: str, *, clean: bool) -> None:
        files.ensure_private_dir(self._path.parent)
        # Lost with the power, it costs a projection that is rebuilt, or a log that is read from the journals again.
        files.atomic_write(self._path, json.dumps({"secret": secret, "clean": clean}).encode() + b"\n", durable=False)
