"""`purge.execute`: remove old facts of this daemon, here and in every clone. Source: cli.md 3.14, rpc.md §5."""

from __future__ import annotations

from thrum.model import clock
from thrum.model.errors import BadTime, ConfirmationRequired
from thrum.model.events import PurgeExecuted
from thrum.model.methods.admin import PurgeParams, PurgeResult
from thrum.ops.context import Call, Context
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View


async def execute(ctx: Context, call: Call, params: PurgeParams) -> PurgeResult:
    """Count what lies before a time, and unless it is a `dry_run`, take it away. What is still to come is never purged.

    Agents, groups and open sessions stay, and all that other daemons wrote. Raises BadTime; ConfirmationRequired
    without `confirm`.
    """
    try:
        before = clock.normalise(params.before)
    except ValueError as error:
        raise BadTime(f'bad time "{params.before}" for before', remedy="write RFC 3339", field="before") from error
    if not params.dry_run and not params.confirm:
        raise ConfirmationRequired(
            "use --yes to confirm the purge", remedy="look at the preview, then repeat with --yes"
        )

    def decide(view: View, stamp: Stamp) -> Decision[PurgeResult]:
        cutoff = min(before, stamp.text)
        counts = view.would_purge(cutoff)
        result = PurgeResult(
            before=cutoff,
            dry_run=params.dry_run,
            messages_deleted=counts.messages,
            sessions_deleted=counts.sessions,
            events_deleted=counts.facts,
            command_queue_deleted=0,
            sync_message_files=counts.message_files,
            sync_events_filtered=counts.events_lines,
            others=counts.others,
            unread=counts.unread,
        )
        if params.dry_run or cutoff <= view.own_purge():
            return Decision((), lambda _view, _seqs: result)
        # Later than the purge before, which another clock may have stamped.
        fact = stamp.make(PurgeExecuted, cutoff=cutoff, by=call.caller.agent_id or "", upto=view.last_orders())
        return Decision((fact,), lambda _view, _seqs: result)

    return await ctx.journal.commit(decide, key=call.key, heavy=True)
