"""Git's side of a sync round: the branch `a-sync` in the object store, its worktree's index, and the remote."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from thrum.git.objects import GitWriter, LooseWriter, Writer, add_trees, commit_bytes
from thrum.git.reader import Reader, open_reader, read_ref
from thrum.git.refs import REF, move_plain_ref, seen_at_remote
from thrum.git.runner import DURABLE, GitRunner, checked_git, run_git
from thrum.git.trees import TreeEntry, index_bytes
from thrum.model.errors import StoreFailed
from thrum.model.paths import Layout
from thrum.sync.maintenance import Maintenance
from thrum.sync.ports import RemoteFailed, RemoteInfo
from thrum.sync.remote import Remote, remove_stale_lock
from thrum.sync.visibility import Readers, who_can_read
from thrum.sync.worktree import checked_out, ensure_worktree, on_branch, write_index

_WHY: Final = "thrum: sync"
_NEAR_COMMITS: Final = 16
_LOCK_TRIES: Final = 10
_LOCK_SECONDS: Final = 0.02


class GitRepository:
    """`ports.Repository` on a real one. Blocks; one thread at a time, save `stop`, `cut` and the care for the disk."""

    def __init__(self, layout: Layout, common_dir: Path, environ: Mapping[str, str], remote: str) -> None:
        self._layout = layout
        self._common_dir = common_dir
        self._environ = environ
        self._runner = GitRunner()
        self._remote = Remote(common_dir, layout.main_root, environ, remote, self._runner)
        self._maintenance = Maintenance(common_dir, layout.thrum_sync_dir, environ, self._remote.seen_ref)
        self._open: AbstractContextManager[Reader] | None = None
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._admin_dir: Path | None = None

    # -- what is held open

    @property
    def _reading(self) -> Reader:
        self._settle()  # what was added can be read
        return self._opened

    @property
    def _opened(self) -> Reader:
        if self._reader is None:
            self._open = open_reader(self._common_dir, self._environ)
            self._reader = self._open.__enter__()
        return self._reader

    def close_packs(self) -> None:
        """Let go of git's packs until they are needed again: a `git gc` may want to remove them."""
        with contextlib.suppress(StoreFailed):
            self._settle()  # what no ref leads to may be lost
        opened, self._open, self._reader = self._open, None, None
        if opened is not None:
            opened.__exit__(None, None, None)

    @property
    def _writing(self) -> Writer:
        if self._writer is None:
            plain = self._opened.object_id_chars == 40
            objects = self._common_dir / "objects"
            self._writer = (
                LooseWriter(objects, lambda object_id: self._opened.is_packed(object_id))
                if plain
                else GitWriter(self._common_dir, self._environ)
            )
        return self._writer

    def _settle(self) -> None:
        if self._writer is not None:
            self._maintenance.note_written(self._writer.settle())

    # -- refs

    @property
    def remote_name(self) -> str:
        """The name by which git knows the remote, whether it is configured or not."""
        return self._remote.name

    def remote(self) -> RemoteInfo | None:
        return self._remote.info()

    def push_remotes(self) -> tuple[RemoteInfo, ...]:
        """Where is pushed to, which `pushurl` may make other places: who can read those matters."""
        return self._remote.push_infos()

    def tip(self) -> str:
        return self._ref(REF)

    def remote_tip(self) -> str:
        return seen_at_remote(self._ref, self._remote.name)

    def _ref(self, name: str) -> str:
        return read_ref(self._common_dir, self._environ, name)

    def move(self, old: str, new: str) -> bool:
        self._settle()
        if where := on_branch(self._common_dir, self._layout.branch_dir):
            raise checked_out(where)
        if not self._move_ref(REF, old, new):
            return False
        index = index_bytes(self._reading.entries(new), object_id_chars=len(new))
        try:
            self._admin_dir, _ = ensure_worktree(self._common_dir, self._layout.branch_dir, new, self._admin_dir)
            write_index(self._admin_dir, index, durable=False)
        except OSError as error:
            name = error.filename or self._layout.branch_dir
            raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
        return True

    def _move_ref(self, ref: str, old: str, new: str) -> bool:
        """False if the ref is not at `old`. Another git may hold it for a moment."""
        flags = [f"--git-dir={self._common_dir}", *DURABLE]
        expected = old or "0" * len(new)
        reason = ""
        try:
            if old and move_plain_ref(self._common_dir, ref, old, new, _WHY):
                return True
        except OSError as error:
            raise StoreFailed(f"could not move {ref}: {(error.strerror or str(error)).lower()}") from error
        for _ in range(_LOCK_TRIES):
            done = run_git([*flags, "update-ref", "--no-deref", "-m", _WHY, ref, new, expected], self._environ)
            if done is not None and done.returncode == 0:
                return True
            if read_ref(self._common_dir, self._environ, ref) != old:
                return False
            reason = "" if done is None else done.stderr.decode(errors="replace").strip()
            if "File exists" not in reason:
                break
            if not remove_stale_lock(self._common_dir, ref):
                time.sleep(_LOCK_SECONDS)
        raise StoreFailed(f"could not move {ref}: {reason}", remedy="fix what git names, then: thrum sync force")

    # -- objects

    def files(self, commit: str) -> dict[str, TreeEntry]:
        if not commit:
            return {}
        return {entry.path.decode("utf-8", "surrogateescape"): entry for entry in self._reading.entries(commit)}

    def blob(self, object_id: str) -> bytes:
        return self._reading.blob(object_id)

    def blob_size(self, object_id: str) -> int:
        return self._reading.blob_size(object_id)

    def add_blob(self, data: bytes) -> str:
        return self._writing.add("blob", data)

    def add_commit(self, files: Iterable[TreeEntry], parent: str, message: str, seconds: int) -> str:
        tree = add_trees(self._writing, files)
        return self._writing.add("commit", commit_bytes(tree, parent, message, seconds))

    def descends(self, commit: str, ancestor: str) -> bool:
        if commit == ancestor or self._is_near(ancestor, commit):
            return True
        if self._is_near(commit, ancestor):
            return False
        words = ["--no-replace-objects", "merge-base", "--is-ancestor", ancestor, commit]
        done = run_git([f"--git-dir={self._common_dir}", *words], self._environ)
        if done is None or done.returncode not in (0, 1):
            reason = "" if done is None else done.stderr.decode(errors="replace").strip()
            raise StoreFailed(f"cannot compare {commit} with {ancestor}: {reason}", remedy="git fsck")
        return done.returncode == 0

    def _is_near(self, commit: str, descendant: str) -> bool:
        """Whether a commit is found a few steps back, without a process."""
        near = descendant
        for _ in range(_NEAR_COMMITS):
            if near == commit:
                return True
            try:
                parents = self._reading.parents(near)
            except StoreFailed:
                return False  # the edge of a shallow clone
            if len(parents) != 1:
                return False
            near = parents[0]
        return False

    # -- the remote

    def fetch(self) -> str:
        before = self.remote_tip()
        if before and not self._has(before):  # taken by a `git gc` before a ref led to it
            self._forget_seen()
            before = ""
        if before and self._remote.stands_at(before):
            return before
        known = dict.fromkeys(commit for commit in (before, self.tip()) if commit and self._has(commit))
        self.close_packs()
        if not self._remote.fetch(list(known)):
            self._forget_seen()
            return ""
        now = self.remote_tip()
        self._maintenance.note_fetched(before, now)
        return now

    def _has(self, commit: str) -> bool:
        try:
            self._reading.parents(commit)
        except StoreFailed:
            return False
        return True

    def _forget_seen(self) -> None:
        if self._ref(self._remote.seen_ref):
            words = ["update-ref", "--no-deref", "-d", self._remote.seen_ref]
            checked_git([f"--git-dir={self._common_dir}", *words], self._environ)

    def push(self, commit: str) -> bool:
        try:
            pushed = self._remote.push(commit)
        except RemoteFailed:
            if not self._fix():
                raise
            pushed = self._remote.push(commit)
        if not pushed:
            return False
        before = self._ref(self._remote.seen_ref)
        if before != commit:
            self._move_ref(self._remote.seen_ref, before, commit)
        return True

    def stop(self) -> None:
        """From another thread: end the git that talks to the remote or packs, and every later one."""
        self._runner.stop()
        self._maintenance.stop()

    def cut(self) -> None:
        """From another thread: end the git that talks to the remote, if any does; none does before `resume`."""
        self._runner.cut()

    def resume(self) -> None:
        """A round begins, which looks after this whether it may talk to the remote. Raises StoreFailed."""
        self._runner.resume()
        self._fix()

    def _fix(self) -> bool:
        return self._writer is not None and self._writer.fix()

    def who_can_read(self, info: RemoteInfo) -> Readers:
        """Whether anyone can read a remote; `stop` and `cut` end the question."""
        return who_can_read(info, self._environ, self._runner)

    def peek(self) -> str | None:
        """A text that changes when the branch of a remote on this machine moves; None for other remotes. Cheap."""
        return self._remote.peek()

    # -- the disk

    def needs_maintenance(self) -> bool:
        """Whether rounds have left so much that `maintain` is worth its time."""
        return self._maintenance.is_ready()

    def maintain(self) -> None:
        """Pack what rounds left in the object store. Takes seconds on a large branch; rounds may run meanwhile."""
        self._maintenance.run()
