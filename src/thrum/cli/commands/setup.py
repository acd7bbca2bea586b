"""setup: the redirect of a worktree that was made without thrum; setup claude-md: a block for a project's instructions.

Source: cli.md §3.17.
"""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import trio

from thrum.cli.parser import RUN, option, switch
from thrum.cli.run import Answer, Run
from thrum.identity.runtimes import runtime_named
from thrum.model import files
from thrum.model.errors import BlockExists, FileUnreadable, NotAvailable, StoreFailed, in_shell
from thrum.runtimes.instructions import BLOCK, Action, with_block
from thrum.runtimes.presets import BUILT_IN

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


_WRITTEN = ("CLAUDE.md", "AGENTS.md")


class SetupClaudeMd(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`SetupClaudeMd` of cli.md §4. `content`: the block, where it is only printed."""

    path: str = ""
    action: str
    content: str = ""


async def claude_md(
    *,
    apply: Annotated[bool, switch("write it into the file, instead of printing it")] = False,
    force: Annotated[bool, switch("with --apply: replace a block that is there")] = False,
    runtime: Annotated[str, option("R", "whose file: claude has CLAUDE.md, codex AGENTS.md")] = "claude",
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    preset = BUILT_IN.get(runtime_named(runtime))
    if preset is None or preset.instructions_file not in _WRITTEN:
        raise NotAvailable(
            f'"{runtime}" has no file of instructions that thrum writes', remedy="--runtime claude, or: --runtime codex"
        )
    if not apply:
        return Answer(SetupClaudeMd(action="printed", content=BLOCK), data=BLOCK.rstrip("\n"))
    root, name = run.layout().root, preset.instructions_file
    try:
        action = await trio.to_thread.run_sync(partial(_apply, root / name, name, force=force))
    except BlockExists as error:
        raise BlockExists(error.message, remedy=run.again("--force")) from None
    verb = {"created": "Created", "appended": "Appended to", "replaced": "Replaced the block in"}[action]
    return Answer(SetupClaudeMd(path=str(root / name), action=action), said=f"✓ {verb} {name}")


def _apply(path: Path, name: str, *, force: bool) -> Action:
    """Write the block into a file of the project, with the mode that it has. Raises what `with_block` raises."""
    try:
        found = files.status(path)
        text = None if found is None else files.read_bytes(path).decode()
        changed, action = with_block(text, name, force=force)
        if changed != text:
            files.atomic_write(path, changed.encode(), mode=0o644 if found is None else stat.S_IMODE(found.st_mode))
        return action
    except UnicodeDecodeError:
        raise FileUnreadable(f"{name} is not UTF-8", remedy=f"convert it: {in_shell(str(path))}") from None
    except OSError as error:
        if files.is_link(path):
            raise FileUnreadable(
                f"{name} is a link: nothing is written through it", remedy="print the block: thrum setup claude-md"
            ) from error
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error
