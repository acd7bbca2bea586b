"""A process that writes as fast as it can until it is killed.

`python -m tests.support.store.writing_child DIRECTORY ROUND`

Prints `ready`, then a line `? KEY` before each call and `! KEY MESSAGE_ID SEQ` once it is answered.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from tests.support.store.opened import editing, key_of, opened, resent, sending
from thrum.model.clock import SystemClock
from thrum.store.recovery import Store

CALLERS = 12
AUTHORS = 4


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def write(store: Store, round_: str, caller: int) -> None:
    author = f"agent{caller % AUTHORS}"
    number = 0
    while True:
        name = f"{round_}.{caller}.{number}"
        say(f"? {name}")
        text = name + " x" * (caller * 40)
        sent = await store.committer.commit(
            sending(text, author=author), key=key_of(name, author=author), replay=resent
        )
        say(f"! {name} {sent.message_id} {sent.seq}")
        if number % 5 == 0:
            await store.committer.commit(editing(sent.message_id, text + "!", author))
        number += 1


async def main(directory: Path, round_: str) -> None:
    async with opened(directory, wall=SystemClock()) as store, trio.open_nursery() as nursery:
        say("ready")
        for caller in range(CALLERS):
            nursery.start_soon(write, store, round_, caller)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
