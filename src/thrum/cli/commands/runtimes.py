"""runtime list|show|set-default: what thrum knows of agent runtimes. Source: cli.md §3.20."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import trio

from thrum.cli import render
from thrum.cli.parser import RUN, did_you_mean, near, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import line
from thrum.identity.guard_modes import OwnRuntimes, runtimes_file
from thrum.identity.runtimes import runtime_named
from thrum.model.errors import NotAvailable, RuntimeNotFound
from thrum.runtimes.presets import Runtime, RuntimeDefault, RuntimeList, read_own, set_default


async def list_runtimes(*, run: Annotated[Run, RUN]) -> Answer:
    run.require_own_process()
    known, default = await _known(run)
    document = RuntimeList(presets=tuple(known.values()), default_runtime=default)
    rows = [
        [
            f"{line(each.name)}{' (default)' if each.name == default else ''}",
            line(each.command) or "-",
            "yes" if each.hooks_supported else "-",
            line(each.instructions_file) or "-",
        ]
        for each in known.values()
    ]
    table = render.table(["RUNTIME", "COMMAND", "HOOKS", "INSTRUCTIONS"], rows, width=0, flexible=1)
    return Answer(document, data=table)


async def show(runtime: Annotated[str, word("R", "e.g. claude")], /, *, run: Annotated[Run, RUN]) -> Answer:
    run.require_own_process()
    found = (await _one(run, runtime))[0]
    fields = (
        ("Name", line(found.name)),
        ("Display", line(found.display_name)),
        ("Command", line(found.command)),
        ("Hooks", "yes" if found.hooks_supported else "no"),
        ("MCP", (line(found.mcp_config_path) or "yes") if found.mcp_supported else "no"),
        ("Instructions", line(found.instructions_file)),
        ("Setup", line(found.setup_notes)),
    )
    return Answer(found, data=render.labelled(*fields))


async def set_default_runtime(
    runtime: Annotated[str, word("R", "e.g. claude")], /, *, run: Annotated[Run, RUN]
) -> Answer:
    run.require_own_process()
    found, _ = await _one(run, runtime)
    file = runtimes_file(run.session.env)
    if file is None:
        raise NotAvailable("there is no home directory to keep it in", remedy="export HOME=DIR")
    await trio.to_thread.run_sync(partial(set_default, file, found.name))
    return Answer(RuntimeDefault(default_runtime=found.name), said=f"✓ Default runtime set to: {line(found.name)}")


async def _known(run: Run) -> tuple[dict[str, Runtime], str]:
    own = OwnRuntimes(runtimes_file(run.session.env))
    known, default = await trio.to_thread.run_sync(read_own, own)
    if own.problem:
        run.warnings.append(f"not read: {own.problem}")
    return dict(known), default


async def _one(run: Run, name: str) -> tuple[Runtime, str]:
    known, default = await _known(run)
    found = known.get(runtime_named(name))
    if found is None:
        close = near(name, known)
        raise RuntimeNotFound(
            f'no runtime preset "{name}"',
            remedy=did_you_mean(close) or "thrum runtime list; your own: ~/.thrum/runtimes.json",
            suggestions=close or None,
        )
    return found, default
