"""thrum's figures, each against a floor taken in the same run: `python bench/run.py [--quick] [--only NAME]…`.

Prints a table and appends one JSON line to `bench/history.jsonl`. What each figure means: docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import Bench, Progress, Row, Scenario, table
from bench.place import clean_environment
from bench.scenarios import bus, floods, history, identity, idle, send, signed, stalls, startup, sync
from thrum.model import clock

HISTORY = Path(__file__).with_name("history.jsonl")
SCENARIOS: Mapping[str, Scenario] = {
    "startup": startup.measure,
    "send": send.measure,
    "bus": bus.measure,
    "identity": identity.measure,
    "start": history.measure_start,
    "large": history.measure_large,
    "idle": idle.measure,
    "stalls": stalls.measure,
    "sync": sync.measure,
    "signed": signed.measure,
    "floods": floods.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; exit status 1 if a goal was missed."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, _leave)
    for name in set(os.environ) - set(clean_environment()):
        del os.environ[name]
    say = Progress()
    bench = Bench(Path(options.dir), "quick" if options.quick else "full", say)
    rows: dict[str, list[Row]] = {}
    for name in options.only or SCENARIOS:
        say(name)
        rows[name] = SCENARIOS[name](bench)
    say.clear()
    print(table(rows))
    if not options.no_history:
        with HISTORY.open("a") as file:
            file.write(json.dumps(record(rows, quick=options.quick)) + "\n")
    missed = [row.name for found in rows.values() for row in found if row.met is False]
    print(f"\n{len(missed)} goals missed" + "".join(f"\n  {name}" for name in missed))
    return 1 if missed else 0


def _leave(number: int, _frame: object) -> NoReturn:
    """As an exception, so that daemons are stopped and directories removed."""
    sys.exit(128 + number)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description="thrum's figures against their floors.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer samples: 2 minutes instead of 10")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--no-history", action="store_true", help="append nothing to bench/history.jsonl")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where to work: a disk as users have it")
    return parser.parse_args(argv)


def record(rows: Mapping[str, Sequence[Row]], *, quick: bool) -> dict[str, Any]:
    """The line for the history: nothing in it names this machine."""
    return {
        "time": clock.format_ms(clock.SystemClock().now_ms()),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", "src")),
        "quick": quick,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "results": {name: {row.name: row.document() for row in found} for name, found in rows.items()},
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(HISTORY.parent), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
