"""One clone and its daemon: the real store and the real round, driven step by step, on a disk that may fail."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from tests.sim.disk import Database, Disk, DiskJournals
from tests.sim.faults import Killed
from tests.sim.git import MemoryRepository, Network
from tests.support.store.signers import PROJECT, daemon_id_of, signer_of
from thrum.identity import signing
from thrum.identity.signing import Signer
from thrum.model import clock, events, files, ids, limits, signatures
from thrum.model.errors import NewerFormat, StoreFailed
from thrum.model.paths import Layout
from thrum.model.tombstones import Tombstones
from thrum.model.wire_types import DaemonIdentity
from thrum.ops import introduction
from thrum.store import recovery
from thrum.store._stamping import Stamper
from thrum.store.api import Decide
from thrum.store.compaction import Draft, Drafter, discard
from thrum.store.ingest import turns_of, verified
from thrum.store.journal import FileState, JournalChanged
from thrum.store.projection.core import deferral_limit
from thrum.store.queries import fts
from thrum.store.receipts import RECEIPTS_SEQ, Receipts
from thrum.store.recovery import Opened, open_blocking
from thrum.store.writer import Call, Committed, Errand, Writer
from thrum.sync import branch
from thrum.sync.ports import Arrived, FilePosition, Ingested, JournalMoved, Surplus
from thrum.sync.round import Outcome, RoundOrder, Steps, sync_round

if TYPE_CHECKING:
    from tests.sim.world import World

_templates: dict[str, dict[str, bytes]] = {}
"""An empty projection for each daemon id, and the seal by which it is known again, by path: rebuilding one takes longer
than all else that a seed does.
"""


class Program:
    """What runs just now: with `is_old` the program of before signatures, that signs and verifies nothing."""

    is_old = False


@contextmanager
def programs() -> Iterator[None]:
    """Both programs, whichever runs: to that of before a signature is a field that it does not know."""

    def is_signed(raw: bytes, origin_daemon: str) -> bool:
        return not Program.is_old and _is_signed(raw, origin_daemon)

    def flaw_of(raw: bytes) -> str:
        return "" if Program.is_old else _flaw_of(raw)

    with mock.patch.object(signatures, "is_signed", is_signed), mock.patch.object(signing, "flaw_of", flaw_of):
        yield


# A line is the same line in every clone: what it is follows from its bytes.
_is_signed: Final = functools.lru_cache(16_384)(signatures.is_signed)
_flaw_of: Final = functools.lru_cache(16_384)(signing.flaw_of)


class Wall:
    """The world's clock, as this machine has it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.skew_ms = 0

    def now_ms(self) -> int:
        return self._world.ms + self.skew_ms


class AccessPath:
    """`sync.ports.Journals` over an open store: what `thrum.daemon.sync_store` does, without an event loop."""

    def __init__(self, clone: Clone, opened: Opened) -> None:
        self._clone = clone
        self._opened = opened
        self._receipts = Receipts(opened.journals, clone.signer)

    def file_positions(self) -> dict[str, FilePosition]:
        file_states = self._opened.journals.file_states()
        return {
            file: FilePosition(*file_state) for file, file_state in file_states.items() if file != events.LOCAL_FILE
        }

    def head_seq(self) -> int:
        return self._opened.view.head_seq()

    def read(self, file: str, position: FilePosition) -> bytes:
        try:
            return self._opened.journals.read_start(file, FileState(*position))
        except JournalChanged as error:
            now = self._opened.journals.file_states().get(file)
            if now is None or now.inode != position.inode:
                raise JournalMoved from error
            raise

    def tombstones(self) -> Tombstones:
        tombstones = self._opened.view.still_tombstones()
        return replace(tombstones, origins=replace(tombstones.origins, exact=True))

    def project(self) -> frozenset[str]:
        return frozenset(self._opened.view.origins().ours)

    def is_read_only(self) -> bool:
        return self._opened.view.foreign_format()

    def close_before(self) -> None:
        if not self._clone.is_old:
            self._clone.run_batch([Errand(Writer.close_before)])

    def ingest(self, arrived: Sequence[Arrived]) -> Ingested:
        calls = [Errand(partial(Writer.ingest, arrived=some)) for some in turns_of(verified(arrived))]
        self._clone.run_batch(calls)
        answers = [call.answer for call in calls]
        return Ingested(sum(answer.new for answer in answers), sum(answer.quarantined for answer in answers))

    def count_quarantined(self, surplus: Sequence[Surplus]) -> None:
        self._clone.run_batch([Errand(partial(Writer.count_quarantined, surplus=surplus))])

    def copy_receipts(self) -> int:
        found = self._receipts.find(self._opened.view)
        try:
            if found.lines or found.keep:
                work = partial(Writer.keep, values={RECEIPTS_SEQ: str(found.seq)}, copies=list(found.lines))
                self._clone.run_batch([Errand(work)])
        except BaseException:
            self._receipts.failed()
            raise
        self._receipts.done(found)
        return len(found.lines)

    def recall(self) -> Mapping[str, str]:
        return {key: value for key, value in self._opened.view.sync_state().items() if key != RECEIPTS_SEQ}

    def remember(self, values: Mapping[str, str]) -> None:
        self._clone.run_batch([Errand(partial(Writer.keep, values=values))])


def _layout_in(root: Path) -> Layout:
    return Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")


class Clone:
    """`opened` is None while its daemon is down. `acknowledged` gets every fact that a caller was told of."""

    def __init__(self, world: World, number: int, directory: Path) -> None:
        self.world = world
        self.number = number
        self.lives = 0
        self.keys = 0
        """How many keys it had in this life."""
        self.is_old = False
        """Whether the program of before signatures runs here."""
        self.former: frozenset[str] = frozenset()
        self.filled: set[str] = set()
        """Journals that began as the branch had them."""
        self.directory = directory
        self.layout = _layout_in(directory)
        self.wall = Wall(world)
        self.disk = Disk(world.chance)
        self.network = Network(world.remote, world.chance)
        self.repo = MemoryRepository(self.network, self.disk.die)
        self.boots = 0
        self.flushed = 0
        """How much of the database's log is sure to survive a loss of power: what the start noted durably."""
        self.epoch = ""
        self.numbers: dict[int, str] = {}
        """The facts that got a number in this epoch."""
        self.agents: list[str] = []
        self.opened: Opened | None = None
        self.door: AccessPath | None = None
        self.steps: Steps | None = None
        self.outcome = Outcome()
        self.drafts: list[Draft] = []

    @property
    def daemon_id(self) -> str:
        if self.is_old:
            return f"d_01KGH87Y00AAAAAAAAAAAAA{self.lives % 8}{self.number:02d}"
        return daemon_id_of(self.key_number)

    @property
    def key_number(self) -> int:
        """From a small set, so that templates serve many seeds."""
        return (self.lives + self.keys) % 8 * 100 + self.number

    @property
    def signer(self) -> Signer | None:
        return None if self.is_old else signer_of(self.key_number)

    @property
    def own(self) -> frozenset[str]:
        return self.former | {self.daemon_id}

    @property
    def identity(self) -> DaemonIdentity:
        return DaemonIdentity(
            daemon_id=self.daemon_id,
            repo_name="repo",
            hostname=f"host{self.number}",
            repo_path="/repo",
            init_at="2026-02-03T00:00:00.000Z",
        )

    @property
    def store(self) -> Opened:
        assert self.opened is not None
        return self.opened

    # -- the daemon's life

    def start(self) -> None:
        """Start the daemon; it recovers whatever it finds. What is damaged is rebuilt, as the daemon does."""
        self.disk.dead = False
        self.world.signers[self.daemon_id] = self.signer
        self.repo.ensure()
        self._fill_folder()
        self._lay_template()
        try:
            with mock.patch.object(recovery, "JournalFiles", partial(DiskJournals, self.disk)):
                opened = open_blocking(
                    self.layout,
                    self.identity,
                    self.own,
                    wall=self.wall,
                    program="sim",
                    boot_id=f"boot-{self.boots}",
                    signer=self.signer,
                )
        except Killed:
            self.disk.die()
            raise
        base = opened.writer.stamper.base_ms
        randomness = self.world.dice.randbytes
        ulids = ids.Ulids(randomness) if self.is_old else signatures.CertifiedUlids(self.daemon_id, randomness)
        opened.writer.stamper = Stamper(self.wall, self.daemon_id, base, ulids)
        self.opened = opened
        if not self.is_old:
            self.introduce()
        self.flushed = Database(self.layout.database).log_size()
        self.door = AccessPath(self, opened)

    def introduce(self) -> None:
        """What a daemon says of itself before anything else. One that can't does not start."""
        try:
            with contextlib.suppress(NewerFormat):
                self.run_batch([Call(lambda view, stamp: introduction.decide(view, stamp, {PROJECT}, self.own))])
        except StoreFailed:
            self.stop()
            raise

    def rekey(self) -> None:
        """The program of today finds no key that its id certifies: it makes one, and remembers what it was."""
        self.crash(power=False)
        self.former |= {self.daemon_id}
        if self.is_old:
            # Its projection was of another form, and it noted nowhere what it had verified.
            for path in (self.layout.database, self.layout.local_journal.with_name("verified.json")):
                path.unlink(missing_ok=True)
        else:
            self.keys += 1
        self.is_old = False

    def stop(self, cause: str = "") -> None:
        """A clean stop, or one to be opened anew for what was found."""
        self.steps = None
        if self.opened is not None:
            self.opened.close(cause)
        self.opened = self.door = None
        self.drafts = []

    def leave(self) -> None:
        """Let go of the files, whatever becomes of them."""
        self.steps = None
        if self.opened is not None:
            self.opened.reader.close()
            self.opened.journals.close()
            self.opened.writer.db.close()
        self.opened = self.door = None
        self.drafts = []

    def crash(self, *, power: bool) -> None:
        """Kill the daemon, or the machine."""
        self.steps = None
        if self.opened is not None:
            database = Database(self.layout.database)
            content = database.take()
            self.leave()
            database.put(content, self.world.chance if power else None, self.flushed)
        if power:
            self.repo.lose_power()
            self.boots += 1

    def wipe(self) -> None:
        """`rm -rf` and `git clone`: a new daemon, that knows nothing but the remote."""
        self.crash(power=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.lives += 1 + self.keys  # its key too is a new one
        self.keys, self.former = 0, frozenset()
        self.repo = MemoryRepository(self.network, self.disk.die)
        if not self.network.is_offline:
            tip = self.world.remote.tip
            self.world.copy(tip, self.repo.objects)
            self.repo.tracking = tip

    def _fill_folder(self) -> None:
        """What `ensure_branch` does: journals of the branch that are not here are written out."""
        folder = self.layout.branch_dir
        (folder / "messages").mkdir(parents=True, exist_ok=True)
        for path, object_id in self.missing_journals():
            (folder / path).write_bytes(self.repo.blob(object_id))
            self.filled.add(path)
        (folder / "events.jsonl").touch()

    def finds_more_at_start(self) -> bool:
        """Whether the branch, which somebody moved or took away by hand, may hold journals that the next start writes
        out.
        """
        return not self.repo.ref or bool(self.missing_journals())

    def missing_journals(self) -> list[tuple[str, bytes]]:
        """Journals of the branch that are not in the folder, with the id of what they hold."""
        return [
            (path, entry.object_id)
            for path, entry in self.repo.files(self.repo.ref).items()
            if branch.JOURNAL_FILE.fullmatch(entry.path) and entry.mode & 0o170000 == 0o100000
            if not (self.layout.branch_dir / path).exists()
        ]

    def _lay_template(self) -> None:
        """An empty projection, unless there is one, or was one."""
        if self.layout.database.parent.exists():
            return
        if self.daemon_id not in _templates:
            _templates[self.daemon_id] = self._template()
        for name, data in _templates[self.daemon_id].items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _template(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            root = Path(scratch)
            layout = _layout_in(root)
            open_blocking(
                layout, self.identity, self.own, wall=self.wall, program="sim", boot_id=f"boot-{self.boots}"
            ).close()
            files = (layout.database, layout.trusted_dir / "picture.json")
            return {str(path.relative_to(root)): path.read_bytes() for path in files}

    # -- what it writes

    def run_batch(self, calls: Sequence[Call]) -> list[Committed]:
        """Execute calls as one batch. Raises what the batch fails with, then what the first call failed with."""
        writer = self.store.writer
        try:
            writer.begin()
            for call in calls:
                writer.execute(call)
            committed = writer.flush() if writer.has_work else []
            if not committed:
                writer.rollback()
        except Exception:
            writer.rollback()
            raise
        for call in calls:
            if call.error is not None:
                raise call.error
        return committed

    def commit(self, *decides: Decide[Any]) -> list[Committed]:
        """What agents do. The facts are acknowledged when this returns."""
        committed = self.run_batch([Call(decide) for decide in decides])
        if self.world.chance("kill after commit"):
            self.disk.die()
            raise Killed("before the answer")
        return committed

    def release_due_facts(self) -> None:
        """What the daemon does when a day has come."""
        self.run_batch([Errand(Writer.release_due_facts)])

    def draft(self) -> None:
        """Begin to compact: what stays of each journal is written beside it, while the daemon goes on."""
        discard(self.drafts)
        now_ms = self.wall.now_ms()
        ahead, old = deferral_limit(now_ms), clock.format_ms(now_ms - limits.wake_attempt_kept_ms)
        with Drafter(self.layout.database, self.store.journals, self.own, ahead, old) as drafter:
            found = [drafter.draft(file) for file in drafter.weights()]
        self.drafts = [draft for draft in found if draft is not None]

    def compact(self) -> int:
        """End it: put the drafts in place. Says how many bytes went; a kill may come before and after each rename."""
        drafts, self.drafts = self.drafts, []

        def sync_directory(_directory: Path) -> None:
            if self.world.chance("kill in compaction"):
                self.disk.die()
                raise Killed("between the renames and the commit")

        try:
            with mock.patch.object(files, "sync_directory", sync_directory), self.disk.compacting():
                return self.store.writer.compact(drafts)
        finally:
            if not self.disk.dead:
                discard(drafts)

    @property
    def must_reopen(self) -> bool:
        """Whether the daemon would rebuild its projection anew now."""
        return self.opened is not None and self.opened.writer.superseded

    # -- rounds

    def begin_round(self, *, fetch: bool, push: bool) -> None:
        assert self.door is not None
        self.outcome = Outcome()
        order = RoundOrder(fetch, push, f"user@host{self.number}", self.wall.now_ms() // 1000)
        self.steps = sync_round(self.repo, self.door, order, self.outcome)

    def check_words(self) -> None:
        """The index of words holds the words of all messages. Raises sqlite3.DatabaseError."""
        db = self.store.writer.db
        db.execute("BEGIN")
        fts.check(db)
        db.execute("COMMIT")

    def forget_round(self) -> None:
        """What rounds remember is lost, as with a projection that was rebuilt."""
        self.store.writer.db.execute("DELETE FROM sync_state WHERE key <> ?", (RECEIPTS_SEQ,))

    def lines(self, file: str) -> list[bytes]:
        """Every whole line of a journal on disk."""
        path = self.layout.local_journal if file == events.LOCAL_FILE else self.layout.branch_dir / file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        return [line for line in data.split(b"\n")[:-1] if line.strip()]

    def branch_journals(self) -> list[str]:
        folder = self.layout.branch_dir
        messages = sorted(path.name for path in (folder / "messages").glob("*.jsonl"))
        return ["events.jsonl", *(f"messages/{name}" for name in messages)]
