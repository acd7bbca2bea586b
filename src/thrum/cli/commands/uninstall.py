"""uninstall: undo what init made. Source: cli.md §2 "W3"."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import trio

from thrum.cli.confirm import confirm
from thrum.cli.connect import check_no_agent
from thrum.cli.parser import RUN, switch
from thrum.cli.run import Answer, Run
from thrum.cli.text import line
from thrum.model.errors import ConfirmationRequired


async def uninstall(
    *,
    yes: Annotated[bool, switch("don't ask")] = False,
    keep_messages: Annotated[bool, switch("keep the branch, journals and backups")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    from thrum.admin.uninstall import loss, uninstall
    from thrum.daemon.launch import stop_running

    layout, environ = run.layout(), run.session.env
    # It takes away what guards agents, and opens git's directory again: no agent's to do, as `init --keep-modes`.
    await trio.to_thread.run_sync(check_no_agent, environ, layout, "uninstall")
    lost = await trio.to_thread.run_sync(loss, layout, environ)
    if not yes:
        goes = "keeping its messages" if keep_messages else f"with {lost}"
        what = f"Remove thrum from {layout.main_root}, {goes}"
        spared = "" if keep_messages or not lost.messages else " (keep them: --keep-messages)"
        try:
            await confirm(run, f"{what}{spared}?", what="the removal")
        except ConfirmationRequired:
            raise ConfirmationRequired(
                f"this would {what[0].lower()}{what[1:]}{spared}", remedy=run.again("--yes")
            ) from None
    await trio.to_thread.run_sync(partial(stop_running, layout, insist=True))
    done = await trio.to_thread.run_sync(partial(uninstall, layout, environ, keep_messages=keep_messages))
    lines = [f"  removed  {line(each)}" for each in done.removed] + [f"  kept     {line(each)}" for each in done.kept]
    gone = f"  gone     {lost}" if lost.messages and not keep_messages else ""
    head = f"✓ Thrum removed from {line(str(layout.main_root))}"
    return Answer(done, said=[part for part in (head, *lines, gone) if part])
