"""wake: why an agent was, or was not, woken. Source: wake.md §5, §6."""

from __future__ import annotations

from typing import Annotated

from thrum.cli import render_wake
from thrum.cli.commands.messages import check_agent
from thrum.cli.parser import RUN, word
from thrum.cli.render import RenderContext
from thrum.cli.run import Answer, Run
from thrum.cli.values import parse_agent
from thrum.model.methods.wake import WAKE_STATUS, WakeStatusParams


async def wake(
    agent: Annotated[str, word("AGENT", "an agent of this machine; without it: all")] = "",
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    agent_id = parse_agent(agent) if agent else ""
    if agent_id:
        await check_agent(run, agent_id)
    result = await run.call(WAKE_STATUS, WakeStatusParams(agent_id=agent_id))
    if not result.agents:
        return Answer(result, said="No agents here.")
    rendering = RenderContext(run.now_ms, run.session.terminal.width)
    return Answer(result, data="\n".join(render_wake.agent(each, rendering) for each in result.agents))
