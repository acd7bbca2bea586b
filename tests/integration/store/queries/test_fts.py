"""Search in a store that is served: the index follows over restarts, and `thrum inbox --search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.terminal import open_terminal
from tests.support.daemon.in_process import open_daemon
from tests.support.store.opened import editing, layout_at, opened, projection_of, sending
from thrum.model import errors, limits, search
from thrum.store.queries.views import InboxQuery, View


def found(view: View, text: str, **query: Any) -> list[str]:
    query.setdefault("page_size", 1_000)
    page = view.inbox(InboxQuery(search=search.expression(text), sort_order="asc", **query))
    assert page.total == len(page.messages)
    return [message.body.content for message in page.messages]


async def test_the_index_follows_in_steps_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "unindexed_max", 5)
    for turn in range(4):
        async with opened(tmp_path) as store:
            for number in range(3):
                sent = await store.committer.commit(sending(f"word{turn} {number}"))
                await store.committer.commit(editing(sent.message_id, f"edited{turn} {number}"))
            waiting = store.view._db.execute("SELECT count(*) FROM unindexed").fetchone()[0]  # pyright: ignore[reportPrivateUsage]
            assert 0 < waiting <= 5
            for past in range(turn + 1):
                assert len(found(store.view, f"edited{past}")) == 3
                assert found(store.view, f"word{past}") == []
    live = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path) as store:
        assert len(found(store.view, "edited")) == 12
    assert projection_of(tmp_path) == live


async def test_much_text_does_not_wait_for_the_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("x" * limits.body_bytes_max))
        assert store.view._db.execute("SELECT count(*) FROM unindexed").fetchone() == (0,)  # pyright: ignore[reportPrivateUsage]


async def test_a_query_without_words_or_with_too_many_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        with pytest.raises(errors.InvalidParams, match="no word"):
            await furiosa("message.list", query=" ?! ")
        with pytest.raises(errors.InvalidParams, match="more than 64 words"):
            await furiosa("message.list", query="a " * 65)
        assert (await furiosa("message.list", query="a " * 64)).total == 0


async def test_inbox_search_shows_what_matches_and_says_when_nothing_does(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        desk = await open_terminal(daemon, "nux")
        await furiosa("message.send", content="Token refresh is in", to=["@nux"])
        await furiosa("message.send", content="lunch?", to=["@nux"])
        page = await desk.json("inbox", "--search", "refresh tok", "--peek")
        assert [each["body"]["content"] for each in page["messages"]] == ["Token refresh is in"]
        assert (page["unread"], page["hidden_by_filter"]) == (1, 1)
        assert "lunch" in await desk.says("inbox", "--all", "--search", "lun")
        assert 'No messages match --search "nowhere" (2 in the inbox).' in await desk.says(
            "inbox", "--search", "nowhere"
        )
        error = await desk.refused("inbox", "--search", "?!", status=errors.UsageError.status)
        assert error["message"] == 'inbox: --search needs a word to look for, not "?!"'
        assert error["kind"] == "usage"
        assert (await desk.refused("inbox", "--search", "", status=errors.UsageError.status))["kind"] == "usage"
