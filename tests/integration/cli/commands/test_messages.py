"""What `thrum sent` shows, and what somebody is told who has to say yes (cli.md §2, §6)."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.cli.terminal import open_terminal
from tests.support.daemon.in_process import open_daemon


async def test_sent_says_once_who_has_read_and_counts_nobody_who_is_gone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        nux = await daemon.registered("nux", "tester")
        await daemon.registered("max", "tester")
        one = (await desk.json("send", "to one\nand more", "--to", "@nux"))["message_id"]
        two = (await desk.json("send", "to two", "--to", "@tester"))["message_id"]
        await nux("message.markRead", message_ids=[one, two])

        async def sent(*flags: str) -> list[str]:
            """What is shown, but for the days since then: the messages are of a day, and get older."""
            return re.sub(r"\d+d ago", "DAYS ago", await desk.says("sent", *flags)).splitlines()

        assert await sent() == [
            f"{two}  DAYS ago  to @tester  1/2 read",
            "  to two",
            "  Recipients: @max(delivered: plain shell: nobody polls), @nux(read)",
            f"{one}  DAYS ago  to @nux  1/1 read",
            "  to one…",
        ]
        await desk.says("agent", "delete", "max", "--force")
        assert await sent("--limit", "1") == [
            f"{two}  DAYS ago  to @tester  1/1 read",
            "  to two",
            "  Recipients: @max(gone), @nux(read)",
            "Showing 1-1 of 2 messages",
        ]
        assert await desk.says("sent", "--unread") == "Nothing matches.\n", "of nobody who could read it"


async def test_what_asks_for_a_yes_says_what_it_is_about_and_the_whole_command(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await daemon.registered("nux", "tester")
        await desk.says("group", "create", "core")
        sent = (await desk.json("send", "\nit is wrong\nas I see now", "--to", "@nux"))["message_id"]
        error = await desk.refused("message", "delete", "last", "--reason", "was wrong")
        assert error["message"] == f"use --yes to confirm deletion of {sent}: it is wrong…"
        assert error["remedy"] == f"thrum message delete {sent[-6:]} --reason 'was wrong' --json --yes"
        for argv, again in (
            (("agent", "delete", "nux", "--with-messages"), "thrum agent delete nux --with-messages --force"),
            (("--repo", str(desk.root), "group", "delete", "--", "core"), "group delete --yes -- core"),
        ):
            assert await desk.status(*argv) == 1
            assert desk.err.decode().splitlines()[-1].endswith(again), desk.err
        cleanup = ("agent", "cleanup", "--threshold", "0")
        daemon.clock.ms += 3 * 86_400_000
        assert await desk.status(*cleanup) == 0
        assert desk.err.decode().endswith("delete them all: thrum agent cleanup --threshold 0 --yes\n"), desk.err
