"""Sessions of agents: start, intent, task, heartbeat, end."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model.events import FileChange, Pair
from thrum.model.methods.method import Access, Method, Mutating, Params
from thrum.model.wire_types import Session


class SessionStartParams(Mutating, kw_only=True):
    agent_id: str = ""
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    resume: bool = False


class SessionStartResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    session_id: str
    agent_id: str
    started_at: str
    resumed: bool = False
    replayed: bool = False


SESSION_START: Final = Method(
    name="session.start", params=SessionStartParams, result=SessionStartResult, access=Access.BOOTSTRAP
)


class SetIntentParams(Mutating, kw_only=True):
    session_id: str = ""
    intent: str


class SetIntentResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    session_id: str
    intent: str
    intent_updated_at: str
    replayed: bool = False


SESSION_SET_INTENT: Final = Method(
    name="session.setIntent", params=SetIntentParams, result=SetIntentResult, access=Access.BOOTSTRAP
)


class SetTaskParams(Mutating, kw_only=True):
    session_id: str = ""
    current_task: str


class SetTaskResult(msgspec.Struct, kw_only=True):
    session_id: str
    current_task: str
    task_updated_at: str


SESSION_SET_TASK: Final = Method(name="session.setTask", params=SetTaskParams, result=SetTaskResult)


class HeartbeatParams(Mutating, kw_only=True):
    session_id: str = ""
    add_scopes: tuple[Pair, ...] = ()
    remove_scopes: tuple[Pair, ...] = ()
    add_refs: tuple[Pair, ...] = ()
    remove_refs: tuple[Pair, ...] = ()


class HeartbeatResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    session_id: str
    last_seen_at: str
    branch: str = ""
    unmerged_commits: int | None = None
    file_changes: tuple[FileChange, ...] = ()
    warnings: tuple[str, ...] = ()


SESSION_HEARTBEAT: Final = Method(name="session.heartbeat", params=HeartbeatParams, result=HeartbeatResult)


class SessionEndParams(Mutating, kw_only=True):
    session_id: str = ""
    reason: Literal["normal", "crash", "superseded"] = "normal"


class SessionEndResult(msgspec.Struct, kw_only=True):
    session_id: str
    ended_at: str
    duration_ms: int


SESSION_END: Final = Method(name="session.end", params=SessionEndParams, result=SessionEndResult)


class SessionListParams(Params, kw_only=True):
    agent_id: str = ""
    active_only: bool = False


class SessionListResult(msgspec.Struct):
    sessions: tuple[Session, ...]


SESSION_LIST: Final = Method(
    name="session.list", params=SessionListParams, result=SessionListResult, access=Access.ANONYMOUS
)
