"""`thrum overview`, `thrum agent delete|cleanup|set-status`, to the letter (cli.md 3.11, 5.8)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.cli_desk import Desk, open_desk
from tests.support.house import open_daemon
from tests.support.worktrees import Worktrees
from thrum.cli.terminal import TTY_ERR, TTY_IN, NeedsOwnProcess


def settled(text: str) -> str:
    """Text without what no test can know."""
    text = re.sub(r"ses_[0-9A-Z]{8}\.\.\.", "ses_XXXXXXXX...", text)
    text = re.sub(r"active [0-9a-z]+\)", "active 5m)", text)
    text = re.sub(r"pid \d+", "pid 1", text)
    return re.sub(r"(\d+[mhd] ago|just now)", "5m ago", text)


async def test_me_team_inbox_sync_and_daemon_at_a_glance(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await open_desk(daemon, "furiosa")
        nux = await daemon.registered("nux", root=str(trees["nux"]))
        await nux("session.start", agent_id="nux")
        await nux("session.setIntent", intent="Merging\njournals")
        await nux("message.send", content="hello", to=["@furiosa"])
        await desk.says("session", "start")
        await desk.says("session", "set-intent", "Token refresh")
        trees.write(trees.main, {"new.py": "x\n"})
        (trees.main / ".git/info/exclude").write_text(".thrum/\n")
        text = settled(await desk.says("overview"))
        assert text == (
            "You:      @furiosa (implementer, furiosa)\n"
            "Session:  ses_XXXXXXXX... (active 5m)\n"
            "Intent:   Token refresh\n"
            "Branch:   main (1 file changed)\n"
            "Team:\n"
            "  @nux  nux  Merging\\x0ajournals  5m ago\n"
            "Inbox:    1 unread / 1 total\n"
            "Sync:     local-only\n"
            "Daemon:   running (pid 1)\n"
        )
        assert settled(await desk.says("status")) == text
        document = await desk.json("overview")
        assert document["agent"]["agent_id"] == "furiosa"
        assert document["work_context"]["uncommitted_files"] == ["new.py"]
        assert [each["agent_id"] for each in document["team"]] == ["nux"]
        assert document["inbox"] == {"total": 1, "unread": 1}
        assert document["context"] == {"has_context": False}
        assert document["health"]["status"] == "ok"
        row = daemon.house.view.inbox_count("furiosa")
        assert row == (1, 1), "nothing was marked read"


async def test_who_is_not_registered_is_told_so_and_sees_the_rest(tmp_path: Path) -> None:
    Worktrees(tmp_path)
    async with open_daemon(tmp_path) as daemon:
        desk = Desk(daemon.house.here.places.root, daemon.as_agent(""))
        first = (await desk.says("overview")).splitlines()[0]
        assert first == "You:      not registered (thrum quickstart NAME --role ROLE --module MODULE)"
        document = await desk.json("overview")
        assert "agent" not in document and document["inbox"] == {"total": 0, "unread": 0}


async def test_an_identity_file_without_record_is_said(tmp_path: Path) -> None:
    Worktrees(tmp_path)
    async with open_daemon(tmp_path) as daemon:
        desk = await open_desk(daemon, "furiosa")
        file = desk.root / ".thrum/identities/furiosa.json"
        data = file.read_bytes()
        await desk.says("agent", "delete", "furiosa", "--force")
        file.write_bytes(data)
        desk.agent = daemon.as_agent("")
        assert (await desk.says("overview")).splitlines()[0] == (
            "You:      @furiosa (implementer, furiosa), not registered here"
            " (thrum quickstart furiosa --role implementer --module furiosa)"
        )


# -- delete, cleanup, status


@pytest.mark.spec("ID-52")
async def test_deleting_needs_a_yes_or_force(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_desk(daemon, "furiosa")
        await daemon.registered("nux")
        refusal = await desk.refused("agent", "delete", "nux")
        assert refusal["kind"] == "confirmation_required"
        assert refusal["message"].startswith("use --yes to confirm deletion: @nux lives elsewhere, in ")
        desk.local, desk.tty = False, TTY_IN | TTY_ERR
        with pytest.raises(NeedsOwnProcess):
            await desk.status("agent", "delete", "nux")
        assert desk.out == desk.err == b""
        assert daemon.house.view.agent_ids() == {"furiosa", "nux"}
        assert await desk.says("agent", "delete", "@nux", "--force") == "✓ Agent deleted: nux\n"
        refusal = await desk.refused("agent", "delete", "furioso", "--force")
        assert (refusal["kind"], refusal["details"]["suggestions"]) == ("agent_not_found", ["furiosa"])


@pytest.mark.spec("ID-53")
async def test_cleanup_lists_and_deletes_by_force(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_desk(daemon, "furiosa")
        assert await desk.says("agent", "cleanup") == "No orphaned agents.\n"
        await daemon.registered("nux", "tester")
        row = daemon.house.view.agent("nux")
        assert row is not None
        (Path(row.worktree_path) / ".thrum/identities/nux.json").unlink()
        listing = "Orphaned agents (1):\n  @nux  tester  nux  identity file gone, seen today, 0 messages\n"
        assert await desk.says("agent", "cleanup") == listing
        assert desk.err.decode() == "Nothing was deleted; delete them all: thrum agent cleanup --yes\n"
        assert await desk.says("agent", "cleanup", "--dry-run") == listing
        assert (await desk.json("agent", "cleanup"))["deleted"] == []
        assert (await desk.refused("agent", "cleanup", "--dry-run", "--force", status=2))["kind"] == "usage"
        assert (await desk.refused("agent", "cleanup", "--threshold", "x", status=2))["kind"] == "usage"
        assert (await desk.refused("agent", "cleanup", "--threshold", "-1", status=2))["kind"] == "usage"
        desk.local, desk.tty = False, TTY_IN | TTY_ERR
        with pytest.raises(NeedsOwnProcess):
            await desk.status("agent", "cleanup")
        assert await desk.says("agent", "cleanup", "--force") == "✓ Deleted nux\n" + listing
        assert daemon.house.view.agent_ids() == {"furiosa"}


async def test_a_status_is_said(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_desk(daemon, "furiosa")
        await daemon.registered("nux")
        assert await desk.says("agent", "set-status", "blocked") == "✓ Status set to blocked\n"
        assert await desk.says("agent", "set-status", "stuck", "--agent", "@nux") == "✓ Status for nux set to stuck\n"
        document = await desk.json("agent", "set-status", "idle")
        assert document.keys() == {"agent_id", "agent_status", "agent_status_updated_at"}
        assert (await desk.refused("agent", "set-status", "asleep", status=2))["kind"] == "usage"
