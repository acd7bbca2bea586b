"""hook: what runtimes call at each moment of a session. Source: wake.md §1.6, §6.

A hook never breaks its runtime. Whatever is wrong (no daemon, no repository, a payload that is none) it says nothing
and ends with 0: a 2 by accident would erase what the person typed.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, cast

import msgspec

from thrum.cli.commands.prime import brief
from thrum.cli.outbox import hand_in
from thrum.cli.parser import RUN, did_you_mean, near, word
from thrum.cli.run import Run
from thrum.cli.session import TTY_IN
from thrum.model import limits
from thrum.model.attempt_ids import tokens_in
from thrum.model.errors import CrossWorktree, PrimeOwnership, ThrumError
from thrum.model.methods.wake import RUNTIME_HOOK, HookParams, HookResult
from thrum.runtimes import hooks
from thrum.runtimes.hooks import HookEvent
from thrum.wake import proofs


async def hook(
    runtime: Annotated[str, word("RUNTIME", "claude, codex, gemini, opencode, cursor")],
    event: Annotated[str, word("EVENT", "the runtime's own name of it; wait: sleep until there is a message")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> int:
    if runtime not in hooks.HOOKED and run.session.terminal.tty & TTY_IN:
        close = near(runtime, ("install", "uninstall", "status"))
        raise run.command.error(f'"{runtime}" is no runtime', did_you_mean([f"hook {each}" for each in close]))
    payload = _decoded(await run.session.terminal.read_stdin())
    told = hooks.read(runtime, event, payload)
    begins = told.kind == "session_start"
    outbox, refusals = None, ""
    if runtime == "codex" and told.session and not told.subagent:
        with contextlib.suppress(ThrumError, OSError):
            outbox, refusals = await hand_in(run, told.session)
    try:
        if not begins and await run.client_if_running() is None:  # only a session's start is worth starting one
            _leave_proofs(run, told)
            return 0
        text = await _briefing(run) if begins and not told.subagent else ""
        client = await run.connect(run.autostart)
        # In no agent's name: whose it is follows from the process above.
        result = await client.call(RUNTIME_HOOK, HookParams(runtime=runtime, event=event, payload=payload))
        # Taken before it is printed: what was not taken was not said, and goes elsewhere (wake.md §4).
        await run.session.terminal.flush()
        await run.delivered()
    except ThrumError as error:
        run.go_elsewhere(error)
        _leave_proofs(run, told)
        raise  # into the log: the command is silent
    if text or (refusals and not result.stdout):
        answer = hooks.context(told, "\n".join(filter(None, [text, refusals])))
        result = HookResult(stdout=answer.stdout, stderr=answer.stderr, exit_status=answer.exit_status)
        if refusals and answer.stdout and outbox is not None:
            outbox.told()
    return await _print(run, result)


async def _briefing(run: Run) -> str:
    """What `thrum prime` says, for the model that begins; mail is counted in it alone, for its waiter tells it."""
    try:
        return (await brief(run, previews=False)).data
    except (PrimeOwnership, CrossWorktree) as error:
        # Another runtime lives here: this one is offered a name of its own, in the words to type.
        return f"{error.message}\n{error.remedy}"


def _leave_proofs(run: Run, told: HookEvent) -> None:
    """No daemon answered: what proves a wake is left where the next one finds it (wake.md §4)."""
    for token in tokens_in(told.prompt):
        with contextlib.suppress(OSError, ThrumError):
            proofs.leave(run.layout().proofs_dir, token)


async def _print(run: Run, result: HookResult) -> int:
    terminal = run.session.terminal
    if result.stdout:
        await terminal.write_out(result.stdout.encode("utf-8", "backslashreplace"))
    if result.stderr:
        await terminal.write_err(result.stderr.encode("utf-8", "backslashreplace"))
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
