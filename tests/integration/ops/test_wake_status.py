"""`wake.status`: what is told of attempts, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.daemon.in_process import Daemon, open_daemon
from thrum.model.attempt_ids import new_token
from thrum.model.errors import AgentNotFound
from thrum.model.events import WakeAttempted
from thrum.store.api import Decision


async def attempted(daemon: Daemon, token: str, outcome: str, *message_ids: str, detail: str = "") -> None:
    def decide(_view: Any, stamp: Any) -> Decision[None]:
        fields = {"agent_id": "nux", "attempt_id": token, "door": "claude", "message_ids": message_ids}
        fact = stamp.make(WakeAttempted, outcome=outcome, detail=detail, **fields)
        return Decision([fact], lambda _view, _seqs: None)

    await daemon.ctx.journal.commit(decide)


async def test_it_tells_attempts_and_what_is_unseen_and_no_token(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        first = (await furiosa("message.send", content="one", to=["nux"])).message_id
        second = (await furiosa("message.send", content="two", to=["nux"])).message_id
        await furiosa("message.send", content="for the team")
        old, new = new_token(), new_token()
        await attempted(daemon, old, "offered", first)
        await attempted(daemon, old, "expired", first, detail="60 s idle")
        await attempted(daemon, new, "offered", first, second)
        everybody = await furiosa("wake.status")
        assert [each.agent_id for each in everybody.agents] == ["furiosa", "nux"]
        [told] = (await furiosa("wake.status", agent_id="nux")).agents
        assert told == everybody.agents[1] and told.unseen == (first, second) and told.doors == ()
        assert [(each.attempt_id, each.outcome, each.detail) for each in told.last] == [
            (new[:8], "offered", ""),
            (old[:8], "expired", "60 s idle"),
        ]
        assert told.open == told.last[0] and told.open.message_ids == (first, second)
        document = msgspec.json.encode(everybody)
        assert old.encode() not in document and new.encode() not in document
        await nux("message.markRead", message_ids=[first])
        [told] = (await nux("wake.status", agent_id="nux")).agents
        assert told.unseen == (second,)
        sent = (await furiosa("message.outbox")).messages[1].recipients[0]
        assert (sent.agent_id, sent.offered_at) == ("nux", told.last[0].at)


async def test_an_agent_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        with pytest.raises(AgentNotFound, match="nobody"):
            await furiosa("wake.status", agent_id="nobody")
