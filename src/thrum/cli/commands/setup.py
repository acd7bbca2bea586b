"""setup: the redirect of a worktree that was made without thrum. Source: cli.md §3.17."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio

from thrum.cli.parser import RUN, option
from thrum.cli.run import Answer, Run

if TYPE_CHECKING:
    from thrum.admin.worktree_setup import SetupResult


async def setup(
    *,
    main_repo: Annotated[str, option("PATH", "where thrum is set up; default: found through git")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    from thrum.admin.worktree_setup import set_up_worktree

    main = Path(run.session.cwd, main_repo) if main_repo else None
    work = partial(set_up_worktree, run.start(), main, run.session.env)
    result: SetupResult = await trio.to_thread.run_sync(work)
    return Answer(result, said=f"✓ Worktree set up: .thrum/redirect → {result.redirect}")
