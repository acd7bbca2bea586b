"""Messages after a registration: why it was refused, or which agent acts next in this worktree. Source: identity.md §6,
§8."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from thrum.cli.acting import homes, selected
from thrum.cli.run import Run
from thrum.cli.text import few, line
from thrum.identity.files import list_identities
from thrum.identity.selection import Selection
from thrum.model.errors import ConflictError, IdentityNotFound, SeveralIdentities, ThrumError, if_gone
from thrum.model.methods.agents import AGENT_LOOKUP, LookupParams, LookupResult, RegisterConflict


def conflict_error(role: str, module: str, conflict: RegisterConflict, again: str = "") -> ThrumError:
    """A conflict as an error, with the ways out; `again`: the flag that says "it is me", where there is one."""
    other = f"@{conflict.existing_agent_id}"
    where = f": {line(conflict.worktree)}" if conflict.worktree else ""
    gone = "; its process is gone" if conflict.is_dead else ""
    message = {
        "same_role_module": f"{other} is already {role} of {module}",
        "name_held": f"{other} already holds that name{gone}",
        "other_worktree": f"{other} is registered in another worktree{where}{gone}",
        "other_daemon": f"{other} is registered in another clone ({_clone(conflict)})",
    }[conflict.reason]
    another = f"thrum quickstart NEWNAME --role {line(role)} --module {line(module)}"
    if conflict.reason == "other_daemon":  # names are not taken over from there (identity.md §8.1)
        remedy = f"choose another name: {another}; or rename it there; {if_gone(line(conflict.origin_daemon))}"
    elif conflict.reason != "same_role_module" and conflict.conflict_pid:
        remedy = f"it is running (pid {conflict.conflict_pid}); choose another name: {another}"
    else:
        look = f"look: thrum agent list --role {line(role)} --module {line(module)}"
        remedy = f"{look}; choose another name or module; {again}--force to take over"
    return ConflictError(message, remedy=remedy, **msgspec.to_builtins(conflict))


def _clone(conflict: RegisterConflict) -> str:
    """`d_…, worktree shop, host desk`, as far as it is known. The same host name may be another machine's."""
    parts = ("", conflict.origin_daemon), ("worktree ", conflict.worktree), ("host ", conflict.hostname)
    return ", ".join(f"{label}{line(text)}" for label, text in parts if text)


async def name_that_ended(run: Run, error: IdentityNotFound) -> IdentityNotFound:
    """The refusal of a THRUM_NAME without a file, with what a running daemon knows of that name's end."""
    name = run.session.env.get("THRUM_NAME", "")
    found = LookupResult(None)
    with suppress(ThrumError):
        if name and await run.client_if_running() is not None:
            found = await run.call_once(AGENT_LOOKUP, LookupParams(name=name))
    return ended(error, name, found, homes(run.layout()).get(found.renamed_to, "") if found.renamed_to else "")


def ended(error: IdentityNotFound, name: str, found: LookupResult, home: str) -> IdentityNotFound:
    """`home`: the worktree of whom it is now, where that is known. Pure."""
    if found.renamed_to:
        new = found.renamed_to
        there = f", in {home}" if home else ""
        message, remedy = f"THRUM_NAME={name}, but {name} is {new} now{there}", f"export THRUM_NAME={new}"
    elif found.deleted_at:
        by = f" by @{found.deleted_by}" if found.deleted_by not in ("", "system") else ""
        message = f"THRUM_NAME={name}, but @{name} was deleted{by}, {found.deleted_at}"
        remedy = f"unset THRUM_NAME; to start over: thrum quickstart {name} --role ROLE --module MODULE"
    else:
        return error
    return IdentityNotFound(message, remedy=remedy, **error.details)


def next_here(run: Run, agent_id: str) -> list[str]:
    """What has to be exported, by the agent that just registered or by those beside it, so that the next command goes
    out in the right name: of several identities the shells of a worktree have the last one.
    """
    layout = run.layout()
    listed = list_identities(layout.identities_dir)
    identities = [each.identity for each in listed if each.identity is not None]
    if all(each.name != agent_id for each in identities):
        return []  # it is registered for another root than this shell looks into
    try:
        selection = selected(layout, run.session, listed)
    except SeveralIdentities:
        selection = None
    except ThrumError as error:
        run.debug(error.message)
        return []
    # A live runtime proves which of them it is; what has no process has only the variable.
    silent = [each.name for each in identities if not each.agent_pid and not each.reserved and each.name != agent_id]
    return next_act(agent_id, selection, silent)


def next_act(agent_id: str, selection: Selection | None, silent: list[str]) -> list[str]:
    """The lines, at most one of each kind. `selection`: what this shell's next command goes by, None where it is
    refused; `silent`: the others of the worktree that no process proves. Pure.
    """
    me = line(agent_id)
    if selection is None:
        return [f"several agents live here: export THRUM_NAME={me}, else it is not known who you are"]
    if selection.agent_id != agent_id:
        way = "unset THRUM_AGENT_ID" if selection.selected_by == "agent_id" else f"export THRUM_NAME={me}"
        return [f"{way}, else you act as @{line(selection.agent_id)}"]
    if not silent:
        return []
    names = sorted(line(name) for name in silent)
    if len(names) == 1:
        return [f"@{names[0]} lives here too: in its shell export THRUM_NAME={names[0]}, else it acts as @{me}"]
    some = few([f"@{name}" for name in names])
    return [f"{some} live here too: in their shells export THRUM_NAME=NAME, else they act as @{me}"]
