"""What a purge would remove, counted in advance (rpc.md §5 `purge.execute`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from thrum.model import clock
from thrum.model.event_specs import EVENT_SPECS, EVENTS_FILE, MESSAGES_DIR, quoted
from thrum.model.origins import OLD_REALM, OURS, Origins
from thrum.model.tombstones import message_ms
from thrum.store.projection import sweep
from thrum.store.queries.rows import PurgeCounts

_OF_SESSIONS: Final = f"""
SELECT DISTINCT seq, file FROM hanging JOIN events USING (seq)
WHERE thing IN (SELECT 's:' || value FROM json_each(?1))
  AND type IN {quoted(type_ for type_, spec in EVENT_SPECS.items() if spec.purge == "session")} AND state <> 'void'
UNION SELECT seq, file FROM sessions JOIN events ON event_id = start_event
WHERE session_id IN (SELECT value FROM json_each(?1))"""

_BY_ITS_TIME: Final = "SELECT file FROM events WHERE timestamp < ? AND state = 'applied' AND type IN " + quoted(
    type_ for type_, spec in EVENT_SPECS.items() if spec.purge == "itself"
)

_UNREAD: Final = """
SELECT count(DISTINCT message_id) FROM message_recipients
WHERE message_id IN (SELECT value FROM json_each(?1)) AND hidden = 0 AND read_at IS NULL"""


def count(db: sqlite3.Connection, cutoff: str, origins: Origins) -> PurgeCounts:
    """Looks at every fact about an old message; a cutoff at or below that of an earlier purge finds little.

    Facts are counted by the line, as compaction drops them: those of messages that are not here, too.
    """

    def own(found: Sequence[sweep.Found]) -> list[str]:
        return [id for id, origin, trust in found if origins.provenance(origin, trust).home == OURS]

    everything = sweep.Swept(OLD_REALM, origins)
    old = sweep.messages_before(db, everything, cutoff)
    messages = own(old)
    sessions = own(sweep.sessions_ended_before(db, everything, cutoff))
    others = {id for id, _, _ in old}.difference(messages)
    files: dict[str, int] = {}
    cutoff_ms = clock.parse_ms(cutoff)
    for message_id, at, file in db.execute(
        "SELECT message_id, timestamp, file FROM events"
        " WHERE message_id <> '' AND state NOT IN ('void', 'sealed', 'hidden', 'not_yours')"
    ):
        if message_id not in others and message_ms(message_id, at) < cutoff_ms:
            files[file] = files.get(file, 0) + 1
    for _, file in db.execute(_OF_SESSIONS, (json.dumps(sessions),)):
        files[file] = files.get(file, 0) + 1
    for (file,) in db.execute(_BY_ITS_TIME, (cutoff,)):
        files[file] = files.get(file, 0) + 1
    return PurgeCounts(
        messages=len(messages),
        sessions=len(sessions),
        facts=sum(files.values()),
        message_files=sum(file.startswith(f"{MESSAGES_DIR}/") for file in files),
        events_lines=files.get(EVENTS_FILE, 0),
        others=len(others),
        unread=db.execute(_UNREAD, (json.dumps(messages),)).fetchone()[0],
    )
