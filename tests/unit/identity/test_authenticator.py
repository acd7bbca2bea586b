"""Who calls, from evidence and claim to the `Caller`: what the guards' modes let pass, and what they never do."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from thrum.identity.authenticator import Authenticator
from thrum.identity.caller import Caller, CallerRequest, Evidence, Refused, decide_request
from thrum.identity.evidence import Registry, Roots
from thrum.identity.processes import open_process_table
from thrum.identity.runtimes import KNOWN_RUNTIMES
from thrum.model.errors import AnonymousCaller, CrossWorktree, IdentityMismatch
from thrum.model.guards import GUARDS, Mode
from thrum.model.methods.method import Access
from thrum.model.paths import Layout

HERE = Evidence(pid=7, root="/w", here={"furiosa": "none"})
LIVES_ELSEWHERE = Evidence(pid=7, root="/w", here={"furiosa": "elsewhere"}, pids={"furiosa": 9}, terminal=False)


@dataclass
class SaidPeer:
    """A peer of which the kernel says what a test wants."""

    evidence: Evidence
    told: set[str] = field(default_factory=set[str])
    claims: list[str | None] = field(default_factory=list[str | None])

    def gather(self, _registry: Registry, claim: str | None, *, now: float) -> Evidence:
        assert now == 12.5
        self.claims.append(claim)
        return self.evidence


@dataclass
class Peer:
    pid: int = 7
    uid: int = 1000


@dataclass
class Line:
    """A connection."""

    evidence: Any = None
    transport: str = "U"
    user_id: str | None = None
    peer: Peer = field(default_factory=Peer)


def authenticator(root: Path, modes: Mapping[str, Mode] | None = None, users: frozenset[str] = frozenset()) -> Any:
    layout = Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=None)
    return Authenticator(
        table=open_process_table(),
        layout=layout,
        registry=Registry,
        runtime_names=lambda: KNOWN_RUNTIMES,
        modes=lambda: {**{name: guard.mode for name, guard in GUARDS.items()}, **(modes or {})},
        is_registered=users.__contains__,
        runtime_of=lambda agent_id: f"runtime of {agent_id}",
        now=lambda: 12.5,
        roots=Roots(layout),
    )


def asked(method: str = "message.send", level: Access = Access.REGISTERED, claim: str | None = None) -> CallerRequest:
    return CallerRequest(method, level, claim)


def test_every_request_of_a_connection_is_judged_anew(tmp_path: Path) -> None:
    peer = SaidPeer(HERE)
    line, judge = Line(peer), authenticator(tmp_path)
    assert judge.identify(line, asked(claim="furiosa")).agent_id == "furiosa"
    peer.evidence = replace(HERE, here={})
    with pytest.raises(AnonymousCaller):
        judge.identify(line, asked(claim="furiosa"))
    assert judge.identify(line, asked("team.list", Access.ANONYMOUS)).agent_id is None
    assert peer.claims == ["furiosa", "furiosa", None]


@pytest.mark.parametrize("mode", ["strict", "warn", "off"])
@pytest.mark.parametrize("level", [Access.REGISTERED, Access.ANONYMOUS])
def test_a_forged_claim_is_refused_in_every_mode(tmp_path: Path, mode: Mode, level: Access) -> None:
    judge = authenticator(tmp_path, dict.fromkeys(GUARDS, mode))
    proved = Evidence(pid=7, owner="nux", owner_root="/w", here={"nux": "chain"}, root="/w")
    for evidence in (proved, replace(HERE, here={"nux": "none"})):
        with pytest.raises(IdentityMismatch) as raised:
            judge.identify(Line(SaidPeer(evidence)), asked(level=level, claim="furiosa"))
        assert raised.value.details["expected_agent"] == "furiosa"
    browser = Line(transport="W", user_id="user:ann")
    with pytest.raises(IdentityMismatch):
        authenticator(tmp_path, dict.fromkeys(GUARDS, mode), frozenset({"user:ann"})).identify(
            browser, asked(level=level, claim="furiosa")
        )


def test_what_a_mode_lets_pass_is_warned_of_and_recorded_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = Line(SaidPeer(LIVES_ELSEWHERE))
    with pytest.raises(CrossWorktree) as raised:
        authenticator(tmp_path).identify(line, asked(claim="furiosa"))
    assert "furiosa is runtime of furiosa, pid 9" in raised.value.remedy
    caplog.clear()
    lax = authenticator(tmp_path, {"cross_worktree": "warn"})
    with caplog.at_level(logging.INFO):
        warned = [lax.identify(line, asked(claim="furiosa")) for _ in range(3)]
    assert {caller.agent_id for caller in warned} == {"furiosa"}
    assert all('"cross_worktree" fired' in caller.warnings[0] for caller in warned)
    assert [record.getMessage() for record in caplog.records] == ["identity_guard_fire"]
    off = authenticator(tmp_path, {"cross_worktree": "off"}).identify(line, asked(claim="furiosa"))
    assert (off.agent_id, off.warnings) == ("furiosa", ())


def test_a_claim_by_name_alone_is_one_record_for_each_peer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = Line(SaidPeer(replace(LIVES_ELSEWHERE, named=True)))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert authenticator(tmp_path).identify(line, asked(claim="furiosa")).by_name
    assert [record.getMessage() for record in caplog.records] == ["claim_by_name"]


def test_a_user_who_is_not_registered_any_more_is_nobody(tmp_path: Path) -> None:
    line, ann = Line(transport="W", user_id="user:ann"), frozenset({"user:ann"})
    assert authenticator(tmp_path, users=ann).identify(line, asked()).agent_id == "user:ann"
    with pytest.raises(AnonymousCaller):
        authenticator(tmp_path).identify(line, asked())


def test_a_session_s_calls_heed_the_claim_of_a_live_agent_and_registration_heeds_none() -> None:
    session, register = asked("session.start", Access.BOOTSTRAP, "furiosa"), asked("agent.register", Access.BOOTSTRAP)
    person = replace(LIVES_ELSEWHERE, terminal=True)
    started = decide_request(person, session)
    assert isinstance(started, Caller) and (started.agent_id, started.visiting) == ("furiosa", True)
    stray = decide_request(LIVES_ELSEWHERE, session)
    assert isinstance(stray, Refused) and stray.refusal.guard == "cross_worktree"
    for evidence, claim in itertools.product((person, LIVES_ELSEWHERE), (None, "furiosa")):
        registering = decide_request(evidence, replace(register, claim=claim))
        assert isinstance(registering, Caller) and registering.agent_id is None
