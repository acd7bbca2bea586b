"""Sync with other clones: its state, a round now, on and off, and which daemons to trust."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Params


class SyncOrigin(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Another daemon of which not all counts here. `hidden`: unsigned facts that don't; `not_yours`: what was not its
    to say; `waiting`: signed facts of a daemon that has not said that it is of this project; `was`: ids that it says
    it had.
    """

    daemon_id: str
    hostname: str = ""
    hidden: int = 0
    not_yours: int = 0
    waiting: int = 0
    was: tuple[str, ...] = ()


class SyncStatusResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`pending`: facts of this daemon that are not at the remote; local only: that are in no commit yet.

    `skipped`: journals of the remote that could not be ingested. `remote`: its name; `head`: the commit of our branch.
    `read_only`: a newer program changed the rules of the branch, so nothing is pushed. `origins`: daemons of which not
    all counts.
    """

    running: bool
    last_sync_at: str = ""
    last_error: str = ""
    remedy: str = ""
    sync_state: str
    local_only: bool
    local_only_reason: str = ""
    pending: int
    remote: str = ""
    remote_url: str = ""
    head: str = ""
    skipped: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    """Who on this machine can read which directory of messages, a sentence each."""
    read_only: bool = False
    origins: tuple[SyncOrigin, ...] = ()


SYNC_STATUS: Final = Method(name="sync.status", params=Empty, result=SyncStatusResult, access=Access.ANONYMOUS)


class SyncAcceptParams(Params, kw_only=True):
    """`origin`: a daemon whose unsigned facts are to count, or that is who it says it was; with `gone` there is no such
    daemon any more; with `agent` that agent is its own. Nothing: the branch that was refused is of this project.
    """

    origin: str = ""
    gone: bool = False
    agent: str = ""


class SyncAcceptResult(msgspec.Struct, kw_only=True):
    """`kind`: `project`, `origin`, `gone` or `holder`."""

    kind: str
    accepted: str


SYNC_ACCEPT: Final = Method(
    name="sync.accept", params=SyncAcceptParams, result=SyncAcceptResult, access=Access.NOT_AN_AGENT, transports="U"
)


class SyncForceParams(Params, kw_only=True):
    wait_ms: int = 0


class SyncForceResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    triggered: bool
    last_sync_at: str = ""
    sync_state: str
    local_only: bool
    local_only_reason: str = ""
    result: Literal["synced", "error", "nothing_to_do"] | None = None
    received: int | None = None
    sent: int | None = None
    late: bool = False
    """No round has ended within `wait_ms`."""
    last_error: str = ""
    remedy: str = ""


SYNC_FORCE: Final = Method(
    name="sync.force",
    params=SyncForceParams,
    result=SyncForceResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)


class SyncConfigureParams(Params, kw_only=True):
    enabled: bool
    confirm_public: bool = False


SYNC_CONFIGURE: Final = Method(
    name="sync.configure",
    params=SyncConfigureParams,
    result=SyncStatusResult,
    access=Access.NOT_AN_AGENT,
    transports="U",
    long_poll=True,
)
