"""prime: the briefing at the start of a session. Source: cli.md §3.10, identity.md §4, §7, §12.

An agent pays for every word of it. It marks nothing read, works without a daemon, and is safe in a global hook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import trio

from thrum.admin import restart_snapshots
from thrum.cli.commands.messages import hosts_of
from thrum.cli.commands.overview import Look, active_since, branch_text, session_text, take_look, who_i_am, you
from thrum.cli.parser import RUN
from thrum.cli.references import note_printed
from thrum.cli.render import RenderContext, at, author, namesake, role_beside, status
from thrum.cli.run import Answer, Run
from thrum.cli.text import beginning, framed, line, one_line, preview, shorten
from thrum.identity.files import Identity, read_identity
from thrum.model import notes, wire_types
from thrum.model.config import load_config
from thrum.model.errors import (
    AgentNotRegistered,
    CrossWorktree,
    DaemonLocked,
    DaemonStartFailed,
    DaemonUnavailable,
    NoIdentity,
    NotARepository,
    NotInitialized,
    PrimeOwnership,
    SeveralIdentities,
    ThrumError,
)
from thrum.model.ids import short_message_id
from thrum.model.methods.agents import AGENT_REGISTER, TEAM_LIST, RegisterParams, TeamListParams, WhoamiResult
from thrum.model.methods.messages import MESSAGE_LIST, MessageListParams, MessageListResult
from thrum.model.notes import Note
from thrum.model.settings import SINGLE_AGENT_MODE

R = TypeVar("R")

RECENT_MAX = 5
_PREVIEW_COLUMNS = 48
_INTENT_COLUMNS = 40
_NOTE_BYTES_MAX = 8_192
"""Of preamble, project state and notes each: every session pays for them."""
_TALK = (
    '- Send: `thrum send "TEXT" --to @NAME`; without `--to`: to the team, waking no one',
    '- Reply: `thrum reply @NAME "TEXT"`; or the end of an id',
    "- Wait: `thrum wait --timeout 10m --mark-read`",
)
_KEEP = '- Save notes for the next session: `thrum context save "NOTES"`'
"""What a session has to know of thrum: who reads nothing else reads this."""


@dataclass(frozen=True, slots=True)
class _Briefing:
    """Everything there is to say; what is not known is None or empty."""

    me: WhoamiResult | None
    no_identity: str
    """Why there is no `me`."""
    identity: Identity | None
    look: Look | None
    """None: no daemon."""
    team: Sequence[wire_types.TeamMember]
    """Those with an open session, last seen first."""
    inbox: MessageListResult | None
    single: bool
    """Single-agent mode: nothing about messages."""
    preamble: Note | None
    state: Note | None
    saved: Note | None
    root: Path
    snapshot: str = ""
    """The end of the conversation before a restart."""

    def shown(self, note: Note) -> Path:
        """Where it lies, from the root on if it does there."""
        return note.path.relative_to(self.root) if note.path.is_relative_to(self.root) else note.path


async def prime(*, run: Annotated[Run, RUN]) -> Answer:
    return await brief(run)


async def brief(run: Run, *, previews: bool = True) -> Answer:
    """The briefing; without `previews` unread messages are only counted: a wake is about to tell them."""
    try:
        layout = run.layout()
    except (NotInitialized, NotARepository) as error:
        if run.flags.repo or run.session.env.get("THRUM_HOME"):
            raise
        why = f": {line(str(error.details['reason']))}" if "reason" in error.details else ""
        if error.details.keys() & {"leads_to", "broken_git"}:
            return Answer({"initialized": False}, notice=(error.message, f"  fix: {error.remedy}"))
        return Answer({"initialized": False}, notice=f"Thrum is not initialized here (thrum init){why}")
    running = await _connected(run)
    if running:
        await _claim(run)
    me, reason = await who_i_am(run)
    file = run.identity().file if me is not None else None
    agent_id = me.agent_id if me is not None else ""
    single = _single_agent_mode(run)
    look = await take_look(run, agent_id) if running else None
    unread = look is not None and look.member is not None and look.member.inbox_unread > 0
    identity, preamble, state, saved = await trio.to_thread.run_sync(_files, run, agent_id, file)
    briefing = _Briefing(
        me=me,
        no_identity=reason,
        identity=identity,
        look=look,
        team=await _members(run) if running and not single else (),
        inbox=await _unread(run, agent_id) if unread and previews and not single else None,
        single=single,
        preamble=preamble,
        state=state,
        saved=saved,
        root=layout.root,
        snapshot=await trio.to_thread.run_sync(_snapshot, run, agent_id) if agent_id else "",
    )
    some = briefing.inbox.messages if briefing.inbox else ()
    text = markdown(briefing, RenderContext(run.now_ms, hosts=await hosts_of(run, some)))
    document = _document(briefing, str(layout.root))

    async def note() -> None:
        if some:
            await note_printed(run, [each.message_id for each in some])
        if briefing.snapshot:
            await trio.to_thread.run_sync(restart_snapshots.remove, str(layout.root), agent_id)

    return Answer(document, data=text, warnings=look.warnings if look else (), then=note)


async def _connected(run: Run) -> bool:
    """Whether there is a daemon, started if it may be."""
    try:
        await run.connect(run.autostart)
    except (DaemonUnavailable, DaemonStartFailed, DaemonLocked) as error:
        run.debug(error.message)
        return False
    return True


async def _claim(run: Run) -> None:
    """Bring record and identity file up to this session: its process, runtime, branch. Raises PrimeOwnership,
    CrossWorktree; what else stands against it is no hindrance to reading on.
    """
    try:
        chosen = run.identity()
    except (NoIdentity, SeveralIdentities):
        return  # said below
    identity = chosen.identity
    if identity is None:
        return
    params = RegisterParams(
        name=identity.name,
        role=identity.role,
        module=identity.module,
        display=identity.display,
        worktree=str(run.layout().root),
        hostname=run.session.env.get("THRUM_HOSTNAME", ""),
        command="prime",
    )
    try:
        result = await run.call(AGENT_REGISTER, params)
    except AgentNotRegistered:
        return  # said below
    except ThrumError as error:
        if isinstance(error, (PrimeOwnership, CrossWorktree)):
            raise
        run.warnings.append(f"not claimed: {line(error.message.partition(chr(10))[0])}")
        return
    run.warnings += result.warnings
    # A person at a live agent's desk may look: that its process has the name is no news.
    if result.conflict is not None and result.conflict.reason != "name_held":
        run.warnings.append(f"not claimed: {at(identity.name)} is registered elsewhere")


async def _members(run: Run) -> Sequence[wire_types.TeamMember]:
    try:
        team = await run.call(TEAM_LIST, TeamListParams(include_files=False))
    except ThrumError as error:
        run.debug(error.message)
        return ()
    return team.members


async def _unread(run: Run, agent_id: str) -> MessageListResult | None:
    params = MessageListParams(for_agent=agent_id, unread=True, page_size=RECENT_MAX)
    try:
        result = await run.call(MESSAGE_LIST, params)
    except ThrumError as error:
        run.debug(error.message)
        return None
    return result


def _single_agent_mode(run: Run) -> bool:
    try:
        return load_config(run.layout().config_file)[SINGLE_AGENT_MODE]
    except ThrumError as error:
        run.warnings.append(error.message)
        return False


def _files(run: Run, agent_id: str, file: Path | None) -> tuple[Identity | None, Note | None, Note | None, Note | None]:
    """Identity, preamble, project state and notes, as far as they are there."""
    layout = run.layout()
    state = _read(run, lambda: notes.read_project_state(layout))
    if not agent_id:
        return None, None, state, None
    return (
        _read(run, lambda: read_identity(file)) if file is not None else None,
        _read(run, lambda: notes.read_preamble(layout.root, agent_id)),
        state,
        _read(run, lambda: notes.read_notes(layout.root, agent_id)),
    )


def _snapshot(run: Run, agent_id: str) -> str:
    return restart_snapshots.read(str(run.layout().root), agent_id)


def _read(run: Run, read: Callable[[], R]) -> R | None:
    """What `read` gives, or None and a warning."""
    try:
        return read()
    except ThrumError as error:
        run.warnings.append(error.message)
        return None


# -- as text


def markdown(it: _Briefing, rendering: RenderContext) -> str:
    """The briefing, in the order of cli.md §3.10; what there is nothing to say of is left out."""
    blocks = [_identity(it, rendering), _team(it, rendering), _inbox(it, rendering), _how(it), _git(it), _daemon(it)]
    blocks += [_note(it, "## Preamble", it.preamble, "thrum context preamble")] if it.preamble else []
    if it.state and it.state.text != notes.FIRST_PROJECT_STATE:
        blocks.append(_note(it, "## Project state", notes.without_template(it.state), "thrum context show --project"))
    if it.saved:
        head = f"## My notes, saved {rendering.ago(it.saved.updated_at)}"
        blocks.append(_note(it, head, it.saved, "thrum context show --session"))
    if it.snapshot:
        path = restart_snapshots.path_of("", it.me.agent_id if it.me else "")
        blocks.append(framed("## Before the restart", path, it.snapshot))
    return "\n\n".join(block for block in blocks if block)


def _note(it: _Briefing, head: str, note: Note, whole: str) -> str:
    """A file in its frame; of a long one the beginning, and below the frame the command that shows all of it."""
    kept, rest = beginning(note.text, _NOTE_BYTES_MAX)
    text = framed(head, it.shown(note), kept)
    return f"{text}\n… {rest} more bytes: {whole}" if rest else text


def _identity(it: _Briefing, rendering: RenderContext) -> str:
    if it.me is None or (it.look is not None and it.look.member is None):
        return "# thrum\n" + you(it.me, None, rendering, it.no_identity)
    me, member = it.me, it.look.member if it.look else None
    lines = [f"# {at(me.agent_id)} ({line(me.role)}, {line(me.module)})", f"- Session: {_session(me, rendering)}"]
    lines += [f"- Intent: {line(me.intent)}"] if me.intent else []
    lines += [f"- Task: {line(member.current_task)}"] if member and member.current_task else []
    lines += [f"- Status: {status(member)}"] if member and status(member) else []
    lines += [f"- Name: {namesake(me.agent_id, me.namesakes)}"] if me.namesakes else []
    return "\n".join(lines)


def _session(me: WhoamiResult, rendering: RenderContext) -> str:
    """Since when it is open; its id is nothing that anybody types."""
    return active_since(me, rendering) or session_text(me, rendering)


def _team(it: _Briefing, rendering: RenderContext) -> str:
    if it.look is None or it.single:
        return ""
    mine = it.me.agent_id if it.me else ""
    others = [each for each in it.team if each.agent_id != mine]
    active = {each.agent_id for each in it.team}
    offline = sum(each.kind == "agent" and each.agent_id not in {*active, mine} for each in it.look.agents)
    head = f"## Team: {f'{len(others)} other' if others else 'no one else'} active"
    head += f", {offline} offline (thrum team --all)" if offline else ""
    return "\n".join([head, *(_teammate(each, rendering) for each in others)])


def _teammate(each: wire_types.TeamMember, rendering: RenderContext) -> str:
    """Who it is and what, whether its process is gone, its branch, its intent, when it was seen."""
    role = role_beside(each.agent_id, each.role)
    gone = " WORKTREE GONE" if each.worktree_missing else " NOT RUNNING" if each.pid_live is False else ""
    name = at(each.agent_id) + (f" ({role})" if role else "") + gone
    name += " (another clone has one of that name)" if each.namesakes else ""
    intent = shorten(line(each.intent), _INTENT_COLUMNS)
    branch = f"on {line(each.branch)}" if each.branch else ""
    state = status(each)
    return "- " + "  ".join(text for text in (name, branch, state, intent, rendering.ago(each.last_seen)) if text)


def _how(it: _Briefing) -> str:
    """How to send and to keep notes, for agents that may."""
    if it.me is None or (it.look is not None and it.look.member is None):
        return ""
    return "\n".join(["## How", *(() if it.single else _TALK), _KEEP])


def _inbox(it: _Briefing, rendering: RenderContext) -> str:
    member = it.look.member if it.look else None
    if member is None or it.single:
        return ""
    lines = [f"## Inbox: {member.inbox_unread} unread / {member.inbox_total} total"]
    lines[0] += ": `thrum inbox`" if member.inbox_unread else ""
    for each in it.inbox.messages if it.inbox else ():
        first = next((text for text in each.body.content.splitlines() if text.strip()), "")
        said = shorten(preview(first), _PREVIEW_COLUMNS)
        by = author(each.agent_id, each.origin_daemon, each.is_namesake, rendering)
        lines.append(f"- {line(short_message_id(each.message_id))} {by} {rendering.ago(each.created_at)}: {said}")
    return "\n".join(lines)


def _git(it: _Briefing) -> str:
    member = it.look.member if it.look else None
    if member is None:
        return f"## Git: {line(it.me.branch)}" if it.me and it.me.branch else ""
    return f"## Git: {branch_text(member) or 'no branch'}"


def _daemon(it: _Briefing) -> str:
    if it.look is None:
        return "## Daemon: not running (thrum daemon start)"
    health = it.look.health
    problems = "".join(f"; {one_line(problem)}" for problem in health.problems)
    return f"## Daemon: running, sync {line(health.sync_state)}{problems}"


# -- as JSON


def _document(it: _Briefing, root: str) -> dict[str, Any]:
    document: dict[str, Any] = {"initialized": True}
    me, look = it.me, it.look
    if me is not None:
        document["identity"] = me
        session = {"session_id": me.session_id, "started_at": me.session_start, "intent": me.intent}
        if me.session_id:
            document["session"] = {key: value for key, value in session.items() if value}
    if look is not None:
        active = {each.agent_id for each in look.contexts}
        listed = [each for each in look.agents if each.agent_id in active]
        document["agents"] = {"total": len(look.agents), "active": len(listed), "list": listed}
    if look is not None and look.member is not None and not it.single:
        messages: dict[str, Any] = {"unread": look.member.inbox_unread, "total": look.member.inbox_total}
        document["messages"] = messages | ({"recent": it.inbox.messages} if it.inbox else {})
    if me is not None:
        document["work_context"] = _work(me, look)
    document["sync_state"] = _sync(look)
    document["repo_path"] = root
    texts: Sequence[tuple[str, str]] = (
        ("runtime", it.identity.runtime if it.identity else ""),
        ("preamble", it.preamble.text if it.preamble else ""),
        ("project_state", it.state.text if it.state else ""),
        ("saved_session_context", it.saved.text if it.saved else ""),
        ("restart_snapshot", it.snapshot),
    )
    document |= {key: text for key, text in texts if text}
    return document | ({"single_agent_mode": True} if it.single else {})


def _work(me: WhoamiResult, look: Look | None) -> dict[str, Any]:
    member = look.member if look else None
    branch = member.branch if member else me.branch
    work: dict[str, Any] = {"branch": branch} if branch else {}
    if member is None:
        why = "no daemon is running" if look is None else "not registered here"
        return work | {"unmerged_commits": 0, "error": why}
    changed = [change.path for change in member.file_changes]
    return work | ({"uncommitted_files": changed} if changed else {}) | {"unmerged_commits": member.unmerged_commits}


def _sync(look: Look | None) -> dict[str, Any]:
    if look is None:
        return {"daemon_status": "stopped"}
    health = look.health
    return {
        "daemon_status": "running",
        "uptime_ms": health.uptime_ms,
        "sync_state": health.sync_state,
        "version": health.version,
    }
