"""This checkout against another one, side by side in one run: `python bench/against.py OTHER [--rounds N]`.

OTHER is another checkout with its `.venv` made. Each has a daemon of its own, and they take turns, so that what else
the machine does falls on both. Prints the medians and their ratio; appends nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent.parent
_FIGURES: Final = {
    "thrum send, warm": "ms",
    "message.send, 1 client: p50": "ms",
    "message.send, 100 clients: rate": "/s",
    "message.send, 1 client: daemon": "ms of CPU",
    "message.send, 100 clients: daemon": "ms of CPU",
}
"""Processor time is less moved by what else the machine does than any time on the wall."""

_DRIVER: Final = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from bench.measure import median
from bench.place import clean_environment, open_repository, thrum_command
from bench.scenarios import send, startup
from thrum.rpc.client import BlockingClient
try:
    from thrum.model.methods.daemon import HEALTH
except ImportError:  # a checkout whose methods were called by name
    HEALTH = "health"
for name in set(os.environ) - set(clean_environment()):
    del os.environ[name]
seconds = float(sys.argv[1])
command = [thrum_command(), "send", "Token refresh is in; can you review it?", "--to", "@agent1"]
with open_repository(Path(sys.argv[2]), 10) as repository:
    with BlockingClient(repository.socket) as client:
        pid = client.call(HEALTH).pid
    def load(clients):
        return send.run_load(repository, pid, clients, send.message_request, seconds)
    load(10)
    print("ready", flush=True)
    for line in sys.stdin:
        warm = [startup.run_ms(command, clean_environment(), repository.worktrees[0]) for _ in range(15)]
        one, many = load(1), load(100)
        spent = [each.daemon_cpu / each.rate * 1000 for each in (one, many)]
        print(json.dumps([median(warm), one.p50, many.rate, *spent]), flush=True)
"""


def main() -> int:
    """Compare; always 0: the figures are for a person to judge."""
    parser = argparse.ArgumentParser(description="This checkout against another one, side by side.")
    parser.add_argument("other", type=Path, help="another checkout, with its .venv made")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load")
    parser.add_argument("--dir", default=".", help="where to work: a disk as users have it")
    options = parser.parse_args()
    trees = (options.other.resolve(), _HERE)
    drivers = [
        subprocess.Popen(
            [tree / ".venv/bin/python", "-c", _DRIVER, str(options.seconds), str(Path(options.dir).resolve())],
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for tree in trees
    ]
    samples: list[list[list[float]]] = [[], []]
    for driver in drivers:
        _line(driver)
    for turn in range(options.rounds):
        # Whoever begins has the quieter disk: they take turns at that too.
        for which in (0, 1) if turn % 2 else (1, 0):
            samples[which].append(json.loads(_line(drivers[which], ask=True)))
    for driver in drivers:
        driver.communicate()
    print(f"{'':34}{'other':>10}{'here':>10}{'ratio':>8}   (median of {options.rounds} pairs)")
    for index, (name, unit) in enumerate(_FIGURES.items()):
        other, here = (sorted(sample[index] for sample in found)[len(found) // 2] for found in samples)
        pairs = sorted(mine[index] / theirs[index] for theirs, mine in zip(*samples, strict=True))
        print(f"{name:34}{other:>10.3f}{here:>10.3f}{pairs[len(pairs) // 2]:>8.3f}   {unit}")
    return 0


def _line(driver: subprocess.Popen[str], *, ask: bool = False) -> str:
    assert driver.stdin is not None and driver.stdout is not None
    if ask:
        driver.stdin.write("\n")
        driver.stdin.flush()
    line = driver.stdout.readline()
    if not line:
        raise SystemExit("bench: a checkout cannot be measured; what it says is above")
    return line


if __name__ == "__main__":
    sys.exit(main())
