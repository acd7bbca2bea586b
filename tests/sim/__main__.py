"""`python -m tests.sim --seed N` runs one seed and shows what happened; `--seeds A:B --jobs 2` runs many."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.sim.world import run_seed

_PORTION = 50


def run_many(first: int, end: int) -> tuple[int, float, list[tuple[int, str]]]:
    """Run seeds; how many, in how many seconds of processor time, and what failed."""
    begun = time.process_time()
    failed: list[tuple[int, str]] = []
    for seed in range(first, end):
        try:
            run_seed(seed)
        except Exception as error:
            failed.append((seed, f"{type(error).__name__}: {error}"))
    return end - first, time.process_time() - begun, failed


def main() -> int:
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="0:200", metavar="A:B")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stop-after", type=int, default=20, metavar="N", help="failures")
    options = parser.parse_args()
    if options.seed is not None:
        return run_one(options.seed)
    first, end = map(int, options.seeds.split(":"))
    done, seconds, failures = 0, 0.0, 0
    begun = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        pending = [pool.submit(run_many, at, min(at + _PORTION, end)) for at in range(first, end, _PORTION)]
        for portion in as_completed(pending):
            count, spent, failed = portion.result()
            done, seconds, failures = done + count, seconds + spent, failures + len(failed)
            for seed, text in failed:
                print(f"FAILED --seed {seed}: {text}", flush=True)
            if done % 500 == 0 or failed:
                print(f"{done} seeds, {failures} failed, {seconds / done * 1000:.1f} ms each", flush=True)
            if failures >= options.stop_after:
                pool.shutdown(cancel_futures=True)
                break
    wall = time.monotonic() - begun
    each = seconds / max(done, 1) * 1000
    print(f"seeds {first}:{end}: {done} run, {failures} failed, {each:.1f} ms of processor time each, {wall:.0f} s")
    return 1 if failures else 0


def run_one(seed: int) -> int:
    try:
        world = run_seed(seed, trace=True)
    except BaseException as error:
        traceback.print_exception(error)
        return 1
    print("\n".join(world.trace or []))
    print(f"seed {seed}: no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
