"""The daemon's key on disk, `thrum-sync/daemon.key`: one line, the id that certifies the key, and its secret half.

Source: identity.md §13. A process that can read the file can sign as this daemon: it is 0600, no link is followed to
it, and no backup holds it. The id is stored with the key so that the two change in one write: this file says who the
daemon is, and `config.json` and `daemon.json` repeat it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple

from thrum.identity.signing import Signer
from thrum.model import signatures
from thrum.model.errors import StoreFailed, in_shell
from thrum.model.files import atomic_write, lstat, open_nofollow

_LINE: Final = re.compile(rb"(d_[0-9A-Z]{26}) ([A-Za-z0-9_-]{43})\n")
_BYTES_MAX: Final = 4096


class DaemonKey(NamedTuple):
    """A key, the id that certifies it, and the file that it was read from."""

    daemon_id: str
    signer: Signer
    inode: int


def load_key(path: Path) -> DaemonKey | None:
    """The daemon's key; None if there is none, or what lies there is no key with its id.

    Raises StoreFailed for what can't be read, and for a link: a daemon does not change who it is because of that.
    """
    try:
        descriptor = open_nofollow(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(path, "it is a link", f"put the file itself there: mv TARGET {in_shell(path)}") from error
        raise _unusable(path, (error.strerror or str(error)).lower(), f"chmod 600 {in_shell(path)}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(path, "it is not a file", f"mv {in_shell(path)} {in_shell(f'{path}.old')}")
        data = os.read(descriptor, _BYTES_MAX)
    except OSError as error:
        raise _unusable(path, (error.strerror or str(error)).lower(), "thrum doctor") from error
    finally:
        os.close(descriptor)
    found = _LINE.fullmatch(data)
    if found is None:
        return None
    try:
        signer = Signer(signatures.from_base64url(found[2]))
    except ValueError:
        return None
    daemon_id = found[1].decode()
    return DaemonKey(daemon_id, signer, status.st_ino) if signatures.certifies(daemon_id, signer.public_key) else None


def make_key(path: Path, now_ms: int) -> DaemonKey:
    """A new key, and the id made of it, in the place of what lies there. Raises StoreFailed; then nothing changed."""
    signer = Signer.make()
    daemon_id = signatures.daemon_id_of(now_ms, signer.public_key)
    try:
        atomic_write(path, b"%b %b\n" % (daemon_id.encode(), signatures.base64url(signer.seed)))
        return DaemonKey(daemon_id, signer, lstat(path).st_ino)
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {error.strerror}") from error


def key_flaw(path: Path) -> tuple[str, str]:
    """What is wrong with the key's file and how it is fixed; two empty texts if nothing is, or there is none yet."""
    try:
        status = lstat(path)
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        return (
            f"{path} cannot be looked at: {(error.strerror or str(error)).lower()}",
            f"chmod 700 {in_shell(path.parent)}",
        )
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is no file of its own", f"put the file itself there: mv TARGET {in_shell(path)}"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to another user, who can sign as this daemon", f"chown {os.geteuid()} {path}"
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        return f"{path} has mode {mode:o}: others can sign as this daemon", f"chmod 600 {in_shell(path)}"
    if load_key(path) is None:
        return f"{path} holds no key: the daemon gets another id when it starts", "thrum daemon restart"
    return "", ""


def _unusable(path: Path, reason: str, remedy: str) -> StoreFailed:
    return StoreFailed(f"the daemon's key {path} cannot be used: {reason}", remedy=remedy)
