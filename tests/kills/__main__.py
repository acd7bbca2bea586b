"""`python -m tests.kills --act purge --kills 1000`; `--seed S --first N --kills 1` repeats one of them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.kills.every_act import ACTS
from tests.kills.harness import adopt_orphans, remove, run_many

_GIT_CONFIG = "[user]\n\tname = Test\n\temail = test@localhost\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
_NOT_INHERITED = ("THRUM_", "GIT_", "XDG_")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills")
    parser.add_argument("--act", choices=[*ACTS, "all"], action="append", required=True)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="leave what the last try left")
    options = parser.parse_args()
    adopt_orphans()
    os.umask(0o077)
    memory = Path("/dev/shm")  # a kill is no power cut: nothing here waits for a disk
    top = Path(os.path.realpath(tempfile.mkdtemp(prefix="thrum-kills-", dir=memory if memory.is_dir() else None)))
    for name in list(os.environ):
        if name.startswith(_NOT_INHERITED):
            del os.environ[name]
    (top / ".gitconfig").write_text(_GIT_CONFIG)
    os.environ |= {"HOME": str(top), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    failed = False
    try:
        for name in ACTS if "all" in options.act else options.act:
            tally = run_many(ACTS[name](top), options.kills, options.seed, options.first)
            failed = failed or bool(tally.failures)
            print(tally, flush=True)
    finally:
        if options.keep:
            print(top)
        else:
            remove(top)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
