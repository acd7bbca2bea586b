"""Do journals, projection, branch and identity files agree? (cli.md 3.16). Only a repair changes anything.

Each check is a line: what was checked, and where it disagrees. Quarantined lines and opaque types are listed, but are
not failures.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from thrum.admin._local_journals import LocalJournals
from thrum.admin._signature_audit import check_signatures, count_foreign
from thrum.admin.exclusive import Owner, hold_lock, open_store_once, owner_of
from thrum.admin.repair import as_repaired, is_fixable, kind_of, remedy_of
from thrum.admin.restore import finish
from thrum.identity.files import Listed, list_identities
from thrum.model import limits
from thrum.model.clock import SystemClock
from thrum.model.config import load_config
from thrum.model.errors import ConfigInvalid, StoreFailed, ThrumError
from thrum.model.files import ensure_private_dir
from thrum.model.methods.admin import QuarantinedLine, VerifyCheck, VerifyDifference, VerifyResult
from thrum.model.notes import roots
from thrum.model.paths import Layout
from thrum.model.settings import SYNC_REMOTE
from thrum.model.tombstones import Tombstones
from thrum.store import audit, database
from thrum.store.audit import Flaw
from thrum.store.failures import is_failure_of_the_disk
from thrum.store.journal import JournalFiles, recover_tail
from thrum.store.quarantine import Kept, Quarantine, Quarantined
from thrum.store.queries.views import View
from thrum.sync import branch, merge

_SHOWN_MAX: Final = 20
_LISTED_MAX: Final = 1_000
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.2
_PREFIX: Final = "verify-"
_FULL: Final = "database or disk is full"
_JOURNAL_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "torn": ("truncated last line", "truncated last lines"),
    "shorter": ("journal is shorter than it was", "journals are shorter than they were"),
    "changed": ("journal was changed by another program", "journals were changed by another program"),
    "bad_line": ("line is not a fact", "lines are not facts"),
    "two_contents": ("id has two contents", "ids have two contents"),
    "wrong_file": ("fact in the wrong file", "facts in the wrong file"),
    "waits": ("fact has waited for an hour", "facts have waited for an hour"),
    "future": ("stamp over a day ahead", "stamps over a day ahead"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """What is verified. `journal_states`: how a running daemon's journals stand; None: none runs, every whole line
    counts.
    """

    layout: Layout
    environ: Mapping[str, str]
    owner: Owner
    journal_states: audit.JournalStates | None = None


def verify_here(layout: Layout, environ: Mapping[str, str], hostname: str, *, repair: bool) -> VerifyResult:
    """Verify without a daemon, under its lock, and set right what can be. Raises DaemonLocked, StoreFailed …"""
    with hold_lock(layout):
        finish(layout, environ)
        point = Point(layout, environ, owner_of(layout))
        found = verify(point)
        if not (repair and is_fixable(found)):
            return found
        with _refusals(layout):
            _fix(layout, environ, hostname)
        return as_repaired(verify(replace(point, owner=owner_of(layout))))


def _fix(layout: Layout, environ: Mapping[str, str], hostname: str) -> None:
    """Cut truncated last lines off into quarantine, drop the projection, and let a start of the store rebuild a new
    one.
    """
    journals = _journals(layout)
    quarantine = Quarantine(layout.quarantine, SystemClock())

    def quarantine_line(file: str, offset: int, raw: bytes, reason: str) -> None:
        quarantine.add(file, offset, raw, reason)
        quarantine.flush()

    for file in journals.names():
        recover_tail(journals, file, quarantine_line)
    audit.remove_projection(layout.database)
    open_store_once(layout, hostname, environ)


def _journals(layout: Layout) -> JournalFiles:
    return JournalFiles(layout.branch_dir, layout.local_journal)


def verify(point: Point) -> VerifyResult:
    """Look at everything. Raises ConfigInvalid, StoreFailed."""
    with _refusals(point.layout):
        found, moved = _verify(point)
        for _ in range(_TRIES if moved else 0):
            time.sleep(_PAUSE_SECONDS)
            found, moved = _verify(point)
            if not moved:
                break
    found.remedy = remedy_of(found)
    return found


@contextmanager
def _refusals(layout: Layout) -> Generator[None]:
    """What the system or the database refuses, as an error that names it: a full disk above all."""
    try:
        yield
    except OSError as error:
        verb = "write" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS) else "read"
        name = error.filename or layout.var_dir
        raise StoreFailed(f"could not {verb} {name}: {(error.strerror or str(error)).lower()}") from error
    except ThrumError:
        raise
    except Exception as error:
        if not is_failure_of_the_disk(error):
            raise
        raise _too_full(layout, str(error)) from error


def _too_full(layout: Layout, reason: str) -> StoreFailed:
    return StoreFailed(f"could not write {layout.var_dir}: {reason}", remedy="free space, then: thrum verify")


def _verify(point: Point) -> tuple[VerifyResult, bool]:
    """One look, and whether a journal was rewritten meanwhile, so that it may have been half the old one."""
    layout, journals, now_ms = point.layout, _journals(point.layout), SystemClock().now_ms()
    with _workplace(layout) as directory, ExitStack() as stack:
        # First of all: a round that is under way commits only what was in the journals before.
        tip = _tip(point, stack)
        copied, rebuilt = directory / "copy.db", directory / "rebuilt.db"
        copy = audit.copy_projection(layout.database, copied, point.owner.daemon_id)
        if copy.flaw.endswith(_FULL):
            raise _too_full(layout, _FULL)
        whole = audit.whole_ends(journals)
        fits = not copy.flaw and audit.fits(journals, copy)
        ends = _ends(point, copy, whole, fits)
        every_end = whole if point.journal_states is None else ends
        if fits:
            audit.release_due_facts(copied, journals, point.owner.own, now_ms)
        lost = audit.rebuild(rebuilt, journals, ends, point.owner.own, now_ms)
        everything = rebuilt
        if every_end != ends:  # lines that the projection does not know yet
            everything = directory / "everything.db"
            lost = audit.rebuild(everything, journals, every_end, point.owner.own, now_ms)
        quarantined = list(Quarantine(layout.quarantine, SystemClock()).entries())
        kept = Kept(quarantined)
        scan = audit.scan(journals, every_end, everything, lost, kept, now_ms)
        behind = 0 if every_end == ends else _behind(journals, every_end, ends)
        database_check = _database(copy, rebuilt, journals, scan.facts, behind)
        branch_check, uncommitted = _branch(tip, journals, every_end, everything, _remote(layout), kept)
        with closing(database.open_reader(everything)) as db:
            view = View(db, point.owner.own)
            identities, foreign, namesakes = _identities(layout, view), count_foreign(view), view.namesakes()
        if point.journal_states is None:
            askew = _truncated(journals, whole, copy, not database_check.ok)
        else:
            askew = _stray(journals, point.journal_states, copy)
        signed = check_signatures(journals, every_end, quarantined)
        checks = (_journal(journals, scan, askew), signed, database_check, branch_check, identities)
        # While a daemon runs, journals that are not the projection's are ones that it is rewriting.
        moved = not copy.flaw and (fits or point.journal_states is not None) and not audit.fits(journals, copy)
    found = VerifyResult(
        ok=all(check.ok for check in checks),
        repaired=False,
        checks=checks,
        quarantine=_listed(quarantined),
        quarantined=sum(each.more or 1 for each in quarantined),
        facts=scan.facts,
        uncommitted=uncommitted,
        opaque=dict(scan.opaque),
        foreign=foreign,
        namesakes=namesakes,
    )
    return found, moved


def _listed(quarantined: Sequence[Quarantined]) -> tuple[QuarantinedLine, ...]:
    """Some of the lines, then how many more there were of each journal and reason."""
    lines, counts = [each for each in quarantined if not each.more], [each for each in quarantined if each.more]
    return tuple(
        QuarantinedLine(
            at=each.at, file=each.file, offset=each.offset, reason=each.reason, length=each.length, more=each.more
        )
        for each in (*lines[:_LISTED_MAX], *counts)
    )


def _ends(point: Point, copy: audit.Copy, whole: Mapping[str, int], fits: bool) -> Mapping[str, int]:
    """Up to where the journals are held against the projection: up to where it stands, if it is of these journals."""
    if fits:
        return {file: at.applied_offset for file, at in copy.offsets.items()}
    return point.journal_states.ends if point.journal_states else whole


@contextmanager
def _workplace(layout: Layout) -> Generator[Path]:
    """A private directory beside the database; what killed runs left there goes."""
    ensure_private_dir(layout.var_dir)
    for left in layout.var_dir.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=layout.var_dir))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# -- journal


def _truncated(journals: JournalFiles, whole: Mapping[str, int], copy: audit.Copy, differs: bool) -> dict[str, str]:
    """Without a daemon: what is wrong with the end of each journal, as a word of `_JOURNAL_WORDS` and more of it.

    How they were only the projection knows, and it may be behind: shorter is what it `differs` from.
    """
    found: dict[str, str] = {}
    for file, end in whole.items():
        was = copy.offsets.get(file)
        if differs and was is not None and end < was.applied_offset:
            found[file] = f"shorter: by {was.applied_offset - end} bytes"
        elif differs and was is not None and (at := journals.accept_state(file)) and at.inode != was.inode:
            found[file] = "changed: it is another file than it was"
        if (more := journals.end(file) - end) > 0:
            found[file] = f"torn: {more} bytes"
    return found


def _stray(journals: JournalFiles, journal_states: audit.JournalStates, copy: audit.Copy) -> dict[str, str]:
    """The same while a daemon runs, which knows where it stopped writing."""
    found: dict[str, str] = {}
    for file, end in journal_states.ends.items():
        was, more = copy.offsets.get(file), journal_states.beyond.get(file, 0)
        if more < 0:
            found[file] = f"shorter: by {-more} bytes"
        elif was is not None and was.inode != journal_states.inodes[file]:
            found[file] = "changed: it is another file than it was"
        elif more:
            with journals.path(file).open("rb") as journal:
                journal.seek(end)
                is_truncated = b"\n" not in journal.read(more)
            found[file] = f"torn: {more} bytes" if is_truncated else f"changed: {more} bytes more"
    return found


def _behind(journals: JournalFiles, whole: Mapping[str, int], ends: Mapping[str, int]) -> int:
    """Whole lines that the projection does not know yet."""
    return sum(
        sum(1 for _ in journals.iter_lines(file, ends.get(file, 0), end))
        for file, end in whole.items()
        if ends.get(file, 0) < end
    )


def _journal(journals: JournalFiles, scan: audit.Scan, askew: Mapping[str, str]) -> VerifyCheck:
    """`askew`: of the journals that do not end where they should."""
    differences = [VerifyDifference(file=file, reason=reason) for file, reason in askew.items()]
    counts = Counter(kind_of(each) for each in differences)
    counts.update(flaw.kind for flaw in scan.flaws)
    differences += [_flaw(journals, flaw) for flaw in scan.flaws[:_SHOWN_MAX]]
    parts = [f"{count} {_JOURNAL_WORDS[kind][count != 1]}" for kind, count in counts.items()]
    if not parts:
        parts = [_count(scan.facts, "fact", "facts"), "each readable and in its file"]
    if scan.second_creates:
        shown = ", ".join(scan.second_creates[: audit.IDS_SHOWN])
        parts.append(f"created twice: {shown}")
    return VerifyCheck(name="journal", ok=not counts, detail=", ".join(parts), differences=tuple(differences))


def _flaw(journals: JournalFiles, flaw: Flaw) -> VerifyDifference:
    with journals.path(flaw.file).open("rb") as file:
        line = file.read(flaw.offset).count(b"\n") + 1
    ids = (flaw.event_id,) if flaw.event_id else ()
    return VerifyDifference(file=flaw.file, line=line, ids=ids, reason=f"{flaw.kind}: {flaw.detail}")


# -- database


def _database(copy: audit.Copy, rebuilt: Path, journals: JournalFiles, facts: int, behind: int) -> VerifyCheck:
    if copy.flaw in ("missing", "another"):
        # A projection may be deleted at any moment, and another version's is rebuilt: neither says anything wrong.
        why = "none yet" if copy.flaw == "missing" else "of another version or daemon"
        return VerifyCheck(name="database", ok=True, detail=f"{why}: the daemon rebuilds it when it starts")
    if copy.flaw:
        difference = VerifyDifference(reason=copy.flaw)
        return VerifyCheck(name="database", ok=False, detail=copy.flaw, differences=(difference,))
    found = audit.compare(copy.path, rebuilt, journals)
    if found:
        differences = tuple(
            VerifyDifference(
                table=each.table, missing=each.missing, extra=each.extra, changed=each.changed, ids=each.ids
            )
            for each in found
        )
        detail = "; ".join(f"{each.table}: {_amounts(each)}" for each in found)
        return VerifyCheck(name="database", ok=False, detail=detail, differences=differences)
    late = f"; {_count(behind, 'line', 'lines')} not in it yet, the daemon applies them when it starts" * bool(behind)
    return VerifyCheck(name="database", ok=True, detail=f"{_count(facts, 'fact', 'facts')}, rows equal a rebuild{late}")


def _amounts(each: audit.Difference) -> str:
    named = (("missing", each.missing), ("extra", each.extra), ("changed", each.changed))
    return ", ".join(f"{count} {word}" for word, count in named if count)


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


# -- branch


def _tip(point: Point, stack: ExitStack) -> branch.Branch | ThrumError | None:
    """The branch as it is now, or why it can't be read; None outside git."""
    try:
        return stack.enter_context(branch.read_branch(point.layout, point.environ))
    except ThrumError as error:
        return error


def _branch(
    tip: branch.Branch | ThrumError | None,
    journals: JournalFiles,
    ends: Mapping[str, int],
    rebuilt: Path,
    remote: str,
    kept: Kept,
) -> tuple[VerifyCheck, int]:
    """What is committed is in the journals; and how many facts are not committed yet."""
    try:
        if isinstance(tip, ThrumError):
            raise tip
        if tip is None or not tip.tip:
            what = "no git repository" if tip is None else f"no branch {branch.BRANCH} yet"
            travelling = [file for file in ends if merge.JOURNAL_FILE.fullmatch(file)]
            uncommitted = sum(1 for file in travelling for _ in audit.entries(journals, file, ends[file]))
            return VerifyCheck(name="branch", ok=True, detail=what), uncommitted
        with closing(database.open_reader(rebuilt)) as db:
            return _compare_branch(tip, journals, ends, View(db, frozenset()).tombstones(), remote, kept)
    except ThrumError as error:
        difference = VerifyDifference(reason=error.message)
        return VerifyCheck(name="branch", ok=False, detail=error.message, differences=(difference,)), 0


def _compare_branch(
    tip: branch.Branch,
    journals: JournalFiles,
    ends: Mapping[str, int],
    tombstones: Tombstones,
    remote: str,
    kept: Kept,
) -> tuple[VerifyCheck, int]:
    differences: list[VerifyDifference] = []
    here = LocalJournals(journals, ends)
    committed = uncommitted = 0
    known: dict[str, bytes] = {}
    for entry in tip.entries:
        file, data = entry.path.decode("utf-8", "surrogateescape"), tip.blob(entry)
        known[file] = data
        committed += data.count(b"\n")
        lacking = [
            (home, raw)
            for home, raw in sorted(
                merge.wanted(file, merge.sift(merge.missing(here.data(file), data)).lines, tombstones)
            )
            if here.lacks(home, raw, kept) and len(raw) <= limits.line_bytes_max
        ]
        changed = sum(1 for _, raw in lacking if here.has(file, audit.event_id_of(raw)))
        if lacking:
            ids = tuple(audit.event_id_of(raw) for _, raw in lacking[: audit.IDS_SHOWN])
            differences.append(VerifyDifference(file=file, missing=len(lacking) - changed, changed=changed, ids=ids))
    for file in ends:
        if merge.JOURNAL_FILE.fullmatch(file):
            canonical = merge.canonical(file, here.data(file), tombstones).data
            uncommitted += len(merge.missing(known.get(file, b""), canonical))
    parts = [f"{each.file}: {_lacks(each)}" for each in differences]
    if not parts:
        parts = [f"{_count(committed, 'fact', 'facts')} committed, all in the journals"]
    if uncommitted:
        parts.append(f"{uncommitted} not committed yet")
    parts += _compare_remote(tip, known, here, tombstones, remote, kept)
    check = VerifyCheck(name="branch", ok=not differences, detail="; ".join(parts), differences=tuple(differences))
    return check, uncommitted


def _compare_remote(
    tip: branch.Branch,
    known: Mapping[str, bytes],
    here: LocalJournals,
    tombstones: Tombstones,
    remote: str,
    kept: Kept,
) -> list[str]:
    """What this clone and the remote, as it was last seen, have yet to tell each other: the next rounds do."""
    theirs = tip.at_remote(remote)
    if theirs is None:
        return []
    there = {entry.path.decode("utf-8", "surrogateescape"): tip.blob(entry) for entry in theirs}
    unsent = sum(len(merge.missing(there.get(file, b""), data)) for file, data in known.items())
    unread = sum(
        here.lacks(home, raw, kept)
        for file, data in there.items()
        for home, raw in sorted(
            merge.wanted(file, merge.sift(merge.missing(known.get(file, b""), data)).lines, tombstones)
        )
    )
    parts = [f"{unsent} not at {remote} yet"] * bool(unsent) + [f"{unread} of {remote} not here yet"] * bool(unread)
    return parts or [f"{remote} has the same"]


def _remote(layout: Layout) -> str:
    """The name of the remote; while the settings are broken, the usual one."""
    try:
        return load_config(layout.config_file)[SYNC_REMOTE]
    except ConfigInvalid:
        return SYNC_REMOTE.default


def _lacks(each: VerifyDifference) -> str:
    parts = [f"{each.missing} committed, not in the journal"] * bool(each.missing)
    parts += [f"{each.changed} with other bytes than committed"] * bool(each.changed)
    return ", ".join(parts)


# -- identities


def _identities(layout: Layout, view: View) -> VerifyCheck:
    found: list[VerifyDifference] = []
    count = 0
    for root in roots(layout):
        for listed in list_identities(root / ".thrum" / "identities"):
            count += 1
            if flaw := _identity_flaw(listed, root, view):
                name = listed.identity.name if listed.identity else ""
                file = _shown(listed.path, layout)
                found.append(VerifyDifference(file=file, ids=(name,) if name else (), reason=flaw))
    if found:
        detail = f"{_count(len(found), 'file does', 'files do')} not agree"
    else:
        detail = f"{_count(count, 'file agrees', 'files agree')} with the records"
    return VerifyCheck(name="identities", ok=not found, detail=detail, differences=tuple(found))


def _identity_flaw(listed: Listed, root: Path, view: View) -> str:
    identity = listed.identity
    if identity is None:
        return f"broken: {listed.broken}"
    record = view.agent(identity.name)
    if record is None or not record.live:
        return f"{identity.name} is not registered"
    for name, said, known in (("role", identity.role, record.role), ("module", identity.module, record.module)):
        if said != known:
            return f"{name} is {said}, registered as {known}"
    if record.is_own and record.worktree_path and record.worktree_path != str(root):
        return f"{identity.name} is registered in {record.worktree_path}"
    return ""


def _shown(path: Path, layout: Layout) -> str:
    return str(path.relative_to(layout.main_root)) if path.is_relative_to(layout.main_root) else str(path)
