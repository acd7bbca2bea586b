"""Opens a store, in a process of its own so that its memory can be told.

    rebuilder.py rebuild|floor MAIN_ROOT

`paint` opens the store of a repository whose daemon does not run: without a database that is a rebuild. `floor` does
what no rebuild can do without: it decodes every line and puts the messages into one bare table. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from thrum.admin import init
from thrum.model import clock, events, paths
from thrum.model.paths import Layout
from thrum.model.wire_types import DaemonIdentity
from thrum.store.recovery import open_blocking


def main() -> None:
    """Run as the module says."""
    layout = paths.find_layout(Path(sys.argv[2]))
    seconds = {"paint": rebuild, "floor": floor}[sys.argv[1]](layout)
    json.dump({"seconds": seconds, "peak_mib": _peak_mib()}, sys.stdout)


def rebuild(layout: Layout) -> float:
    """Seconds until the store is open."""
    identity = init.bootstrap_identity(layout, "bench", {}, clock.SystemClock()).identity
    mirrored = DaemonIdentity(
        daemon_id=identity.daemon_id,
        repo_name=identity.repo_name,
        hostname=identity.hostname,
        repo_path=identity.repo_path,
        init_at=identity.init_at,
    )
    own = frozenset({*identity.own_ids, ""})
    began = time.perf_counter()
    opened = open_blocking(layout, mirrored, own, wall=clock.SystemClock(), program="bench", boot_id="bench")
    seconds = time.perf_counter() - began
    if not opened.recovery.rebuilt or opened.recovery.quarantined:
        raise SystemExit(f"rebuilder: not what was to be measured: {opened.recovery}")
    opened.close()
    return seconds


def floor(layout: Layout) -> float:
    """Seconds to decode all lines and to insert the messages, without keys, indexes, or flushing."""
    with tempfile.TemporaryDirectory(dir=layout.var_dir) as home, closing(sqlite3.connect(f"{home}/db")) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE bare (message_id, agent_id, created_at, body, event_id, file, size)")
        rows = _rows(layout)
        began = time.perf_counter()
        with db:
            while batch := list(islice(rows, 2_000)):
                db.executemany("INSERT INTO bare VALUES (?, ?, ?, ?, ?, ?, ?)", batch)
        return time.perf_counter() - began


def _rows(layout: Layout) -> Iterator[tuple[str | int, ...]]:
    for path in [layout.local_journal, *sorted((layout.branch_dir / events.MESSAGES_DIR).iterdir())]:
        if not path.exists():
            continue
        with path.open("rb") as file:
            for line in file:
                fact = events.decode(line)
                if isinstance(fact, events.MessageCreated):
                    body = fact.body.content
                    yield (fact.message_id, fact.agent_id, fact.timestamp, body, fact.event_id, path.name, len(line))


def _peak_mib() -> float:
    """The most memory that this process had; not the rusage figure, which a parent may pass on."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20) if sys.platform == "darwin" else most / 1024


if __name__ == "__main__":
    main()
