"""Upkeep of the whole: verify, backup, restore, purge."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Mutating, Params


class VerifyParams(Params, kw_only=True):
    repair: bool = False


class VerifyDifference(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Where two things don't agree. `ids`: some of those meant; `reason`: a word of events.md §11, or what differs."""

    table: str = ""
    file: str = ""
    line: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    ids: tuple[str, ...] = ()
    reason: str = ""


class VerifyCheck(msgspec.Struct, omit_defaults=True, kw_only=True):
    name: Literal["journal", "signatures", "database", "branch", "identities"]
    ok: bool
    detail: str
    differences: tuple[VerifyDifference, ...] = ()


class QuarantinedLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`more`: the number of further lines that were not kept, `length` bytes together."""

    at: str
    file: str
    offset: int
    reason: str
    length: int
    more: int = 0


class VerifyResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`quarantine`: the first of the lines that were quarantined; `quarantined`: how many there are. `sealed`: how many
    facts of each type that this program does not know. `remedy`: for what does not agree.

    `foreign`: of the lines of other daemons how many are `unsigned` and count, `hidden` here, were not theirs to say
    (`not_yours`), and wait for their daemon to say that it is of this project (`strange`). No fault. `namesakes`: of
    agents here whose name an agent of another clone has, too, the machines of these clones.
    """

    ok: bool
    repaired: bool
    checks: tuple[VerifyCheck, ...]
    quarantine: tuple[QuarantinedLine, ...]
    facts: int
    uncommitted: int
    quarantined: int = 0
    opaque: dict[str, int] = msgspec.field(default={}, name="sealed")
    foreign: dict[str, int] = {}
    namesakes: dict[str, tuple[str, ...]] = {}
    remedy: str = ""


VERIFY_RUN: Final = Method(
    name="verify.run", params=VerifyParams, result=VerifyResult, access=Access.OPERATOR, transports="U", long_poll=True
)


class BackupParams(Params, kw_only=True):
    """`dir`: absolute; without it the setting, then `.thrum/backup`."""

    dir: str = ""


class BackupCounts(msgspec.Struct, kw_only=True):
    events: int
    message_files: int
    local_tables: int
    config_files: int


class BackupArchives(msgspec.Struct, omit_defaults=True, kw_only=True):
    count: int
    bytes: int
    oldest: str = ""
    newest: str = ""


class BackupResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    version: int
    timestamp: str
    thrum_version: str
    repo_name: str
    counts: BackupCounts
    location: str
    archives: BackupArchives | None = None


BACKUP_CREATE: Final = Method(
    name="backup.create",
    params=BackupParams,
    result=BackupResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)
BACKUP_STATUS: Final = Method(
    name="backup.status", params=BackupParams, result=BackupResult, access=Access.OPERATOR, transports="U"
)


class RestoreParams(Params, kw_only=True):
    """`archive`: an absolute path, or the name of one of the archives; without it the newest backup.

    `other_repository`: even if it is of another project.
    """

    archive: str = ""
    dir: str = ""
    confirm: bool = False
    other_repository: bool = False


class RestoreResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`local_only`: what `daemon.local_only` is here and stays, if the backup's is another. `left_out`: settings of the
    backup that would be refused, each with its value and the reason, for people.
    """

    source: str
    safety_backup: str
    daemon_restarted: bool
    local_only: bool | None = None
    left_out: tuple[str, ...] = ()


BACKUP_RESTORE: Final = Method(
    name="backup.restore",
    params=RestoreParams,
    result=RestoreResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)


class Retention(msgspec.Struct, kw_only=True):
    daily: int
    weekly: int
    monthly: int


class BackupConfigResult(msgspec.Struct, kw_only=True):
    dir: str
    retention: Retention


BACKUP_CONFIG: Final = Method(
    name="backup.config", params=Empty, result=BackupConfigResult, access=Access.OPERATOR, transports="U"
)


class PurgeParams(Mutating, kw_only=True):
    """`before`: RFC 3339. A preview, unless `dry_run` is false and `confirm` true."""

    before: str
    dry_run: bool = True
    confirm: bool = False


class PurgeResult(msgspec.Struct, kw_only=True):
    """The same in a preview. `events_deleted`: facts of all kinds; `sync_message_files`: files of messages that lose
    some; `sync_events_filtered`: lines of `events.jsonl` that go. `others`: messages of other daemons, not touched.
    `unread`: of the messages those that not all have read.
    """

    before: str
    dry_run: bool
    messages_deleted: int
    sessions_deleted: int
    events_deleted: int
    command_queue_deleted: int
    sync_message_files: int
    sync_events_filtered: int
    others: int = 0
    unread: int = 0


PURGE_EXECUTE: Final = Method(
    name="purge.execute", params=PurgeParams, result=PurgeResult, access=Access.OPERATOR, transports="U", long_poll=True
)
