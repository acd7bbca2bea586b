"""What a sync round asks of git and of the store. Both are passed in: this room imports neither store nor network.

`repository.py` is git's side, `thrum.daemon.sync_store` the store's; the simulator in `tests/sim` has its own of
both. Everything here blocks and is called in one worker thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from thrum.git.trees import TreeEntry
from thrum.model.tombstones import Tombstones

RemoteTrouble = Literal["offline", "refused", "credentials", "missing", "failed", "foreign"]
"""`offline`: no answer (no network, no host, a path that is not mounted). `refused`: it answered, and does not
take what we push (a hook, a protected branch, no right to write). `credentials`: it wants a password or key that git
has not. `missing`: there is no such repository. `foreign`: its branch is another project's. `failed`: anything else."""


class RemoteFailed(Exception):
    """The remote did not do what it was asked. `reason` is one line without credentials, `remedy` what fixes it."""

    def __init__(self, trouble: RemoteTrouble, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.trouble: Final = trouble
        self.reason: Final = reason
        self.remedy: Final = remedy


class RemoteInfo(NamedTuple):
    """The remote that is synced with. `url` is git's effective one without credentials."""

    name: str
    url: str
    path: str
    """The directory of a remote on this machine (a path or `file://`), else empty."""


class ForeignProject(RemoteFailed):
    """The remote's branch is another project's: of `repo_ids`, none of which is ours."""

    def __init__(self, repo_ids: frozenset[str], reason: str, remedy: str) -> None:
        super().__init__("foreign", reason, remedy)
        self.repo_ids: Final = repo_ids


class Repository(Protocol):
    """The branch `a-sync` in git's object store, and the remote's branch of that name. Ids are hexadecimal.

    Raises StoreFailed when this machine's disk or repository fails, RemoteFailed when the remote does.
    """

    def remote(self) -> RemoteInfo | None:
        """The configured remote, None without one."""
        ...

    def tip(self) -> str:
        """The commit that our branch is at; `""` if it was deleted."""
        ...

    def remote_tip(self) -> str:
        """Where the remote's branch was when we last looked (fetch or push); `""`: it had none, or never looked."""
        ...

    def files(self, commit: str) -> dict[str, TreeEntry]:
        """Every file of a commit's tree, by its path (surrogateescape); `""` has none."""
        ...

    def blob(self, object_id: str) -> bytes: ...

    def blob_size(self, object_id: str) -> int:
        """Bytes of a blob, without reading it."""
        ...

    def add_blob(self, data: bytes) -> str:
        """Put a blob into the object store, unless it is there; durable before `move`."""
        ...

    def add_commit(self, files: Iterable[TreeEntry], parent: str, message: str, seconds: int) -> str:
        """Trees and a commit on `parent` (`""`: none), durable before `move`. `seconds`: since 1970."""
        ...

    def move(self, old: str, new: str) -> bool:
        """Move our branch from `old` to `new`, and the index of its worktree with it. False: it is not at `old`."""
        ...

    def descends(self, commit: str, ancestor: str) -> bool:
        """Whether `ancestor` is the commit or in its history."""
        ...

    def fetch(self) -> str:
        """Fetch the remote's branch: its commit, `""` if it has none. Raises RemoteFailed."""
        ...

    def push(self, commit: str) -> bool:
        """Push a commit as the remote's branch, never by force; False: another push was quicker. Raises
        RemoteFailed."""
        ...


class FilePosition(NamedTuple):
    """How far a journal counts: nothing behind `end` (bytes) is read, and another `inode` is another file."""

    inode: int
    end: int


class JournalMoved(Exception):
    """A journal was rewritten while a round looked at it: look again."""


class Arrived(NamedTuple):
    """A line of the branch that is not here: its journal (of what cannot be read, where it was found), and
    its bytes without newline.
    """

    file: str
    raw: bytes


class Surplus(NamedTuple):
    """Unusable lines of a journal of the branch, beyond those that are handed over: their number and bytes.
    `reason` as in quarantine.
    """

    file: str
    reason: str
    lines: int
    bytes: int


class Ingested(NamedTuple):
    """What became of arrived lines: facts that were new, and lines that went to quarantine."""

    new: int
    quarantined: int


class Journals(Protocol):
    """The journals of the branch as the store keeps them. Raises StoreFailed, Busy, ShuttingDown."""

    def file_positions(self) -> dict[str, FilePosition]:
        """Every journal of the branch (`events.jsonl`, `messages/*.jsonl`) that is here, and how far it counts."""
        ...

    def head_seq(self) -> int:
        """The number of the last fact that `positions`, called after it, is sure to cover."""
        ...

    def read(self, file: str, position: FilePosition) -> bytes:
        """What counts of a journal. Raises JournalMoved when another file took its place meanwhile (compaction)."""
        ...

    def tombstones(self) -> Tombstones:
        """What cleanups and purges tombstoned, as of now."""
        ...

    def ingest(self, arrived: Sequence[Arrived]) -> Ingested:
        """Hand foreign lines to the committer; they are on disk, in the projection and on the bus when it returns.

        Raises InternalError when the program stumbles over one of them; some may be ingested then.
        """
        ...

    def count_quarantined(self, surplus: Sequence[Surplus]) -> None:
        """Note how many lines are not worth being handed over."""
        ...

    def project(self) -> frozenset[str]:
        """The repository ids of this project; empty as long as this daemon has not said of what project it is."""
        ...

    def is_read_only(self) -> bool:
        """Whether another daemon's newer program changed the rules of the journals: then nothing is pushed."""
        ...

    def close_before(self) -> None:
        """All of a remote's branch was ingested: what comes unsigned from now on is not from before signing (events.md
        §11)."""
        ...

    def copy_receipts(self) -> int:
        """Copy due receipts of other daemons' messages to the journals that travel (events.md §5); how many."""
        ...

    def recall(self) -> Mapping[str, str]:
        """What `remember` kept; empty after the projection was rebuilt."""
        ...

    def remember(self, values: Mapping[str, str]) -> None:
        """Keep values beside the projection. Losing them costs time, nothing else."""
        ...
