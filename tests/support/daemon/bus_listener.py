"""A subscriber as a program of its own: a line for each item it gets, until one whose content begins with `end`.

`python -m tests.support.daemon.bus_listener REPO (--inbox NAME | --audience A) [--cursor C] [--trio]`
"""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any

import trio

from thrum.bus import subscriber


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def tell(item: subscriber.Hint | subscriber.Message) -> bool:
    """Print the item; whether it was the last."""
    if isinstance(item, subscriber.Message):
        say("item", item.seq, item.message_id, item.body.content.split(" ")[0])
        return item.body.content.startswith("end")
    say("item", item.seq, item.event_id, item.preview.split(" ")[0] or item.type)
    return item.preview.startswith("end")


def listen(opened: Any) -> None:
    with opened as stream:
        say("ready")
        for item in stream:
            if tell(item):
                break
        say("cursor", getattr(stream, "cursor", ""))


async def listen_on_trio(open_it: Any) -> None:
    async with open_it() as stream:
        say("ready")
        async for item in stream:
            if tell(item):
                break
        say("cursor", getattr(stream, "cursor", ""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo")
    parser.add_argument("--inbox", default="")
    parser.add_argument("--audience", default="")
    parser.add_argument("--cursor", default=None)
    parser.add_argument("--trio", action="store_true")
    options = parser.parse_args()
    if options.inbox:
        arguments: dict[str, Any] = {"name": options.inbox, "repo": options.repo}
        forms = (subscriber.open_inbox, subscriber.open_inbox_async)
    else:
        arguments = {"audience": options.audience, "repo": options.repo, "cursor": options.cursor}
        forms = (subscriber.open_stream, subscriber.open_stream_async)
    if options.trio:
        trio.run(listen_on_trio, functools.partial(forms[1], **arguments))
    else:
        listen(forms[0](**arguments))
