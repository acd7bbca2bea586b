"""One tree of errors: each kind has an exit status, an RPC code and the command that fixes it.

Kinds and words are those of the specification (cli.md §6, rpc.md §2). An error raised anywhere travels unchanged:
over RPC as `{code, message, data: {kind, remedy, details}}`, to a person as two lines, to a program as one JSON object.
"""

from __future__ import annotations

from typing import Any

from thrum.model.error_base import KINDS as KINDS
from thrum.model.error_base import ForeignKind as ForeignKind
from thrum.model.error_base import ThrumError as ThrumError
from thrum.model.error_base import in_shell as in_shell
from thrum.model.terminal_errors import BadBase as BadBase
from thrum.model.terminal_errors import BranchInUse as BranchInUse
from thrum.model.terminal_errors import IdentityAlive as IdentityAlive
from thrum.model.terminal_errors import IdentityStale as IdentityStale
from thrum.model.terminal_errors import InvalidWorktreeName as InvalidWorktreeName
from thrum.model.terminal_errors import NoAgentInSession as NoAgentInSession
from thrum.model.terminal_errors import NoSnapshot as NoSnapshot
from thrum.model.terminal_errors import TmuxFailed as TmuxFailed
from thrum.model.terminal_errors import TmuxMissing as TmuxMissing
from thrum.model.terminal_errors import TmuxSessionExists as TmuxSessionExists
from thrum.model.terminal_errors import TmuxSessionNotFound as TmuxSessionNotFound
from thrum.model.terminal_errors import WorktreeDirty as WorktreeDirty
from thrum.model.terminal_errors import WorktreeExists as WorktreeExists
from thrum.model.terminal_errors import WorktreeNotFound as WorktreeNotFound


def from_wire(kind: str, code: int, message: str, remedy: str, details: dict[str, Any]) -> ThrumError:
    """The error that the other side raised, as an exception of its own class here."""
    cls = KINDS.get(kind)
    if cls is None:
        return ForeignKind(kind, code, message, remedy=remedy, **details)
    return cls(message, remedy=remedy, **details)


# -- the words of a call (status 2)


class UsageError(ThrumError, kind="usage", code=-32602, status=2, remedy="thrum help"): ...


class AmbiguousBody(
    ThrumError, kind="ambiguous_body", code=-32602, status=2, remedy="give one of TEXT, --stdin, --body-file"
): ...


class BadDuration(
    ThrumError, kind="bad_duration", code=-32602, status=2, remedy="write 30s, 5m, 1h30m, 2d or seconds"
): ...


class BadTime(
    ThrumError,
    kind="bad_time",
    code=-32602,
    status=2,
    remedy="write 30s, 5m, 1h30m, 2d (that long ago), 2026-02-03 or RFC 3339",
): ...


class BadScope(
    ThrumError, kind="bad_scope", code=-32602, status=2, remedy="write type:value, e.g. --scope module:auth"
): ...


class BadRef(ThrumError, kind="bad_ref", code=-32602, status=2, remedy="write type:value, e.g. --ref pr:42"): ...


class BadJson(
    ThrumError, kind="bad_json", code=-32602, status=2, remedy="quote it for the shell: '{\"passed\":45}'"
): ...


class BadCursor(ThrumError, kind="bad_cursor", code=-32602, status=2, remedy="one printed by: thrum watch --json"): ...


class BadEncoding(
    ThrumError, kind="bad_encoding", code=-32602, status=2, remedy="convert it to UTF-8, or send its path"
): ...


class StaleCursor(
    ThrumError, kind="stale_cursor", code=-32006, remedy="thrum watch --since 0, skipping the event_ids you know"
): ...


# -- the place


class NotARepository(ThrumError, kind="not_a_repository", remedy="cd into a repository, or run: git init"): ...


class NotInitialized(ThrumError, kind="not_initialized", remedy="thrum init"): ...


class StateTracked(
    ThrumError,
    kind="state_tracked",
    code=-32005,
    remedy="leave the branch; or: git rm -r --cached .thrum, then: thrum doctor --fix",
): ...


class RuntimeNotFound(ThrumError, kind="runtime_not_found", code=-32602, remedy="thrum runtime list"): ...


class BlockExists(ThrumError, kind="block_exists", code=-32005, remedy="thrum setup claude-md --apply --force"): ...


class NotAWorktree(ThrumError, kind="not_a_worktree", code=-32602, remedy="thrum worktree create NAME"): ...


class BadRedirect(ThrumError, kind="bad_redirect", remedy="thrum setup --main-repo PATH"): ...


class UnsafeRepository(
    ThrumError, kind="unsafe_repository", remedy="git config --global --add safe.directory PATH"
): ...


class ConfigInvalid(ThrumError, kind="config_invalid", remedy="fix the file; thrum config show"): ...


class BadConfigKey(ThrumError, kind="bad_config_key", code=-32602, remedy="thrum config show"): ...


class BadConfigValue(ThrumError, kind="bad_config_value", code=-32602, remedy="thrum config show"): ...


# -- the daemon


class DaemonUnavailable(ThrumError, kind="daemon_unavailable", remedy="thrum daemon start"): ...


class DaemonStartFailed(ThrumError, kind="daemon_start_failed", remedy="thrum daemon logs -n 20"): ...


class DaemonLocked(ThrumError, kind="daemon_locked", remedy="thrum daemon restart"): ...


class StoreFailed(
    ThrumError, kind="store_failed", code=-32010, remedy="free space, then repeat the command; nothing was recorded"
): ...


class Busy(ThrumError, kind="busy", code=-32008, remedy="repeat the command"): ...


class ShuttingDown(ThrumError, kind="shutting_down", code=-32008, remedy="repeat the command"): ...


class TimedOut(ThrumError, kind="timed_out", code=-32009, remedy="look in: thrum sent, then repeat"): ...


class InternalError(ThrumError, kind="internal", code=-32603, remedy="thrum daemon logs; report it with that id"): ...


class ParseError(ThrumError, kind="parse_error", code=-32700, remedy="send one JSON object per line"): ...


class InvalidRequest(
    ThrumError, kind="invalid_request", code=-32600, remedy='send {"jsonrpc":"2.0","id":1,"method":"health"}'
): ...


class LineTooLong(ThrumError, kind="line_too_long", code=-32600, remedy="send less in one request"): ...


class UnknownMethod(ThrumError, kind="unknown_method", code=-32601, remedy="thrum daemon restart"): ...


class InvalidParams(ThrumError, kind="invalid_params", code=-32602, remedy="correct the parameters"): ...


class AnswerTooLarge(ThrumError, kind="answer_too_large", code=-32602, remedy="ask for a smaller page"): ...


class WrongTransport(
    ThrumError, kind="wrong_transport", code=-32001, remedy="call it over the transport that the method names"
): ...


class BadToken(ThrumError, kind="bad_token", code=-32003): ...


class NotAvailable(ThrumError, kind="not_available", code=-32007): ...


class NewerFormat(ThrumError, kind="newer_format", code=-32007, remedy="upgrade thrum"): ...


class ClientKeyReused(
    ThrumError, kind="client_key_reused", code=-32005, remedy="use a fresh client_key for a new call"
): ...


# -- who am I


class NotAPerson(
    ThrumError, kind="not_a_person", code=-32003, remedy="open a terminal that no agent started, repeat there"
): ...


class NoIdentity(
    ThrumError, kind="no_identity", code=-32003, remedy="thrum quickstart NAME --role ROLE --module MODULE"
): ...


class SeveralIdentities(ThrumError, kind="several_identities", code=-32002, remedy="export THRUM_NAME=NAME"): ...


class IdentityNotFound(ThrumError, kind="identity_not_found", code=-32003, remedy="correct or unset THRUM_NAME"): ...


class IdentityEnvConflict(
    ThrumError, kind="identity_env_conflict", code=-32003, remedy="unset THRUM_NAME or THRUM_AGENT_ID"
): ...


class IdentityInvalid(
    ThrumError, kind="identity_invalid", code=-32003, remedy="fix or delete the file, then run: thrum quickstart"
): ...


class RoleMissing(
    ThrumError, kind="role_missing", code=-32602, remedy="thrum quickstart --name N --role ROLE --module MODULE"
): ...


class ModuleMissing(
    ThrumError, kind="module_missing", code=-32602, remedy="thrum quickstart --name N --role ROLE --module MODULE"
): ...


class RepoConflict(ThrumError, kind="repo_conflict", remedy="unset THRUM_HOME, or give --repo PATH"): ...


class AgentNotRegistered(
    ThrumError, kind="agent_not_registered", code=-32003, remedy="thrum quickstart NAME --role ROLE --module MODULE"
): ...


class CrossWorktree(
    ThrumError,
    kind="cross_worktree",
    code=-32003,
    remedy="cd to your own worktree, or set THRUM_NAME to the agent that you act as",
): ...


class IdentityMismatch(
    ThrumError,
    kind="identity_mismatch",
    code=-32003,
    remedy="drop the claim (unset THRUM_AGENT_ID), or run it from that agent's worktree",
): ...


class AnonymousCaller(
    ThrumError, kind="anonymous_caller", code=-32002, remedy="cd into a registered agent worktree and retry"
): ...


class CallerUnproved(
    ThrumError, kind="caller_unproved", code=-32002, remedy="retry from a process of the same user; thrum daemon logs"
): ...


class ForeignUser(ThrumError, kind="foreign_user", code=-32002, remedy="run thrum as the user who owns the daemon"): ...


class PrimeOwnership(
    ThrumError, kind="prime_ownership", code=-32003, remedy="run prime from the top-level runtime instead"
): ...


class QuickstartSelfRename(ThrumError, kind="quickstart_self_rename", code=-32003, remedy="thrum agent rename NEW"): ...


class QuickstartNameCollision(
    ThrumError,
    kind="quickstart_name_collision",
    code=-32003,
    remedy="thrum quickstart NEWNAME --role ROLE --module MODULE",
): ...


class DaemonWriterLiveness(
    ThrumError, kind="daemon_writer_liveness", code=-32003, remedy="run 'thrum quickstart' in its worktree"
): ...


class InvalidUrl(ThrumError, kind="invalid_url", code=-32602): ...


# -- names


class InvalidName(ThrumError, kind="invalid_name", code=-32602, remedy="use a-z, 0-9 and _"): ...


class ReservedName(ThrumError, kind="reserved_name", code=-32602, remedy="choose another name"): ...


class NameEqualsRole(ThrumError, kind="name_equals_role", code=-32602, remedy="choose another name"): ...


class NameTaken(ThrumError, kind="name_taken", code=-32005, remedy="choose another name"): ...


class ConflictError(
    ThrumError,
    kind="conflict",
    code=-32005,
    remedy="choose another name or module; --re-register if that is you; --force to take over",
): ...


# -- messages


class UnknownRecipient(ThrumError, kind="unknown_recipient", code=-32004, remedy="thrum team --all"): ...


class NoRecipients(
    ThrumError, kind="no_recipients", code=-32005, remedy="thrum team --all; leave --to out to tell the team"
): ...


class EmptyBody(ThrumError, kind="empty_body", code=-32602, remedy="give TEXT, --stdin or --body-file"): ...


class BodyTooLarge(
    ThrumError, kind="body_too_large", code=-32602, remedy="commit the file and send its path, or split it"
): ...


class MessageNotFound(ThrumError, kind="message_not_found", code=-32004, remedy="thrum inbox; thrum sent"): ...


class AmbiguousMessage(ThrumError, kind="ambiguous_message", code=-32602, remedy="say which, by more of its id"): ...


class MessageDeleted(
    ThrumError, kind="message_deleted", code=-32005, remedy="thrum message get ID still shows it; send a new one"
): ...


class NotAuthor(ThrumError, kind="not_author", code=-32003, remedy="reply instead"): ...


def not_author(verb: str, message_id: str, author: str, me: str) -> NotAuthor:
    """Only who wrote a message changes it."""
    return NotAuthor(f"only the author may {verb} {message_id}: it is by @{author}, you are @{me}")


class NotYours(ThrumError, kind="not_yours", code=-32003, remedy="do it on that machine"):
    """What another daemon made is that daemon's to change."""


def if_gone(daemon_id: str) -> str:
    """What frees the names of a clone that no longer exists."""
    return f"if that clone is gone (deleted or uninstalled): thrum sync accept {daemon_id} --gone"


def not_yours(agent_id: str, host: str, daemon_id: str) -> NotYours:
    """Another daemon's agent is not deleted here."""
    where = ", ".join(part for part in (daemon_id, host and f"host {host}") if part)
    return NotYours(
        f"@{agent_id} is an agent of another clone ({where})",
        remedy=f"delete it there; --force hides it here; {if_gone(daemon_id)}",
        agent_id=agent_id,
    )


class DaemonUnknown(ThrumError, kind="daemon_unknown", code=-32004, remedy="thrum sync status"): ...


class NoReplyAddress(ThrumError, kind="no_reply_address", code=-32005, remedy="send to an agent"): ...


class ConfirmationRequired(ThrumError, kind="confirmation_required", code=-32005, remedy="repeat with --yes"): ...


class Cancelled(ThrumError, kind="cancelled"): ...


# -- files


class FileNotFound(
    ThrumError, kind="file_not_found", remedy="check the path; it is taken from the working directory"
): ...


class FileUnreadable(ThrumError, kind="file_unreadable", remedy="check the path and its permissions"): ...


class FileTooLarge(ThrumError, kind="file_too_large", remedy="shorten the file, or send its path"): ...


# -- agents, sessions, groups


class AgentNotFound(ThrumError, kind="agent_not_found", code=-32004, remedy="thrum agent list"): ...


class AgentAlive(ThrumError, kind="agent_alive", code=-32005, remedy="end it first, or --force"): ...


class SessionNotFound(ThrumError, kind="session_not_found", code=-32004, remedy="thrum session list"): ...


class NoSession(ThrumError, kind="no_session", code=-32004, remedy="thrum session start"): ...


class SessionEnded(ThrumError, kind="session_ended", code=-32005, remedy="thrum session start"): ...


class NotOwner(ThrumError, kind="not_owner", code=-32003, remedy="name your own"): ...


class GroupNotFound(ThrumError, kind="group_not_found", code=-32004, remedy="thrum group list"): ...


class GroupExists(ThrumError, kind="group_exists", code=-32005, remedy="choose another name"): ...


class ProtectedGroup(ThrumError, kind="protected_group", code=-32005): ...


# -- care


class SyncFailed(
    ThrumError, kind="sync_failed", code=-32007, remedy="thrum sync status; nothing is lost, it is tried again"
): ...


class BackupNotFound(ThrumError, kind="backup_not_found", code=-32004, remedy="thrum backup status"): ...


class BackupInvalid(ThrumError, kind="backup_invalid", code=-32007, remedy="thrum backup status"): ...
