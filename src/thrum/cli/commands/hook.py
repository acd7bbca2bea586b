"""hook: what runtimes call at each moment of a session. Source: wake.md §1.6, §6.

A hook never breaks its runtime. Whatever is wrong (no daemon, no repository, a payload that is none) it says nothing
and ends with 0: a 2 by accident would erase what the person typed.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec

from thrum.cli.parser import RUN
from thrum.cli.run import Run
from thrum.model import limits
from thrum.model.errors import ThrumError
from thrum.model.methods.wake import RUNTIME_HOOK, HookParams, HookResult


async def hook(
    runtime: str,
    event: str,
    *,
    run: Annotated[Run, RUN],
) -> int:
    payload = _decoded(await run.session.terminal.read_stdin())
    try:
        result = await run.call_once(RUNTIME_HOOK, HookParams(runtime=runtime, event=event, payload=payload))
        # Taken before it is printed: what was not taken was not said, and goes elsewhere (wake.md §4).
        await run.session.terminal.flush()
        await run.delivered()
    except ThrumError as error:
        run.elsewhere(error)
        return 0
    return await _print(run, result)


async def _print(run: Run, result: HookResult) -> int:
    if result.stdout:
        await run.session.terminal.write_out(result.stdout.encode("utf-8", "backslashreplace"))
    if result.stderr:
        await run.session.terminal.write_err(result.stderr.encode("utf-8", "backslashreplace"))
    return result.exit_status


def _decoded(data: bytes) -> dict[str, Any]:
    """The payload; empty for what is no JSON object, or longer than any."""
    if len(data) > limits.hook_payload_bytes_max:
        return {}
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
