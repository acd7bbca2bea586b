"""What thrum remembers of a file of settings that it put hooks into: how it was before, to the byte.

One record for each file, private, in `~/.thrum/hook-files`, named by the file's path. It is written before the file is
changed and goes when the file is as it was, so that a call that was killed in between can be repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from thrum.model import files
from thrum.model.errors import NotAvailable

_NAME_CHARS: Final = 32


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Of one file. `before`: None where there was none. `after`: digests of what thrum made of it.

    `made`: directories that thrum made for it, the outermost first. `rule`: the line in `exclude` that hides it.
    """

    path: str
    before: bytes | None
    after: tuple[str, ...]
    made: tuple[str, ...] = ()
    exclude: str = ""
    rule: str = ""


class Records:
    """The records of one user. All calls block, and raise OSError."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raises NotAvailable without a home directory."""
        home = environ.get("HOME", "")
        if not os.path.isabs(home):
            raise NotAvailable("there is no home directory to remember files in", remedy="export HOME=DIR")
        self._directory = Path(home, ".thrum", "hook-files")

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """One process at a time changes files of settings."""
        files.ensure_private_dir(self._directory)
        with files.locked(self._directory / "lock"):
            yield

    def of(self, path: Path) -> Record | None:
        """What is remembered of a file; None: nothing, or nothing that can be read."""
        return self._read(self._file(path))

    def keep(self, record: Record) -> None:
        files.atomic_write(self._file(Path(record.path)), msgspec.json.encode(record))

    def drop(self, path: Path) -> None:
        files.remove(self._file(path))

    def share_rule(self, path: Path, exclude: str, rule: str) -> bool:
        """Whether another file than this one is hidden by the same line: that of another worktree."""
        return any(
            each.exclude == exclude and each.rule == rule and os.path.exists(each.path) for each in self._others(path)
        )

    def hand_over(self, path: Path, directories: Sequence[str]) -> None:
        """Directories that were made for this file and are used by others go with the last of them."""
        for each in self._others(path):
            above = [directory for directory in directories if Path(each.path).is_relative_to(directory)]
            if above:
                made = tuple(dict.fromkeys((*above, *each.made)))
                self.keep(msgspec.structs.replace(each, made=made))

    def _others(self, path: Path) -> list[Record]:
        names = [name for name in files.names_in(self._directory) if name.endswith(".json")]
        found = [self._read(self._directory / name) for name in names]
        return [each for each in found if each is not None and each.path != str(path)]

    def _file(self, path: Path) -> Path:
        return self._directory / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:_NAME_CHARS]}.json"

    @staticmethod
    def _read(file: Path) -> Record | None:
        try:
            return msgspec.json.decode(files.read_bytes(file), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None


def digest(data: bytes) -> str:
    """What `Record.after` has of a file's bytes."""
    return hashlib.sha256(data).hexdigest()
