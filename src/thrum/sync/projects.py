"""Projects don't mix: which project a remote's branch belongs to (events.md §11 "Project")."""

from __future__ import annotations

from collections.abc import Mapping

from thrum.git.refs import BRANCH
from thrum.git.trees import TreeEntry
from thrum.model import events, limits, signatures
from thrum.model.events import BadLine
from thrum.sync.merge import split_lines
from thrum.sync.ports import ForeignProject, Journals, Repository

_KEY = b'"daemon.key"'


def check_project(repo: Repository, journals: Journals, files: Mapping[str, TreeEntry]) -> None:
    """Refuse the branch of another project: its daemons say of what project they are, and none is of ours. Raises
    ForeignProject.
    """
    entry, ours = files.get(events.EVENTS_FILE), journals.project()
    if (
        not ours
        or entry is None
        or not entry.is_file
        or repo.blob_size(entry.object_id) > limits.author_journal_bytes_max
    ):
        return
    theirs = projects(repo.blob(entry.object_id))
    if theirs and ours.isdisjoint(theirs):
        remote = repo.remote()
        raise ForeignProject(
            theirs,
            f"the branch {BRANCH} of {'the remote' if remote is None else remote.name} is of another project"
            f" ({', '.join(sorted(theirs))}); this one is {', '.join(sorted(ours))}",
            "thrum sync accept, if they are the same project; else: thrum config set sync.remote OTHER",
        )


def projects(data: bytes) -> frozenset[str]:
    """The repository ids that the signed `daemon.key`s of an `events.jsonl` name."""
    found: set[str] = set()
    for raw in split_lines(data) if _KEY in data else ():
        if _KEY in raw:
            try:
                fact = events.decode(raw)
            except BadLine:
                continue
            if isinstance(fact, events.DaemonKeyed) and signatures.is_signed(raw, fact.origin_daemon):
                found.update(fact.repo_ids)
    return frozenset(found)
