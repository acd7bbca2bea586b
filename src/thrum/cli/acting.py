"""Who would act: the identity file that applies here, and how flags and variables change it (identity.md §6)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from thrum.cli.parser import Globals
from thrum.cli.session import Session
from thrum.identity.files import Identity, Listed, list_identities, list_retired
from thrum.identity.selection import Given, SelectedBy, Selection, Source, resolve_values, select
from thrum.model import trust
from thrum.model.dot_git import worktrees
from thrum.model.errors import IdentityNotFound, NoIdentity
from thrum.model.paths import Layout, keep_of


@dataclass(frozen=True, slots=True)
class Chosen:
    """An identity, as a claim: the daemon proves it (identity.md §11)."""

    agent_id: str
    selected_by: SelectedBy
    role: str
    module: str
    display: str
    source: Source
    file: Path | None = None
    identity: Identity | None = None
    warnings: tuple[str, ...] = ()


def choose(layout: Layout, session: Session, flags: Globals) -> Chosen:
    """The identity of this command. Raises NoIdentity, SeveralIdentities and the others of identity.md §6."""
    listed = list_identities(layout.identities_dir)
    selection = selected(layout, session, listed)
    warnings = (*selection.warnings, *_said_of_several(layout, session, listed, selection))
    found = _file_of(selection.agent_id, listed)
    identity = found.identity if found else None
    file = Given(identity.role, identity.module, identity.display) if identity else Given()
    chosen = resolve_values(Given(flags.role, flags.module), variables(session), file, explicit=selection.explicit)
    return Chosen(
        agent_id=selection.agent_id,
        selected_by=selection.selected_by,
        role=chosen.role,
        module=chosen.module,
        display=chosen.display,
        source=chosen.source,
        file=found.path if found else None,
        identity=identity,
        warnings=warnings,
    )


def selected(layout: Layout, session: Session, listed: list[Listed]) -> Selection:
    """Which of the identities listed this command has (phase 1 of identity.md §6). Raises as `choose`."""
    env = session.env
    name, agent_id = env.get("THRUM_NAME"), env.get("THRUM_AGENT_ID")
    several = len(listed) > 1 and not name and not agent_id
    look = partial(
        select,
        [each.candidate for each in listed],
        session.links(layout) if several else (),
        _root_told(layout) if several else str(layout.root),
        thrum_name=name,
        thrum_agent_id=agent_id,
        proven_elsewhere=None if listed or name or agent_id else _proven(layout, session),
    )
    try:
        return look()
    except IdentityNotFound:
        return look(known_roots=homes(layout))
    except NoIdentity as error:
        raise _taken(layout) or error from None


def _said_of_several(layout: Layout, session: Session, listed: list[Listed], selection: Selection) -> list[str]:
    """Of several agents that live here the last one was taken, and no process proves it: once a shell that is said."""
    if selection.rule != "P10":
        return []
    caller_probe = session.caller_probe(layout)
    if caller_probe is not None and not caller_probe.is_news(f"several, {selection.agent_id}"):
        return []
    names = sorted(each.identity.name for each in listed if each.identity is not None)
    ways = " or ".join(f"THRUM_NAME={name}" for name in names)
    return [f"several agents live here, and you act as {selection.agent_id}, registered last: export {ways}"]


def _root_told(layout: Layout) -> str:
    """The root as its identity files call it: after a move, until the daemon has noted it, as it was."""
    record = trust.read_record(keep_of(layout.root))
    return record.root if record is not None and record.root else str(layout.root)


def _proven(layout: Layout, session: Session) -> str | None:
    """The agent of another worktree that the caller's processes prove."""
    caller_probe = session.caller_probe(layout)
    with suppress(OSError):
        owner = caller_probe.owner() if caller_probe is not None else None
        return owner[0] if owner is not None else None
    return None


def to_register(layout: Layout, session: Session, flags: Globals, wanted: str) -> Chosen | None:
    """The identity whose values a registering command takes over: that of the name wanted, else the one chosen here.

    None when there is none, so that nothing of another agent's goes into a new one. Raises SeveralIdentities.
    """
    env = {key: value for key, value in session.env.items() if key not in ("THRUM_NAME", "THRUM_AGENT_ID")}
    if wanted:
        if _file_of(wanted, list_identities(layout.identities_dir)) is None:
            return None
        env["THRUM_NAME"] = wanted
    try:
        return choose(layout, replace(session, env=env), flags)
    except NoIdentity:
        return None


def _taken(layout: Layout) -> NoIdentity | None:
    """Why no agent lives here any more, where the identity of this worktree went to another one (`--force`)."""
    retired = list_retired(layout.identities_dir)
    there = homes(layout) if retired else {}
    name = next((each for each in retired if each in there), "")
    if not name:
        return None
    again = "--role ROLE --module MODULE"
    remedy = (
        f"choose another name: thrum quickstart NEWNAME {again};"
        f" to take it back: thrum quickstart {name} {again} --force"
    )
    return NoIdentity(f"@{name} is registered in {there[name]} now, and no agent in this worktree", remedy=remedy)


def homes(layout: Layout) -> dict[str, str]:
    """Where the agents of this repository's worktrees have their identity files."""
    return {
        file.stem: str(root)
        for root in reversed(roots_of(layout))
        for file in (each.path for each in list_identities(root / ".thrum" / "identities"))
    }


def roots_of(layout: Layout) -> list[Path]:
    """Every worktree of this repository, the main one first."""
    return [layout.main_root, *(worktrees(layout.common_dir) if layout.common_dir else ())]


def variables(session: Session) -> Given:
    """What THRUM_ROLE, THRUM_MODULE and THRUM_DISPLAY say."""
    get = session.env.get
    return Given(get("THRUM_ROLE", ""), get("THRUM_MODULE", ""), get("THRUM_DISPLAY", ""))


def _file_of(agent_id: str, listed: list[Listed]) -> Listed | None:
    return next((each for each in listed if each.identity is not None and each.identity.name == agent_id), None)
