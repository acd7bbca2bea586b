"""Agents: who is registered, what each works on, and how they come and go."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Mutating, Params
from thrum.model.wire_types import AgentInfo, Orphan, SharedMessages, TeamMember, WorkContext


class RegisterParams(Mutating, kw_only=True):
    """`command`: what the registration is part of; `quickstart` and `prime` have guards and duties of their own
    (identity.md §8.3, §8.4, §12), which the daemon alone can judge. `becomes_runtime`: the caller's own process is
    recorded, whatever it runs now: it is about to turn into the agent's runtime.
    """

    name: str = ""
    role: str
    module: str
    display: str = ""
    force: bool = False
    re_register: bool = False
    agent_pid: int = 0
    bind_pid: bool = True
    becomes_runtime: bool = False
    worktree: str = ""
    hostname: str = ""
    runtime: str = ""
    command: Literal["register", "quickstart", "prime"] = "register"


class RegisterConflict(msgspec.Struct, omit_defaults=True, kw_only=True):
    existing_agent_id: str
    registered_at: str
    last_seen_at: str
    conflict_pid: int = 0
    reason: Literal["same_role_module", "name_held", "other_worktree", "other_daemon"]
    worktree: str = ""
    """Where the other is: the root's path, of another clone its name alone."""
    is_dead: bool = False
    """Its process was recorded and is gone."""
    origin_daemon: str = ""
    """For an agent of another clone: its daemon, and the name of its machine."""
    hostname: str = ""


class RegisterResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    status: Literal["registered", "updated", "conflict"]
    session_id: str = ""
    session_resumed: bool = False
    conflict: RegisterConflict | None = None
    warnings: tuple[str, ...] = ()


AGENT_REGISTER: Final = Method(
    name="agent.register", params=RegisterParams, result=RegisterResult, access=Access.BOOTSTRAP, transports="U"
)


class WhoamiResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    role: str
    module: str
    display: str
    source: str
    selected_by: str = ""
    session_id: str = ""
    session_start: str = ""
    branch: str = ""
    worktree: str = ""
    intent: str = ""
    repo_id: str = ""
    identity_file: str = ""
    updated_at: str = ""
    status: str = ""
    host: str = ""
    pid: int = 0
    tmux_session: str = ""
    tmux_alive: bool = False
    is_local: bool = False
    namesakes: tuple[str, ...] = ()
    """Machines with a clone that has another agent of this name."""


AGENT_WHOAMI: Final = Method(name="agent.whoami", params=Empty, result=WhoamiResult, access=Access.ANONYMOUS, own=True)


class AgentListParams(Params, kw_only=True):
    role: str = ""
    module: str = ""
    kind: str = ""


class AgentListResult(msgspec.Struct):
    agents: tuple[AgentInfo, ...]


AGENT_LIST: Final = Method(name="agent.list", params=AgentListParams, result=AgentListResult, access=Access.ANONYMOUS)


class ListContextParams(Params, kw_only=True):
    agent_id: str = ""
    branch: str = ""
    file: str = ""
    files: tuple[str, ...] = ()
    """Further ones."""


class UnknownWork(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent that may be changing what was asked for; that is not known. `elsewhere`: in another clone."""

    agent_id: str
    reason: str
    elsewhere: bool = False


class ListContextResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`warnings`: of which agents git could not be asked. With files: of whom that leaves it open, and which of the
    files no worktree has, as far as git knows.
    """

    contexts: tuple[WorkContext, ...]
    unknown: tuple[UnknownWork, ...] = ()
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


AGENT_LIST_CONTEXT: Final = Method(
    name="agent.listContext", params=ListContextParams, result=ListContextResult, access=Access.ANONYMOUS
)


class TeamListParams(Params, kw_only=True):
    """Without `include_files` no work tree is looked at, and `file_changes` of local agents are left out.

    `hosts` asks for those of the result, `include_hooks` for `hooks_fired` of the members.
    """

    include_offline: bool = False
    include_system: bool = False
    include_files: bool = True
    hosts: bool = False
    include_hooks: bool = False


class TeamListResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`hosts`: of each other daemon that ever registered an agent, by its id; also of those that hold no name."""

    members: tuple[TeamMember, ...]
    shared_messages: SharedMessages | None = None
    warnings: tuple[str, ...] = ()
    hosts: dict[str, str] = {}


TEAM_LIST: Final = Method(name="team.list", params=TeamListParams, result=TeamListResult, access=Access.ANONYMOUS)


class LookupParams(Params, kw_only=True):
    name: str


class LookupResult(msgspec.Struct, omit_defaults=True):
    """A miss is an answer: `member` is null, and beside it what is known of that name's end."""

    member: TeamMember | None
    renamed_to: str = ""
    deleted_by: str = ""
    deleted_at: str = ""


AGENT_LOOKUP: Final = Method(name="agent.lookup", params=LookupParams, result=LookupResult, access=Access.ANONYMOUS)


class SetStatusParams(Mutating, kw_only=True):
    agent: str = ""
    status: Literal["working", "idle", "blocked", "stuck"]


class SetStatusResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    agent_status: str
    agent_status_updated_at: str
    warnings: tuple[str, ...] = ()


AGENT_SET_STATUS: Final = Method(name="agent.set-status", params=SetStatusParams, result=SetStatusResult)


class AgentDeleteParams(Mutating, kw_only=True):
    name: str
    force: bool = False
    with_messages: bool = False


class AgentDeleteResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    deleted: bool
    message: str = ""


AGENT_DELETE: Final = Method(name="agent.delete", params=AgentDeleteParams, result=AgentDeleteResult, transports="U")


class AgentRenameParams(Mutating, kw_only=True):
    """The caller is called `name` from now on, and keeps its mail."""

    name: str


class AgentRenameResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`of`: what it was called; `unread`: how much of what is in its inbox now it has not read."""

    agent_id: str
    of: str
    unread: int
    warnings: tuple[str, ...] = ()


AGENT_RENAME: Final = Method(name="agent.rename", params=AgentRenameParams, result=AgentRenameResult, transports="U")


class CleanupParams(Mutating, kw_only=True):
    dry_run: bool = False
    force: bool = False
    threshold: int = 30


class CleanupResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    orphans: tuple[Orphan, ...]
    deleted: tuple[str, ...]
    dry_run: bool
    message: str = ""


AGENT_CLEANUP: Final = Method(name="agent.cleanup", params=CleanupParams, result=CleanupResult, transports="U")
