"""The conversation and its commits, from the branch alone: git's objects, no journal, no daemon (cli.md "log")."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from thrum.admin.exclusive import owner_of
from thrum.model import wire_types
from thrum.model.clock import SystemClock, parse_ms
from thrum.model.errors import NotAvailable, StoreFailed
from thrum.model.ids import host_names
from thrum.model.paths import Layout
from thrum.store.queries.rows import InboxQuery
from thrum.store.scratch import open_beside
from thrum.sync import branch, merge
from thrum.sync.branch import BranchCommit

_ALL = 2**31


class History(NamedTuple):
    """Messages and commits, oldest first. `hosts`: of other daemons, by id. `total`: messages that match."""

    entries: list[wire_types.Message | BranchCommit]
    hosts: dict[str, str]
    total: int


def read_history(
    layout: Layout, environ: Mapping[str, str], *, count: int, author: str, since: str, commits: bool
) -> History:
    """The last `count` messages on the branch (0: all), by `author`, after the time `since` (each `""`: any).

    `commits`: with the commits of that span between them. Raises NotAvailable (no git), UnsafeRepository, StoreFailed.
    """
    try:
        with branch.read_branch(layout, environ) as found:
            if found is None:
                raise NotAvailable("not in a git repository, so there is no branch", remedy="git init")
            journals = {os.fsdecode(entry.path): merge.sound(found.blob(entry)) for entry in found.entries}
            with open_beside(journals, owner_of(layout).own, SystemClock().now_ms()) as view:
                query = InboxQuery(author_id=author, created_after=since, page_size=count or _ALL)
                page = view.inbox(query)
                messages = page.messages[::-1]
                for message in messages:
                    message.recipients = tuple(view.recipients(message.message_id))
                    message.seq = 0  # numbers are each clone's own
                hosts = host_names(view.hosts().items())
            entries: list[tuple[int, wire_types.Message | BranchCommit]] = [
                (parse_ms(message.created_at), message) for message in messages
            ]
            if commits:
                begin = since if not messages or page.total <= len(messages) else messages[0].created_at
                rounds = list(found.commits(parse_ms(begin) // 1000 if begin else 0))
                # A commit's time has no milliseconds: behind what was said in its second.
                entries += [(each.seconds * 1000 + 999, each) for each in reversed(rounds)]
    except OSError as error:
        raise StoreFailed(f"could not write {error.filename}: {(error.strerror or str(error)).lower()}") from error
    entries.sort(key=lambda entry: entry[0])
    return History([entry for _, entry in entries], hosts, page.total)
