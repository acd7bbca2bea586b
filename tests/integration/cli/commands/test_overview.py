"""`thrum overview`, `thrum agent delete|cleanup|set-status`, to the letter (cli.md 3.11, 5.8)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import open_daemon
from tests.support.git.worktrees import Worktrees
from tests.support.store.arrivals import THERE, foreign, found
from thrum.cli.session import TTY_ERR, TTY_IN, NeedsOwnProcess
from thrum.model.events import AgentRegistered


def settled(text: str) -> str:
    """Text without what no test can know."""
    text = re.sub(r"ses_[0-9A-Z]{8}\.\.\.", "ses_XXXXXXXX...", text)
    text = re.sub(r"active [0-9a-z]+\)", "active 5m)", text)
    text = re.sub(r"pid \d+", "pid 1", text)
    return re.sub(r"(\d+[mhd] ago|just now)", "5m ago", text)


async def test_me_team_inbox_sync_and_daemon_at_a_glance(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
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
        row = daemon.ctx.view.inbox_count("furiosa")
        assert row == (1, 1), "nothing was marked read"


async def test_who_is_not_registered_is_told_so_and_sees_the_rest(tmp_path: Path) -> None:
    Worktrees(tmp_path)
    async with open_daemon(tmp_path) as daemon:
        desk = Terminal(daemon.ctx.here.layout.root, daemon.as_agent(""))
        first = (await desk.says("overview")).splitlines()[0]
        assert first == "You:      not registered (thrum quickstart NAME --role ROLE --module MODULE)"
        document = await desk.json("overview")
        assert "agent" not in document and document["inbox"] == {"total": 0, "unread": 0}


async def test_an_identity_file_without_record_is_said(tmp_path: Path) -> None:
    Worktrees(tmp_path)
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
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
        desk = await open_terminal(daemon, "furiosa")
        await daemon.registered("nux")
        refusal = await desk.refused("agent", "delete", "nux")
        assert refusal["kind"] == "confirmation_required"
        assert refusal["message"].startswith("use --force to confirm deletion: @nux lives elsewhere, in ")
        assert (await desk.refused("agent", "delete", "nux", "--yes"))["remedy"].endswith(" --force")
        desk.local, desk.tty = False, TTY_IN | TTY_ERR
        with pytest.raises(NeedsOwnProcess):
            await desk.status("agent", "delete", "nux")
        assert desk.out == desk.err == b""
        assert daemon.ctx.view.agent_ids() == {"furiosa", "nux"}
        assert await desk.says("agent", "delete", "@nux", "--force") == "✓ Agent deleted: nux\n"
        for words in (("--force",), ()):
            refusal = await desk.refused("agent", "delete", "furioso", *words)
            assert (refusal["kind"], refusal["details"]["suggestions"]) == ("agent_not_found", ["furiosa"])


async def test_what_is_not_there_or_not_mine_is_refused_before_anybody_is_asked_to_confirm(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        nux = await daemon.registered("nux")
        theirs = (await nux("message.send", content="hello", to=["@furiosa"])).message_id
        mine = (await desk.json("send", "hi", "--to", "@nux"))["message_id"]
        nothing = "msg_01KGH87Y00SNBDYSNBDYSNBDYS"
        for message_id, kind in (
            (theirs, "not_author"),
            (nothing, "message_not_found"),
            (mine, "confirmation_required"),
        ):
            assert (await desk.refused("message", "delete", message_id))["kind"] == kind
        await desk.says("message", "delete", mine, "--yes")
        assert (await desk.refused("message", "delete", mine))["kind"] == "message_deleted"
        file = desk.root / ".thrum/identities/left.json"
        file.write_bytes((file.parent / "furiosa.json").read_bytes().replace(b"furiosa", b"left"))
        desk.env["THRUM_NAME"] = "furiosa"
        assert (await desk.refused("agent", "delete", "left"))["kind"] == "confirmation_required"
        assert await desk.says("agent", "delete", "left", "--yes") == "✓ Agent deleted: left\n"


async def test_who_is_of_another_clone_is_named_with_what_to_do_once_that_is_gone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert (await desk.refused("sync", "accept"))["remedy"].endswith("nothing here is from another daemon")
        fields = {"role": "r", "module": "m", "worktree": "shop", "hostname": "pc"}
        boss = foreign(AgentRegistered, agent_id="boss", kind="agent", name="boss", **fields)
        await daemon.store.committer.ingest(found(boss))
        gone = f"if that clone is gone (deleted or uninstalled): thrum sync accept {THERE} --gone"
        refusal = await desk.refused("agent", "delete", "boss")
        assert refusal["message"] == f"@boss is an agent of another clone ({THERE}, host pc)"
        assert refusal["remedy"] == f"delete it there; --force hides it here; {gone}"
        assert await desk.says("agent", "cleanup") == "No orphaned agents.\n"
        assert desk.err.decode() == f"Not checked, in another clone: @boss; {gone}\n"
        assert await desk.status("agent", "register", "--name", "boss", "--role", "r", "--module", "m") == 1
        err = desk.err.decode()
        assert err.startswith(f"Error: @boss is registered in another clone ({THERE}, worktree shop, host pc)\n")
        assert err.endswith(f"; or rename it there; {gone}\n")
        for words in ((), ("d_01KGH87Y00SNBDYSNBDYSNBDYS", "--gone")):
            assert f"{THERE} (host pc, @boss)" in (await desk.refused("sync", "accept", *words))["remedy"]


async def test_a_variable_with_a_name_that_ended_says_how(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, key_number=1) as daemon:
        desk = await open_terminal(daemon, "dy")
        desk.env["THRUM_NAME"] = "dy"
        await desk.says("agent", "rename", "dz")
        refusal = await desk.refused("whoami")
        assert refusal["kind"] == "identity_not_found"
        assert refusal["message"] == f"THRUM_NAME=dy, but dy is dz now, in {desk.root}"
        assert refusal["remedy"] == "export THRUM_NAME=dz"
        max_ = Terminal(desk.root, await daemon.registered("max", root=str(desk.root)), {"THRUM_NAME": "max"})
        await max_.says("agent", "delete", "dz", "--yes")
        desk.env["THRUM_NAME"] = "dz"
        refusal = await desk.refused("send", "hi")
        assert refusal["message"].startswith("THRUM_NAME=dz, but @dz was deleted by @max, 2026-02-0")
        desk.env["THRUM_NAME"] = "ghost"
        assert "does not exist" in (await desk.refused("send", "hi"))["message"]


async def test_a_name_that_force_takes_is_said_on_both_sides(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        home = trees["nux"]
        victim = Terminal(home, await daemon.registered("nux", root=str(home)))
        words = ("quickstart", "nux", "--role", "implementer", "--module", "nux")
        assert await desk.status(*words) == 1
        assert desk.err.decode().startswith(f"Error: @nux is registered in another worktree: {home}\n")
        await desk.says(*words, "--force")
        assert f"warning: @nux was taken from {home}\n" in desk.err.decode()
        refusal = await victim.refused("send", "hi")
        assert refusal["kind"] == "no_identity"
        assert refusal["message"] == f"@nux is registered in {desk.root} now, and no agent in this worktree"


@pytest.mark.spec("ID-53")
async def test_cleanup_lists_and_deletes_by_force(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert await desk.says("agent", "cleanup") == "No orphaned agents.\n"
        await daemon.registered("nux", "tester")
        row = daemon.ctx.view.agent("nux")
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
        assert await desk.says("agent", "cleanup", "--force") == listing + "✓ Deleted nux\n"
        assert daemon.ctx.view.agent_ids() == {"furiosa"}


async def test_a_status_is_said(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await daemon.registered("nux")
        assert await desk.says("agent", "set-status", "blocked") == "✓ Status set to blocked\n"
        assert await desk.says("agent", "set-status", "stuck", "--agent", "@nux") == "✓ Status for nux set to stuck\n"
        document = await desk.json("agent", "set-status", "idle")
        assert document.keys() == {"agent_id", "agent_status", "agent_status_updated_at"}
        assert (await desk.refused("agent", "set-status", "asleep", status=2))["kind"] == "usage"
