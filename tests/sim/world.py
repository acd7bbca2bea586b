"""One seed: some clones, a remote, agents, and whatever goes wrong; then quiet, and everything must agree."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from unittest import mock

from tests.sim import checks
from tests.sim.clone import Clone, Program, programs
from tests.sim.deeds import NAMES, Deeds
from tests.sim.faults import Chance, Killed, Violation
from tests.sim.git import FIRST_OBJECTS, Objects, Remote, copy_closure, history, put_commit
from tests.sim.hostile import Hostile
from tests.sim.strangers import Stranger
from thrum.identity import signing
from thrum.identity.signing import Signer
from thrum.model import clock, limits
from thrum.model.errors import NewerFormat, StoreFailed, ThrumError
from thrum.model.events import Accepted
from thrum.model.tombstones import Tombstones
from thrum.store import journal
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View
from thrum.sync import merge
from thrum.sync.merge import JOURNAL_FILE
from thrum.sync.ports import ForeignProject, RemoteFailed
from thrum.sync.worktree import FIRST

START_MS: Final = clock.parse_ms("2026-02-03T10:00:00.000Z")
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_CLONES: Final = (*[2] * 8, *[3] * 5, *[4] * 3, 5, 6, 7, 8)
_QUIET_PASSES_MAX: Final = 7
_IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None

_NETWORK: Final = {
    "fetch lost": 0.15,
    "fetch stale": 0.12,
    "fetch answer lost": 0.05,
    "push lost": 0.1,
    "push late": 0.1,
    "push repeated": 0.05,
    "push answer lost": 0.1,
}
_DISK: Final = {"disk full": 0.03, "disk error": 0.02, "cut error": 0.3, "git full": 0.03}
_KILLS: Final = {
    "kill in append": 0.02,
    "kill after append": 0.02,
    "kill after commit": 0.03,
    "kill in compaction": 0.1,
    "git kill": 0.02,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of seed it is: rates of faults in the machines, weights of troubles in the world."""

    rates: dict[str, float]
    crashes: float
    users: float
    """How often a user resets, deletes or squashes branches, or wipes a clone."""
    hostile: float
    """How often files are pushed that no daemon would make."""
    strangers: float
    """How often somebody with a key of his own pushes lines of all kinds."""
    skew: float
    before: bool
    """Some clones have the program of before signatures for a while."""
    sweeping: bool
    """Much is cleaned up, purged and said anew, and journals are compacted often."""
    renaming: bool
    """Agents are renamed often."""
    steps: int

    @property
    def foreign(self) -> bool:
        """Whether anybody but the clones pushes."""
        return self.hostile > 0 or self.strangers > 0


def draw_profile(dice: random.Random) -> Profile:
    """A third of all seeds have one kind of trouble only: what they show is easily understood."""
    kinds = {"network", "disk", "kills", "users", "hostile", "strangers", "skew", "before"}
    if dice.random() < 0.5:
        kinds = set(dice.sample(sorted(kinds), dice.randrange(0, 3)))
    rates: dict[str, float] = {}
    for kind, found in (("network", _NETWORK), ("disk", _DISK), ("kills", _KILLS)):
        if kind in kinds:
            rates |= found
    return Profile(
        rates,
        crashes=0.06 if "kills" in kinds else 0.0,
        users=0.05 if "users" in kinds else 0.0,
        hostile=0.06 if "hostile" in kinds else 0.0,
        strangers=0.12 if "strangers" in kinds else 0.0,
        skew=1.0 if "skew" in kinds else 0.0,
        before="before" in kinds,
        sweeping=dice.random() < 0.4,
        renaming=dice.random() < 0.3,
        steps=dice.choice((12, 20, 30, 45)),
    )


class World:
    """`acknowledged`: the line of every fact that a caller was told of, by event id, and the daemon that wrote it.
    `excused`: those that nobody held any more after a clone was wiped or a remote reset.
    """

    def __init__(self, seed: int, directory: Path, *, trace: bool = False) -> None:
        self.seed = seed
        self._directory = str(directory)
        self.dice = random.Random(seed)
        self.profile = draw_profile(self.dice)
        self.chance = Chance(self.dice, self.profile.rates)
        self.ms = START_MS
        self.remote = Remote()
        self.acknowledged: dict[str, tuple[bytes, str]] = {}
        self.excused: set[str] = set()
        self.signers: dict[str, Signer | None] = {}
        """The daemons of all clones, now and before, and their keys."""
        self.at_rest = False
        self.compacted = False
        self.ended = 0
        self.trace: list[str] | None = [] if trace else None
        self.clones: list[Clone] = []
        shared = sorted(self.dice.sample(NAMES, 2)) if self.dice.random() < 0.3 else []
        for number in range(self.dice.choice(_CLONES)):
            clone = Clone(self, number, directory / str(number))
            clone.directory.mkdir(parents=True)
            clone.agents = shared or sorted(self.dice.sample(NAMES, self.dice.choice((1, 1, 2, 3))))
            clone.is_old = self.profile.before and self.dice.random() < 0.6
            self._skew(clone)
            self.clones.append(clone)

    def note(self, *words: object) -> None:
        if self.trace is not None:
            self.trace.append(" ".join(map(str, words)).replace(self._directory, ""))

    def copy(self, tip: str, target: Objects) -> None:
        copy_closure(self.remote.objects, target, tip)

    # -- the run

    def run(self) -> None:
        """All of it. Raises Violation."""
        for clone in self.clones:
            if self.dice.random() < 0.8:
                self._start(clone)
        for _ in range(self.profile.steps):
            self._step()
        self._settle()

    def close(self) -> None:
        for clone in self.clones:
            clone.leave()

    def _step(self) -> None:
        self.ms += self.dice.choice((0, 1, 7, 900, 61_000))
        clone = self.dice.choice(self.clones)
        roll, profile = self.dice.random(), self.profile
        if self.remote.late and self.dice.random() < 0.3:
            number = self.dice.randrange(len(self.remote.late))
            self.note("a late push comes in")
            self.remote.deliver(number, again=self.dice.random() < 0.3)
        if roll < profile.crashes:
            self._crash(clone, power=self.dice.random() < 0.5)
        elif roll < profile.crashes + profile.users:
            self._trouble(clone)
        elif roll < profile.crashes + profile.users + profile.hostile:
            self.note("hostile:", Hostile(self.remote, self.dice, self.ms).push())
        elif roll < profile.crashes + profile.users + profile.hostile + profile.strangers:
            self.note("stranger:", Stranger(self.remote, self.dice, self.ms).push())
        elif clone.is_old and self.dice.random() < 0.06:
            self._upgrade(clone)
        elif clone.opened is None:
            if self.dice.random() < 0.6:
                self._start(clone)
        else:
            self._use(clone)

    def _use(self, clone: Clone) -> None:
        roll = self.dice.random()
        if self.profile.sweeping and self.dice.random() < (0.3 if clone.drafts else 0.1):
            self._guard(clone, self._compact, "compacts")
        elif roll < 0.40:
            self._guard(clone, self._act, "acts")
        elif roll < 0.75:
            self._guard(clone, self._some_steps, "goes on with a round")
        elif roll < 0.86:
            self._guard(clone, self._whole_round, "runs a round")
        elif roll < 0.90:
            self._guard(clone, self._compact, "compacts")
        elif roll < 0.93:
            clone.network.is_offline = not clone.network.is_offline
            self.note(clone.number, "offline" if clone.network.is_offline else "online")
        elif roll < 0.96:
            self._skew(clone)
            self._guard(clone, self._due, "looks what is due")
        else:
            self.note(clone.number, "stops")
            clone.stop()

    # -- what daemons do

    def _guard(self, clone: Clone, deed: object, what: str) -> None:
        """Run what may fail as daemons may. What must not happen is a Violation."""
        assert callable(deed)
        try:
            self.note(clone.number, what)
            Program.is_old = clone.is_old
            deed(clone)
        except Killed as killed:
            self.note(clone.number, "was killed", killed)
            self._crash(clone, power=self.dice.random() < 0.3)
        except RemoteFailed as failed:
            self.note(clone.number, "remote failed:", failed)
            clone.steps = None
            if self.at_rest:
                self._fix_remote(clone, failed)
        except StoreFailed as failed:
            self.note(clone.number, "store failed:", failed)
            clone.steps = None
            self._mind_failure(clone, failed)
        except NewerFormat as failed:
            self.note(clone.number, "writes no more:", failed)
            self.ended += 1  # nothing more will come of that round
        except ThrumError as failed:
            raise Violation(f"clone {clone.number} {what}: {failed!r}") from failed
        if clone.opened is not None:
            checks.numbers_stand(clone)
            checks.future_waits(clone)
        if clone.must_reopen:
            self.note(clone.number, "rebuilds")
            clone.stop("superseded")
            self._start(clone)

    def _fix_remote(self, clone: Clone, failed: RemoteFailed) -> None:
        """At rest there is one trouble left: a hostile branch, where the user does what the error advises."""
        if isinstance(failed, ForeignProject):
            # Or else: others, whose program does not know of projects, would push it again.
            self._guard(clone, partial(_accept_project, repo_ids=failed.repo_ids), "accepts a project")
            return
        if "not thrum's" not in failed.reason:
            raise Violation(f"the remote works, and yet: {failed!r}") from failed
        self.remote.move("")
        for clone in self.clones:
            # Nobody may push it again.
            if not any(JOURNAL_FILE.fullmatch(path) for path in clone.repo.files(clone.repo.ref)):
                clone.repo.ref = FIRST
                clone.repo.objects |= FIRST_OBJECTS
        self.excused |= checks.lost_to_all(self)

    def _mind_failure(self, clone: Clone, failed: StoreFailed) -> None:
        if "is gone" in failed.message:
            clone.stop()
            self._start(clone)
        elif "cause" in failed.details:
            clone.stop(str(failed.details["cause"]))
            self._start(clone)
        elif not self.chance.rates:
            raise Violation(f"clone {clone.number}: {failed!r}") from failed

    def _start(self, clone: Clone) -> None:
        self.note(clone.number, "of before starts" if clone.is_old else "starts")
        for _ in range(20):
            try:
                Program.is_old = clone.is_old
                clone.start()
                if self.trace is not None:
                    self.note(clone.number, clone.store.recovery)
                return
            except Killed as killed:
                self.note(clone.number, "was killed while it started", killed)
            except StoreFailed as failed:
                self.note(clone.number, "could not start", failed)
                if not self.chance.rates:
                    raise Violation(f"clone {clone.number} cannot start: {failed!r}") from failed
                return

    def _crash(self, clone: Clone, *, power: bool) -> None:
        self.note(clone.number, "loses power" if power else "is killed")
        clone.crash(power=power)

    def _upgrade(self, clone: Clone) -> None:
        """The program of today takes over. What was there before goes on as it was."""
        self.note(clone.number, "is upgraded")
        if clone.opened is None:
            self._start(clone)
        shown = None if clone.opened is None else checks.shown_by_old_program(clone)
        clone.rekey()
        self._start(clone)
        if clone.opened is not None and shown is not None:
            checks.goes_on(clone, shown)

    def _act(self, clone: Clone) -> None:
        deeds = Deeds(clone)
        committed = clone.commit(*(deeds.draw() for _ in range(self.dice.choice((1, 1, 2, 4)))))
        for entry in committed:
            raw = checks.line_of(entry.fact)
            self.acknowledged[entry.fact.event_id] = (raw, clone.daemon_id)
            self.note("  ", raw.decode()[:200])

    def _compact(self, clone: Clone) -> None:
        """Begins, or ends what was begun a while ago, or both."""
        begun = bool(clone.drafts)
        if not begun:
            clone.draft()
            self.note("  ", [(draft.file, draft.lines_gone) for draft in clone.drafts])
        if clone.drafts and (begun or self.dice.random() < 0.5):
            self.compacted = True
            self.note("  ", clone.compact(), "bytes less")

    def _due(self, clone: Clone) -> None:
        clone.release_due_facts()

    def _begin(self, clone: Clone) -> None:
        fetch, push = self.dice.choice(
            ((True, True), (True, True), (True, True), (False, True), (True, False), (False, False))
        )
        clone.begin_round(fetch=fetch, push=push)

    def _some_steps(self, clone: Clone) -> None:
        if clone.steps is None:
            self._begin(clone)
        self._advance(clone, self.dice.choice((1, 1, 2, 4)))

    def _whole_round(self, clone: Clone) -> None:
        if clone.steps is None:
            self._begin(clone)
        self._advance(clone, 1_000)

    def _advance(self, clone: Clone, count: int) -> None:
        for _ in range(count):
            assert clone.steps is not None
            try:
                step = next(clone.steps)
            except StopIteration:
                clone.steps = None
                self.ended += 1
                self.note("  ", clone.outcome)
                checks.pushed_what_it_says(clone)
                return
            self.note("  ", step)
            if clone.must_reopen:
                return

    # -- what people do

    def _trouble(self, clone: Clone) -> None:
        which = self.dice.choice(
            ("wipe", "reset", "pull", "delete ref", "gc", "reset remote", "delete remote", "squash remote", "new key")
        )
        self.note(clone.number, which)
        remote = self.remote
        if which == "wipe":
            clone.wipe()
        elif which == "reset":
            clone.repo.ref = self.dice.choice(history(clone.repo.objects, clone.repo.ref) or [""])
        elif which == "pull":
            self.copy(remote.tip, clone.repo.objects)
            clone.repo.loose -= remote.objects.keys()  # as after any fetch
            clone.repo.ref = clone.repo.tracking = remote.tip
        elif which == "delete ref":
            clone.repo.ref = ""
        elif which == "new key" and not clone.is_old:
            clone.rekey()
        elif which == "gc":
            clone.repo.collect_garbage()
        elif which == "reset remote" and remote.tip:
            remote.move(self.dice.choice(history(remote.objects, remote.tip)))
        elif which == "delete remote":
            remote.move("")
        elif which == "squash remote" and remote.tip:
            found = remote.objects[remote.tip]
            remote.move(put_commit(remote.objects, found.files, "", "squashed", self.ms // 1000))  # type: ignore[union-attr]
        self.excused |= checks.lost_to_all(self)

    def _skew(self, clone: Clone) -> None:
        if self.profile.skew:
            hours = self.dice.choice((0, 0, 0, -5, -1, 2, 7, 23, 30, 100))
            clone.wall.skew_ms = hours * _HOUR_MS + self.dice.randrange(60_000)

    # -- the end

    def _settle(self) -> None:
        """Faults off: everybody runs until it is quiet, first with wrong clocks, then with right ones."""
        self.note("-- quiet")
        self.at_rest = True
        self.chance.stop()
        for number in range(len(self.remote.late)):
            self.remote.deliver(number, again=True)
        for clone in self.clones:
            clone.network.is_offline = False
            if clone.opened is None:
                self._start(clone)
            clone.steps = None
        if any(clone.wall.skew_ms for clone in self.clones) and self.dice.random() < 0.5:
            old = any(clone.is_old for clone in self.clones)
            self._until_quiet("with wrong clocks", must_rest=not (old and self.profile.foreign))
        if any(clone.is_old for clone in self.clones):
            if self.dice.random() < 0.5:
                # Of two lines of one id the program of before takes the smaller one: who may push can have it push for
                # ever against those that take the signed one.
                self._until_quiet("beside clones of before", must_rest=not self.profile.foreign)
            for clone in self.clones:
                if clone.is_old:
                    self._upgrade(clone)
        Program.is_old = False
        self.ms += 30 * _DAY_MS
        for clone in self.clones:
            clone.wall.skew_ms = 0
            self._guard(clone, self._due, "looks what is due")
        if self.dice.random() < (0.5 if self.profile.sweeping else 0.2):
            for clone in self.clones:
                self._guard(clone, self._compact, "compacts")
        self._until_quiet("with right clocks")
        self.note("-- checks")
        checks.all_agree(self)

    def _until_quiet(self, when: str, *, must_rest: bool = True) -> None:
        for _ in range(_QUIET_PASSES_MAX):
            before, self.ended = self._provenance(), 0
            for clone in self.clones:
                clone.begin_round(fetch=True, push=True)
                self._guard(clone, self._whole_round, "runs a round")
                if clone.opened is None:
                    self._start(clone)
            if self._provenance() == before and self.ended == len(self.clones):
                return
        if must_rest:
            raise Violation(f"no rest {when} after {_QUIET_PASSES_MAX} passes: they go on pushing")

    def _provenance(self) -> tuple[str, ...]:
        return (self.remote.tip, *(clone.repo.ref for clone in self.clones))


def _accept_project(clone: Clone, repo_ids: Iterable[str]) -> None:
    def decide(_view: View, stamp: Stamp) -> Decision[None]:
        facts = [stamp.make(Accepted, kind="project", id=repo_id) for repo_id in sorted(repo_ids)]
        return Decision(facts, lambda _view, _seqs: None)

    clone.commit(decide)
    clone.introduce()


def _grown(file: str, known: bytes, data: bytes, end: int, tombstones: Tombstones) -> merge.Grown | None:
    """The short way to a journal of the branch, held against the long one."""
    found = _short_way(file, known, data, end, tombstones)
    if found is not None and found.data != (whole := merge.canonical(file, data, tombstones).data):
        raise Violation(f"{file} grew to {found.data!r}, and composed it is {whole!r}")
    return found


_short_way: Final = merge.grown


@contextmanager
def _rigged() -> Iterator[None]:
    """Limits that are reached, and a look at what rounds do in short."""
    with (
        programs(),
        mock.patch.object(merge, "grown", _grown),
        mock.patch.object(limits, "line_bytes_max", 6_000),
        mock.patch.object(limits, "batch_facts_max", 9),
        # However slow the disk is: threads would not come out the same twice. Waking one takes longer than its work.
        mock.patch.object(journal, "_POOL_PAYS_SECONDS", math.inf),
        mock.patch.object(signing, "_SHARED_MIN", math.inf),
    ):
        yield


def run_seed(seed: int, *, trace: bool = False) -> World:
    """Run one seed. Raises Violation, with the seed in its notes; the world that is returned is closed."""
    directory = Path(tempfile.mkdtemp(prefix="thrum-sim-", dir=_IN_MEMORY))
    world = World(seed, directory, trace=trace)
    try:
        with _rigged():
            world.run()
        return world
    except BaseException as error:
        error.add_note(f"python -m tests.sim --seed {seed}")
        if world.trace is not None:
            error.add_note("\n".join(world.trace))
        raise
    finally:
        world.close()
        shutil.rmtree(directory, ignore_errors=True)
