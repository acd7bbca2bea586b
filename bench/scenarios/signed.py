"""What signatures cost: the store alone, signing and not signing side by side, and facts of elsewhere verified."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Bench, Goal, Row, median
from thrum.identity.signing import Signer
from thrum.model import clock, signatures
from thrum.model.events import Body, MessageCreated, encode
from thrum.model.paths import Layout
from thrum.model.wire_types import DaemonIdentity
from thrum.store.api import Decision, Stamp
from thrum.store.ingest import Found, turns_of, verified
from thrum.store.queries.views import View
from thrum.store.recovery import Opened, open_blocking
from thrum.store.writer import Call, Errand, Writer

_TEXT = "The parser drops the last token when the input ends in a comment. Fixed on branch parser. " * 3
_NOW_MS = 1_770_112_800_000


def measure(bench: Bench) -> list[Row]:
    """Rows for one message a batch, for a hundred, and for ingesting what another daemon wrote."""
    rows: list[Row] = []
    for calls, at_most in ((1, 1.10), (100, 1.15)):
        found: dict[bool, list[float]] = {False: [], True: []}
        with _store(bench.directory, True) as signing, _store(bench.directory, False) as plain:
            for turn in range(bench.pick(3, 40, 200)):
                for store, is_signed in (
                    ((signing, True), (plain, False)) if turn % 2 else ((plain, False), (signing, True))
                ):
                    found[is_signed].append(_batch(store, calls) / calls)
        value, floor = median(found[True]), median(found[False])
        name = f"a message of the store, signed, {calls} a batch"
        rows.append(Row(name, value * 1000, "ms", floor * 1000, "unsigned", Goal(at_most=at_most, of_ratio=True)))
    count = bench.pick(200, 10_000, 100_000)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(bench.pick(1, 2, 3)):
        for is_signed in (False, True):
            bench.say(f"signed: ingesting {count:,} facts, round {turn + 1}")
            with _store(bench.directory, True) as store:
                seconds[is_signed].append(_take_in(store, foreign(count, is_signed)))
    value, floor = median(seconds[True]), median(seconds[False])
    name = f"ingesting {count:,} signed facts"
    rows.append(Row(name, value, "s", floor, "unsigned", Goal(at_most=2.0, of_ratio=True)))
    return rows


@contextmanager
def _store(directory: Path, is_signed: bool) -> Generator[Opened]:
    with tempfile.TemporaryDirectory(prefix="thrum-bench-", dir=directory) as found:
        root = Path(found)
        layout = Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")
        signer = Signer.make()
        daemon_id = signatures.daemon_id_of(_NOW_MS, signer.public_key)
        identity = DaemonIdentity(
            daemon_id=daemon_id, repo_name="repo", hostname="host", repo_path="/repo", init_at=clock.format_ms(_NOW_MS)
        )
        opened = open_blocking(
            layout,
            identity,
            frozenset({daemon_id}),
            wall=clock.SystemClock(),
            program="bench",
            boot_id="",
            signer=signer if is_signed else None,
        )
        try:
            yield opened
        finally:
            opened.close()


def _send(_view: View, stamp: Stamp) -> Decision[None]:
    message_id = stamp.new_id("msg_")
    fact = stamp.make(
        MessageCreated, message_id=message_id, agent_id="furiosa", body=Body("markdown", _TEXT), recipients=("nux",)
    )
    return Decision((fact,), lambda _view, _seqs: None)


def _batch(store: Opened, calls: int) -> float:
    """Seconds of one batch."""
    return _timed(store, [Call(_send) for _ in range(calls)])


def _timed(store: Opened, calls: list[Call]) -> float:
    begun = time.perf_counter()
    store.writer.begin()
    for call in calls:
        store.writer.execute(call)
    store.writer.flush()
    return time.perf_counter() - begun


def foreign(count: int, is_signed: bool) -> list[Found]:
    """Lines of messages that another daemon wrote."""
    signer = Signer(os.urandom(32))
    daemon_id = signatures.daemon_id_of(_NOW_MS, signer.public_key)
    stamp_of: Callable[[int], Stamp] = _stamps(daemon_id)
    lines: list[Found] = []
    for number in range(count):
        stamp = stamp_of(number)
        message_id = stamp.new_id("msg_")
        fact = stamp.make(
            MessageCreated, message_id=message_id, agent_id="slit", body=Body("markdown", _TEXT), recipients=("nux",)
        )
        lines.append(("messages/slit.jsonl", signer.sign(encode(fact)) if is_signed else encode(fact)))
    return lines


def _stamps(daemon_id: str) -> Callable[[int], Stamp]:
    ulids = signatures.CertifiedUlids(daemon_id)
    return lambda number: Stamp(_NOW_MS + number, ulids, daemon_id)


def _take_in(store: Opened, lines: list[Found]) -> float:
    begun = time.perf_counter()
    for start in range(0, len(lines), 1000):
        errands = [
            Errand(lambda writer, some=some: Writer.ingest(writer, some))
            for some in turns_of(verified(lines[start : start + 1000]))
        ]
        _timed(store, [*errands])
    return time.perf_counter() - begun
