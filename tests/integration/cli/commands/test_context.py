"""`thrum context …`: what is printed, from files and without a daemon where that is enough (cli.md 3.12)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import open_daemon
from thrum.cli.commands.context import HOW_TO_SAVE
from thrum.cli.session import TTY_IN, NeedsOwnProcess

TIME = 1_770_112_800


def backdate(desk: Terminal) -> None:
    for path in (desk.root / ".thrum" / "context").iterdir():
        os.utime(path, (TIME, TIME))


async def test_what_was_saved_is_shown_without_a_daemon(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        saved = await desk.says("context", "save", stdin="remember é\n")
        assert saved == "✓ Context saved for furiosa (12 bytes)\n"
        assert await desk.says("context", "preamble", "--init") == "✓ Preamble saved for furiosa (202 bytes)\n"
        (desk.root / "p.md").write_text("be kind")
        assert await desk.says("context", "preamble", "--file", "p.md") == "✓ Preamble saved for furiosa (8 bytes)\n"
        (desk.root / ".thrum" / "context" / "project_state.md").write_text("# Goal\n")
        backdate(desk)
        desk.agent = None
        head = "# Context for furiosa (12 bytes, updated 2026-02-03T10:00:00Z)"
        # What files say is framed: no line of it can be taken for thrum's.
        state = "# Project state (.thrum/context/project_state.md)\n  # Goal"
        preamble = "# Preamble (.thrum/context/furiosa_preamble.md)\n  be kind"
        notes = "# Notes (.thrum/context/furiosa.md)\n  remember é\n"
        assert await desk.says("context", "show") == "\n\n".join((state, head, preamble, notes))
        assert await desk.says("context", "load") == await desk.says("context", "show")
        assert await desk.says("context", "show", "--project") == f"{state}\n"
        assert await desk.says("context", "show", "--session") == f"{head}\n\n{notes}"
        assert await desk.says("context", "show", "--session", "--no-preamble") == f"{head}\n\n{notes}"
        assert await desk.says("context", "show", "--raw") == (
            "<!-- project state: .thrum/context/project_state.md -->\n# Goal\n<!-- end project state -->\n"
            "<!-- preamble: .thrum/context/furiosa_preamble.md -->\nbe kind\n<!-- end preamble -->\n"
            "<!-- context: .thrum/context/furiosa.md -->\nremember é\n<!-- end context -->\n"
        )
        framed = preamble.replace("# Preamble", "# Preamble of furiosa")
        assert await desk.says("context", "preamble") == f"{framed}\n"
        assert (await desk.refused("context", "show", "--project", "--session", status=2))["kind"] == "usage"
        assert (await desk.refused("context", "save", stdin="x"))["kind"] == "daemon_unavailable"


async def test_notes_come_as_text_too_and_help_and_refusals_say_how(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        for words, stdin in ((("as text",), ""), (("-",), "asked for\n"), ((), "offered")):
            assert (await desk.says("context", "save", *words, stdin=stdin)).startswith("✓ Context saved for furiosa (")
            assert f"  {words[0] if not stdin else stdin.strip()}\n" in await desk.says("context", "show")
        desk.tty = TTY_IN
        error = await desk.refused("context", "save", stdin="nobody is waited for at a keyboard", status=2)
        assert (error["kind"], error["message"]) == ("usage", "context save: TEXT is missing")
        assert error["remedy"].startswith(HOW_TO_SAVE)
        assert "stdin" in await desk.says("context", "save", "--help")


async def test_the_documents_have_the_shapes_that_are_promised(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert await desk.json("context", "show") == {
            "agent_name": "furiosa",
            "has_context": False,
            "has_preamble": False,
        }
        assert await desk.json("context", "preamble") == {"agent_name": "furiosa", "has_preamble": False}
        saved = await desk.json("context", "save", stdin="x\n")
        assert saved == {
            "agent_name": "furiosa",
            "path": ".thrum/context/furiosa.md",
            "size": 2,
            "message": "Context saved for furiosa (2 bytes)",
        }
        assert set(await desk.json("context", "preamble", "--init")) == {"agent_name", "has_preamble", "message"}
        assert (await desk.json("context", "preamble"))["content"].startswith("# @furiosa")
        (desk.root / ".thrum" / "context" / "project_state.md").write_text("# Goal\n")
        backdate(desk)
        shown = await desk.json("context", "show")
        preamble = shown.pop("preamble")
        assert shown == {
            "agent_name": "furiosa",
            "has_context": True,
            "has_preamble": True,
            "content": "x\n",
            "size": 2,
            "updated_at": "2026-02-03T10:00:00.000Z",
            "preamble_size": len(preamble),
            "project_state": "# Goal\n",
        }
        project = await desk.json("context", "show", "--project")
        assert set(project) == {"agent_name", "has_context", "has_preamble", "project_state"}
        cleared = {"agent_name": "furiosa", "cleared": True, "message": "Context cleared for furiosa"}
        assert await desk.json("context", "clear") == cleared
        assert await desk.json("context", "clear") == cleared | {"cleared": False}


async def test_nothing_saved_is_no_error(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert await desk.says("context", "show") == "No context saved for furiosa\n"
        assert await desk.says("context", "preamble") == "No preamble saved for furiosa\n"
        assert await desk.says("context", "clear") == "No context saved for furiosa\n"
        assert await desk.says("context", "show", "--quiet") == ""
        assert await desk.says("context", "show", "--raw") == ""
        assert desk.err == b"No context saved for furiosa\n"


async def test_another_agents_notes_are_found_by_its_files_or_by_name(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await daemon.registered("mate", "tester", root=str(desk.root))
        far = await daemon.registered("far", "reviewer")
        await far("context.save", agent_name="far", content="x")
        desk.env = {"THRUM_NAME": "furiosa"}
        await desk.says("context", "save", "--agent", "@mate", stdin="for mate\n")
        assert "for mate" in await desk.says("context", "show", "--agent", "mate")
        error = await desk.refused("context", "save", "--agent", "far", stdin="x")
        assert (error["kind"], error["details"]["expected_agent"]) == ("identity_mismatch", "far")
        assert (await desk.refused("context", "clear", "--agent", "far"))["kind"] == "identity_mismatch"
        assert (await desk.refused("context", "show", "--agent", "mat"))["details"] == {"suggestions": ["mate"]}
        for name in ("../x", "a/b", "x" * 65):
            assert (await desk.refused("context", "show", "--agent", name))["kind"] == "invalid_name"
        desk.agent = None
        assert "for mate" in await desk.says("context", "show", "--agent", "mate")
        assert (await desk.refused("context", "show", "--agent", "ghost"))["kind"] == "agent_not_found"


async def test_too_much_and_nothing_are_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        assert (await desk.refused("context", "save", stdin="", status=2))["message"] == "context save: TEXT is missing"
        assert (await desk.refused("context", "save", ""))["kind"] == "empty_body"
        big = "x" * 262_144
        assert (await desk.refused("context", "save", stdin=big))["kind"] == "body_too_large"
        (desk.root / "big").write_text(big)
        error = await desk.refused("context", "save", "--file", "big")
        assert (error["kind"], error["details"]) == ("file_too_large", {"bytes": 262_145, "limit": 262_144})
        assert (await desk.refused("context", "save", "--file", "gone"))["kind"] == "file_not_found"
        assert (await desk.refused("context", "preamble", "--init", "--file", "big", status=2))["kind"] == "usage"
        assert (await desk.refused("context", "save", "x", "--file", "big", status=2))["kind"] == "ambiguous_body"
        assert await desk.says("context", "show") == "No context saved for furiosa\n"
        inside = Terminal(desk.root, desk.agent, local=False)
        with pytest.raises(NeedsOwnProcess):
            await inside.status("context", "save", "--file", "big")
