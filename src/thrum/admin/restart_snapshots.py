"""The end of a conversation, kept in `.thrum/restart/AGENT.md` of the agent's worktree while it is restarted (cli.md
3.18). Blocks.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from thrum.model import files, ids
from thrum.model.errors import FileUnreadable, StateTracked, StoreFailed
from thrum.model.files import atomic_write, ensure_private_dir, open_following, read_bytes
from thrum.model.paths import is_tracked
from thrum.terminal.snapshots import conversation

_TAIL_BYTES: Final = 8 << 20
"""Of a record only the end is read: a long session has hundreds of megabytes."""


def path_of(root: str, agent_id: str) -> Path:
    """Where an agent's snapshot lies."""
    return Path(root) / ".thrum" / "restart" / f"{ids.file_stem(agent_id)}.md"


def read(root: str, agent_id: str) -> str:
    """The snapshot; empty if there is none."""
    try:
        return read_bytes(path_of(root, agent_id)).decode("utf-8", "replace")
    except OSError:
        return ""


def remove(root: str, agent_id: str) -> None:
    """Forget the snapshot, which was told. One that can't be removed is told again."""
    with contextlib.suppress(OSError):
        files.remove(path_of(root, agent_id))


def take(root: str, agent_id: str, record: str, runtime: str, lines_max: int) -> int:
    """Keep the end of the conversation that a runtime's record has; how many lines.

    Without a record, or with nothing in it, what is there stays. Raises FileUnreadable, StoreFailed, StateTracked.
    """
    lines = _tail(record) if record else []
    # What a record is of is told by its lines, where it is not known.
    texts = (conversation(lines, each, lines_max) for each in ((runtime,) if runtime else ("claude", "codex")))
    text = next(filter(None, texts), "")
    if not text:
        return 0
    save(root, agent_id, text)
    return text.count("\n") + 1


def save(root: str, agent_id: str, text: str) -> Path:
    """Keep a text as an agent's snapshot. Raises StoreFailed, StateTracked."""
    path = path_of(root, agent_id)
    if is_tracked(path):
        raise StateTracked(f"git tracks {path}: nothing is written there")
    try:
        ensure_private_dir(path.parent)
        atomic_write(path, f"{text}\n".encode())
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error
    return path


def _tail(record: str) -> list[str]:
    """The last whole lines of a record. Raises FileUnreadable."""
    try:
        with os.fdopen(open_following(record, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise FileUnreadable(f"could not read {record}: {(error.strerror or str(error)).lower()}") from error
    return lines[1:] if size > _TAIL_BYTES else lines
