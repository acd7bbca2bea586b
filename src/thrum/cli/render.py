"""Rendering results for people. Pure: structs and the current time in, text out. Source: cli.md §5.

Foreign text is made harmless in the one place that all output passes (`Run.write`); here `line` keeps it on its one
line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from thrum.cli.text import clean, columns, indent, line, one_line, plural, preview, shorten
from thrum.cli.values import absolute, age, since, span
from thrum.model import events, limits, wire_types
from thrum.model.clock import format_ms
from thrum.model.ids import mention, parse_agent_id, short_daemon_id, short_message_id
from thrum.model.methods.agents import WhoamiResult
from thrum.model.methods.daemon import HealthResult
from thrum.model.methods.messages import MessageListResult, OutboxResult, SendResult
from thrum.wake import why

THRUMS_OWN = ("mention", "reply_to", "group", "broadcast")
"""Types of refs and scopes that thrum sets itself; they are shown as whom a message is to."""

_PREVIEWED_CHARS = 1_000
"""Of a body that is shown on one line: it may have a million."""


@dataclass(frozen=True, slots=True)
class RenderContext:
    """Who reads the text, and when."""

    now_ms: int
    width: int = 0
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Host names of other daemons, by their ids."""

    def ago(self, time: str) -> str:
        return age(time, self.now_ms)


def at(agent_id: str) -> str:
    """`@furiosa`; `@implementer` for an unnamed one, whose id is written in its one spelling; all else is a name."""
    return line(mention(agent_id, None if parse_agent_id(agent_id).canonical == agent_id else agent_id))


def address(audience: events.Pair) -> str:
    """An audience as one would write it after `--to`."""
    match audience.type:
        case "agent":
            return at(audience.value)
        case "user":
            return (
                f"@user:{line(audience.value)}"
                if not audience.value.startswith("user:")
                else f"@{line(audience.value)}"
            )
        case _:
            return f"@{line(audience.value)}"


def audience(audiences: Sequence[events.Pair]) -> str:
    """`@nux, @reviewer`; `team` for a post that addresses no one."""
    if not audiences:
        return "team"
    return ", ".join(address(each) for each in audiences)


def pairs(some: Sequence[events.Pair]) -> str:
    return " ".join(f"{line(pair.type)}:{line(pair.value)}" for pair in some)


def _given(some: Sequence[events.Pair]) -> list[events.Pair]:
    """What the sender gave."""
    return [pair for pair in some if pair.type not in THRUMS_OWN]


def extras(body: events.Body, scopes: Sequence[events.Pair], refs: Sequence[events.Pair]) -> list[str]:
    """`structured: …`, `scopes: …  refs: …`, where there are any."""
    lines = [f"structured: {line(body.structured)}"] if body.structured else []
    given = (("scopes", pairs(_given(scopes))), ("refs", pairs(_given(refs))))
    parts = [f"{name}: {shown}" for name, shown in given if shown]
    return [*lines, "  ".join(parts)] if parts else lines


# -- messages


def machine(origin_daemon: str, rendering: RenderContext) -> str:
    """` [desk]`: where a message of another daemon says that it is from; `""` for our own."""
    host = rendering.hosts.get(origin_daemon) or short_daemon_id(origin_daemon)
    return f" [{line(host)}]" if host else ""


def author(agent_id: str, origin_daemon: str, is_namesake: bool, rendering: RenderContext) -> str:
    """`@furiosa [desk]`; and for one that only shares an agent's name, `@furiosa [desk: another @furiosa]`."""
    name, place = at(agent_id), machine(origin_daemon, rendering)
    return f"{name}{place[:-1]}: another {name}]" if is_namesake else name + place


def marks(each: wire_types.Message | wire_types.OutMessage | wire_types.Detail, rendering: RenderContext) -> list[str]:
    """What else is to be known of a message: `urgent`, `expired`, `superseded by 8H3KQZ`."""
    found = ["urgent"] if each.urgent else []
    if wire_types.is_expired(each.expires_at, format_ms(rendering.now_ms)):
        found.append("expired")
    if each.superseded_by:
        found.append(f"superseded by {line(short_message_id(each.superseded_by))}")
    return found


def head(each: wire_types.Message, rendering: RenderContext) -> str:
    """The first line of a message of an inbox: id, who to whom, when, what it answers, what became of it (5.4)."""
    by = author(each.agent_id, each.origin_daemon, each.is_namesake, rendering)
    text = f"{'○' if each.is_read else '●'} {line(each.message_id)}  {by} → {audience(each.audiences)}"
    text += f"  {rendering.ago(each.created_at)}"
    if each.reply_to:
        text += f"  ↳ {line(each.reply_to)}"
    if each.updated_at:
        text += "  (edited)"
    if each.deleted:
        text += "  (deleted)"
    return text + "".join(f"  ({mark})" for mark in marks(each, rendering))


def message(each: wire_types.Message, rendering: RenderContext) -> str:
    """A message of an inbox: head, body, extras (5.4)."""
    more = ("  " + text for text in extras(each.body, each.scopes, each.refs))
    return "\n".join([head(each, rendering), indent(each.body.content), *more])


def messages(some: Sequence[wire_types.Message], rendering: RenderContext) -> str:
    return "\n".join(message(each, rendering) for each in some)


def showing(result: MessageListResult | OutboxResult, *, counted: bool) -> str:
    """`Showing 1-3 of 12 messages (2 unread)`."""
    total = result.total or 0
    if not result.messages:
        return f"No messages on page {result.page} ({plural(total, 'message')})."
    first = (result.page - 1) * result.page_size + 1
    text = f"Showing {first}-{first + len(result.messages) - 1} of {plural(total, 'message')}"
    return text + (f" ({result.unread} unread)" if counted and isinstance(result, MessageListResult) else "")


def sent(result: SendResult) -> str:
    """The `To:` line after sending (5.3)."""
    wide = any(each.type in ("role", "group", "broadcast") for each in result.audiences)
    notes = [plural(result.resolved_to, "recipient" if wide else "agent")] if wide or not result.audiences else []
    if result.quiet:
        notes.append("nobody woken")
    return f"  To: {audience(result.audiences)}" + (f" ({', '.join(notes)})" if notes else "")


def reached(each: wire_types.Recipient) -> tuple[str, str]:
    """How far a message came with a recipient, and when: the highest state (wake.md §2)."""
    if each.replied_at:
        return "replied", each.replied_at
    if each.read_at:
        return "read", each.read_at
    if each.seen_at:
        return "seen", each.seen_at
    if each.offered_at:
        return "offered", each.offered_at
    return ("delivered", each.delivered_at) if each.delivered_at else ("stored", each.stored_at)


def state(each: wire_types.Recipient) -> str:
    """The highest state, and why it is not higher: `delivered: dialog open 3m`."""
    name, _ = reached(each)
    said = line(each.why).removeprefix("offered: ") if name == "offered" else line(each.why)
    return f"{name}: {said}" if said else name


def not_soon(recipients: Sequence[wire_types.Recipient], shown: int = 3) -> list[str]:
    """A line for each recipient that will not see it soon, at most so many; then how many more there are."""
    late = [each for each in recipients if not why.is_soon(each.why)]
    lines = [f"{at(each.agent_id)}: {line(each.why)}" for each in late[:shown]]
    if len(late) <= shown:
        return lines
    at_least = "at least " if len(recipients) > limits.recipients_looked_at_max else ""
    return [*lines, f"and {at_least}{len(late) - shown} more: thrum sent"]


def first_line(content: str) -> str:
    """Of a body its first line that says something, with `…` where more follows."""
    first, *rest = [text for text in content.splitlines() if text.strip()] or [""]
    return preview(first[:_PREVIEWED_CHARS]) + ("…" if rest or len(first) > _PREVIEWED_CHARS else "")


def out_message(each: wire_types.OutMessage, rendering: RenderContext, gone: Collection[str] = ()) -> str:
    """What I wrote, and who has read it; agents in `gone` never will. Where the first line says it all, it stands
    alone."""
    present = [one for one in each.recipients if one.read_at or one.agent_id not in gone]
    head = f"{line(each.message_id)}  {rendering.ago(each.created_at)}  to {audience(each.audiences)}"
    head += f"  {each.read_count}/{len(present)} read" + ("  (edited)" if each.updated_at else "")
    if each.origin_daemon:
        head += f"  written on{machine(each.origin_daemon, rendering)}"
    head += "".join(f"  ({mark})" for mark in marks(each, rendering))
    lines = [head, "  " + shorten(first_line(each.body.content), rendering.width - 2 if rendering.width else 0)]
    is_post = each.quiet and not each.audiences
    one_by_one = all(pair.type in ("agent", "user") for pair in each.audiences) and not is_post
    if each.recipients and not (one_by_one and all(one.read_at for one in each.recipients)):
        states = [f"{at(one.agent_id)}({state(one) if one in present else 'gone'})" for one in each.recipients]
        lines.append(f"  Recipients: {', '.join(states)}")
    return "\n".join(lines)


def detail(each: wire_types.Detail, rendering: RenderContext, *, own: bool = False) -> str:
    """One message in full: labelled lines, a blank one, the body. `own`: for its author, how far it came, too."""
    edited = f"{absolute(each.updated_at)} (version {each.version})" if each.updated_at and each.version else ""
    status = ""
    if each.deleted:
        reason = line(each.metadata.delete_reason)
        status = f"DELETED {absolute(each.metadata.deleted_at)}".rstrip() + (f": {reason}" if reason else "")
    status = ", ".join([*([status] if status else []), *marks(each, rendering)])
    lines = labelled(
        ("Message", line(each.message_id)),
        ("From", author(each.author.agent_id, each.origin_daemon, each.is_namesake, rendering)),
        ("Time", f"{absolute(each.created_at)} ({rendering.ago(each.created_at)})"),
        ("To", audience(each.audiences)),
        ("Reply to", line(each.reply_to)),
        ("Replaces", line(each.supersedes)),
        ("Expires", absolute(each.expires_at)),
        ("Scopes", pairs(_given(each.scopes))),
        ("Refs", pairs(_given(each.refs))),
        ("Edited", edited),
        ("Status", status),
        ("Reached", ", ".join(_reached(one, rendering) for one in each.recipients) if own else ""),
    )
    structured = [f"\nstructured: {line(each.body.structured)}"] if each.body.structured else []
    # Indented, as in the inbox: no body can be taken for a line of thrum's.
    return "\n".join([lines, "", indent(each.body.content), *structured])


def _reached(each: wire_types.Recipient, rendering: RenderContext) -> str:
    name, when = reached(each)
    said = state(each).removeprefix(name)
    return f"{at(each.agent_id)} {name} {rendering.ago(when)}{said}"


def answered(parent: wire_types.Detail) -> str:
    """The line of `reply` that says what was answered: one may have meant another message (3.4)."""
    said = shorten(preview(parent.body.content[:_PREVIEWED_CHARS]), 60)
    return f"  In reply to: {line(parent.message_id)} {at(parent.author.agent_id)}: {said}"


def next_step(some: Sequence[wire_types.Message], *, are_read: bool = False) -> str:
    """What to do with what `wait` brought (5.5); also the JSON's `action`. Ids stand above: here their ends do, and no
    others than those are marked, if that is still to be done."""
    ends = [line(short_message_id(each.message_id)) for each in some]
    target = ends[0] if len(ends) == 1 else "MSG_ID"
    mark = "" if are_read else f"  (mark as read: thrum message read {' '.join(ends)})"
    return f'thrum reply {target} "TEXT"{mark}'


def labelled(*fields: tuple[str, str], width: int = 0) -> str:
    """`Label:  value` lines, values in one column; empty ones are left out."""
    shown = [(label + ":", value) for label, value in fields if value]
    pad = width or max((len(label) for label, _ in shown), default=0) + 1
    return "\n".join(f"{label:<{pad}}{value}" for label, value in shown)


# -- agents


def _ahead(count: int) -> str:
    return f" ({plural(count, 'commit')} ahead)" if count else ""


def short_session(session_id: str) -> str:
    """`ses_01HXF2A9...`: only in `Session:` lines."""
    prefix, _, ulid = session_id.partition("_")
    return line(f"{prefix}_{ulid[:8]}...")


def namesake(agent_id: str, hosts: Sequence[str]) -> str:
    """That another clone has an agent of that name, and what ends it; empty without."""
    if not hosts:
        return ""
    where = " and ".join(line(host) for host in hosts)
    return f"shared with another {at(agent_id)}, of a clone on {where} (one of you: thrum agent rename NEW)"


def role_beside(agent_id: str, role: str) -> str:
    """The role of an agent, where its name does not say it already, as an unnamed one's does."""
    return line(role) if at(agent_id) == f"@{line(agent_id)}" else ""


GONE = "gone (thrum agent cleanup)"
"""For a worktree that was removed: its agent is gone, but was not deleted."""


def status(each: wire_types.TeamMember) -> str:
    """The status that an agent was given; idle is how all begin, and is no news."""
    told = "" if each.agent_status == "idle" else line(each.agent_status)
    return f"{told}: {preview(each.asks)}" if each.asks else told


def member(each: wire_types.TeamMember, rendering: RenderContext, *, files: bool = False) -> str:
    """The block of one agent (5.6, 3.8)."""
    head = f"{at(each.agent_id)} [{line(each.status)}] {line(each.module)}" + (
        f" — {line(each.branch)}" if each.branch else ""
    )
    if each.status == "active":
        session = f"{short_session(each.session_id)} (active {since(each.session_start, rendering.now_ms)})"
    else:
        session = "none" + (f" (last seen {rendering.ago(each.last_seen)})" if each.last_seen else "")
    near = each.is_local and each.worktree
    state = "" if each.pid_live is None else " [live]" if each.pid_live else " [stale]"
    tmux = line(each.tmux_session) + (f" [{line(each.tmux_state)}]" if each.tmux_state else "")
    fields = labelled(
        ("PID", f"{each.agent_pid}{state}" if each.agent_pid else ""),
        ("Role", role_beside(each.agent_id, each.role)),
        ("Tmux", tmux),
        ("Host", "" if each.is_local else line(each.hostname)),
        ("Worktree", GONE if each.worktree_missing else line(PurePath(each.worktree).name) if near else ""),
        ("Session", session),
        ("Intent", line(each.intent)),
        ("Task", line(each.current_task)),
        ("Status", status(each)),
        ("Name", namesake(each.agent_id, each.namesakes)),
        # What an agent of another clone has read, and what it got there, is known there.
        ("Inbox", f"{each.inbox_unread} unread / {each.inbox_total} total" if each.is_local else ""),
        ("Branch", line(each.branch) + _ahead(each.unmerged_commits) if near and each.branch else ""),
        width=10,
    )
    lines = [head, fields]
    if files and each.file_changes:
        lines.append("Files:")
        lines += [
            f"  {line(change.path)}  {rendering.ago(change.last_modified)}  +{change.additions} -{change.deletions}"
            for change in each.file_changes
        ]
    return "\n".join(lines)


def agents(
    some: Sequence[wire_types.AgentInfo], members: Sequence[wire_types.TeamMember], rendering: RenderContext
) -> str:
    """The lines of `agent list`: `●` has an open session."""
    by_id = {each.agent_id: each for each in members}
    lines: list[str] = []
    for each in some:
        member = by_id.get(each.agent_id)
        active = member is not None and member.status == "active"
        parts = [f"{'●' if active else '○'} {at(each.agent_id)}", line(each.role), line(each.module)]
        parts += [line(member.branch) if member else "", rendering.ago(each.last_seen_at or each.registered_at)]
        parts += [line(member.intent) if member else "", f"worktree {GONE}" if each.worktree_missing else ""]
        lines.append(shorten("  ".join(part for part in parts if part), rendering.width))
    return "\n".join(lines)


def contexts_table(some: Sequence[wire_types.WorkContext], rendering: RenderContext) -> str:
    """`agent list --context`: the open sessions."""
    rows = [
        [
            at(each.agent_id),
            line(each.session_id),
            line(each.branch),
            str(len(each.unmerged_commits)),
            str(len(each.file_changes or each.uncommitted_files)),
            line(each.intent),
            rendering.ago(max(each.git_updated_at, each.intent_updated_at, each.task_updated_at) or ""),
        ]
        for each in some
    ]
    return table(
        ["AGENT", "SESSION", "BRANCH", "COMMITS", "FILES", "INTENT", "UPDATED"], rows, rendering.width, flexible=5
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, flexible: int) -> str:
    """Columns two blanks apart; when it is too wide the `flexible` one is shortened."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(columns(row[column]) for row in cells) for column in range(len(head))]
    spare = sum(widths) + 2 * (len(head) - 1) - width
    if width and spare > 0:
        widths[flexible] = max(len(head[flexible]), widths[flexible] - spare)
        for row in cells:
            row[flexible] = shorten(row[flexible], widths[flexible])
    return "\n".join(
        "  ".join(cell + " " * (pad - columns(cell)) for cell, pad in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def whoami(me: WhoamiResult, rendering: RenderContext, root: str) -> str:
    """Who would act (5.7); empty fields are left out, but a missing session is said."""
    session = "none (the next change starts one)"
    if me.session_id:
        session = line(me.session_id) + (
            f" (active {since(me.session_start, rendering.now_ms)})" if me.session_start else ""
        )
    file = me.identity_file.removeprefix(root + "/") if root else me.identity_file
    return labelled(
        ("Agent ID", line(me.agent_id)),
        ("Name", namesake(me.agent_id, me.namesakes)),
        ("Role", f"@{line(me.role)}" if me.role else ""),
        ("Module", line(me.module)),
        ("Display", line(me.display)),
        ("Source", me.source),
        ("Session", session),
        ("Branch", line(me.branch)),
        ("Intent", line(me.intent)),
        ("Worktree", line(me.worktree)),
        ("Identity", line(file)),
        width=11,
    )


# -- the daemon


def daemon_status(health: HealthResult, socket: str) -> str:
    """5.10."""
    web = f"http://localhost:{health.websocket_port}" if health.websocket_port else ""
    text = labelled(
        ("Daemon", f"running (pid {health.pid}, up {span(health.uptime_ms)})"),
        ("Version", line(health.version)),
        ("Socket", line(socket)),
        ("Sync", line(health.sync_state)),
        ("Web", web),
        ("Problems", "; ".join(one_line(problem) for problem in health.problems)),
        width=10,
    )
    if health.identity is None:
        return text
    own = health.identity
    fields = labelled(
        ("daemon_id", line(own.daemon_id)),
        ("repo_name", line(own.repo_name)),
        ("hostname", line(own.hostname)),
        ("repo_path", line(own.repo_path)),
        ("git_origin", line(own.git_origin_url)),
        ("init_at", absolute(own.init_at)),
        width=12,
    )
    return f"{text}\n\nIdentity:\n{indent(fields)}"


# -- live events


def hint_line(hint: wire_types.Hint, width: int) -> str:
    """A line of `watch`: time, event, who → whom, what, id; the preview gives way to the width."""
    who = at(hint.from_) if hint.from_ else ""
    if hint.type.startswith("message."):
        to = ", ".join(_to(address) for address in hint.to) or ("team" if hint.quiet else "")
        who += f" → {to}" if to else ""
    head = "  ".join(part for part in (line(f"{hint.at[11:19]}Z"), line(hint.type), who) if part)
    said, tail = preview(hint.preview), line(hint.message_id)
    if width and said:
        # Two blanks on each side; of a narrow terminal's lines at least a few letters are shown.
        said = shorten(said, max(8, width - len(head) - len(tail) - (4 if tail else 2)))
    return clean("  ".join(part for part in (head, said, tail) if part))


def _to(text: str) -> str:
    return line(text) if text.startswith(("@", "+")) else f"@{line(text)}"
