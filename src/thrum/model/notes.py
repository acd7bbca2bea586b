"""What agents keep between sessions: notes, preamble, project state, in `.thrum/context/` (cli.md 3.12).

Plain files of one worktree, read and written without the daemon, never synced by themselves. `project_state.md` belongs
to all agents: a worktree without one reads that of the state directory.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple

from thrum.model import clock, ids, limits
from thrum.model.dot_git import worktrees
from thrum.model.errors import BodyTooLarge, EmptyBody, FileTooLarge, FileUnreadable, StateTracked, StoreFailed
from thrum.model.files import (
    atomic_write,
    ensure_private_dir,
    is_file,
    open_file,
    opened_parent,
    remove,
    rename,
    status,
    sync_directory,
)
from thrum.model.paths import Layout, is_tracked

PROJECT_STATE: Final = "project_state"
_PREAMBLE: Final = "_preamble"
_READ_BYTES_MAX: Final = limits.MIB
"""What people write by hand may be longer than what thrum saves; beyond this it is no text to start a session with."""
_ROLE: Final = re.compile(r"[a-z0-9_-]+")
_PLACEHOLDER: Final = re.compile(r"\{\{\s*\.?(\w+)\s*\}\}")
"""`{{.AgentName}}` (cli.md 3.24); a word that is not known stays as it is."""

_FOR_WHOM: Final = (
    "What every agent should know when it starts: goals, decisions, where things stand. Shown by `thrum prime`."
)
FIRST_PROJECT_STATE: Final = f"# Project state\n\n{_FOR_WHOM}\n"
"""What `init` writes: a heading to write under, and nothing to know."""

DEFAULT_PREAMBLE: Final = """\
# @{name}, {role} of {module}

- Say what you work on: `thrum session set-intent "TEXT"`.
- Look before you edit: `thrum who-has FILE`.
- Before the session ends, keep what the next one must know.
"""


class Note(NamedTuple):
    """One of these files, as it was read."""

    path: Path
    text: str
    size: int
    """Bytes of the file."""
    updated_at: str


def context_dir(root: Path) -> Path:
    """Where the files of a root lie."""
    return root / ".thrum" / "context"


def notes_path(root: Path, agent_id: str) -> Path:
    """`.thrum/context/AGENT.md`. Raises InvalidName for what no agent can be called.

    A name whose file would be another's (`project_state`, `max_preamble`) has `AGENT.notes.md` instead.
    """
    stem = _stem(agent_id)
    taken = stem == PROJECT_STATE or stem.endswith(_PREAMBLE)
    return context_dir(root) / (f"{stem}.notes.md" if taken else f"{stem}.md")


def preamble_path(root: Path, agent_id: str) -> Path:
    """`.thrum/context/AGENT_preamble.md`. Raises InvalidName."""
    return context_dir(root) / f"{_stem(agent_id)}{_PREAMBLE}.md"


def _stem(agent_id: str) -> str:
    parsed = ids.parse_agent_id(agent_id)
    if not (parsed.is_local_agent or parsed.kind == "user"):
        ids.check_agent_name(agent_id)
    return ids.file_stem(agent_id)


# -- reading


def read_notes(root: Path, agent_id: str) -> Note | None:
    """An agent's saved notes, None without. Raises InvalidName, FileUnreadable, FileTooLarge."""
    return _read(notes_path(root, agent_id))


def read_preamble(root: Path, agent_id: str) -> Note | None:
    """An agent's standing instructions, None without. Raises as `read_notes`."""
    return _read(preamble_path(root, agent_id))


def read_project_state(layout: Layout) -> Note | None:
    """What every agent should know: the worktree's own file, else that of the state directory. Raises as above."""
    for directory in dict.fromkeys((layout.context_dir, layout.state_dir / "context")):
        found = _read(directory / f"{PROJECT_STATE}.md")
        if found is not None:
            return found
    return None


def _read(path: Path) -> Note | None:
    try:
        # Without O_NONBLOCK a FIFO in its place would hold us for ever.
        descriptor = open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FileUnreadable(
            f"cannot read {error.filename or path}: {(error.strerror or str(error)).lower()}"
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileUnreadable(f"cannot read {path}: not a file")
        if found.st_size > _READ_BYTES_MAX:
            message = f"{path} is {found.st_size} bytes, the limit is {_READ_BYTES_MAX}"
            raise FileTooLarge(message, remedy="shorten the file", bytes=found.st_size, limit=_READ_BYTES_MAX)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(_READ_BYTES_MAX)
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    finally:
        os.close(descriptor)
    return Note(path, data.decode("utf-8", "replace"), len(data), clock.format_ms(found.st_mtime_ns // 1_000_000))


def root_of(layout: Layout, agent_id: str) -> Path | None:
    """Where an agent of this repository has its files, without the daemon: its identity file, or its notes, tell.

    If there are several: the current one, then the main one. None if no agent of that name is known here. Raises
    InvalidName.
    """
    stem = _stem(agent_id)
    for root in roots(layout):
        marks = (root / ".thrum" / "identities" / f"{stem}.json", notes_path(root, agent_id))
        if any(is_file(mark) for mark in marks):
            return root
    return None


def roots(layout: Layout) -> list[Path]:
    """The roots that agents of this repository can live in: this one, the main one, git's linked worktrees."""
    found = [layout.root, layout.main_root]
    found += worktrees(layout.common_dir) if layout.common_dir else []
    return list(dict.fromkeys(found))


# -- writing


def save_notes(root: Path, agent_id: str, text: str) -> Note:
    """Replace an agent's notes, whole or not at all. Raises InvalidName, EmptyBody, BodyTooLarge, StoreFailed."""
    return _write(notes_path(root, agent_id), text, "the notes", "thrum context clear removes them")


def save_preamble(root: Path, agent_id: str, text: str) -> Note:
    """Replace an agent's preamble. Raises as `save_notes`."""
    return _write(preamble_path(root, agent_id), text, "the preamble", "thrum context preamble --init resets it")


def clear_notes(root: Path, agent_id: str) -> bool:
    """Remove an agent's notes; False if there were none. The preamble stays. Raises InvalidName, StoreFailed."""
    return _remove(notes_path(root, agent_id))


def remove_preamble(root: Path, agent_id: str) -> bool:
    """Remove an agent's preamble: only when the agent goes. Raises as `clear_notes`."""
    return _remove(preamble_path(root, agent_id))


def rename_notes(root: Path, old: str, new: str, role: str, module: str) -> None:
    """What an agent wrote down goes with it to its new name; what lies there under that name stays. A preamble that
    unchanged is recreated. Safe to repeat after a kill. Raises InvalidName, StoreFailed, FileUnreadable, FileTooLarge.
    """
    for before, after in (
        (notes_path(root, old), notes_path(root, new)),
        (preamble_path(root, old), preamble_path(root, new)),
    ):
        if status(before) is None or status(after) is not None:
            continue
        try:
            rename(before, after)
            sync_directory(after.parent)
        except OSError as error:
            raise StoreFailed(f"could not rename {before}: {(error.strerror or str(error)).lower()}") from error
    kept = read_preamble(root, new)
    if kept is not None and kept.text == _preamble_of(old, role, module):
        save_preamble(root, new, _preamble_of(new, role, module))


def _remove(path: Path) -> bool:
    try:
        if status(path) is None:
            with opened_parent(path):  # to report a link that is in the way
                return False
        remove(path)
        sync_directory(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreFailed(
            f"could not remove {error.filename or path}: {(error.strerror or str(error)).lower()}"
        ) from error
    return True


def _preamble_of(agent_id: str, role: str, module: str) -> str:
    """Thrum's own."""
    return DEFAULT_PREAMBLE.format(name=agent_id, role=role or "agent", module=module or "this repository")


def without_template(state: Note) -> Note:
    """A project state without what `init` wrote there for its editor: an agent pays for each line."""
    return state._replace(text=state.text.replace(f"{_FOR_WHOM}\n\n", "").replace(f"{_FOR_WHOM}\n", ""))


def first_preamble(layout: Layout, agent_id: str, role: str, module: str) -> str:
    """What a preamble begins as: the role's template in `.thrum/role_templates/`, if there is one, else thrum's own.

    Raises FileUnreadable, FileTooLarge.
    """
    template = _read(layout.state_dir / "role_templates" / f"{role}.md") if _ROLE.fullmatch(role) else None
    if template is None:
        return _preamble_of(agent_id, role, module)
    known = {
        "AgentName": agent_id,
        "Role": role,
        "Module": module,
        "WorktreePath": str(layout.root),
        "RepoRoot": str(layout.main_root),
    }
    return _PLACEHOLDER.sub(lambda match: known.get(match[1], match[0]), template.text)


def _write(path: Path, text: str, what: str, instead: str) -> Note:
    if not text.strip():
        raise EmptyBody(f"{what} would be empty", remedy=f"give some text; {instead}")
    data = text.encode("utf-8", "replace")
    if len(data) > limits.context_bytes_max:
        raise BodyTooLarge(
            f"{what} too large: {len(data)} bytes, the limit is {limits.context_bytes_max}",
            remedy="shorten the text",
            field="content",
            bytes=len(data),
            limit=limits.context_bytes_max,
        )
    try:
        if is_tracked(path):
            raise StateTracked(f"git tracks {path}: nothing is written there")
        ensure_private_dir(path.parent)
        atomic_write(path, data)
        written_ms = path.stat().st_mtime_ns // 1_000_000
    except OSError as error:
        raise StoreFailed(
            f"could not write {error.filename or path}: {(error.strerror or str(error)).lower()}"
        ) from error
    return Note(path, text, len(data), clock.format_ms(written_ms))
