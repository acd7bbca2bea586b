"""What a person accepts about other daemons on this machine (events.md §11, `thrum sync accept`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from thrum.model.errors import AgentNotFound, DaemonUnknown, InvalidParams
from thrum.model.events import Accepted, AnyFact
from thrum.model.methods.sync import SyncAcceptParams, SyncAcceptResult
from thrum.ops import introduction
from thrum.ops.context import Context
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View

_AGENTS_MAX: Final = 3
_DAEMONS_MAX: Final = 10


async def accept(ctx: Context, params: SyncAcceptParams, found: Collection[str]) -> SyncAcceptResult:
    """`found`: the repository ids of a branch that was refused as another project's.

    Raises InvalidParams, DaemonUnknown, AgentNotFound.
    """
    if not params.origin:
        if params.gone or params.agent:
            raise InvalidParams("name the daemon", remedy=_known_daemons(ctx.view), field="origin")
        return await _accept_project(ctx, found)

    def decide(view: View, stamp: Stamp) -> Decision[SyncAcceptResult]:
        known = {row.daemon_id for row in view.trusted_of()}
        if params.origin not in known:
            raise DaemonUnknown(f"nothing here is from a daemon {params.origin}", remedy=_known_daemons(view))
        facts: list[AnyFact] = []
        if params.agent:
            if params.origin not in view.registrars_of(params.agent):
                raise AgentNotFound(f"{params.origin} has no agent @{params.agent}")
            facts.append(stamp.make(Accepted, kind="holder", id=params.agent, of=params.origin))
        elif params.gone:
            facts.append(stamp.make(Accepted, kind="gone", id=params.origin))
        else:
            claimed = view.previous_ids_of(params.origin)
            former = sorted(view.keyless_ids_of(params.origin))
            if claimed and not former:
                was = ", ".join(sorted(claimed))
                raise InvalidParams(
                    f"{params.origin} claims to be the former {was}, which has a key and signs for itself",
                    remedy="if that daemon no longer exists: thrum sync accept ID --gone",
                    field="origin",
                )
            facts += [stamp.make(Accepted, kind="origin", id=params.origin, of=old) for old in former]
            if not former:
                facts.append(stamp.make(Accepted, kind="origin", id=params.origin))
        said = SyncAcceptResult(kind=facts[0].kind if isinstance(facts[0], Accepted) else "", accepted=params.origin)
        return Decision(facts, lambda _view, _seqs: said)

    return await ctx.journal.commit(decide, heavy=True)


def _known_daemons(view: View) -> str:
    """What lists the daemons that could be named, each with its machine and agents."""
    agents: dict[str, list[str]] = {}
    for row in view.agents():
        agents.setdefault(row.origin_daemon, []).append(f"@{row.agent_id}")
    named: list[str] = []
    for each in view.trusted_of():
        some = sorted(agents.get(each.daemon_id, ()))
        about = ([f"host {each.hostname}"] if each.hostname else []) + _some(some, _AGENTS_MAX)
        named.append(f"{each.daemon_id} ({', '.join(about)})" if about else each.daemon_id)
    if not named:
        return "thrum sync status; nothing here is from another daemon"
    return f"name one, with --gone if it no longer exists: {'; '.join(_some(named, _DAEMONS_MAX))}"


def _some(texts: list[str], most: int) -> list[str]:
    return [*texts[:most], "…"] if len(texts) > most else texts


async def _accept_project(ctx: Context, found: Collection[str]) -> SyncAcceptResult:
    """Take over the repository ids of the branch: this project has these too."""
    if not found:
        message = "no branch was refused as another project's"
        raise InvalidParams(message, remedy=_known_daemons(ctx.view), field="origin")

    def decide(_view: View, stamp: Stamp) -> Decision[None]:
        facts = [stamp.make(Accepted, kind="project", id=repo_id) for repo_id in sorted(found)]
        return Decision(facts, lambda _view, _seqs: None)

    await ctx.journal.commit(decide)
    await introduction.introduce(ctx)
    return SyncAcceptResult(kind="project", accepted=" ".join(sorted(found)))
