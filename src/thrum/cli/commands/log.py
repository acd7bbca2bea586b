"""log: the conversation and its commits, from the branch alone. Source: cli.md §2 "W3"."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import trio

from thrum.cli.parser import RUN, option, switch
from thrum.cli.render import RenderContext, at, audience
from thrum.cli.render import author as author_of
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, preview, shorten
from thrum.cli.values import absolute, parse_agent, parse_time
from thrum.model import wire_types
from thrum.model.clock import format_ms


async def log(
    *,
    lines: Annotated[int, option("N", "only the last N messages; 0: all", "-n", "--lines", "--limit")] = 20,
    agent: Annotated[str, option("X", "only messages by X")] = "",
    since: Annotated[str, option("T", "only messages since then")] = "",
    commits: Annotated[bool, switch("also show the commits in between")] = False,
    run: Annotated[Run, RUN],
) -> Answer | int:
    if lines < 0:
        raise run.command.error(f"--lines is 0 or more, not {lines}")
    after = format_ms(max(0, parse_time(since, "--since", run.now_ms) - 1)) if since else ""
    run.require_own_process()
    from thrum.admin.history import read_history

    author = parse_agent(agent) if agent else ""
    env = run.session.env
    work = partial(read_history, run.layout(), env, count=lines, author=author, since=after, commits=commits)
    found = await trio.to_thread.run_sync(work)
    if not found.entries and not run.flags.json:
        by = f" by {at(author)}" if author else ""
        since = f" since {since}" if since else ""
        return Answer({}, said=f"No messages{by}{since} on the branch.")
    for entry in found.entries:
        if isinstance(entry, wire_types.Message):
            if run.flags.json:
                await run.write_json(entry)
            else:
                await run.write(_message(entry, found.hosts, run.session.terminal.width))
        elif run.flags.json:
            time = format_ms(entry.seconds * 1000)
            await run.write_json({"type": "commit", "commit": entry.commit, "at": time, "subject": entry.subject})
        else:
            await run.write(f"commit {line(entry.commit)} {line(entry.subject)}")
    return 0


def _message(each: wire_types.Message, hosts: dict[str, str], width: int) -> str:
    """`2026-02-03T10:00:00Z  @furiosa → @nux  Token refresh is in  msg_…`; the body is cut to the width."""
    by = author_of(each.agent_id, each.origin_daemon, each.is_namesake, RenderContext(0, hosts=hosts))
    head = f"{absolute(each.created_at)}  {by} → {audience(each.audiences)}"
    edited = "  (edited)" if each.updated_at else ""
    body = preview(each.body.content)
    if width:
        body = shorten(body, max(20, width - len(head) - len(edited) - len(each.message_id) - 4))
    return f"{head}  {body}{edited}  {line(each.message_id)}"
