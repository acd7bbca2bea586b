"""Groups: named sets of recipients, and their members."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Mutating, Params
from thrum.model.wire_types import GroupMember, GroupSummary


class GroupNameParams(Params, kw_only=True):
    name: str


class GroupCreateParams(Mutating, kw_only=True):
    name: str
    description: str = ""


class GroupCreateResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    group_id: str
    name: str
    description: str = ""
    created_at: str
    created_by: str
    replayed: bool = False


GROUP_CREATE: Final = Method(name="group.create", params=GroupCreateParams, result=GroupCreateResult)


class GroupDeleteParams(Mutating, kw_only=True):
    name: str


class GroupDeleteResult(msgspec.Struct, kw_only=True):
    name: str
    deleted_at: str


GROUP_DELETE: Final = Method(name="group.delete", params=GroupDeleteParams, result=GroupDeleteResult)


class GroupMemberParams(Mutating, kw_only=True):
    group: str
    member_type: Literal["agent", "role"]
    member_value: str


class GroupMemberResult(msgspec.Struct, kw_only=True):
    group: str
    member_type: str
    member_value: str
    changed: bool


GROUP_MEMBER_ADD: Final = Method(name="group.member.add", params=GroupMemberParams, result=GroupMemberResult)
GROUP_MEMBER_REMOVE: Final = Method(name="group.member.remove", params=GroupMemberParams, result=GroupMemberResult)


class GroupListResult(msgspec.Struct):
    groups: tuple[GroupSummary, ...]


GROUP_LIST: Final = Method(name="group.list", params=Empty, result=GroupListResult, access=Access.ANONYMOUS)


class GroupInfoResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    group_id: str
    name: str
    description: str = ""
    created_at: str
    created_by: str
    members: tuple[GroupMember, ...]


GROUP_INFO: Final = Method(name="group.info", params=GroupNameParams, result=GroupInfoResult, access=Access.ANONYMOUS)


class GroupMembersParams(Params, kw_only=True):
    name: str
    expand: bool = False


class GroupMembersResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    members: tuple[GroupMember, ...]
    expanded: tuple[str, ...] | None = None


GROUP_MEMBERS: Final = Method(
    name="group.members", params=GroupMembersParams, result=GroupMembersResult, access=Access.ANONYMOUS
)
