"""The tables of the projection, `.thrum/var/messages.db` (events.md §10).

Texts are `''` when absent, times are 24-character text; only the state times of `message_recipients` are NULL until
they are known. Besides the columns of the specification there are the order keys that a merge compares (`*_at` with
`*_event`). Tables are made first, indexes after a bulk load. There are no migrations: another version rebuilds.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 9
"""Rises whenever a statement below changes."""

JOURNAL_FORMAT: Final = "journal_format"
"""The key of `schema_meta` of the greatest `journal.format` of this daemon."""
FOREIGN_FORMAT: Final = "foreign_format"
"""The same of all others."""
JOURNAL_FORMAT_KNOWN: Final = 1

_TEXT = "TEXT NOT NULL DEFAULT ''"

TABLES: Final = f"""
CREATE TABLE agents (
  agent_id TEXT PRIMARY KEY,
  kind {_TEXT}, name {_TEXT}, role {_TEXT}, module {_TEXT}, display {_TEXT},
  hostname {_TEXT}, worktree {_TEXT}, registered_at {_TEXT}, origin_daemon {_TEXT},
  live INTEGER NOT NULL DEFAULT 0, reg_at {_TEXT}, reg_event {_TEXT},
  worktree_path {_TEXT}, agent_pid INTEGER NOT NULL DEFAULT 0, agent_pid_started {_TEXT}, runtime {_TEXT},
  tmux_session {_TEXT}, runtime_session {_TEXT}, transcript {_TEXT}, pane {_TEXT}, hooks_seen_at {_TEXT},
  place_at {_TEXT}, place_event {_TEXT},
  status {_TEXT}, status_by {_TEXT}, status_asks {_TEXT}, status_at {_TEXT}, status_event {_TEXT},
  seen_at {_TEXT}, seen_event {_TEXT}, exited_at {_TEXT}, exited_event {_TEXT}
) WITHOUT ROWID;
CREATE TABLE registrations (
  agent_id TEXT NOT NULL, home TEXT NOT NULL, live INTEGER NOT NULL DEFAULT 0, signed INTEGER NOT NULL DEFAULT 0,
  kind {_TEXT}, name {_TEXT}, role {_TEXT}, module {_TEXT}, display {_TEXT},
  hostname {_TEXT}, worktree {_TEXT}, registered_at {_TEXT}, origin_daemon {_TEXT}, reg_at {_TEXT}, reg_event {_TEXT},
  PRIMARY KEY (agent_id, home)
) WITHOUT ROWID;
CREATE TABLE holders (
  agent_id TEXT NOT NULL, origin TEXT NOT NULL, at TEXT NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (agent_id, origin)
) WITHOUT ROWID;
CREATE TABLE agent_aliases (
  agent_id TEXT NOT NULL, of TEXT NOT NULL, home TEXT NOT NULL, at TEXT NOT NULL, event_id TEXT NOT NULL,
  PRIMARY KEY (of, agent_id, home)
) WITHOUT ROWID;
CREATE TABLE hidden_agents (agent_id TEXT NOT NULL, origin TEXT NOT NULL, PRIMARY KEY (agent_id, origin)) WITHOUT ROWID;
CREATE TABLE daemons (
  daemon_id TEXT PRIMARY KEY, keyed INTEGER NOT NULL DEFAULT 0, accepted INTEGER NOT NULL DEFAULT 0,
  gone INTEGER NOT NULL DEFAULT 0, successor {_TEXT}, successor_at {_TEXT}, successor_event {_TEXT}
) WITHOUT ROWID;
CREATE TABLE daemon_projects (daemon_id TEXT NOT NULL, repo_id TEXT NOT NULL, PRIMARY KEY (daemon_id, repo_id))
  WITHOUT ROWID;
CREATE TABLE daemon_roots (daemon_id TEXT NOT NULL, root TEXT NOT NULL, PRIMARY KEY (daemon_id, root)) WITHOUT ROWID;
CREATE TABLE successions (
  daemon_id TEXT NOT NULL, previous_id TEXT NOT NULL, PRIMARY KEY (daemon_id, previous_id)
) WITHOUT ROWID;
CREATE TABLE lines_before (hash TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE wake_attempts (
  attempt_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, door TEXT NOT NULL, process TEXT NOT NULL,
  offered_at {_TEXT}, offered_event {_TEXT}, outcome TEXT NOT NULL, detail TEXT NOT NULL,
  ended_at {_TEXT}, ended_event {_TEXT}
) WITHOUT ROWID;
CREATE TABLE wake_messages (
  attempt_id TEXT NOT NULL, message_id TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (attempt_id, message_id)
) WITHOUT ROWID;
CREATE TABLE sessions (
  session_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, started_at TEXT NOT NULL, start_event TEXT NOT NULL,
  ended_at {_TEXT}, end_reason {_TEXT}, end_event {_TEXT}, seen_at {_TEXT},
  origin_daemon TEXT NOT NULL, trust INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE session_items (
  session_id TEXT NOT NULL, kind TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL,
  add_at {_TEXT}, add_event {_TEXT}, remove_at {_TEXT}, remove_event {_TEXT},
  PRIMARY KEY (session_id, kind, type, value)
) WITHOUT ROWID;
CREATE TABLE work_contexts (
  session_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL,
  branch {_TEXT}, worktree_path {_TEXT}, unmerged_commits {_TEXT}, uncommitted_files {_TEXT},
  changed_files {_TEXT}, file_changes {_TEXT}, git_updated_at {_TEXT}, git_at {_TEXT}, git_event {_TEXT},
  current_task {_TEXT}, task_updated_at {_TEXT}, task_at {_TEXT}, task_event {_TEXT},
  intent {_TEXT}, intent_updated_at {_TEXT}, intent_at {_TEXT}, intent_event {_TEXT}
) WITHOUT ROWID;
CREATE TABLE work_files (
  path TEXT NOT NULL, session_id TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (path, session_id)
) WITHOUT ROWID;
CREATE TABLE messages (
  seq INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, agent_id TEXT NOT NULL, session_id TEXT NOT NULL,
  thread_id TEXT NOT NULL, thread_own INTEGER NOT NULL, reply_to TEXT NOT NULL,
  created_at TEXT NOT NULL, updated_at {_TEXT},
  body_format TEXT NOT NULL, body_content TEXT NOT NULL, body_structured TEXT NOT NULL,
  edit_count INTEGER NOT NULL DEFAULT 0,
  quiet INTEGER NOT NULL, urgent INTEGER NOT NULL, expires_at TEXT NOT NULL, supersedes TEXT NOT NULL,
  superseded_by TEXT NOT NULL DEFAULT '', deleted INTEGER NOT NULL DEFAULT 0, deleted_at {_TEXT}, delete_reason {_TEXT},
  authored_by TEXT NOT NULL, disclosed INTEGER NOT NULL, origin_daemon TEXT NOT NULL,
  create_event TEXT NOT NULL, edit_event {_TEXT}, delete_event {_TEXT}, trust INTEGER NOT NULL
);
CREATE TABLE message_scopes (
  message_id TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (message_id, type, value)
) WITHOUT ROWID;
CREATE TABLE message_refs (
  message_id TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (message_id, type, value)
) WITHOUT ROWID;
CREATE TABLE message_audiences (
  message_id TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (message_id, type, value)
) WITHOUT ROWID;
CREATE TABLE message_recipients (
  message_id TEXT NOT NULL, agent_id TEXT NOT NULL, stored_at TEXT NOT NULL,
  delivered_at TEXT, seen_at TEXT, read_at TEXT, replied_at TEXT, hidden INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (message_id, agent_id)
) WITHOUT ROWID;
CREATE TABLE message_edits (
  event_id TEXT PRIMARY KEY, message_id TEXT NOT NULL, edited_at TEXT NOT NULL, edited_by TEXT NOT NULL,
  format TEXT NOT NULL, content TEXT NOT NULL, structured TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE groups (
  group_id TEXT PRIMARY KEY, name TEXT NOT NULL, name_at {_TEXT}, name_event {_TEXT},
  description TEXT NOT NULL, description_at {_TEXT}, description_event {_TEXT},
  created_at TEXT NOT NULL, created_by TEXT NOT NULL, create_event TEXT NOT NULL,
  deleted_at {_TEXT}, delete_event {_TEXT}, origin_daemon TEXT NOT NULL, trust INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE group_members (
  group_id TEXT NOT NULL, member_type TEXT NOT NULL, member_value TEXT NOT NULL, origin TEXT NOT NULL,
  added_at {_TEXT}, added_by {_TEXT}, add_event {_TEXT},
  removed_at {_TEXT}, removed_by {_TEXT}, remove_event {_TEXT},
  PRIMARY KEY (group_id, member_type, member_value, origin)
) WITHOUT ROWID;
CREATE TABLE agent_contexts (
  agent_id TEXT NOT NULL, home TEXT NOT NULL, content TEXT NOT NULL, saved_at TEXT NOT NULL, event_id TEXT NOT NULL,
  PRIMARY KEY (agent_id, home)
) WITHOUT ROWID;
CREATE TABLE horizons (
  kind TEXT NOT NULL, id TEXT NOT NULL, realm TEXT NOT NULL, at TEXT NOT NULL, event_id TEXT NOT NULL,
  PRIMARY KEY (kind, id, realm)
) WITHOUT ROWID;
CREATE TABLE client_keys (
  actor TEXT NOT NULL, client_key TEXT NOT NULL, at TEXT NOT NULL, event_id TEXT NOT NULL, digest TEXT NOT NULL,
  PRIMARY KEY (actor, client_key, at, event_id)
) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, timestamp TEXT NOT NULL,
  origin_daemon TEXT NOT NULL, actor TEXT NOT NULL, message_id TEXT NOT NULL,
  file TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, state TEXT NOT NULL, trust INTEGER NOT NULL
);
CREATE TABLE hanging (thing TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (thing, seq)) WITHOUT ROWID;
CREATE TABLE rivals (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE journal_offsets (
  file TEXT PRIMARY KEY, inode INTEGER NOT NULL, applied_offset INTEGER NOT NULL, applied_lines INTEGER NOT NULL,
  last_event_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sync_state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE daemon_identity (
  daemon_id TEXT PRIMARY KEY, repo_name TEXT NOT NULL, hostname TEXT NOT NULL, repo_path TEXT NOT NULL,
  git_origin_url TEXT NOT NULL, init_at TEXT NOT NULL, updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE schema_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
"""`hanging` holds, under the thing it is about (`m:`, `s:`, `g:`, `a:` + id), the number of every fact that a thing is
made again from: what waits for it, what was merged into it, and creates that lost. The spec's `pending` is the part of
it whose `events.state` is pending; the bytes are read at (file, offset). Under `f:` + their own time stand facts of
elsewhere that wait for their day; under `k:` + their origin those that wait for its `daemon.key`; under `r:` + the
agent what counts only if its origin registered that agent; under `w:` + its id what an attempt to wake is made of.

`rivals` holds the id of every fact of which another line lies in a journal, too: that is it when the first one goes."""

DEFERRED: Final = "f:"
"""The prefix in `hanging` of what waits for its day."""

KEYLESS: Final = "k:"
REGISTERED: Final = "r:"

SUPERSEDED: Final = "superseded"
"""The key of `schema_meta` with the id of a fact for which the projection has to be rebuilt: the journals hold a line
of it that counts more, or it changes what others are to this machine."""

INDEXES: Final = """
CREATE INDEX registrations_home ON registrations (home);
CREATE INDEX events_unsigned ON events (origin_daemon) WHERE trust BETWEEN 1 AND 3;
CREATE INDEX agents_role ON agents (role);
CREATE INDEX agents_place ON agents (worktree_path);
CREATE INDEX sessions_agent ON sessions (agent_id, started_at);
CREATE INDEX sessions_open ON sessions (agent_id, started_at) WHERE ended_at = '';
CREATE INDEX wake_attempts_agent ON wake_attempts (agent_id, offered_at, ended_at);
CREATE INDEX wake_attempts_open ON wake_attempts (outcome) WHERE outcome = 'offered';
CREATE INDEX wake_messages_message ON wake_messages (message_id);
CREATE INDEX work_files_session ON work_files (session_id);
CREATE INDEX messages_thread ON messages (thread_id, created_at) WHERE thread_id <> '';
CREATE INDEX messages_author ON messages (agent_id, created_at, message_id, deleted);
CREATE INDEX messages_reply ON messages (reply_to) WHERE reply_to <> '';
CREATE INDEX messages_supersedes ON messages (supersedes) WHERE supersedes <> '';
CREATE INDEX messages_origin ON messages (origin_daemon);
CREATE INDEX messages_created ON messages (created_at, message_id, deleted);
CREATE INDEX messages_deleted ON messages (message_id, deleted) WHERE deleted = 1;
CREATE INDEX message_scopes_value ON message_scopes (type, value);
CREATE INDEX message_refs_value ON message_refs (type, value) WHERE type <> 'mention' AND type <> 'reply_to';
CREATE INDEX message_audiences_shared ON message_audiences (type, value) WHERE type <> 'agent';
CREATE INDEX recipients_inbox ON message_recipients (agent_id, stored_at, message_id, hidden) WHERE hidden = 0;
CREATE INDEX recipients_unread ON message_recipients (agent_id, stored_at, message_id, seen_at, read_at, hidden)
  WHERE hidden = 0 AND read_at IS NULL;
CREATE INDEX recipients_hidden ON message_recipients (agent_id, stored_at, message_id, hidden) WHERE hidden <> 0;
CREATE INDEX message_edits_message ON message_edits (message_id);
CREATE INDEX groups_name ON groups (name);
CREATE INDEX group_members_value ON group_members (member_type, member_value);
"""
"""SQLite takes a partial index only when the query repeats its condition literally, and reads no row beside it only
when the columns of that condition are in the index, too."""

TOKENS: Final = "columnsize = 0, tokenize = \"unicode61 remove_diacritics 2 tokenchars '_'\""
SEARCH: Final = (
    "CREATE VIEW messages_searched AS SELECT seq, body_content FROM messages WHERE deleted = 0",
    "CREATE VIRTUAL TABLE messages_fts"
    f" USING fts5(body_content, content = 'messages_searched', content_rowid = 'seq', {TOKENS})",
    "INSERT INTO messages_fts (messages_fts) VALUES ('rebuild')",
    "CREATE TABLE unindexed (seq INTEGER PRIMARY KEY, indexed TEXT)",
    "CREATE TRIGGER unindexed_insert AFTER INSERT ON messages"
    " BEGIN INSERT OR IGNORE INTO unindexed VALUES (new.seq, NULL); END",
    "CREATE TRIGGER unindexed_delete AFTER DELETE ON messages WHEN old.deleted = 0"
    " BEGIN INSERT OR IGNORE INTO unindexed VALUES (old.seq, old.body_content); END",
    "CREATE TRIGGER unindexed_update AFTER UPDATE OF body_content, deleted ON messages WHEN old.deleted = 0"
    " BEGIN INSERT OR IGNORE INTO unindexed VALUES (old.seq, old.body_content); END",
)
"""The words of all messages that are not deleted (a delete is final); and the numbers of messages that the index does
not know as they are, with the text that it holds of them (NULL: none). Made last, when these numbers stand. See
`words`."""
SEARCH_TABLE: Final = "messages_fts"
"""It and the tables behind it, `messages_fts_*`, are no rows of the projection: they follow from `messages`."""

BOOKKEEPING_TABLES: Final = frozenset(
    {"events", "hanging", "journal_offsets", "rivals", "schema_meta", "sync_state", "unindexed"}
)
BOOKKEEPING_COLUMNS: Final = frozenset({("messages", "seq"), ("daemon_identity", "updated_at")})
"""What is left out when two projections are compared."""
