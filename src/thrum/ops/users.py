"""Users in a browser: the user that git names, and registration over a WebSocket. Source: identity.md §14, rpc.md
§5."""

from __future__ import annotations

from collections.abc import Sequence

from thrum.model import ids, limits
from thrum.model.errors import BadToken
from thrum.model.events import AgentRegistered, AnyFact
from thrum.model.methods.method import Empty
from thrum.model.methods.users import UserIdentifyResult, UserRegisterParams, UserRegisterResult
from thrum.ops.context import Call, Context
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View

MODULE = "ui"
"""The module of every user."""
_PREFIX = "user:"


class Tokens:
    """The user of each token, while the daemon runs; beyond a limit the oldest are forgotten."""

    def __init__(self) -> None:
        self._users: dict[str, str] = {}

    def issue(self, user_id: str, now_ms: int) -> str:
        """A fresh one that cannot be guessed from an earlier one."""
        token = "tok_" + ids.Ulids().at(now_ms)
        self._users[token] = user_id
        while len(self._users) > limits.user_tokens_max:
            del self._users[next(iter(self._users))]
        return token

    def user_of(self, token: str) -> str | None:
        return self._users.get(token)


async def identify(ctx: Context, _call: Call, _params: Empty) -> UserIdentifyResult:
    """Who git says works here: a proposal for `user.register`. Raises ThrumError when git says nothing."""
    user = await ctx.work.user()
    username = ids.user_id(user.name).removeprefix(_PREFIX)
    return UserIdentifyResult(username=username, email=user.email, display=user.name)


async def register(ctx: Context, tokens: Tokens, call: Call, params: UserRegisterParams) -> UserRegisterResult:
    """Make the connection a user's from here on: a new one's, a known one's, or that of an earlier answer's token.

    Raises the name rules, BadToken.
    """
    username = _username(tokens, params)
    ids.check_display(params.display)
    user_id = _PREFIX + username

    def decide(view: View, stamp: Stamp) -> Decision[UserRegisterResult]:
        record = view.agent(user_id)
        known = record is not None and record.live
        if params.token and not known:
            raise _bad_token()
        display = params.display or (record.display if record is not None and known else "")
        facts: list[AnyFact] = []
        if record is None or not known or display != record.display:
            others = [row for row in view.agents() if row.agent_id != user_id]
            ids.check_role(username, {row.agent_id for row in others if row.name}, view.groups())
            watermark = view.watermark("agent", user_id)
            facts.append(
                stamp.make(
                    AgentRegistered,
                    at=stamp.later_than(max(record.reg_at if record else "", watermark[0] if watermark else "")),
                    agent_id=user_id,
                    kind="user",
                    role=username,
                    module=MODULE,
                    display=display,
                    hostname=ctx.here.hostname,
                )
            )

        def answer(_view: View, _seqs: Sequence[int]) -> UserRegisterResult:
            return UserRegisterResult(
                user_id=user_id,
                username=username,
                display_name=display,
                token=tokens.issue(user_id, ctx.clock.now_ms()),
                status="existing" if known else "registered",
            )

        return Decision(facts, answer)

    result = await ctx.journal.commit(decide, key=call.key)
    call.connection.user_id = user_id
    return result


def _username(tokens: Tokens, params: UserRegisterParams) -> str:
    """The user meant, by name or token, which may not contradict each other. Raises InvalidName, BadToken."""
    username = params.username.lower()
    if not params.token:
        ids.check_user_name(username)
        return username
    user_id = tokens.user_of(params.token)
    if user_id is None or username not in ("", user_id.removeprefix(_PREFIX)):
        raise _bad_token()
    return user_id.removeprefix(_PREFIX)


def _bad_token() -> BadToken:
    return BadToken("the token is not known", remedy="user.register with a username gives a new one")
