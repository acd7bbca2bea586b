"""What whoever registers is told about the next command, and about a name that it did not get."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.cli.terminal import open_terminal
from tests.support.daemon.in_process import open_daemon
from thrum.cli.registration_hints import next_act
from thrum.identity.selection import Selection


def test_who_registers_is_told_when_the_next_command_goes_out_in_another_name() -> None:
    last = Selection("bob", "P10", "worktree")
    assert next_act("ann", last, ["bob"]) == ["export THRUM_NAME=ann, else you act as @bob"]
    assert next_act("ann", None, ["bob"]) == [
        "several agents live here: export THRUM_NAME=ann, else it is not known who you are"
    ]
    pinned = Selection("bob", "P4", "agent_id")
    assert next_act("ann", pinned, []) == ["unset THRUM_AGENT_ID, else you act as @bob"]


def test_who_arrives_in_an_occupied_worktree_is_told_what_the_others_need() -> None:
    mine = Selection("bob", "P10", "worktree")
    assert next_act("bob", mine, []) == []
    assert next_act("bob", mine, ["ann"]) == [
        "@ann lives here too: in its shell export THRUM_NAME=ann, else it acts as @bob"
    ]
    (line,) = next_act("bob", mine, ["dan", "ann", "cid", "eve"])
    assert line == ("@ann, @cid, @dan, … live here too: in their shells export THRUM_NAME=NAME, else they act as @bob")


async def test_who_has_no_name_yet_is_shown_commands_that_work(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "nux")
        desk.env["THRUM_NAME"] = "lead"
        refusal = await desk.refused("quickstart", "--role", "lead", "--module", "all")
        assert refusal["kind"] == "name_equals_role"
        (example,) = re.findall(r"--role \w+", refusal["remedy"])
        await desk.says("quickstart", *example.split(), "--module", "all")
        for name in ("nux", "lead"):
            (desk.root / f".thrum/identities/{name}.json").unlink()
        del desk.env["THRUM_NAME"]
        refusal = await desk.refused("send", "hi")
        example = refusal["remedy"].rpartition("a person: thrum ")[2].replace("YOURNAME", "leon")
        await desk.says(*example.split())
        await desk.says("send", "hi", "--to", "@nux")


async def test_a_registration_without_a_name_says_which_agent_it_changes(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await open_terminal(daemon, "sc", "dev")
        words = ("agent", "register", "--role", "dev", "--module")
        assert await desk.says(*words, "sc") == "✓ Agent registered: sc\n"
        assert await desk.says(*words, "s4") == "✓ Agent re-registered: sc (module sc → s4)\n"
        assert await desk.says(*words, "s4", "--re-register") == "✓ Agent re-registered: sc\n"
