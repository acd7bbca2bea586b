"""`thrum group …`: what is asked of the daemon, and what is printed (cli.md 3.22)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import open_daemon
from thrum.cli.session import TTY_ERR, TTY_IN, NeedsOwnProcess


async def test_a_group_is_made_filled_shown_emptied_and_deleted(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await daemon.registered("nux", "tester")
        assert await desk.says("group", "create", "core", "--description", "the\ncore") == "✓ Group created: core\n"
        assert await desk.says("group", "add", "core", "@nux", "furiosa", "@tester") == (
            "✓ Added @nux to core\n✓ Added @furiosa to core\n✓ Added @tester (role) to core\n"
        )
        assert await desk.says("group", "add", "@core", "nux", "--role", "reviewer") == (
            "@nux is already in core\n✓ Added @reviewer (role) to core\n"
        )
        assert await desk.says("group", "list") == "Groups (2):\n@everyone  everybody\n@core      4 members  the core\n"
        shown = await desk.says("group", "show", "core")
        assert shown.startswith("Group:        @core\nDescription:  the core\nCreated:")
        assert shown.endswith("Members:      4\n  @furiosa\n  @nux\n  @reviewer (role)\n  @tester (role)\n")
        assert await desk.says("group", "members", "core", "--expand") == (
            "@furiosa\n@nux\n@reviewer (role)\n@tester (role)\nReaches: @furiosa, @nux\n"
        )
        assert await desk.says("group", "remove", "core", "@tester", "@nux", "@ghost", "--role", "x") == (
            "✓ Removed @tester (role) from core\n✓ Removed @nux from core\n@ghost is not in core\n"
            "@x (role) is not in core\n"
        )
        assert await desk.says("group", "delete", "core", "--force") == "✓ Group deleted: core\n"


async def test_the_documents_have_the_shapes_that_are_promised(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        made = await desk.json("group", "create", "core")
        assert set(made) == {"group_id", "name", "created_at", "created_by"}
        added = await desk.json("group", "add", "core", "furiosa")
        assert added == {
            "group": "core",
            "members": [{"member_type": "agent", "member_value": "furiosa", "changed": True}],
        }
        listed = await desk.json("group", "list")
        assert [set(each) >= {"group_id", "name", "member_count", "created_at"} for each in listed["groups"]] == [
            True,
            True,
        ]
        assert set(await desk.json("group", "show", "core")) == {
            "group_id",
            "name",
            "created_at",
            "created_by",
            "members",
        }
        assert set(await desk.json("group", "members", "core")) == {"members"}
        assert (await desk.json("group", "members", "core", "--expand"))["expanded"] == ["furiosa"]
        assert set(await desk.json("group", "delete", "core", "--force")) == {"name", "deleted_at"}


async def test_one_unknown_member_and_nobody_is_added(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await desk.says("group", "create", "core")
        error = await desk.refused("group", "add", "core", "furiosa", "@furiosaa")
        assert (error["kind"], error["details"]) == ("agent_not_found", {"suggestions": ["furiosa"]})
        assert (await desk.json("group", "members", "core"))["members"] == []
        assert (await desk.refused("group", "add", "core", status=2))["message"] == "group add: MEMBER is missing"
        assert (await desk.refused("group", "add", "nope", "furiosa"))["kind"] == "group_not_found"
        assert (await desk.refused("group", "remove", "nope", "furiosa"))["kind"] == "group_not_found"


async def test_everyone_is_protected_before_anybody_is_asked(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        for words in (("delete", "everyone"), ("add", "everyone", "furiosa"), ("remove", "@everyone", "furiosa")):
            assert (await desk.refused("group", *words))["kind"] == "protected_group"
        assert await desk.says("group", "members", "everyone") == "@everyone\n"


async def test_deleting_asks_at_a_terminal_and_only_there(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await desk.says("group", "create", "core")
        assert (await desk.refused("group", "delete", "ghost"))["kind"] == "group_not_found"
        assert (await desk.refused("group", "delete", "core"))["kind"] == "confirmation_required"
        assert await desk.status("group", "delete", "core") == 1
        assert b"use --yes to confirm deletion" in desk.err
        inside = Terminal(desk.root, desk.agent, local=False, tty=TTY_IN | TTY_ERR)
        with pytest.raises(NeedsOwnProcess):
            await inside.status("group", "delete", "core")
        assert inside.out == inside.err == b"", "nothing was printed before"
        assert (await inside.refused("group", "delete", "core"))["kind"] == "confirmation_required"


async def test_an_empty_group_says_so(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "furiosa")
        await desk.says("group", "create", "core")
        assert await desk.says("group", "members", "core", "--expand") == "No members in core.\nReaches: nobody\n"
        assert (await desk.says("group", "show", "core")).endswith("Members:      none\n")
