"""quickstart, agent register|list, whoami, team. Source: cli.md §3.2, §3.8, §3.9."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio

from thrum.cli import render
from thrum.cli.acting import Chosen, to_register, variables
from thrum.cli.body import read_text_file
from thrum.cli.connect import check_runtime
from thrum.cli.parser import RUN, did_you_mean, near, option, switch, word
from thrum.cli.registration_hints import conflict_error, next_here
from thrum.cli.render import RenderContext
from thrum.cli.run import Answer, Run, error_document, error_text
from thrum.cli.text import line
from thrum.identity.caller import claim_not_used
from thrum.identity.files import Identity, list_identities
from thrum.identity.selection import wanted_name
from thrum.model import dot_git, ids, limits, notes
from thrum.model.errors import (
    AgentNotRegistered,
    EmptyBody,
    FileTooLarge,
    IdentityEnvConflict,
    IdentityMismatch,
    ModuleMissing,
    NoIdentity,
    RepoConflict,
    RoleMissing,
    RuntimeNotFound,
    ThrumError,
)
from thrum.model.methods.agents import (
    AGENT_LIST,
    AGENT_LIST_CONTEXT,
    AGENT_REGISTER,
    AGENT_WHOAMI,
    TEAM_LIST,
    AgentListParams,
    AgentListResult,
    ListContextParams,
    RegisterParams,
    RegisterResult,
    TeamListParams,
    WhoamiResult,
)
from thrum.model.methods.method import Empty
from thrum.model.methods.sessions import SESSION_SET_INTENT, SESSION_START, SessionStartParams, SetIntentParams


class Wanted(msgspec.Struct, frozen=True):
    """What is to be registered: names checked for their spelling alone."""

    name: str
    role: str
    module: str
    display: str
    changes: str = ""
    """What that changes of the identity file: `module s3 → s4`."""

    @property
    def mention(self) -> str:
        return f"@{self.name or self.role}"


def wanted(run: Run, positional: str, flag: str, display: str, *, otherwise: tuple[str, str] = ("", "")) -> Wanted:
    """Name, role, module and display of a registering command; `otherwise`: role and module of one that has none.

    Raises the name rules, RoleMissing, RepoConflict …
    """
    _check_home(run)
    given, warning = wanted_name(run.session.env.get("THRUM_NAME"), flag, positional)
    if warning:
        run.warnings.append(warning)
    layout = run.layout()
    known = to_register(layout, run.session, run.flags, given)
    env = variables(run.session)
    if warning and known is not None and known.identity is not None:
        _check_whom(run, known.identity, flag or positional)
    name = given or (known.agent_id if known else "")
    role = run.flags.role or env.role or (known.role if known else "") or otherwise[0]
    module = run.flags.module or env.module or (known.module if known else "") or otherwise[1]
    display = display or env.display or _display(known, role, module)
    changes = _changes(known.identity if known else None, role, module)
    found = Wanted(name=name, role=role, module=module, display=display, changes=changes)
    try:
        ids.check_role(found.role)
        ids.check_module(found.module)
    except (RoleMissing, ModuleMissing) as error:
        words = f"{found.name or 'NAME'} --role {found.role or 'ROLE'} --module {found.module or 'MODULE'}"
        raise type(error)(error.message, remedy=f"thrum quickstart {line(words)}", **error.details) from None
    if found.name and ids.parse_agent_id(found.name).kind != "unnamed":
        ids.check_agent_name(found.name, found.role)
    ids.check_display(found.display)
    return found


def _check_whom(run: Run, named: Identity, other: str) -> None:
    """THRUM_NAME overrides the name given; but a leftover variable never changes a role."""
    role, module = run.flags.role or named.role, run.flags.module or named.module
    if (role, module) == (named.role, named.module):
        return
    words = line(f"{other} --role {role} --module {module}")
    raise IdentityEnvConflict(
        f"THRUM_NAME={named.name} overrides the name {other}: this would make @{named.name}"
        f" ({named.role}, {named.module}) {role} of {module}",
        remedy=f"to register {line(other)}: env -u THRUM_NAME thrum quickstart {words}; to change {named.name}, leave"
        f" {line(other)} out",
    )


def _display(known: Chosen | None, role: str, module: str) -> str:
    """The display of an identity; one that was not chosen follows its role and module."""
    if known is None or known.identity is None:
        return known.display if known else ""
    was = known.identity
    automatic = was.display == ids.default_display(was.role, was.module)
    return ids.default_display(role, module) if automatic and role and module else known.display


def _changes(was: Identity | None, role: str, module: str) -> str:
    if was is None:
        return ""
    fields = (("role", was.role, role), ("module", was.module, module))
    return ", ".join(f"{field} {line(before)} → {line(now)}" for field, before, now in fields if before != now)


def _check_home(run: Run) -> None:
    """Who registers must not be sent to another worktree by a variable left over (identity.md §3)."""
    home = run.session.env.get("THRUM_HOME", "")
    if not home or run.flags.repo:
        return
    here, there = dot_git.find_git(Path(run.session.cwd)), dot_git.find_git(Path(run.session.cwd, home))
    if here is not None and there is not None and here.root != there.root:
        raise RepoConflict(f"THRUM_HOME is {there.root}, you stand in {here.root}")


async def register_agent(
    run: Run,
    who: Wanted,
    *,
    force: bool,
    re_register: bool,
    bind_pid: bool = True,
    becomes_runtime: bool = False,
    runtime: str = "",
    quickstart: bool = False,
) -> RegisterResult:
    """One registration. A conflict is an answer."""
    params = RegisterParams(
        name=who.name,
        role=who.role,
        module=who.module,
        display=who.display,
        force=force,
        re_register=re_register,
        bind_pid=bind_pid,
        becomes_runtime=becomes_runtime,
        runtime=runtime,
        worktree=str(run.layout().root) if run.flags.repo else "",
        hostname=run.session.env.get("THRUM_HOSTNAME", ""),
        command="quickstart" if quickstart else "register",
    )
    result = await run.call(AGENT_REGISTER, params)
    return result


def refused(document: dict[str, Any], error: ThrumError) -> Answer:
    """A conflict's answer: the result's own keys, and `error` beside them."""
    return Answer(document | error_document(error), notice=error_text(error).split("\n"), status=error.status)


async def register(
    positional: Annotated[str, word("NAME", "the agent's name")] = "",
    /,
    *,
    name: Annotated[
        str,
        option("N", "the agent's name; default: the one in the identity file here, else made from role and module"),
    ] = "",
    display: Annotated[str, option("D", "the name shown to people")] = "",
    force: Annotated[bool, switch("take over a name, or a role and module, from another agent")] = False,
    re_register: Annotated[bool, switch("register yourself again")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    who = wanted(run, positional, name, display)
    result = await register_agent(run, who, force=force, re_register=re_register)
    document: dict[str, Any] = _document(result)
    if result.conflict is not None:
        return refused(
            document, conflict_error(who.role, who.module, result.conflict, "--re-register if that is you; ")
        )
    said = f"✓ Agent registered: {result.agent_id}"
    if result.status == "updated":
        said = f"✓ Agent re-registered: {result.agent_id}" + (f" ({who.changes})" if who.changes else "")
    return Answer(document, said=said, warnings=(*result.warnings, *next_here(run, result.agent_id)))


def _document(result: msgspec.Struct) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(result)
    document.pop("warnings", None)
    return document


async def quickstart(
    positional: Annotated[str, word("NAME", "the agent's name")] = "",
    /,
    *,
    name: Annotated[str, option("N", "the agent's name")] = "",
    display: Annotated[str, option("D", "the name shown to people")] = "",
    intent: Annotated[str, option("T", "what it works on")] = "",
    runtime: Annotated[str, option("R", "the program that runs it, e.g. claude")] = "",
    preamble_file: Annotated[str, option("P", "a file with its standing instructions")] = "",
    no_init: Annotated[bool, switch("write no runtime files")] = False,
    no_agent_pid: Annotated[bool, switch("don't record its process")] = False,
    dry_run: Annotated[bool, switch("print what would be done, change nothing")] = False,
    force: Annotated[bool, switch("take over a name, or a role and module, from another agent")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    del no_init
    if runtime:
        try:
            await trio.to_thread.run_sync(check_runtime, run.session.env, run.layout(), runtime)
        except RuntimeNotFound:
            run.require_own_process()  # a daemon is not told where the caller's home is, with runtimes of their own
            raise
    preamble = await _preamble(run, preamble_file) if preamble_file else ""
    who = wanted(run, positional, name, display)
    if dry_run:
        said = f"Would register {who.mention} ({who.role}, {who.module})"
        document = {"register": {"agent_id": who.name, "status": "registered"}}
        return Answer(document | ({"runtime": runtime} if runtime else {}), said=said)
    return await start_agent(
        run, who, intent=intent, runtime=runtime, preamble=preamble, pid=not no_agent_pid, force=force
    )


async def start_agent(
    run: Run,
    who: Wanted,
    *,
    intent: str = "",
    runtime: str = "",
    preamble: str = "",
    pid: bool = True,
    becomes_runtime: bool = False,
    force: bool = False,
) -> Answer:
    """Register, start or resume a session, set the intent (identity.md §8.3). Each step may be repeated."""
    before = {each.path.stem for each in list_identities(run.layout().identities_dir)}
    register = partial(
        register_agent,
        run,
        who,
        force=force,
        bind_pid=pid,
        becomes_runtime=becomes_runtime,
        runtime=runtime,
        quickstart=True,
    )
    result = await register(re_register=False)
    if result.conflict is not None and not force:
        result = await register(re_register=True)
    if result.conflict is not None:
        return refused({"register": _document(result)}, conflict_error(who.role, who.module, result.conflict))
    document: dict[str, Any] = {"register": _document(result)}
    said = [f"✓ Registered as {_mention(who, result)} ({who.role}, {who.module})"]
    begin = SessionStartParams(agent_id=result.agent_id, resume=True)
    session = await run.call(SESSION_START, begin)
    document["session"] = session
    said.append(f"✓ Session {'resumed' if session.resumed else 'started'}: {session.session_id}")
    if session.resumed and ids.file_stem(result.agent_id) not in before:
        run.warnings += _lost_notes(run, result.agent_id)
    if intent:
        params = SetIntentParams(session_id=session.session_id, intent=intent)
        document["intent"] = await run.call(SESSION_SET_INTENT, params)
        said.append(f"✓ Intent set: {line(intent)}")
    if runtime:
        document["runtime"] = runtime
    await trio.to_thread.run_sync(_keep_preamble, run, who, result.agent_id, preamble)
    return Answer(document, said=said, warnings=(*result.warnings, *next_here(run, result.agent_id)))


def _lost_notes(run: Run, agent_id: str) -> list[str]:
    """Of an agent that goes on where no file knew of it: its notes lay in the `.thrum` that it had before."""
    try:
        if notes.read_notes(run.layout().root, agent_id) is not None:
            return []
    except ThrumError as error:
        return [error.message]
    return ["no notes here: what this agent saved, if anything, was lost with its former .thrum"]


def _mention(who: Wanted, result: RegisterResult) -> str:
    return f"@{result.agent_id}" if who.name == result.agent_id else ids.mention(result.agent_id, who.name or None)


async def _preamble(run: Run, path: str) -> str:
    """Standing instructions from a file, as they are kept. Raises FileNotFound, FileTooLarge, EmptyBody …"""
    text = await read_text_file(run, path)
    if not text.strip():
        raise EmptyBody("the preamble would be empty", remedy="give some text, or leave --preamble-file out")
    size, limit = len(text.encode()) + 1, limits.context_bytes_max
    if size > limit:
        message = f"{path} is {size} bytes, the limit is {limit}"
        raise FileTooLarge(message, remedy="shorten the file", bytes=size, limit=limit)
    return f"{text}\n"


def _keep_preamble(run: Run, who: Wanted, agent_id: str, text: str) -> None:
    """The agent's standing instructions: those given, else its own, else what they begin as (cli.md §3.12)."""
    layout = run.layout()
    if text:
        notes.save_preamble(layout.root, agent_id, text)
        return
    try:
        if notes.read_preamble(layout.root, agent_id) is None:
            notes.save_preamble(layout.root, agent_id, notes.first_preamble(layout, agent_id, who.role, who.module))
    except ThrumError as error:
        run.warnings.append(f"no preamble was made: {error.message}")


# -- looks


async def list_agents(
    *,
    context: Annotated[bool, switch("show a table of open sessions and their work")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    rendering = RenderContext(run.now_ms, run.session.terminal.width)
    params = AgentListParams(role=run.flags.role, module=run.flags.module)
    result = await run.call(AGENT_LIST, params)
    if context or run.flags.json:
        return await _with_contexts(run, result, rendering, alone=context)
    # Who is active, and on which branch, the team knows.
    team = await run.call(TEAM_LIST, TeamListParams(include_offline=True, include_files=False))
    head = f"Registered agents ({len(result.agents)}):"
    return Answer(None, said=head, data=render.agents(result.agents, team.members, rendering))


async def _with_contexts(run: Run, listed: AgentListResult, rendering: RenderContext, *, alone: bool) -> Answer:
    """What the agents' open sessions work on, `alone` or beside the agents."""
    work = await run.call(AGENT_LIST_CONTEXT, ListContextParams())
    names = {each.agent_id for each in listed.agents}
    contexts = tuple(each for each in work.contexts if each.agent_id in names)
    if not alone:
        return Answer({"agents": listed, "contexts": {"contexts": contexts}}, warnings=work.warnings)
    text = render.contexts_table(contexts, rendering) if contexts else ""
    said = "" if contexts else "No open sessions."
    return Answer({"contexts": contexts}, said=said, data=text, warnings=work.warnings)


async def whoami(
    *,
    field: Annotated[str, option("KEY", "print only this value")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    me = me_from_files(run)
    me = await me_with_session(run, me)
    if not field:
        return Answer(me, data=render.whoami(me, RenderContext(run.now_ms), str(run.layout().root)))
    names = [each.encode_name for each in msgspec.structs.fields(WhoamiResult)]
    if field not in names:
        close = near(field, names)
        advice = did_you_mean(close) or f"one of {', '.join(names)}"
        raise run.command.error(f"no field {field}", advice, suggestions=close or None)
    if run.flags.json:
        return Answer({field: getattr(me, field)})
    value: Any = msgspec.to_builtins(me).get(field, "")
    await run.write(line(str(value).lower() if isinstance(value, bool) else str(value)))
    return Answer(None)


def me_from_files(run: Run) -> WhoamiResult:
    """Who would act, as far as files and variables tell."""
    chosen, layout = run.identity(), run.layout()
    identity = chosen.identity
    return WhoamiResult(
        agent_id=chosen.agent_id,
        role=chosen.role,
        module=chosen.module,
        display=chosen.display,
        source=chosen.source,
        selected_by=chosen.selected_by,
        session_id=identity.session_id if identity else "",
        branch=identity.branch if identity else "",
        worktree=str(layout.root),
        intent=identity.intent if identity else "",
        repo_id=identity.repo_id if identity else "",
        identity_file=str(chosen.file.relative_to(layout.root)) if chosen.file else "",
        updated_at=identity.updated_at if identity else "",
        status=identity.agent_status if identity else "",
        pid=identity.agent_pid if identity else 0,
        tmux_session=identity.tmux_session if identity else "",
    )


async def me_with_session(run: Run, me: WhoamiResult) -> WhoamiResult:
    """What a running daemon adds; nothing if it knows no agent of that name."""
    if await run.client_if_running() is None:
        return me
    try:
        known = await run.call(AGENT_WHOAMI, Empty())
    except (NoIdentity, AgentNotRegistered) as error:
        run.debug(error.message)
        return me
    except IdentityMismatch as error:
        if error.details.get("detected_agent"):
            raise
        run.warnings.append(claim_not_used(me.agent_id))
        return me
    if known.agent_id != me.agent_id:
        return me
    return msgspec.structs.replace(
        me,
        session_id=known.session_id,
        session_start=known.session_start,
        branch=known.branch or me.branch,
        intent=known.intent,
        host=known.host,
        tmux_alive=known.tmux_alive,
        is_local=known.is_local,
        namesakes=known.namesakes,
    )


async def team(
    *,
    all: Annotated[bool, switch("include offline agents")] = False,
    files: Annotated[bool, switch("show the files that each agent changed")] = False,
    system: Annotated[bool, switch("include thrum's own senders")] = False,
    daemon: Annotated[str, option("ID", "only agents of this daemon")] = "",
    host: Annotated[str, option("H", "only agents on this machine")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    # Looking at every file of every worktree takes longer than all the rest.
    wanted_files = files or run.flags.json
    params = TeamListParams(include_offline=all, include_system=system, include_files=wanted_files)
    result = await run.call(TEAM_LIST, params)
    members = tuple(
        each
        for each in result.members
        if (not daemon or each.origin_daemon == daemon)
        and (not host or each.hostname == host)
        and (not run.flags.role or each.role == run.flags.role)
        and (not run.flags.module or each.module == run.flags.module)
    )
    rendering = RenderContext(run.now_ms, run.session.terminal.width)
    said = "" if members or run.flags.json else await _nobody(run, all, system)
    return Answer(
        msgspec.structs.replace(result, members=members, warnings=()),
        said=said,
        data="\n\n".join(render.member(each, rendering, files=files) for each in members),
        warnings=result.warnings,
    )


async def _nobody(run: Run, all: bool, system: bool) -> str:
    if all:
        return "No agents."
    params = TeamListParams(include_offline=True, include_system=system, include_files=False)
    everybody = await run.call(TEAM_LIST, params)
    offline = sum(each.status == "offline" for each in everybody.members)
    return "No active agents." + (f" ({offline} offline: thrum team --all)" if offline else "")
