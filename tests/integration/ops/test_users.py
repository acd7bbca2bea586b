"""Who calls over a WebSocket: the user that registered on the connection, through the real dispatcher (identity.md)."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.daemon.in_process import Agent, Daemon, open_daemon
from thrum.model import limits
from thrum.model.errors import (
    AnonymousCaller,
    BadToken,
    IdentityMismatch,
    InvalidName,
    InvalidParams,
    NameEqualsRole,
    NoSession,
    ReservedName,
    ThrumError,
    WrongTransport,
)
from thrum.model.methods.method import Access
from thrum.model.methods.table import METHODS

OPEN = {"user.identify", "user.register", "health"}


OVER_W = [name for name, method in METHODS.items() if "W" in method.transports]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncGenerator[Daemon]:
    async with open_daemon(tmp_path) as opened:
        await trio.run_process(["git", "init", "-q", "."], cwd=tmp_path / "repo")
        yield opened


async def kind_of(browser: Agent, method: str, **params: Any) -> str:
    """What a call was refused for, empty when it was not."""
    try:
        await browser(method, **params)
    except InvalidParams:
        return "invalid_params"
    except ThrumError as error:
        return str(error.details.get("reason") or error.kind)
    return ""


@pytest.mark.spec("ID-66")
async def test_a_connection_without_user_reaches_exactly_the_three(daemon: Daemon) -> None:
    browser = daemon.as_browser()
    assert (await browser("health")).status == "ok"
    before = daemon.ctx.view.head_seq()
    for name in OVER_W:
        if name not in OPEN:
            assert await kind_of(browser, name) in ("no_caller_agent_id", "invalid_params", "unknown_method"), name
    for name, params in {
        "message.send": {"content": "x"},
        "message.get": {"message_id": "x"},
        "message.wait": {"timeout_ms": 0},
        "events.since": {"after_seq": 0},
        "session.start": {"agent_id": "furiosa"},
        "session.setIntent": {"intent": "x"},
        "group.create": {"name": "g"},
        "context.save": {"agent_name": "x", "content": "x"},
    }.items():
        assert await kind_of(browser, name, **params) == "no_caller_agent_id", name
    assert daemon.ctx.view.head_seq() == before


@pytest.mark.spec("ID-66")
@pytest.mark.parametrize("mode", ["warn", "off"])
async def test_a_laxer_mode_lets_nobody_read_and_never_more(
    daemon: Daemon, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.ctx.here.layout.guard_file.write_text(json.dumps({"unauthenticated_rpc": mode}))
    browser = daemon.as_browser()
    with caplog.at_level(logging.WARNING, "thrum.model.guards"):
        assert (await browser("agent.list")).agents == ()
        assert [getattr(each, "fields")["outcome"] for each in caplog.records] == (  # noqa: B009
            ["allowed"] if mode == "warn" else []
        )
        with pytest.raises(AnonymousCaller) as refused:
            await browser("message.send", content="x")
    assert refused.value.details["reason"] == "no_caller_agent_id"
    assert "user.register" in refused.value.remedy
    assert getattr(caplog.records[-1], "fields")["outcome"] == "denied"  # noqa: B009
    assert await kind_of(browser, "session.start") == "no_caller_agent_id"
    assert await kind_of(browser, "agent.list", caller_agent_id="furiosa") == "identity_mismatch"
    for name in OVER_W:
        if METHODS[name].access is not Access.ANONYMOUS and name not in OPEN:
            assert await kind_of(browser, name) in ("no_caller_agent_id", "invalid_params", "unknown_method"), name


@pytest.mark.spec("ID-66")
async def test_an_agent_cannot_be_claimed(daemon: Daemon) -> None:
    await daemon.registered("furiosa")
    browser = daemon.as_browser()
    for name in sorted(OPEN):
        params = {"username": "leon"} if name == "user.register" else {}
        assert await kind_of(browser, name, caller_agent_id="furiosa", **params) == "identity_mismatch"
    await browser("user.register", username="leon")
    with pytest.raises(IdentityMismatch) as refused:
        await browser("message.send", content="x", caller_agent_id="furiosa")
    assert refused.value.details["detected_agent"] == "user:leon"
    assert "no agent can be claimed" in refused.value.remedy
    sent = await browser("message.send", content="x", caller_agent_id="user:leon")
    found = await browser("message.get", message_id=sent.message_id)
    assert found.message.author.agent_id == "user:leon"


@pytest.mark.spec("ID-80")
async def test_a_user_cannot_be_registered_over_the_unix_socket(daemon: Daemon) -> None:
    before = daemon.ctx.view.head_seq()
    for caller in (daemon.as_agent(""), daemon.as_agent("furiosa")):
        with pytest.raises(WrongTransport):
            await caller("user.register", username="leon")
    assert daemon.ctx.view.head_seq() == before


@pytest.mark.spec("ID-80")
async def test_registering_again_gives_the_same_user_and_a_new_token(daemon: Daemon) -> None:
    browser = daemon.as_browser()
    first = await browser("user.register", username="Leon", display="Leon Letto")
    assert (first.user_id, first.username, first.display_name) == ("user:leon", "leon", "Leon Letto")
    assert first.status == "registered" and first.token.startswith("tok_") and len(first.token) == 30
    seq = daemon.ctx.view.head_seq()
    again = await daemon.as_browser()("user.register", username="leon")
    assert (again.status, again.user_id, again.display_name) == ("existing", "user:leon", "Leon Letto")
    assert again.token != first.token
    assert daemon.ctx.view.head_seq() == seq, "nothing new, no fact"
    row = daemon.ctx.view.agent("user:leon")
    assert row is not None and (row.kind, row.role, row.module, row.live) == ("user", "leon", "ui", True)
    renamed = await browser("user.register", username="leon", display="L.")
    assert (renamed.status, renamed.display_name) == ("existing", "L.")
    assert daemon.ctx.view.head_seq() == seq + 1


@pytest.mark.spec("ID-66", "ID-80")
async def test_a_token_brings_a_new_connection_back_to_its_user(daemon: Daemon) -> None:
    first = await daemon.as_browser()("user.register", username="leon")
    browser = daemon.as_browser()
    for params in ({"token": "tok_01HXE8Z7R9K3Q6M2W8F4VYABCD"}, {"token": first.token, "username": "max"}):
        with pytest.raises(BadToken):
            await browser("user.register", **params)
        assert await kind_of(browser, "agent.whoami") == "no_caller_agent_id"
    back = await browser("user.register", token=first.token)
    assert (back.status, back.user_id) == ("existing", "user:leon") and back.token != first.token
    assert (await browser("agent.whoami")).agent_id == "user:leon"


@pytest.mark.spec("ID-66")
async def test_a_user_writes_reads_and_has_no_session(daemon: Daemon) -> None:
    furiosa = await daemon.registered("furiosa")
    browser = daemon.as_browser()
    await browser("user.register", username="leon")
    await furiosa("message.send", content="hello", to=["user:leon"])
    (message,) = (await browser("message.list", for_agent="user:leon")).messages
    await browser("message.markRead", message_ids=[message.message_id])
    answer = await browser("message.send", content="hi", reply_to=message.message_id)
    assert [each.agent_id for each in answer.recipients] == ["furiosa"]
    with pytest.raises(IdentityMismatch):
        await browser("message.list", for_agent="furiosa")
    for name, params in {"session.start": {}, "session.setIntent": {"intent": "x"}, "session.end": {}}.items():
        with pytest.raises(NoSession):
            await browser(name, **params)
    with pytest.raises(IdentityMismatch):
        await browser("session.start", agent_id="furiosa")
    assert daemon.ctx.view.sessions("user:leon") == []


@pytest.mark.spec("ID-66")
async def test_every_method_answers_a_user_or_refuses_it_in_words(daemon: Daemon) -> None:
    browser = daemon.as_browser()
    await browser("user.register", username="leon")
    refusals = {name: await kind_of(browser, name) for name in OVER_W if name != "message.wait"}
    assert "internal" not in refusals.values(), refusals
    assert {name for name, kind in refusals.items() if kind == "no_caller_agent_id"} == set()
    for name, method in METHODS.items():
        if "W" not in method.transports:
            assert await kind_of(browser, name) in ("wrong_transport", "unknown_method"), name


async def test_a_user_waits_for_a_message_and_finds_the_last_one_that_was_printed(daemon: Daemon) -> None:
    furiosa, browser = await daemon.registered("furiosa"), daemon.as_browser()
    await browser("user.register", username="leon")
    assert (await browser("message.wait", timeout_ms=0)).status == "timeout"
    assert await kind_of(browser, "message.find", last=True) == "message_not_found"
    sent = await furiosa("message.send", content="hi", to=["user:leon"])
    assert [each.message_id for each in (await browser("message.wait", timeout_ms=0)).messages] == [sent.message_id]
    await browser("message.printed", message_ids=[sent.message_id])
    assert (await browser("message.find", last=True)).message_id == sent.message_id


@pytest.mark.spec("ID-80")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", InvalidName),
        ("a/b", InvalidName),
        ("../x", InvalidName),
        ("léon", InvalidName),
        ("a\0b", InvalidName),
        ("x" * (limits.user_name_chars_max + 1), InvalidName),
        ("Everyone", ReservedName),
        ("furiosa", NameEqualsRole),
    ],
)
async def test_a_bad_user_name_registers_nobody(daemon: Daemon, name: str, error: type[ThrumError]) -> None:
    await daemon.registered("furiosa")
    before = daemon.ctx.view.head_seq()
    browser = daemon.as_browser()
    with pytest.raises(error):
        await browser("user.register", username=name)
    assert daemon.ctx.view.head_seq() == before
    assert await kind_of(browser, "agent.whoami") == "no_caller_agent_id"


async def test_git_proposes_who_works_here(daemon: Daemon) -> None:
    root = daemon.ctx.here.layout.main_root
    browser = daemon.as_browser()
    for key, value in (("user.name", "Émile  Zola"), ("user.email", "emile@example.org")):
        await trio.run_process(["git", "config", key, value], cwd=root)
    found = await browser("user.identify")
    assert (found.username, found.email, found.display) == ("emile-zola", "emile@example.org", "Émile  Zola")
    await trio.run_process(["git", "config", "user.name", "  "], cwd=root)
    with pytest.raises(ThrumError, match=r"git config user\.name not set") as refused:
        await browser("user.identify")
    assert refused.value.remedy == 'git config user.name "YOUR NAME"'
