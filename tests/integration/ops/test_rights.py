"""Whose a message, a session or a note is, the operation judges: an access level does not promise it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.in_process import open_daemon
from thrum.model.errors import ThrumError


async def test_what_is_another_agents_is_refused_whatever_is_asked(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        ann, bob = await daemon.registered("ann"), await daemon.registered("bob")
        sent = await ann("message.send", content="hello", to=["bob"])
        session = await ann("session.start")
        await bob("session.start")
        other: dict[str, dict[str, Any]] = {
            "message.edit": {"message_id": sent.message_id, "content": "no"},
            "message.delete": {"message_id": sent.message_id},
            "session.setIntent": {"session_id": session.session_id, "intent": "no"},
            "session.setTask": {"session_id": session.session_id, "current_task": "no"},
            "session.heartbeat": {"session_id": session.session_id},
            "session.end": {"session_id": session.session_id},
            "context.save": {"agent_name": "ann", "content": "no"},
            "context.clear": {"agent_name": "ann"},
            "context.preamble.save": {"agent_name": "ann", "content": "no"},
            "message.list": {"for_agent": "ann"},
        }
        before = daemon.ctx.view.head_seq()
        for name, params in other.items():
            with pytest.raises(ThrumError) as raised:
                await bob(name, **params)
            assert raised.value.kind in ("not_author", "not_owner", "identity_mismatch"), name
        assert daemon.ctx.view.head_seq() == before, "nothing was written"
        for name in ("message.edit", "session.setTask", "context.save", "session.end"):
            await ann(name, **other[name])
