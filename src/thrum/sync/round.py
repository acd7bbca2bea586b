"""One sync round, step by step: ingest what the remote has, commit what is here, push (house.md "A sync round").

A generator, so that its runner decides what happens between two steps: the daemon nothing, a test a kill, the
simulator the steps of other daemons. It may be dropped after any step: the journals are the truth, what was ingested is
on disk, and the next round finds the rest by comparing. Everything blocks; errors are those of `ports`.

History is linear. A round builds its commit on the remote's; a commit that lost the race is rebuilt on the new head.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from thrum.git.refs import BRANCH
from thrum.git.trees import TreeEntry
from thrum.model import events, limits
from thrum.model.errors import InternalError, StoreFailed
from thrum.sync import merge
from thrum.sync.ingest_batches import Intake, batches_of
from thrum.sync.merge import JOURNAL_FILE
from thrum.sync.ports import Arrived, FilePosition, JournalMoved, Journals, RemoteFailed, Repository, Surplus
from thrum.sync.projects import check_project
from thrum.sync.worktree import FIRST

_REGULAR: Final = 0o100644
_MEMORY: Final = "round"
_MOVED_MAX: Final = 5
_MANY_LINES: Final = 32
"""With fewer it is not worth reading what was there before."""

Steps = Generator[str, None, None]


@dataclass(frozen=True, slots=True)
class RoundOrder:
    """What a round is to do."""

    fetch: bool
    """Ask the remote first. Without it, the push shows whether others have pushed."""
    push: bool
    who: str
    """`alice@host`, for the subject of the commit."""
    now_seconds: int


@dataclass(slots=True)
class Outcome:
    """What a round did so far; complete when its generator has ended."""

    received: int = 0
    """Facts that were new here."""
    committed: int = 0
    """Lines that our branch had not."""
    sent: int = 0
    """Lines that the remote had not."""
    quarantined: int = 0
    """Unusable foreign lines."""
    skipped: set[str] = field(default_factory=set[str])
    """Journals of the branch that could not be ingested: unreadable, too large, or the store stumbles over them."""
    unconfirmed: bool = False
    """Nothing was pushed, since others may read the remote and the user has not confirmed that."""
    read_only: bool = False
    """Nothing was pushed, since a newer program of another daemon changed the rules of the branch."""
    tip: str = ""
    pushed_seq: int | None = None
    """All facts up to this number are at the remote; None if that is not known."""
    committed_seq: int | None = None
    """All facts up to this number are in a commit."""


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """How one journal was last composed: of what, and to which blob."""

    inode: int
    end: int
    blob: str
    carries: bool = False
    """Holds lines of the remote that are not in the journal here."""
    there: str = ""
    """What the branch has in its place, if all lines of the blob are in that."""
    plain: bool = False
    """`merge.grown` can continue from the blob."""
    is_journal: bool = False
    """The blob is what the journal holds up to `end`, byte for byte."""


class _Composed(NamedTuple):
    """A journal as it goes onto the branch."""

    known: _Known
    data: bytes
    base: str = ""
    """A blob that lacks `added` alone, if that is known."""
    added: tuple[bytes, ...] = ()


class _Memory(msgspec.Struct):
    """What spares a round work. Losing it costs time, nothing else."""

    tip: str = ""
    """Our branch as we left it: all of it is in the journals."""
    onto: str = ""
    """The remote's commit that `tip` is based on."""
    merged: str = ""
    """The remote's commit that was ingested last."""
    tombstones: str = msgspec.field(default="", name="voids")
    journals: dict[str, _Known] = {}
    put: dict[str, str] = {}
    """The blob of each journal as it was composed when the remote last had all of it: what others may have answered."""
    taken: dict[str, str] = {}
    """The blob of each journal that was ingested last."""
    skipped: set[str] = set()
    """Blobs that could not be ingested: they stay on the branch as they are, and are tried again in every round."""
    strays: list[str] = []
    """Journals that hold lines of other ones."""
    unsent: int = 0


def sync_round(repo: Repository, journals: Journals, order: RoundOrder, outcome: Outcome) -> Steps:
    """Run one round; `outcome` is filled on the way. Yields a name after each step (see the module).

    Raises RemoteFailed, StoreFailed, and what the committer refuses with. After RemoteFailed what is here is committed.
    """
    round_ = _Round(repo, journals, order, outcome, _recall(journals))
    head = repo.remote_tip() if order.fetch or order.push else ""
    trouble: RemoteFailed | None = None
    if order.fetch:
        try:
            head = repo.fetch()
        except RemoteFailed as failed:
            trouble = failed
        yield "fetched"
    for _ in range(limits.push_attempts_max):
        yield from round_.settle(head)
        if trouble is not None:
            raise trouble
        if not order.push or outcome.read_only:
            return
        if outcome.tip == head:
            round_.note_pushed(0)
            return
        pushed = repo.push(outcome.tip)
        yield "pushed"
        if pushed:
            round_.note_pushed(round_.memory.unsent)
            return
        head = repo.fetch()
        yield "fetched"
    raise RemoteFailed("failed", "other clones keep pushing; will be retried later", "thrum sync force")


def _recall(journals: Journals) -> _Memory:
    text = journals.recall().get(_MEMORY, "")
    try:
        return msgspec.json.decode(text, type=_Memory) if text else _Memory()
    except msgspec.MsgspecError:
        return _Memory()


@dataclass(slots=True)
class _Round:
    repo: Repository
    journals: Journals
    order: RoundOrder
    outcome: Outcome
    memory: _Memory

    def settle(self, head: str) -> Steps:
        """Bring our branch to what is here and at the remote. Starts over if something moves meanwhile."""
        for _ in range(_MOVED_MAX):
            tip = self.repo.tip()
            try:
                for commit in dict.fromkeys((head, tip)):
                    yield from self.ingest(commit)
                self.outcome.read_only = self.journals.is_read_only()
                self.journals.copy_receipts()
                yield "copied receipts"
                if (yield from self.commit(tip, head)):
                    return
            except JournalMoved:
                continue
            except StoreFailed:
                if self.repo.tip() == tip:
                    raise
                # Another program moved the branch and removed its previous commit.
        raise StoreFailed(f"another program keeps moving branch {BRANCH}; gave up", remedy="thrum sync force")

    # -- what is there

    def ingest(self, commit: str) -> Steps:
        """Hand the committer every line of a commit's journals that is not here."""
        memory = self.memory
        if not commit or (commit in (memory.tip, memory.merged) and not memory.skipped):
            return
        files = self.repo.files(commit)
        if files and not any(JOURNAL_FILE.fullmatch(file) for file in files) and not self._is_of_ours(commit):
            remote = self.repo.remote()
            name = "REMOTE" if remote is None else remote.name
            raise RemoteFailed(
                "failed",
                f"the remote has a branch {BRANCH} that is not thrum's",
                f"rename that one: git push {name} {commit}:refs/heads/OTHER :{BRANCH}",
            )
        if commit == self.repo.remote_tip():
            check_project(self.repo, self.journals, files)
        pending: list[Intake] = []
        size, tombstones, positions = 0, self.journals.tombstones(), self.journals.file_positions()
        for file in sorted(files):  # events.jsonl comes first: what it tombstones need not be ingested
            entry = files[file]
            is_journal = JOURNAL_FILE.fullmatch(file) and entry.is_file
            if is_journal and (found := self._look_into(file, entry.object_id, tombstones, positions)):
                pending.append(found)
                size += found.weight
            if pending and (file == events.EVENTS_FILE or size >= limits.batch_bytes_max):
                yield from self._ingest_all(pending)
                pending, size, tombstones, positions = [], 0, self.journals.tombstones(), self.journals.file_positions()
        yield from self._ingest_all(pending)
        memory.merged = commit
        if files and not memory.skipped and commit == self.repo.remote_tip():
            self.journals.close_before()

    def _is_of_ours(self, commit: str) -> bool:
        """Whether a commit began as thrum's branch does, or is based on what is here or was ingested: then someone
        spoiled it.
        """
        known = (FIRST, self.repo.tip(), self.memory.merged, self.memory.tip)
        return any(self._descends(commit, ancestor) for ancestor in dict.fromkeys(known) if ancestor)

    def _descends(self, commit: str, ancestor: str) -> bool:
        try:
            return self.repo.descends(commit, ancestor)
        except StoreFailed:
            return False  # git does not know that one any more

    def _look_into(
        self, file: str, blob: str, tombstones: merge.Tombstones, positions: dict[str, FilePosition]
    ) -> Intake | None:
        """What a journal of the branch has that is not here; None if that is known to be nothing, or cannot be read."""
        known = self.memory.journals.get(file)
        if blob == self.memory.taken.get(file) or (known is not None and blob == known.blob):
            return None
        try:
            if self.repo.blob_size(blob) > limits.author_journal_bytes_max:
                raise StoreFailed(f"{file} is larger than {limits.author_journal_bytes_max} bytes")
            there = self.repo.blob(blob)
        except StoreFailed:
            self.memory.skipped.add(blob)
            return None
        held = self._read(file, positions)
        lines = merge.missing(held, there)
        if len(lines) > _MANY_LINES:
            before = set(merge.split_lines(self._looked_at(file)))
            lines = [raw for raw in lines if raw not in before]
        lines, surplus = merge.sift(lines)
        arrived = merge.wanted(file, lines, tombstones, held) if lines else []
        here: dict[str, set[bytes]] = {}
        for home in {home for home, _ in arrived if home != file}:
            here[home] = set(merge.split_lines(self._read(home, positions)))
        left = [Arrived(home, raw) for home, raw in arrived if raw not in here.get(home, ())]
        return Intake(file, blob, left, [Surplus(file, reason, *each) for reason, each in surplus.items()])

    def _looked_at(self, file: str) -> bytes:
        """A journal of the branch as it was ingested last: those of its lines that are not here were rejected."""
        try:
            blob = self.memory.taken.get(file, "")
            return self.repo.blob(blob) if blob else b""
        except StoreFailed:
            return b""  # git does not know that one any more

    def _ingest_all(self, pending: Sequence[Intake]) -> Steps:
        """Hand over the lines of some journals together: each time something is flushed."""
        try:
            yield from self._ingest_lines(line for intake in pending for line in intake.lines)
        except InternalError:
            for intake in pending if len(pending) > 1 else ():
                yield from self._ingest_all([intake])
            if len(pending) == 1:
                self.memory.skipped.add(pending[0].blob)  # what is wrong with one journal must not stop the others
            return
        if surplus := [each for intake in pending for each in intake.surplus]:
            self.journals.count_quarantined(surplus)
            self.outcome.quarantined += sum(each.lines for each in surplus)
        for file, blob, *_ in pending:
            self.memory.skipped.discard(blob)
            self.memory.taken[file] = blob

    def _ingest_lines(self, lines: Iterable[Arrived]) -> Steps:
        for chunk in batches_of(lines):
            taken = self.journals.ingest(chunk)
            self.outcome.received += taken.new
            self.outcome.quarantined += taken.quarantined
            yield "ingested"

    def _read(self, file: str, positions: dict[str, FilePosition]) -> bytes:
        return self.journals.read(file, positions[file]) if file in positions else b""

    # -- what is here

    def commit(self, tip: str, head: str) -> Generator[str, None, bool]:
        """Commit what is here onto the remote's head, or onto ours; False if our branch moved meanwhile."""
        base = self._base(tip, head)
        if not base:
            raise StoreFailed(f"branch {BRANCH} is gone", remedy="thrum daemon restart")
        seq = self.journals.head_seq()
        files = self.repo.files(base)
        kept = {file: entry.object_id for file, entry in files.items() if entry.object_id in self.memory.skipped}
        self.memory.skipped, self.outcome.skipped = set(kept.values()), set(kept)
        added = self._compose(files)
        yield "composed"
        commit = base
        if added is not None:
            message = merge.subject(added, self.order.who)
            commit = self.repo.add_commit(files.values(), base, message, self.order.now_seconds)
            yield "built"
        if commit != tip:
            if not self.repo.move(tip, commit):
                return False
            yield "moved"
        lines = len(added or ())
        self.outcome.committed += lines
        self.memory.unsent = lines + (self.memory.unsent if base == tip else 0)
        self.memory.tip = self.outcome.tip = commit
        self.memory.onto = head
        # What is here of a journal that was skipped is in no commit.
        self.outcome.committed_seq = None if self.outcome.skipped & self.journals.file_positions().keys() else seq
        self._remember()
        yield "remembered"
        return True

    def _base(self, tip: str, head: str) -> str:
        """The commit to build on: ours if it is based on the remote's, else the remote's."""
        if not head or not tip:
            return tip or head
        if head == tip or (tip, head) == (self.memory.tip, self.memory.onto) or self.repo.descends(tip, head):
            return tip
        return head

    def _compose(self, files: dict[str, TreeEntry]) -> list[bytes] | None:
        """Put every journal into `files` as it goes onto the branch: the lines that are new, None if all is there."""
        memory, positions, tombstones = self.memory, self.journals.file_positions(), self.journals.tombstones()
        if tombstones.fingerprint() != memory.tombstones:
            memory.journals, memory.put, memory.tombstones = {}, {}, tombstones.fingerprint()
        files.pop(events.MESSAGES_DIR, None)  # journals must lie there
        strays: dict[str, list[bytes]] = {}
        composed: dict[str, _Composed] = {}
        suspects, memory.strays = set(memory.strays), []
        for file, position in positions.items():
            if file in self.outcome.skipped:
                continue
            known, entry = memory.journals.get(file), files.get(file)
            if file in suspects or known is None or (known.inode, known.end) != position or not _serves(entry, known):
                composed[file] = self._compose_one(file, position, entry, tombstones, strays)
        for home, lines in strays.items():
            if home in self.outcome.skipped:
                continue
            position = positions.get(home, FilePosition(0, 0))
            composed[home] = self._compose_one(home, position, files.get(home), tombstones, {}, lines)
        return self._put(files, composed)

    def _compose_one(
        self,
        file: str,
        position: FilePosition,
        entry: TreeEntry | None,
        tombstones: merge.Tombstones,
        strays: dict[str, list[bytes]],
        extra: Sequence[bytes] = (),
    ) -> _Composed:
        """A journal's blob and its bytes. Lines of other journals go to `strays`."""
        data = self.journals.read(file, position) if position.end else b""
        known = self.memory.journals.get(file)
        carried: list[bytes] = []
        is_there = False
        if entry is not None and (known is None or known.carries or entry.object_id != known.blob):
            is_there = entry.holds(data)
            carried = [] if is_there else self._not_here(entry, data)
        if not carried and not extra and (grown := self._grow(file, position, tombstones, data)):
            return grown
        result = merge.canonical(file, data, tombstones, (*carried, *extra))
        carries = bool(carried) and bool(merge.missing(data, result.data))
        for home, lines in result.strays.items():
            strays.setdefault(home, []).extend(lines)
            if file not in self.memory.strays:
                self.memory.strays.append(file)
        known = _Known(
            *position,
            blob=entry.object_id if entry and is_there and result.data == data else self.repo.add_blob(result.data),
            carries=carries,
            plain=result.plain and not extra and not carries and not result.strays,
            is_journal=result.data == data,
        )
        return _Composed(known, result.data)

    def _grow(self, file: str, position: FilePosition, tombstones: merge.Tombstones, data: bytes) -> _Composed | None:
        """The same by what was appended since it was composed last; None if that won't do."""
        known = self.memory.journals.get(file)
        if known is None or not known.plain or file in self.memory.strays or known.inode != position.inode:
            return None
        try:
            before = data[: known.end] if known.is_journal else self.repo.blob(known.blob)
        except StoreFailed:
            return None  # composed, and never needed
        grown = merge.grown(file, before, data, known.end, tombstones)
        if grown is None:
            return None
        blob = self.repo.add_blob(grown.data)
        is_journal = known.is_journal and grown.data == data
        return _Composed(
            _Known(*position, blob=blob, plain=True, is_journal=is_journal), grown.data, known.blob, grown.added
        )

    def _not_here(self, entry: TreeEntry, data: bytes) -> list[bytes]:
        """The lines of the branch that are not here (events.md §11 "Union")."""
        if not entry.is_file or self.repo.blob_size(entry.object_id) > limits.author_journal_bytes_max:
            return []
        return merge.missing(data, self.repo.blob(entry.object_id))

    def _put(self, files: dict[str, TreeEntry], composed: dict[str, _Composed]) -> list[bytes] | None:
        """Put what was composed into `files`: the lines that are new there; None, and nothing is put, without any.

        Only what this clone never put there is worth leaving lines out as well. Clones whose clocks or programs differ
        may not agree for a while on what is tombstoned: none of them answers a commit with one that only takes away, or
        that brings back what another took away and takes away what that one has. A commit that the remote never had was
        put nowhere: it cannot have been answered.
        """
        fresh: list[bytes] = []
        again: dict[str, list[bytes]] = {}
        better: list[str] = []
        for file, (known, data, base, grown) in composed.items():
            self.memory.journals[file] = known
            before = files.get(file)
            if (not data and before is None) or _serves(before, known):
                continue
            better.append(file)
            if before is not None and before.is_file and before.object_id == base:
                fresh += grown
            elif lines := merge.missing(self._there(before), data):
                had = self._put_before(file)
                fresh += [line for line in lines if line not in had]
                again[file] = [line for line in lines if line in had]
        blobs: dict[str, str] = {}
        if fresh:
            blobs = {file: composed[file].known.blob for file in better}
        else:
            for file, lines in again.items():
                blobs[file] = self.repo.add_blob(merge.joined(self._there(files.get(file)), lines))
        for path in [path for path in files if any(path.startswith(f"{file}/") for file in blobs)]:
            del files[path]  # a directory, where a journal must lie
        for file, blob in blobs.items():
            files[file] = TreeEntry(file.encode("utf-8", "surrogateescape"), _REGULAR, blob)
        for file in better:
            known = composed[file].known
            if blobs.get(file) != known.blob:
                self.memory.journals[file] = msgspec.structs.replace(known, there=_text(files.get(file)))
        return [*fresh, *(line for lines in again.values() for line in lines)] or None

    def _there(self, entry: TreeEntry | None) -> bytes:
        return self.repo.blob(entry.object_id) if entry is not None and entry.is_file else b""

    def _put_before(self, file: str) -> set[bytes]:
        """The lines of a journal that the remote had from here."""
        blob = self.memory.put.get(file, "")
        try:
            return set(merge.split_lines(self.repo.blob(blob))) if blob else set()
        except StoreFailed:
            return set()  # collected since

    # -- what is remembered

    def note_pushed(self, sent: int) -> None:
        """The remote has all that was committed."""
        self.outcome.sent += sent
        self.outcome.pushed_seq = self.outcome.committed_seq
        self.memory.unsent = 0
        self.memory.put = {file: known.blob for file, known in self.memory.journals.items()}
        self.memory.merged = self.memory.onto = self.outcome.tip
        self._remember()

    def _remember(self) -> None:
        values = {_MEMORY: msgspec.json.encode(self.memory).decode()}
        if self.outcome.committed_seq is not None:
            values["committed_seq"] = str(self.outcome.committed_seq)
        if self.outcome.pushed_seq is not None:
            values["pushed_seq"] = str(self.outcome.pushed_seq)
        self.journals.remember(values)


def _serves(entry: TreeEntry | None, known: _Known) -> bool:
    """Whether what the branch has of a journal needs no change: it is as composed, or lacks nothing of that."""
    return entry is not None and ((entry.object_id == known.blob and entry.is_file) or _text(entry) == known.there)


def _text(entry: TreeEntry | None) -> str:
    return "" if entry is None else f"{entry.mode:o} {entry.object_id}"
