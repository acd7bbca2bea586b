"""tmux snapshot save|restore|check: the end of my agent's conversation, kept while it is restarted (cli.md §3.18)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import trio

from thrum.cli import render
from thrum.cli.parser import RUN, option, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import indent, plural
from thrum.model.errors import NoSnapshot, UsageError
from thrum.model.methods.terminals import TMUX_SNAPSHOT, TmuxSnapshotParams


async def snapshot(
    action: Annotated[Literal["save", "restore", "check"], word("save|restore|check", "what to do")],
    /,
    *,
    reason: Annotated[str, option("WHY", "save: why, for the daemon's log")] = "",
    jsonl: Annotated[str, option("P", "save: the runtime's record; default: the one its hooks told of")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    agent_id = run.identity().agent_id
    if action == "save":
        return await _save(run, reason or "self-initiated", jsonl)
    if reason or jsonl:
        raise UsageError(f"{action} takes no flags", remedy=f"thrum tmux snapshot {action}")
    content = await trio.to_thread.run_sync(_read, str(run.layout().root), agent_id)
    if action == "check":
        return Answer({"agent_id": agent_id, "exists": bool(content)}, status=0 if content else 1)
    if not content:
        raise NoSnapshot(f"no restart snapshot for {render.at(agent_id)}")
    return Answer({"agent_id": agent_id, "content": content}, data=indent(content.rstrip("\n"), ""))


def _read(root: str, agent_id: str) -> str:
    from thrum.admin import restart_snapshots

    return restart_snapshots.read(root, agent_id)


async def _save(run: Run, reason: str, jsonl: str) -> Answer:
    record = str(Path(run.session.cwd, jsonl)) if jsonl else ""
    result = await run.call(TMUX_SNAPSHOT, TmuxSnapshotParams(record=record, reason=reason))
    return Answer(result, said=f"Restart snapshot saved for {result.agent_id} ({plural(result.lines, 'line')})")
