"""Plain `thrum inbox`: a briefing that shows everything unread once, in bounded portions (cli.md §3.5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import Agent, Daemon, open_daemon
from thrum.cli import briefing
from thrum.cli.session import TTY_OUT


async def at_desk(daemon: Daemon) -> tuple[Terminal, Agent]:
    """Furiosa's desk, and nux, who writes to her."""
    desk = await open_terminal(daemon, "furiosa")
    return desk, await daemon.registered("nux")


async def tell(nux: Agent, *texts: str) -> list[str]:
    return [(await nux("message.send", content=text, to=["@furiosa"])).message_id for text in texts]


def bodies(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


async def test_everything_unread_is_shown_oldest_first_whatever_was_read_meanwhile(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        names = [f"m{number}" for number in range(25)]
        ids = await tell(nux, *names)
        await desk.says("message", "read", *ids[3:24])  # newer ones, read by hand
        await tell(nux, "m25")
        text = await desk.says("inbox")
        assert bodies(text) == ["m0", "m1", "m2", "m24", "m25"]
        assert "more unread" not in text and "Showing" not in text
        assert await desk.says("inbox") == "No unread messages for @furiosa.\n", "nothing is printed twice"


async def test_said_again_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        names = [f"m{number}" for number in range(briefing.MESSAGES_MAX + 3)]
        await tell(nux, *names)
        first = await desk.says("inbox")
        assert bodies(first) == names[:20]
        assert first.splitlines()[-1] == "3 more unread: thrum inbox"
        assert bodies(await desk.says("inbox")) == names[20:]


async def test_portions_and_bodies_are_bounded_and_say_where_the_rest_is(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        (long,) = await tell(nux, "ü" * 5_000)
        assert (await desk.says("inbox")).splitlines()[1:] == [
            "  " + "ü" * 2_048,
            f"  … 5904 more bytes: thrum message get {long[-6:]}",
        ]
        await tell(nux, *["\x1b" * 3_000] * 5)  # each is 12 kB once it is harmless
        for rest in (4, 3, 2, 1, 0):
            text = await desk.says("inbox")
            assert len(text.encode()) <= briefing.TEXT_BYTES_MAX + 100
            assert text.endswith(f"\n{rest} more unread: thrum inbox\n") == bool(rest)
        assert await desk.says("inbox") == "No unread messages for @furiosa.\n"


async def test_one_message_larger_than_any_portion_is_cut_and_marked_read(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        await nux("message.send", content="x" * 1_000_000, structured={"a": "y" * 200_000}, to=["@furiosa"])
        text = await desk.says("inbox")
        assert len(text) < 2 * briefing.BODY_BYTES_MAX + 400
        assert "… 995904 more bytes: thrum message get " in text and "structured: {" in text
        assert (await daemon.as_agent("furiosa")("message.list", for_agent="furiosa")).unread == 0


async def test_a_terminal_without_news_shows_the_last_three_a_line_each(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        desk.tty, desk.width = TTY_OUT, 100
        assert await desk.says("inbox") == "No messages for @furiosa.\n"
        ids = await tell(nux, *[f"m{number}\nand more" for number in range(5)])
        assert len(bodies(await desk.says("inbox"))) == 10, "with unread mail, nothing else"
        head, *lines = (await desk.says("inbox")).splitlines()
        assert head == "No unread messages for @furiosa."
        assert [line.split()[1] for line in lines] == ids[:1:-1]
        assert lines[0].startswith("○ ") and lines[0].endswith("  m4 and more")


@pytest.mark.parametrize("flags", [["--page-size", "10"], ["--page", "1"], ["--from", "nux"], ["--peek"]])
async def test_whoever_asks_for_something_gets_pages_newest_first_read_ones_too(
    tmp_path: Path, flags: list[str]
) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        await tell(nux, "old", "new")
        await desk.says("inbox")
        text = await desk.says("inbox", *flags)
        assert text.index("new") < text.index("old")


async def test_a_program_is_shown_the_same_messages_as_a_person(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk, nux = await at_desk(daemon)
        await tell(nux, "read before")
        await desk.says("inbox")
        await tell(nux, "long " * 1_000, *[f"m{number}" for number in range(21)])
        first = await desk.json("inbox")
        texts = [each["body"]["content"] for each in first["messages"]]
        assert texts == ["long " * 1_000, *[f"m{number}" for number in range(19)]], "oldest first, bodies whole"
        assert first["total"] == 22, "how many there were"
        assert [each["body"]["content"] for each in (await desk.json("inbox"))["messages"]] == ["m19", "m20"]
        assert await desk.json("inbox") == {"messages": [], "unread": 0, "total": 0} | {
            key: value for key, value in (await desk.json("inbox")).items() if key.startswith("page") or "pages" in key
        }
