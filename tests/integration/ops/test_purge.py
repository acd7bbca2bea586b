"""`thrum purge` and `purge.execute`: preview first, then what is old is gone, and nothing else (cli.md 3.14)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli.terminal import open_terminal
from tests.support.daemon.in_process import Daemon, open_daemon
from thrum.model import clock, errors
from thrum.model.events import PurgeExecuted, decode

HOUR_MS = 3_600_000


def facts_of(daemon: Daemon, file: str = "events.jsonl") -> list[object]:
    path = daemon.ctx.here.layout.branch_dir / file
    return [decode(line) for line in path.read_bytes().splitlines()]


def purges(daemon: Daemon) -> list[PurgeExecuted]:
    return [fact for fact in facts_of(daemon) if isinstance(fact, PurgeExecuted)]


async def test_a_preview_counts_and_changes_nothing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        old = await furiosa("message.send", content="old", to=["@nux"])
        await nux("message.send", content="answer", to=["@furiosa"], reply_to=old.message_id)
        await nux("message.markRead", message_ids=[old.message_id])
        await nux("session.end")
        daemon.clock.ms += HOUR_MS
        await furiosa("message.send", content="young", to=["@nux"])
        head = daemon.store.view.head_seq()
        nobody = daemon.as_agent("")
        before = clock.format_ms(daemon.clock.ms - 1)
        seen = await nobody("purge.execute", before=before)
        assert seen.dry_run and seen.before == before
        assert (seen.messages_deleted, seen.sessions_deleted, seen.command_queue_deleted) == (2, 1, 0)
        # Two creates, the receipt, and the start of nux's session.
        assert (seen.events_deleted, seen.sync_message_files, seen.sync_events_filtered) == (4, 2, 1)
        assert daemon.store.view.head_seq() == head

        with pytest.raises(errors.ConfirmationRequired):
            await nobody("purge.execute", before=before, dry_run=False)
        assert daemon.store.view.head_seq() == head

        done = await nobody("purge.execute", before=before, dry_run=False, confirm=True)
        assert not done.dry_run
        assert (done.messages_deleted, done.events_deleted) == (2, 4)
        page = await nux("message.list", for_agent="nux")
        assert [message.body.content for message in page.messages] == ["young"]
        assert (await nobody("purge.execute", before=before)).events_deleted == 0


async def test_a_purge_spares_agents_groups_and_open_sessions(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await furiosa("session.start")
        await furiosa("group.create", name="core")
        await furiosa("message.send", content="old")
        session = daemon.store.view.open_session("furiosa")
        daemon.clock.ms += HOUR_MS
        everything = clock.format_ms(daemon.clock.ms)
        await furiosa("purge.execute", before=everything, dry_run=False, confirm=True)
        view = daemon.store.view
        assert view.is_live("furiosa") and "core" in view.groups()
        assert view.open_session("furiosa") == session
        assert (await furiosa("message.list")).total == 0
        (fact,) = purges(daemon)
        assert (fact.cutoff, fact.by) == (everything, "furiosa")


async def test_what_is_still_to_come_is_not_purged_and_what_is_gone_is_not_purged_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await furiosa("message.send", content="old")
        daemon.clock.ms += HOUR_MS
        tomorrow = clock.format_ms(daemon.clock.ms + 24 * HOUR_MS)
        done = await furiosa("purge.execute", before=tomorrow, dry_run=False, confirm=True)
        assert clock.parse_ms(done.before) < daemon.clock.ms + HOUR_MS
        sent = await furiosa("message.send", content="after")
        assert [m.message_id for m in (await furiosa("message.list")).messages] == [sent.message_id]
        earlier = clock.format_ms(daemon.clock.ms - HOUR_MS)
        await furiosa("purge.execute", before=earlier, dry_run=False, confirm=True)
        assert len(purges(daemon)) == 1


async def test_a_bad_time_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        with pytest.raises(errors.BadTime, match='"soon"'):
            await daemon.as_agent("")("purge.execute", before="soon")


async def test_the_command_shows_a_preview_and_says_what_git_keeps(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert desk.agent is not None
        await daemon.registered("nux")
        await desk.agent("message.send", content="old", to=["nux"])
        daemon.clock.ms += HOUR_MS
        at = clock.format_ms(daemon.clock.ms)
        short = at[:19] + "Z"
        assert await desk.says("purge", "--before", at) == (
            f"Purge preview (before {short}):\n  1 message (1 not read by all)\n  0 sessions\n  1 event\n"
            f"Run with --yes to execute: thrum purge --before {at} --yes\n"
        )
        assert await desk.says("purge", "--before", at, "--confirm") == (
            f"Purged (before {short}):\n  1 message deleted\n  0 sessions deleted\n  1 event deleted\n"
        )
        assert "git history keeps what was pushed" in desk.err.decode()
        assert sorted(await desk.json("purge", "--before", at)) == [
            "before",
            "command_queue_deleted",
            "dry_run",
            "events_deleted",
            "messages_deleted",
            "others",
            "sessions_deleted",
            "sync_events_filtered",
            "sync_message_files",
            "unread",
        ]
        document = await desk.json("purge", "--all")
        assert document["dry_run"] and document["messages_deleted"] == 0


@pytest.mark.parametrize("argv", [(), ("--confirm",), ("--before", "30d", "--all"), ("--before", "soon")])
async def test_a_purge_needs_one_way_to_say_until_when(tmp_path: Path, argv: tuple[str, ...]) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert await desk.status("purge", *argv) != 0
        assert purges(daemon) == []


async def test_another_clones_purge_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        for words in ((), ("evt_01KGH87Y00AAAAAAAAAAAAAAAA",)):
            error = await desk.refused("purge", "accept", *words)
            assert error["kind"] == "not_available" and "thrum purge --before T --yes" in error["remedy"]
