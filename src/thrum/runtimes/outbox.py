"""The outbox of a sandboxed session: what an agent sends that may open no socket waits in its worktree until a hook of
the same session, which runs outside the sandbox, hands it in (wake.md §5, decision 0074).

    .thrum/outbox/SESSION/nonce          left by a hook of that session; what is sent there carries it
    .thrum/outbox/SESSION/ULID.json      one request; its name is the order, and the key under which it counts once
    trusted state: outbox/SESSION.nonce  the same nonce, out of reach of a sandbox and of what a branch can bring
    trusted state: outbox/SESSION.told   refusals that no hook has told the model yet

A file that is not this user's own plain one, or that does not carry the nonce, is no request: it is removed unread.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import re
import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from thrum.model import files, ids, limits
from thrum.model.errors import BodyTooLarge, StoreFailed
from thrum.model.paths import Layout

REQUEST_BYTES_MAX: Final = 64 * limits.KIB
WAITING_MAX: Final = 100
_SESSION: Final = re.compile(r"[A-Za-z0-9-]{8,64}")
_NONCE: Final = "nonce"
_ULIDS: Final = ids.Ulids()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One command line: its words, where it was typed, its stdin and the name that it was given (THRUM_NAME)."""

    nonce: str
    argv: tuple[str, ...]
    cwd: str
    stdin: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Outbox:
    """The outbox of one session in one worktree. `session`: the runtime's id of the conversation."""

    layout: Layout
    session: str
    _trusted: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_trusted", self.layout.trusted_dir / "outbox")

    @property
    def directory(self) -> Path:
        return self.layout.root / ".thrum" / "outbox" / self.session

    # -- the side of the sandbox

    def is_open(self) -> bool:
        """Whether a hook of the session was here."""
        return files.is_file(self.directory / _NONCE)

    def put(self, argv: Sequence[str], cwd: str, stdin: str, name: str, now_ms: int) -> str:
        """Leave a request; its key. It is on disk when this returns. Raises StoreFailed where no hook has opened this
        outbox, where it is full and where the disk is, BodyTooLarge.
        """
        try:
            nonce = files.read_bytes(self.directory / _NONCE, 128).decode()
        except (OSError, UnicodeDecodeError):
            raise StoreFailed(
                "no hook of this session has opened an outbox", remedy="thrum hook install codex, outside the sandbox"
            ) from None
        key = _ULIDS.at(now_ms)
        request = Request(nonce=nonce, argv=tuple(argv), cwd=cwd, stdin=stdin, name=name)
        data = msgspec.json.encode(request) + b"\n"
        if len(data) > REQUEST_BYTES_MAX:
            raise BodyTooLarge(
                f"{len(data)} bytes, the limit from inside a sandbox is {REQUEST_BYTES_MAX}", remedy="shorten the text"
            )
        try:
            if len(_requests_in(self.directory)) >= WAITING_MAX:
                raise StoreFailed(
                    f"{WAITING_MAX} requests wait already", remedy="let a turn end: its hook hands them in"
                )
            files.atomic_write(self.directory / f"{key}.json", data)
        except OSError as error:
            raise StoreFailed(f"could not write {self.directory}: {(error.strerror or str(error)).lower()}") from error
        return key

    # -- the side of the hooks

    def open(self) -> None:
        """See to it that the session has its nonce, on both sides. Raises OSError."""
        trusted = self._trusted / f"{self.session}.{_NONCE}"
        files.ensure_private_dir(self._trusted)
        with files.locked(self._trusted / f"{self.session}.lock"):
            try:
                nonce = files.read_bytes(trusted, 128)
            except FileNotFoundError:
                nonce = secrets.token_hex(16).encode()
                files.atomic_write(trusted, nonce)
            files.ensure_private_dir(self.directory)
            path = self.directory / _NONCE
            try:
                is_there = files.read_bytes(path, 128) == nonce
            except OSError:
                is_there = False
            if not is_there:
                files.atomic_write(path, nonce)

    def is_empty(self) -> bool:
        """Whether nothing waits here, nor a refusal that is to be told. Cheap."""
        return not _requests_in(self.directory) and not files.is_file(self._trusted / f"{self.session}.told")

    @contextlib.contextmanager
    def taken(self) -> Generator[list[tuple[str, Request]]]:
        """All that waits, the oldest first, each with its key, while no other hook takes any. Raises OSError."""
        files.ensure_private_dir(self._trusted)
        with files.locked(self._trusted / f"{self.session}.lock"):
            nonce = b""
            with contextlib.suppress(OSError):
                nonce = files.read_bytes(self._trusted / f"{self.session}.{_NONCE}", 128)
            found: list[tuple[str, Request]] = []
            for name in _requests_in(self.directory):
                request = _read(self.directory / name, nonce)
                if request is not None:
                    found.append((name.removesuffix(".json"), request))
                else:
                    self.done(name.removesuffix(".json"))
            yield found[:WAITING_MAX]

    def done(self, key: str) -> None:
        """The daemon has answered for good."""
        with contextlib.suppress(FileNotFoundError):
            files.remove(self.directory / f"{key}.json")

    def refused(self, words: str) -> None:
        """Keep what is to be told of a refusal. Raises OSError."""
        path = self._trusted / f"{self.session}.told"
        with contextlib.suppress(FileNotFoundError):
            words = f"{files.read_bytes(path, limits.MIB).decode()}\n{words}"
        files.atomic_write(path, words[-REQUEST_BYTES_MAX:].encode())

    def untold(self) -> str:
        """What is to be told; empty: nothing."""
        try:
            return files.read_bytes(self._trusted / f"{self.session}.told", limits.MIB).decode()
        except (OSError, UnicodeDecodeError):
            return ""

    def told(self) -> None:
        """It was."""
        with contextlib.suppress(OSError):
            files.remove(self._trusted / f"{self.session}.told")


def outbox_of(layout: Layout, session: str) -> Outbox | None:
    """None for what is no id of a session."""
    return Outbox(layout, session) if _SESSION.fullmatch(session) else None


def session_of(environ: Mapping[str, str], variable: str) -> str:
    """The session that a sandboxed command is of, as its runtime says."""
    found = environ.get(variable, "")
    return found if _SESSION.fullmatch(found) else ""


def _requests_in(directory: Path) -> list[str]:
    try:
        names = files.names_in(directory)
    except OSError:
        return []
    return sorted(
        name for name in names if name.endswith(".json") and ids.ulid_bits(name.removesuffix(".json")) is not None
    )


def _read(path: Path, nonce: bytes) -> Request | None:
    """A request that counts; None for any other file. Raises OSError where it could not be looked at."""
    try:
        descriptor = files.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb"):
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or found.st_nlink != 1:
                return None
        request = msgspec.json.decode(files.read_bytes(path, REQUEST_BYTES_MAX), type=Request)
    except msgspec.MsgspecError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.ENOENT, errno.ENXIO, errno.EMLINK):
            return None
        raise
    return request if nonce and hmac.compare_digest(request.nonce.encode(), nonce) else None
