"""group create|delete|add|remove|list|show|members. Source: cli.md §3.22."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from thrum.cli.confirm import confirm
from thrum.cli.parser import RUN, did_you_mean, near, option, switch, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import columns, line, plural, preview
from thrum.cli.values import age, parse_agent
from thrum.model.addressing import EVERYONE
from thrum.model.errors import AgentNotFound, ProtectedGroup
from thrum.model.methods.agents import AGENT_LIST, AgentListParams
from thrum.model.methods.groups import (
    GROUP_CREATE,
    GROUP_DELETE,
    GROUP_INFO,
    GROUP_LIST,
    GROUP_MEMBER_ADD,
    GROUP_MEMBER_REMOVE,
    GROUP_MEMBERS,
    GroupCreateParams,
    GroupDeleteParams,
    GroupMemberParams,
    GroupMemberResult,
    GroupMembersParams,
    GroupNameParams,
)
from thrum.model.methods.method import Empty, Method
from thrum.model.wire_types import GroupMember

Name = Annotated[str, word("NAME", "the group")]
Members = Annotated[tuple[str, ...], word("MEMBER", "agents or roles")]


def _bare(name: str) -> str:
    return name.removeprefix("@")


async def create(
    name: Name,
    /,
    *,
    description: Annotated[str, option("T", "what it is for")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    params = GroupCreateParams(name=_bare(name), description=description)
    result = await run.call(GROUP_CREATE, params)
    document: dict[str, Any] = msgspec.to_builtins(result)
    document.pop("replayed", None)
    return Answer(document, said=f"✓ Group created: {result.name}")


async def delete(
    name: Name,
    /,
    *,
    yes: Annotated[bool, switch("don't ask", "--yes", "--force")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    name = _bare(name)
    if not yes:
        # Don't ask about what cannot be deleted.
        found = await run.call(GROUP_INFO, GroupNameParams(name=name))
        if found.name == EVERYONE:
            raise ProtectedGroup(f"@{EVERYONE} cannot be changed")
        await confirm(run, f"Delete group '{found.name}' ({plural(len(found.members), 'member')})?")
    result = await run.call(GROUP_DELETE, GroupDeleteParams(name=name))
    return Answer(result, said=f"✓ Group deleted: {result.name}")


# -- members


async def add(name: Name, members: Members = (), /, *, run: Annotated[Run, RUN]) -> Answer:
    run.identity()
    wanted = await _wanted(run, members)
    results = [await _change(run, GROUP_MEMBER_ADD, name, kind, value) for kind, value in wanted]
    return _changed(_bare(name), results, "✓ Added {} to {}", "{} is already in {}")


async def remove(name: Name, members: Members = (), /, *, run: Annotated[Run, RUN]) -> Answer:
    run.identity()
    there = await run.call(GROUP_MEMBERS, GroupMembersParams(name=_bare(name)))
    roles = {each.member_value for each in there.members if each.member_type == "role"}
    agents = {each.member_value for each in there.members if each.member_type == "agent"}
    wanted: list[tuple[str, str]] = []
    for member in members:
        # An agent that left the team may still be named: then nothing is removed, and that is fine.
        is_role = _bare(member) in roles and parse_agent(member) not in agents
        wanted.append(("role", _bare(member)) if is_role else ("agent", parse_agent(member)))
    wanted += _role(run)
    _check_some(run, wanted)
    results = [await _change(run, GROUP_MEMBER_REMOVE, name, kind, value) for kind, value in wanted]
    return _changed(_bare(name), results, "✓ Removed {} from {}", "{} is not in {}")


async def _wanted(run: Run, members: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each member as an agent, else as a role: all of them, before any is added. Raises AgentNotFound."""
    wanted: list[tuple[str, str]] = []
    if members:
        known = await run.call(AGENT_LIST, AgentListParams())
        ids = {each.agent_id for each in known.agents}
        roles = {each.role for each in known.agents if each.kind == "agent"}
        for member in members:
            bare = _bare(member)
            if bare in ids or parse_agent(member) in ids:
                wanted.append(("agent", bare if bare in ids else parse_agent(member)))
            elif bare in roles:
                wanted.append(("role", bare))
            else:
                close = near(bare, [*ids, *roles])
                advice = did_you_mean([f"@{each}" for each in close])
                remedy = "; ".join(part for part in (advice, "thrum agent list", "of a role: --role R") if part)
                raise AgentNotFound(f"agent not found: {bare}", remedy=remedy, suggestions=close or None)
    wanted += _role(run)
    _check_some(run, wanted)
    return wanted


def _role(run: Run) -> list[tuple[str, str]]:
    return [("role", _bare(run.flags.role))] if run.flags.role else []


def _check_some(run: Run, wanted: list[tuple[str, str]]) -> None:
    if not wanted:
        raise run.command.error("MEMBER is missing", "name @AGENT, or --role R")


async def _change(
    run: Run, method: Method[GroupMemberParams, GroupMemberResult], group: str, kind: str, value: str
) -> GroupMemberResult:
    return await run.call(method, GroupMemberParams(group=_bare(group), member_type=_KINDS[kind], member_value=value))


_KINDS: dict[str, Any] = {"agent": "agent", "role": "role"}


def _changed(group: str, results: list[GroupMemberResult], done: str, nothing: str) -> Answer:
    members = [
        {"member_type": each.member_type, "member_value": each.member_value, "changed": each.changed}
        for each in results
    ]
    said = [
        (done if each.changed else nothing).format(_member(each.member_type, each.member_value), group)
        for each in results
    ]
    return Answer({"group": group, "members": members}, said=said)


def _member(kind: str, value: str) -> str:
    if kind == "agent":
        return f"@{value}"
    return f"@{EVERYONE}" if value == "*" else f"@{value} (role)"


# -- looks


async def list_groups(*, run: Annotated[Run, RUN]) -> Answer:
    result = await run.call(GROUP_LIST, Empty())
    names = [line(each.name) for each in result.groups]
    width = max((columns(each) for each in names), default=0)
    lines = [
        "  ".join(
            part
            for part in (
                f"@{name}{' ' * (width - columns(name))}",
                "everybody" if each.name == EVERYONE else plural(each.member_count, "member"),
                "" if each.name == EVERYONE else preview(each.description),
            )
            if part
        )
        for name, each in zip(names, result.groups, strict=True)
    ]
    return Answer(result, said=f"Groups ({len(lines)}):", data="\n".join(lines))


async def show(name: Name, /, *, run: Annotated[Run, RUN]) -> Answer:
    result = await run.call(GROUP_INFO, GroupNameParams(name=_bare(name)))
    lines = [f"Group:        @{line(result.name)}"]
    if result.description:
        lines.append(f"Description:  {preview(result.description)}")
    lines.append(f"Created:      {age(result.created_at, run.now_ms)} by @{line(result.created_by)}")
    lines.append(f"Members:      {len(result.members) or 'none'}")
    lines += [f"  {each}" for each in _lines(result.members)]
    return Answer(result, data="\n".join(lines))


async def members(
    name: Name,
    /,
    *,
    expand: Annotated[bool, switch("also list who a message would reach now")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    params = GroupMembersParams(name=_bare(name), expand=expand)
    result = await run.call(GROUP_MEMBERS, params)
    lines = _lines(result.members)
    if result.expanded is not None:
        lines.append(f"Reaches: {', '.join('@' + line(each) for each in result.expanded) or 'nobody'}")
    said = "" if result.members else f"No members in {_bare(name)}."
    return Answer(result, said=said, data="\n".join(lines))


def _lines(some: tuple[GroupMember, ...]) -> list[str]:
    return [line(_member(each.member_type, each.member_value)) for each in some]
