"""Sessions: one open session per agent, started on demand. Source: identity.md §9, rpc.md §5 "Sessions"."""

from __future__ import annotations

from collections.abc import Sequence

from thrum.model import events, limits
from thrum.model.errors import (
    AgentNotFound,
    AnonymousCaller,
    IdentityMismatch,
    NoSession,
    NotOwner,
    SessionEnded,
    SessionNotFound,
)
from thrum.model.events import AgentUpdated, AnyFact, SessionStarted, Work
from thrum.model.methods.sessions import SessionStartParams, SessionStartResult, SetIntentParams, SetIntentResult
from thrum.ops.context import Call, Context
from thrum.ops.drafts import check_refs, check_scopes, check_text
from thrum.ops.identity_file import note_in_file
from thrum.ops.liveness import owner_alive
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import SessionRow, View


def ensure_session(view: View, stamp: Stamp, agent_id: str) -> tuple[str, list[AnyFact]]:
    """The agent's open session, and the fact that starts one if it has none, to precede the call's own fact."""
    if agent_id.startswith("user:"):
        return "", []
    session_id = view.open_session_id(agent_id)
    if session_id:
        return session_id, []
    session_id = stamp.new_id("ses_")
    return session_id, [stamp.make(SessionStarted, session_id=session_id, agent_id=agent_id)]


def end_open_sessions(view: View, stamp: Stamp, agent_id: str, reason: str) -> list[AnyFact]:
    """Facts that end what the agent has open. Two can be open after sessions of two clones came together."""
    return [
        stamp.make(events.SessionEnded, session_id=session.session_id, agent_id=agent_id, reason=reason)
        for session in view.sessions(agent_id, active_only=True)
    ]


async def start(ctx: Context, call: Call, params: SessionStartParams) -> SessionStartResult:
    """Start a session and end an older open one; with `resume`, keep the open one of the same live process."""
    agent_id = _bootstrap_agent(call, params.agent_id or params.caller_agent_id)
    scopes, refs = check_scopes(params.scopes), check_refs(params.refs)
    if agent_id.startswith("user:"):
        raise _no_session_of(agent_id)

    def decide(view: View, stamp: Stamp) -> Decision[SessionStartResult]:
        record = view.agent(agent_id)
        if record is None or not record.live:
            raise AgentNotFound(f"agent not found: {agent_id}")
        open_session = view.open_session(agent_id)
        alive = owner_alive(record, ctx.processes, ctx.runtime_names())
        if open_session is not None and params.resume and (alive or not record.agent_pid):
            return _resumed(open_session)
        reason = "superseded" if alive or not record.agent_pid else "crash_recovered"
        ends = end_open_sessions(view, stamp, agent_id, reason)
        session_id = stamp.new_id("ses_")
        fact = stamp.make(SessionStarted, session_id=session_id, agent_id=agent_id, scopes=scopes, refs=refs)
        return Decision(
            [*ends, fact],
            lambda _view, _seqs: SessionStartResult(
                session_id=session_id, agent_id=agent_id, started_at=fact.timestamp
            ),
            main=len(ends),
        )

    result = await ctx.journal.commit(decide, key=call.key, replay=_replay_start)
    if not result.replayed:
        await note_in_file(ctx, agent_id, session_id=result.session_id)
    return result


def _resumed(session: SessionRow) -> Decision[SessionStartResult]:
    return Decision(
        [],
        lambda _view, _seqs: SessionStartResult(
            session_id=session.session_id, agent_id=session.agent_id, started_at=session.started_at, resumed=True
        ),
    )


def _replay_start(_view: View, fact: AnyFact, _seq: int) -> SessionStartResult:
    assert isinstance(fact, SessionStarted)
    return SessionStartResult(
        session_id=fact.session_id, agent_id=fact.agent_id, started_at=fact.timestamp, replayed=True
    )


async def set_intent(ctx: Context, call: Call, params: SetIntentParams) -> SetIntentResult:
    """What the caller works on; an empty text clears it."""
    session = ctx.view.session(params.session_id) if params.session_id else None
    agent_id = _bootstrap_agent(call, session.agent_id if session else params.caller_agent_id)
    intent = check_text(params.intent, "intent", limits.intent_chars_max)

    def decide(view: View, stamp: Stamp) -> Decision[SetIntentResult]:
        session_id, prelude = own_session(view, stamp, agent_id, params.session_id)
        known = view.work(session_id)
        moment = stamp.later_than(known.intent_updated_at if known else "")
        work = Work(session_id=session_id, intent=intent, intent_updated_at=moment)
        fact = stamp.make(AgentUpdated, at=moment, agent_id=agent_id, work_contexts=(work,))
        return Decision(
            [*prelude, fact],
            lambda _view, _seqs: SetIntentResult(
                session_id=session_id, intent=intent, intent_updated_at=fact.timestamp
            ),
            main=len(prelude),
        )

    result = await ctx.journal.commit(decide, key=call.key, replay=_replay_intent)
    if not result.replayed:
        await note_in_file(ctx, agent_id, session_id=result.session_id, intent=intent)
    return result


def _replay_intent(_view: View, fact: AnyFact, _seq: int) -> SetIntentResult:
    assert isinstance(fact, AgentUpdated)
    (work,) = fact.work_contexts
    return SetIntentResult(
        session_id=work.session_id, intent=work.intent or "", intent_updated_at=fact.timestamp, replayed=True
    )


def own_session(view: View, stamp: Stamp, agent_id: str, session_id: str) -> tuple[str, Sequence[AnyFact]]:
    """The session meant: the one named, which must be the caller's and open, or the caller's open one, or a new one."""
    if agent_id.startswith("user:"):
        raise _no_session_of(agent_id)
    if not session_id:
        return ensure_session(view, stamp, agent_id)
    session = view.session(session_id)
    if session is None:
        raise SessionNotFound(f"session not found: {session_id}")
    if session.agent_id != agent_id:
        raise NotOwner(f"{session_id} belongs to @{session.agent_id}")
    if session.ended_at:
        raise SessionEnded(f"session {session_id} has ended")
    return session_id, ()


def _no_session_of(user_id: str) -> NoSession:
    return NoSession(f"{user_id} is a user, and users have no sessions", remedy="register an agent: thrum quickstart")


def _bootstrap_agent(call: Call, named: str) -> str:
    """Whom a bootstrap call is for: the caller, an agent that this connection registered, or, for a caller that no one
    can prove, one of its directory that no process elsewhere runs (identity.md §11).
    """
    caller = call.caller.agent_id
    if named and (named == caller or named in call.connection.registered):
        return named
    if caller is not None:
        if named:
            raise IdentityMismatch(f"only @{named} may do that; you are @{caller}", expected_agent=named)
        return caller
    if not named or named not in call.caller.candidates:
        raise AnonymousCaller("no agent here is registered under that name" if named else "the caller is not known")
    return named
