"""`thrum prime`: what a new session is told, from the daemon and from files (cli.md 3.10)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import Daemon, open_daemon
from tests.support.git.worktrees import Worktrees
from thrum.identity.files import read_identity
from thrum.identity.processes import Process
from thrum.model import notes


async def opened(daemon: Daemon, trees: Worktrees) -> Terminal:
    """Furiosa at her desk, with an unread message of nux, notes, and something changed."""
    (trees.main / ".git/info/exclude").write_text(".thrum/\n")
    desk = await open_terminal(daemon, "furiosa")
    nux = await daemon.registered("nux", root=str(trees["nux"]))
    await nux("message.send", content="\n  first line\nsecond", to=["@furiosa"])
    await desk.says("session", "start")
    await desk.says("session", "set-intent", "Token refresh")
    notes.save_notes(desk.root, "furiosa", "remember\n")
    notes.save_preamble(desk.root, "furiosa", "be kind\n")
    (desk.root / ".thrum/context/project_state.md").write_text("# Goal\nship\n")
    trees.write(trees.main, {"new.py": "x\n"})
    return desk


async def test_the_briefing_has_everything_in_order_and_marks_nothing_read(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        text = await desk.says("prime")
        parts = [
            "# @furiosa (implementer, furiosa)\n- Session: active ",
            "- Intent: Token refresh",
            "## Team: 1 other active\n- @nux (implementer)  on nux",
            "## Inbox: 1 unread / 1 total: `thrum inbox`\n- ",
            ": first line\n",
            "## How\n- Send: `thrum send",
            "`thrum wait",
            "`thrum context save",
            "## Git: main (1 file changed)\n",
            "## Daemon: running, sync local-only\n",
            "## Preamble (.thrum/context/furiosa_preamble.md)\n  be kind\n",
            "## Project state (.thrum/context/project_state.md)\n  # Goal\n  ship\n",
            "## My notes, saved ",
            "  remember\n",
        ]
        layout = [text.find(part) for part in parts]
        assert -1 not in layout, text
        assert layout == sorted(layout), text
        (head,) = (await daemon.as_agent("furiosa")("message.list", for_agent="furiosa")).messages
        assert not head.is_read and not head.recipients[0].seen_at if head.recipients else not head.is_read


async def test_the_document_has_the_shape_that_is_promised(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        document = await desk.json("prime")
        assert document["initialized"] is True
        assert document["identity"]["agent_id"] == "furiosa"
        assert document["session"].keys() == {"session_id", "started_at", "intent"}
        assert (document["agents"]["total"], document["agents"]["active"]) == (2, 2)
        assert (document["messages"]["unread"], len(document["messages"]["recent"])) == (1, 1)
        assert document["work_context"] == {"branch": "main", "uncommitted_files": ["new.py"], "unmerged_commits": 0}
        assert document["sync_state"]["daemon_status"] == "running"
        assert document["repo_path"] == str(desk.root)
        assert (document["preamble"], document["saved_session_context"]) == ("be kind\n", "remember\n")
        assert document["project_state"] == "# Goal\nship\n"


async def test_without_a_daemon_files_tell_what_they_can(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        desk.agent = None
        text = await desk.says("prime")
        assert text.startswith("# @furiosa (implementer, furiosa)\n- Session: ses_")
        assert "## Daemon: not running (thrum daemon start)\n" in text
        assert "be kind\n" in text and "remember\n" in text and "Inbox" not in text
        document = await desk.json("prime")
        assert document["sync_state"] == {"daemon_status": "stopped"}
        assert document["work_context"]["error"] == "no daemon is running"


@pytest.mark.parametrize("git", [False, True])
async def test_without_thrum_it_is_silent_enough_for_a_global_hook(tmp_path: Path, git: bool) -> None:
    if git:
        Worktrees(tmp_path)
    desk = Terminal(tmp_path / "repo" if git else tmp_path, None)
    assert await desk.says("prime") == ""
    assert desk.err == b"Thrum is not initialized here (thrum init)\n"
    assert await desk.says("prime", "--json") == '{"initialized":false}\n'
    desk.env["THRUM_HOME"] = str(tmp_path)
    assert (await desk.refused("prime"))["kind"] in ("not_initialized", "not_a_repository")


async def test_nobody_is_told_how_to_become_somebody(tmp_path: Path) -> None:
    Worktrees(tmp_path)
    async with open_daemon(tmp_path) as daemon:
        desk = Terminal(daemon.ctx.here.layout.root, daemon.as_agent(""))
        text = await desk.says("prime")
        assert text.startswith("# thrum\nYou:      not registered (thrum quickstart NAME")
        assert "identity" not in await desk.json("prime")


async def test_single_agent_mode_leaves_messages_out(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        config = daemon.ctx.here.layout.config_file
        config.write_text(json.dumps({"daemon": {"single_agent_mode": True}}))
        text = await desk.says("prime")
        assert "Inbox" not in text and "Team" not in text and "thrum send" not in text
        assert "thrum context save" in text, "notes are for whoever works alone, too"
        document = await desk.json("prime")
        assert document["single_agent_mode"] is True and "messages" not in document


async def test_a_project_state_that_nobody_wrote_is_not_paid_for(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        (desk.root / ".thrum/context/project_state.md").write_text(notes.FIRST_PROJECT_STATE)
        assert "Project state" not in await desk.says("prime")
        (desk.root / ".thrum/context/project_state.md").write_text(f"{notes.FIRST_PROJECT_STATE}\nShip on Friday.\n")
        said = await desk.says("prime")
        assert "Ship on Friday." in said and "What every agent should know" not in said


async def test_of_long_notes_a_briefing_has_the_beginning_and_says_how_to_see_the_rest(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        long = "ä" * 9_000
        assert "(18001 bytes, replaced " in await desk.says("context", "save", long)
        (desk.root / ".thrum/context/project_state.md").write_text("b" * 8_200)
        text = await desk.says("prime")
        assert text.count("ä") == 4_096 and text.count("b" * 8_192) == 1
        assert "\n… 9809 more bytes: thrum context show --session\n" in text
        assert "\n… 8 more bytes: thrum context show --project\n" in text
        assert (await desk.json("prime"))["saved_session_context"] == long + "\n", "a program gets it whole"
        assert long in await desk.says("context", "show", "--session")


async def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        path = notes.notes_path(desk.root, "furiosa")
        path.unlink()
        path.symlink_to("/etc/passwd")
        assert "root:" not in await desk.says("prime")
        assert b"warning: cannot read" in desk.err


async def test_prime_refreshes_the_identity_file(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    async with open_daemon(tmp_path) as daemon:
        desk = await opened(daemon, trees)
        file = desk.root / ".thrum/identities/furiosa.json"
        object.__setattr__(daemon.ctx, "branch_of", {str(desk.root): "feature/x"}.__getitem__)
        before = read_identity(file)
        await desk.says("prime")
        after = read_identity(file)
        assert (before.branch, after.branch) == ("", "feature/x")
        await desk.says("prime")
        assert read_identity(file) == after, "nothing new, nothing written"


FULL_ID = re.compile(r"\b(?:msg|thr|ses|d|evt)_[0-9A-Z]{26}\b")
ID_TOKENS = 18
CHARS_A_TOKEN = 3.0
"""Measured with the tokenizer that the package anthropic 0.34 ships, over what `prime` prints: 2.9 to 3.1 characters a
token; a full id of 30 characters is 18 tokens."""


def cost(text: str) -> float:
    """About how many tokens an agent pays for a text."""
    ids = FULL_ID.findall(text)
    return (len(text) - sum(map(len, ids))) / CHARS_A_TOKEN + ID_TOKENS * len(ids)


async def test_a_briefing_for_a_team_of_five_costs_400_tokens_and_a_turn_without_news_15(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path)
    team = {"nux": "tester", "max": "reviewer", "slit": "implementer", "rictus": "implementer"}
    async with open_daemon(tmp_path) as daemon:
        (trees.main / ".git/info/exclude").write_text(".thrum/\n")
        desk = await open_terminal(daemon, "furiosa")
        await desk.says("session", "start")
        await desk.says("session", "set-intent", "Token refresh and its tests")
        for name, role in team.items():
            agent = await daemon.registered(name, role, root=str(trees.add(name)))
            await agent("session.start", agent_id=name)
            await agent("session.setIntent", intent=f"Works on {name} and on what comes with it, {'x' * 100}")
            for number in range(2):
                text = f"Message {number} says a lot about the refresh of tokens, and it goes on and on. " * 20
                await agent("message.send", content=text, to=["furiosa"])
        trees.write(trees.main, {f"src/module/file{number}.py": "x\n" for number in range(12)})
        text = await desk.says("prime")
        assert "## Team: 4 other active\n" in text and text.count("Message ") == 5
        assert cost(text) <= 400, text
        await desk.says("message", "read", "--all")
        assert cost(await desk.says("inbox")) <= 15


async def test_whose_process_is_gone_and_who_is_offline_is_said(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path)
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        process = Process(100, 1, "boot/100", 1.0, comm="claude")
        daemon.processes.processes[100] = process
        for name in ("nux", "max"):
            await daemon.registered(name, "tester", root=str(trees.add(name)))
        nux = daemon.as_agent("", str(trees["nux"]), process)
        await nux("agent.register", name="nux", role="tester", module="nux", re_register=True)
        await daemon.as_agent("nux", str(trees["nux"]), process)("session.start", agent_id="nux")
        assert "## Team: 1 other active, 1 offline (thrum team --all)\n- @nux (tester)  on nux" in await desk.says(
            "prime"
        )
        del daemon.processes.processes[100]
        assert "- @nux (tester) NOT RUNNING  on nux" in await desk.says("prime")
        shutil.rmtree(trees["nux"])
        assert "- @nux (tester) WORKTREE GONE  " in await desk.says("prime")
        assert "worktree gone (thrum agent cleanup)" in await desk.says("overview")
        await desk.says("send", "hi", "--to", "@nux")
        assert b"@nux is gone with its worktree: thrum agent cleanup" in desk.err
