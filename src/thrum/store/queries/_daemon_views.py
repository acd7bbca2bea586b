"""Queries on daemons: how this machine sees others, what is tombstoned, and what this one declared about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from thrum.model.events import LOCAL_FILE
from thrum.model.origins import OURS, Origins, Provenance
from thrum.model.tombstones import Ends, Tombstones
from thrum.store.projection.merge_agents import holders_of, may_speak, others_of, registrars_of
from thrum.store.projection.merge_daemons import load_origins
from thrum.store.projection.watermarks import AGENT, AUTHOR, PURGE
from thrum.store.queries._inbox import MessageViews
from thrum.store.queries.rows import OriginRow, RegistrationRow

_ENDS: Final = (
    "SELECT thing, origin_daemon, trust, timestamp FROM hanging JOIN events USING (seq)"
    " WHERE type = 'agent.session.end' AND trust < 3"
)


class DaemonViews(MessageViews):
    """The part of `View` that knows of other daemons."""

    def is_ours(self, origin_daemon: str) -> bool:
        """Whether what that origin made is this daemon's to change; what tells no origin is."""
        return origin_daemon == "" or origin_daemon in self._own

    def registrars_of(self, agent_id: str) -> set[str]:
        """The origins of all live registrations of the agent."""
        rows = self._db.execute("SELECT origin_daemon FROM registrations WHERE agent_id = ? AND live = 1", (agent_id,))
        return {row[0] for row in rows}

    def registered_here(self, agent_id: str) -> bool:
        """Whether this daemon ever registered the agent: then it may say who of them joins or leaves."""
        sql = "SELECT 1 FROM registrations WHERE agent_id = ? AND home = ?"
        return self._db.execute(sql, (agent_id, OURS)).fetchone() is not None

    def namesakes_of(self, agent_id: str) -> tuple[str, ...]:
        """The machines of whose clones another one has an agent of the same id as this daemon's; those apart that are
        gone, or whose agent is hidden here.
        """
        here = "SELECT 1 FROM registrations WHERE agent_id = ? AND home = ? AND live = 1"
        if self._db.execute(here, (agent_id, OURS)).fetchone() is None:
            return ()
        origins = others_of(self._db, agent_id, self.origins())
        hosts = self.hosts() if origins else {}
        return tuple(dict.fromkeys(hosts.get(origin) or origin for origin in origins))

    def namesakes(self) -> dict[str, tuple[str, ...]]:
        """Of every agent of this daemon whose id another one has, too, the machines (see `namesakes_of`)."""
        rows = self._db.execute(
            "SELECT agent_id FROM registrations GROUP BY agent_id HAVING sum(live) > 1 ORDER BY agent_id"
        ).fetchall()
        found = {agent_id: self.namesakes_of(agent_id) for (agent_id,) in rows}
        return {agent_id: hosts for agent_id, hosts in found.items() if hosts}

    def renamed(self, agent_id: str) -> str:
        """The new id of an agent whose old id is free; `""` if it was not renamed, or is gone."""
        origins = self.origins()
        passed: set[str] = set()
        while agent_id not in passed and not self._is_deferred(agent_id):
            passed.add(agent_id)
            rows = self._db.execute(
                "SELECT x.agent_id, x.home, ifnull(r.live AND r.registered_at <= x.at, 0) FROM agent_aliases AS x"
                " LEFT JOIN registrations AS r ON r.agent_id = x.agent_id AND r.home = x.home"
                " WHERE x.of = ? AND x.agent_id <> x.of ORDER BY at DESC, x.event_id DESC",
                (agent_id,),
            )
            homes = registrars_of(self._db, agent_id), holders_of(self._db, agent_id, origins)
            said = [(new, stands) for new, home, stands in rows if may_speak(home, *homes)]
            # An agent registered under that name later is another one.
            found = next((new for new, stands in said if stands or not self._is_deferred(new)), "")
            if not found:
                return ""
            agent_id = found
        return agent_id if passed and agent_id not in passed else ""

    def renamed_here(self) -> dict[str, str]:
        """The agents of this daemon that were renamed and not registered here again: what they were called -> what
        they are called since. Another daemon may have one of the old name.
        """
        rows = self._db.execute(
            "SELECT x.of, x.agent_id FROM agent_aliases AS x"
            " JOIN registrations AS new ON new.agent_id = x.agent_id AND new.home = x.home"
            " JOIN registrations AS old ON old.agent_id = x.of AND old.home = x.home"
            " WHERE x.home = ? AND new.live = 1 AND new.registered_at <= x.at AND old.live = 0 ORDER BY at, x.event_id",
            (OURS,),
        )
        return dict(rows.fetchall())

    def renames_begun(self) -> dict[str, str]:
        """Old -> new of the renames of which a kill left but a part: what was to be cleaned up last is still there."""
        rows = self._db.execute(
            "SELECT x.of, x.agent_id FROM agent_aliases AS x"
            " JOIN registrations AS old ON old.agent_id = x.of AND old.home = x.home"
            " LEFT JOIN registrations AS new ON new.agent_id = x.agent_id AND new.home = x.home AND new.live = 1"
            " WHERE x.home = ? AND old.live = 1 AND old.registered_at <= x.at"
            " AND ifnull(new.registered_at, x.at) = x.at ORDER BY x.at, x.event_id",
            (OURS,),
        )
        return dict(rows.fetchall())

    def called_now(self, agent_id: str, origin: str) -> str:
        """What the agent of that origin is called that was called so; there may be another of that name elsewhere."""
        home, passed = self.origins().home(origin), {agent_id}
        while row := self._db.execute(
            "SELECT x.agent_id FROM agent_aliases AS x"
            " JOIN registrations AS old ON old.agent_id = x.of AND old.home = x.home"
            " WHERE x.of = ? AND x.home = ? AND old.live = 0 ORDER BY at DESC, x.event_id DESC LIMIT 1",
            (agent_id, home),
        ).fetchone():
            if row[0] in passed:
                break
            agent_id = row[0]
            passed.add(agent_id)
        return agent_id

    def current_ids(self) -> dict[str, str]:
        """Old names that are free -> the agent of this daemon that messages to them are for."""
        rows = self._db.execute("SELECT DISTINCT of FROM agent_aliases WHERE home = ?", (OURS,)).fetchall()
        found = {of: self.renamed(of) for (of,) in rows}
        return {of: new for of, new in found.items() if new and self.registered_here(new)}

    def _is_deferred(self, agent_id: str) -> bool:
        return (
            self._db.execute("SELECT 1 FROM agents WHERE agent_id = ? AND live = 1", (agent_id,)).fetchone() is not None
        )

    def own_purge(self) -> str:
        """The greatest cutoff of this daemon's own purges; `""` without any."""
        rows = self._db.execute(
            "SELECT origin_daemon, at FROM horizons JOIN events USING (event_id) WHERE kind = 'purge'"
        )
        return max((at for origin, at in rows if origin in self._own), default="")

    def last_orders(self) -> dict[str, str]:
        """Of each of this daemon's ids the greatest order, `time event_id`, of its facts."""
        rows = self._db.execute("SELECT origin_daemon, timestamp, event_id FROM events WHERE file <> ?", (LOCAL_FILE,))
        found: dict[str, str] = {}
        for origin, at, event_id in rows:
            if origin in self._own and origin:
                found[origin] = max(found.get(origin, ""), f"{at} {event_id}")
        return dict(sorted(found.items()))

    def previous_ids_of(self, daemon_id: str) -> set[str]:
        """The ids that a daemon says it had."""
        rows = self._db.execute("SELECT previous_id FROM successions WHERE daemon_id = ?", (daemon_id,))
        return {row[0] for row in rows}

    def keyless_ids_of(self, daemon_id: str) -> set[str]:
        """Those of them that no key speaks for: a person may take its word for these."""
        return self.previous_ids_of(daemon_id) - self.origins().projects.keys()

    def succeeded_by(self, daemon_id: str) -> set[str]:
        """The ids that this machine takes that daemon to have had."""
        return {row[0] for row in self._db.execute("SELECT daemon_id FROM daemons WHERE successor = ?", (daemon_id,))}

    def own_registrations(self) -> list[RegistrationRow]:
        """The live ones of this daemon."""
        rows = self._db.execute(
            "SELECT agent_id, kind, name, role, module, display, hostname, worktree, origin_daemon, reg_at"
            " FROM registrations WHERE home = ? AND live = 1 ORDER BY agent_id",
            (OURS,),
        )
        return [RegistrationRow(*row) for row in rows]

    def hosts(self) -> dict[str, str]:
        """What each other daemon called its machine last, by its id; also of one that holds no name."""
        sql = "SELECT origin_daemon, hostname FROM registrations WHERE origin_daemon <> '' ORDER BY reg_at, reg_event"
        return {origin: host for origin, host in self._db.execute(sql) if host and origin not in self._own}

    def trusted_of(self) -> list[OriginRow]:
        """Every other daemon of which there are facts: what of them counts (see `OriginRow`)."""
        rows = self._db.execute(
            "SELECT e.origin_daemon, count(*) FILTER (WHERE trust IN (1, 2)),"
            " count(*) FILTER (WHERE state = 'hidden'), count(*) FILTER (WHERE state = 'not_yours'),"
            " count(*) FILTER (WHERE trust = 4 AND state = 'pending'),"
            " (SELECT max(hostname) FROM registrations AS r WHERE r.home = e.origin_daemon)"
            " FROM events AS e GROUP BY e.origin_daemon ORDER BY e.origin_daemon"
        )
        return [
            OriginRow(row[0], row[1], row[2], row[3], row[4], row[5] or "") for row in rows if row[0] not in self._own
        ]

    def origins(self) -> Origins:
        """What others are to this machine, as of now."""
        return load_origins(self._db, self._own)

    def tombstones(self) -> Tombstones:
        """What cleanups and purges tombstoned. Ends of sessions are looked up when they are asked for."""
        rows = self._db.execute("SELECT kind, id, realm, at, event_id FROM horizons").fetchall()
        if not rows:
            return Tombstones()
        found: dict[str, dict[str, dict[str, tuple[str, str]]]] = {AGENT: {}, AUTHOR: {}, PURGE: {}}
        for kind, id, realm, at, event_id in rows:
            found[kind].setdefault(id, {})[realm] = (at, event_id)
        origins = self.origins()
        return Tombstones(
            origins=origins,
            agents=found[AGENT],
            authors=found[AUTHOR],
            purges={realm: at for realm, (at, _) in found[PURGE].get("", {}).items()},
            ends=lambda session_id: self._ends(origins, session_id),
        )

    def still_tombstones(self) -> Tombstones:
        """The same, of one moment: it does not look at the store again."""
        tombstones = self.tombstones()
        if not tombstones:
            return tombstones
        origins = tombstones.origins
        if origins.closed:
            origins = replace(origins, is_before=self._lines_before())
        ends: dict[str, list[tuple[Provenance, str]]] = {}

        def ends_of(session_id: str) -> Ends:
            return ends.get(session_id, ())

        if tombstones.purges:
            rows = self._db.execute(f"{_ENDS} AND thing > 's:' AND thing < 's;'")
            for entity, origin, trust, at in rows:
                ends.setdefault(entity[2:], []).append((origins.provenance(origin, trust), at))
        return replace(tombstones, origins=origins, ends=ends_of)

    def _ends(self, origins: Origins, session_id: str) -> list[tuple[Provenance, str]]:
        rows = self._db.execute(f"{_ENDS} AND thing = 's:' || ?", (session_id,))
        return [(origins.provenance(origin, trust), at) for _, origin, trust, at in rows]

    def _lines_before(self) -> Callable[[str], bool]:
        return {row[0] for row in self._db.execute("SELECT hash FROM lines_before")}.__contains__
