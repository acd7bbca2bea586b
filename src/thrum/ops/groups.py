"""Groups and their members. Source: rpc.md §5 "Team, groups", cli.md 3.22, events.md §9.

Groups with the same name, created in two clones, are one: a change is made in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Never

from thrum.model import clock, ids, limits
from thrum.model.addressing import EVERYONE, suggest
from thrum.model.errors import AgentNotFound, GroupExists, GroupNotFound, NameTaken, NotYours, ProtectedGroup
from thrum.model.events import AnyFact, GroupCreated, GroupDeleted, GroupMemberAdded, GroupMemberRemoved
from thrum.model.methods.groups import (
    GroupCreateParams,
    GroupCreateResult,
    GroupDeleteParams,
    GroupDeleteResult,
    GroupInfoResult,
    GroupListResult,
    GroupMemberParams,
    GroupMemberResult,
    GroupMembersParams,
    GroupMembersResult,
    GroupNameParams,
)
from thrum.model.methods.method import Empty
from thrum.model.wire_types import GroupMember, GroupSummary
from thrum.ops.context import Call, Context, caller_id
from thrum.ops.directory import ViewDirectory
from thrum.ops.drafts import check_text
from thrum.ops.sessions import ensure_session
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import GroupMark, GroupRow, Member, View

ANYBODY: Final = "*"
"""With type role: everyone."""


# -- changes


async def create(ctx: Context, call: Call, params: GroupCreateParams) -> GroupCreateResult:
    """A new group without members. Raises the name rules, NameTaken, GroupExists."""
    caller = caller_id(call)
    name = params.name
    description = check_text(params.description, "description", limits.description_chars_max)

    def decide(view: View, stamp: Stamp) -> Decision[GroupCreateResult]:
        _check_free(view, name)
        _, prelude = ensure_session(view, stamp, caller)
        fact = stamp.make(
            GroupCreated, group_id=stamp.new_id("grp_"), name=name, description=description, created_by=caller
        )
        return Decision([*prelude, fact], lambda _view, _seqs: _created(fact), main=len(prelude))

    def replay(_view: View, fact: AnyFact, _seq: int) -> GroupCreateResult:
        assert isinstance(fact, GroupCreated)
        return _created(fact, replayed=True)

    return await ctx.journal.commit(decide, key=call.key, replay=replay)


def _check_free(view: View, name: str) -> None:
    ids.check_group_name(name, view.agent_ids(), view.roles())
    # A group may not read like an agent's id either: addresses have no choice (identity.md §2).
    other = view.id_differing_in_case(name)
    if other is not None:
        raise NameTaken(f'"{name}" differs from @{other} only by case')
    if view.group(name) is not None:
        raise GroupExists(f"group {name} already exists", remedy=f"thrum group show {name}; or choose another name")


def _created(fact: GroupCreated, *, replayed: bool = False) -> GroupCreateResult:
    return GroupCreateResult(
        group_id=fact.group_id,
        name=fact.name,
        description=fact.description,
        created_at=fact.timestamp,
        created_by=fact.created_by,
        replayed=replayed,
    )


async def delete(ctx: Context, call: Call, params: GroupDeleteParams) -> GroupDeleteResult:
    """Delete a group for good; messages that were sent to it stay. Raises GroupNotFound, ProtectedGroup."""
    caller = caller_id(call)
    _check_unprotected(params.name)

    def decide(view: View, stamp: Stamp) -> Decision[GroupDeleteResult]:
        marks = view.group_marks(params.name) or _missing(view, params.name)
        marks = [mark for mark in marks if view.is_ours(mark.origin_daemon)] or _not_ours(params.name)
        _, prelude = ensure_session(view, stamp, caller)
        facts = [stamp.make(GroupDeleted, group_id=mark.group_id, deleted_by=caller) for mark in marks]
        result = GroupDeleteResult(name=params.name, deleted_at=facts[0].timestamp)
        return Decision([*prelude, *facts], lambda _view, _seqs: result, main=len(prelude))

    def replay(_view: View, fact: AnyFact, _seq: int) -> GroupDeleteResult:
        return GroupDeleteResult(name=params.name, deleted_at=fact.timestamp)

    return await ctx.journal.commit(decide, key=call.key, replay=replay)


async def add_member(ctx: Context, call: Call, params: GroupMemberParams) -> GroupMemberResult:
    """Make an agent or a role a member; one that is already is left as it is, `changed` says so.

    A role need not have an agent yet: it is resolved when a message is sent. Raises GroupNotFound, ProtectedGroup,
    AgentNotFound, the name rules of roles.
    """
    caller = caller_id(call)
    _check_unprotected(params.group)
    kind = params.member_type

    def decide(view: View, stamp: Stamp) -> Decision[GroupMemberResult]:
        if not view.group_marks(params.group):
            _missing(view, params.group)
        value = _member_value(view, kind, params.member_value)
        marks = view.group_marks(params.group, kind, value)
        if any(mark.member for mark in marks):
            return _unchanged(params, value)
        marks = [mark for mark in marks if _may_change(view, mark, kind, value)] or _not_ours(params.group)
        _, prelude = ensure_session(view, stamp, caller)
        row = view.agent(value) if kind == "agent" else None
        fact = stamp.make(
            GroupMemberAdded,
            at=stamp.later_than(max(marks[0].removed_at, row.registered_at if row else "")),
            group_id=marks[0].group_id,
            member_type=kind,
            member_value=value,
            added_by=caller,
        )
        return _changed(params, value, prelude, [fact])

    return await ctx.journal.commit(decide, key=call.key, replay=lambda _view, fact, _seq: _again(params, fact))


async def remove_member(ctx: Context, call: Call, params: GroupMemberParams) -> GroupMemberResult:
    """Take an agent or a role out; who is no member is left as it is, `changed` says so.

    Raises GroupNotFound, ProtectedGroup.
    """
    caller = caller_id(call)
    _check_unprotected(params.group)
    kind = params.member_type

    def decide(view: View, stamp: Stamp) -> Decision[GroupMemberResult]:
        value = params.member_value
        if kind == "agent" and not any(mark.member for mark in view.group_marks(params.group, kind, value)):
            value = ids.parse_agent_id(value).canonical
        marks = view.group_marks(params.group, kind, value) or _missing(view, params.group)
        if not any(mark.member for mark in marks):
            return _unchanged(params, value)
        marks = [mark for mark in marks if mark.member and _may_change(view, mark, kind, value)] or _not_ours(
            params.group
        )
        _, prelude = ensure_session(view, stamp, caller)
        facts = [
            stamp.make(
                GroupMemberRemoved,
                # At the same time adding would win.
                at=stamp.later_than(mark.added_at),
                group_id=mark.group_id,
                member_type=kind,
                member_value=value,
                removed_by=caller,
            )
            for mark in marks
        ]
        return _changed(params, value, prelude, facts)

    return await ctx.journal.commit(decide, key=call.key, replay=lambda _view, fact, _seq: _again(params, fact))


def _may_change(view: View, mark: GroupMark, kind: str, value: str) -> bool:
    """A group is changed where it was made; but who is registered here joins and leaves here."""
    return view.is_ours(mark.origin_daemon) or (kind == "agent" and view.registered_here(value))


def _not_ours(name: str) -> Never:
    raise NotYours(
        f"group {name} was made on another machine", remedy="change it there; your own agents may join and leave here"
    )


def _check_unprotected(name: str) -> None:
    if name == EVERYONE:
        raise ProtectedGroup(f"@{EVERYONE} cannot be changed", remedy="thrum group create NAME makes one of your own")


def _member_value(view: View, kind: str, value: str) -> str:
    """The one spelling of a member. Raises AgentNotFound, or what is wrong with a role."""
    if kind == "role":
        if value != ANYBODY:
            ids.check_role(value, other_names=view.agent_ids(), groups=view.groups())
        return value
    for spelling in (value, ids.parse_agent_id(value).canonical):
        row = view.agent(spelling)
        if row is not None and row.live:
            return spelling
    close = suggest(value, view.agent_ids())
    advice = f"did you mean {' or '.join('@' + name for name in close)}? " if close else ""
    raise AgentNotFound(f"agent not found: {value}", remedy=f"{advice}thrum agent list", suggestions=close or None)


def _unchanged(params: GroupMemberParams, value: str) -> Decision[GroupMemberResult]:
    result = GroupMemberResult(group=params.group, member_type=params.member_type, member_value=value, changed=False)
    return Decision([], lambda _view, _seqs: result)


def _changed(
    params: GroupMemberParams, value: str, prelude: Sequence[AnyFact], facts: Sequence[AnyFact]
) -> Decision[GroupMemberResult]:
    result = GroupMemberResult(group=params.group, member_type=params.member_type, member_value=value, changed=True)
    return Decision([*prelude, *facts], lambda _view, _seqs: result, main=len(prelude))


def _again(params: GroupMemberParams, fact: AnyFact) -> GroupMemberResult:
    assert isinstance(fact, GroupMemberAdded | GroupMemberRemoved)
    return GroupMemberResult(
        group=params.group, member_type=fact.member_type, member_value=fact.member_value, changed=True
    )


# -- looks


async def list_groups(ctx: Context, _call: Call, _params: Empty) -> GroupListResult:
    """Every group by name, `@everyone` first."""
    rows = [_everyone(ctx), *(row for name in ctx.view.groups() if (row := ctx.view.group(name)))]
    return GroupListResult(
        groups=tuple(
            GroupSummary(
                group_id=row.group_id,
                name=row.name,
                description=row.description,
                member_count=len(row.members),
                created_at=row.created_at,
            )
            for row in rows
        )
    )


async def info(ctx: Context, _call: Call, params: GroupNameParams) -> GroupInfoResult:
    """One group with its members. Raises GroupNotFound."""
    row = _group(ctx, params.name)
    return GroupInfoResult(
        group_id=row.group_id,
        name=row.name,
        description=row.description,
        created_at=row.created_at,
        created_by=row.created_by,
        members=_members(row),
    )


async def members(ctx: Context, _call: Call, params: GroupMembersParams) -> GroupMembersResult:
    """A group's members; with `expand` also the ids that a message to it would reach now. Raises GroupNotFound."""
    row = _group(ctx, params.name)
    return GroupMembersResult(members=_members(row), expanded=_expanded(ctx.view, row) if params.expand else None)


def _group(ctx: Context, name: str) -> GroupRow:
    if name == EVERYONE:
        return _everyone(ctx)
    row = ctx.view.group(name)
    return row if row is not None else _missing(ctx.view, name)


def _missing(view: View, name: str) -> Never:
    close = suggest(name, [EVERYONE, *view.groups()])
    advice = f"did you mean {' or '.join(close)}? " if close else ""
    raise GroupNotFound(f"group not found: {name}", remedy=f"{advice}thrum group list", suggestions=close or None)


def _everyone(ctx: Context) -> GroupRow:
    """The group that is there from the beginning and in no journal. Its age is the daemon's."""
    born_ms = ids.ulid_ms(ctx.here.daemon_id) or 0
    return GroupRow(
        EVERYONE, EVERYONE, "every agent and user", clock.format_ms(born_ms), "system", (Member("role", ANYBODY),)
    )


def _members(row: GroupRow) -> tuple[GroupMember, ...]:
    return tuple(
        GroupMember(
            member_type=member.member_type,
            member_value=member.member_value,
            added_at=member.added_at or row.created_at,
            added_by=member.added_by,
        )
        for member in row.members
    )


def _expanded(view: View, row: GroupRow) -> tuple[str, ...]:
    directory = ViewDirectory(view)
    found: set[str] = set()
    for member in row.members:
        if member.member_type == "agent":
            found |= {member.member_value} if directory.is_agent(member.member_value) else set()
        elif member.member_value == ANYBODY:
            found |= set(directory.everyone())
        else:
            found |= set(directory.with_role(member.member_value))
    return tuple(sorted(found))
