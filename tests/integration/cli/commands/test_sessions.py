"""session …, who-has and ping, to the letter, over real operations on a real store and real worktrees."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.cli.terminal import Terminal
from tests.support.daemon.team import Team, open_team


class Commands(Team):
    """Runs commands of agents, each in its worktree, by the daemon's clock."""

    async def run(self, name: str, *argv: str) -> tuple[int, str, str]:
        """Status, stdout, stderr."""
        env = {"THRUM_NAME": name}
        terminal = Terminal(self.trees[name], self.agents[name], env, local=False, clock=self.daemon.clock)
        status = await terminal.status(*argv)
        return status, terminal.out.decode(), terminal.err.decode()

    async def says(self, name: str, *argv: str) -> str:
        status, out, err = await self.run(name, *argv)
        assert (status, err) == (0, ""), (out, err)
        return out.rstrip("\n")

    async def json(self, name: str, *argv: str) -> Any:
        return json.loads(await self.says(name, *argv, "--json"))


@asynccontextmanager
async def open_commands(tmp_path: Path, *names: str) -> AsyncGenerator[Commands]:
    async with open_team(tmp_path, *names) as team:
        yield Commands(team.trees, team.daemon, team.agents)


async def test_a_session_is_started_followed_and_ended(tmp_path: Path) -> None:
    async with open_commands(tmp_path, "nux") as desk:
        started, agent, at = (await desk.says("nux", "session", "start")).split("\n")
        session_id = started.removeprefix("✓ Session started: ")
        assert (agent, at) == ("  Agent: @nux", "  Started: 2026-02-03T10:00:00Z")
        assert await desk.says("nux", "session", "set-intent", "Merging journals") == "✓ Intent set: Merging journals"
        assert await desk.says("nux", "agent", "set-task", "AUTH-42") == "✓ Task set: AUTH-42"
        assert await desk.says("nux", "agent", "set-task", "") == "✓ Task cleared"
        desk.daemon.clock.ms += 8_100_000
        assert await desk.says("nux", "session", "list", "--active") == (
            f"Sessions (1):\n  {session_id}  @nux  active  2h ago  Merging journals"
        )
        assert await desk.says("nux", "agent", "end") == f"✓ Session ended: {session_id} (2h15m)"
        assert await desk.says("nux", "session", "list", "--agent", "@nux") == (
            f"Sessions (1):\n  {session_id}  @nux  ended  2h ago  Merging journals"
        )
        assert await desk.says("nux", "session", "list", "--active") == "Sessions (0):"
        status, _, err = await desk.run("nux", "session", "end")
        assert (status, err) == (1, "Error: no open session\n  fix: thrum session start\n")


async def test_sessions_as_json_have_the_shapes_of_the_contract(tmp_path: Path) -> None:
    async with open_commands(tmp_path, "nux", "max") as desk:
        started = await desk.json("nux", "agent", "start")
        assert set(started) == {"session_id", "agent_id", "started_at"}
        assert set(await desk.json("nux", "agent", "set-intent", "x")) == {"session_id", "intent", "intent_updated_at"}
        task = await desk.json("nux", "session", "set-task", "T")
        assert set(task) == {"session_id", "current_task", "task_updated_at"}
        notify = await desk.json("nux", "session", "heartbeat")
        assert set(notify) == {"session_id", "last_seen_at", "branch", "unmerged_commits"}
        (listed,) = (await desk.json("nux", "session", "list"))["sessions"]
        assert (listed["session_id"], listed["status"], listed["intent"]) == (started["session_id"], "active", "x")
        status, _, err = await desk.run("max", "session", "end", "--session-id", started["session_id"])
        assert (status, err.split("\n")[0]) == (1, f"Error: {started['session_id']} belongs to @nux")
        ended = await desk.json("nux", "session", "end", "--reason", "crash", "--session-id", started["session_id"])
        assert set(ended) == {"session_id", "ended_at", "duration_ms"}
        status, out, _ = await desk.run("nux", "session", "list", "--agent", "nix", "--json")
        assert (status, json.loads(out)["error"]["kind"]) == (1, "agent_not_found")


async def test_a_heartbeat_says_what_git_says(tmp_path: Path) -> None:
    async with open_commands(tmp_path, "nux") as desk:
        desk.trees.commit(desk.trees["nux"], {"a.py": "x\n"}, "mine")
        desk.trees.write(desk.trees["nux"], {"b.py": "x\n", "c.py": "x\n"})
        sent, context = (await desk.says("nux", "session", "heartbeat", "--add-scope", "module:auth")).split("\n")
        assert sent.startswith("✓ Heartbeat sent: ses_")
        assert context == "  Context: branch: nux, 1 commit, 2 files"
        for flag in ("--add-ref", "--remove-ref"):
            status, _, err = await desk.run("nux", "agent", "heartbeat", flag, "mention:max")
            assert (status, "is set by thrum" in err) == (2, True)


async def test_who_has_names_each_agent_its_path_and_how_far_it_is(tmp_path: Path) -> None:
    async with open_commands(tmp_path, "furiosa", "nux", "max") as desk:
        for name in ("furiosa", "nux", "max"):
            await desk.says(name, "session", "start")
        desk.trees.git("switch", "-q", "-c", "feature/auth", at=desk.trees["furiosa"])
        desk.trees.git("switch", "-q", "-c", "feature/sync", at=desk.trees["nux"])
        desk.trees.write(desk.trees["furiosa"], {"src/auth/token.py": "one\n2\n3\n4\n"})
        desk.trees.commit(desk.trees["nux"], {"src/auth/token.py": "1\n"}, "One")
        desk.trees.commit(desk.trees["nux"], {"src/auth/token.py": "2\n"}, "Two")
        expected = (
            "@furiosa is editing src/auth/token.py (+3 -2, uncommitted, branch: feature/auth)\n"
            "@nux is editing src/auth/token.py (2 commits ahead, branch: feature/sync)"
        )
        absolute = str(desk.trees["max"] / "src/auth/token.py")
        for file in ("token.py", "src/auth/token.py", "./src/auth/token.py", absolute, "src/auth/", "src/auth"):
            assert await desk.says("max", "who-has", file) == expected, file
        assert await desk.says("max", "who-has", "README.md") == "No agents are currently editing README.md"
        assert await desk.says("max", "who-has", "README.md", "--quiet") == ""
        several = await desk.says("max", "who-has", "README.md", "*/token.py", "src/auth/token.py")
        assert several == f"No agents are currently editing README.md\n{expected}"
        swapped = await desk.says("max", "who-has", "token.py", "README.md")
        assert swapped == f"{expected}\nNo agents are currently editing README.md", "as they were asked for"
        mine = await desk.says("nux", "who-has", "token.py")
        assert mine == expected.replace("@nux is", "@nux (you) is")
        found = await desk.json("max", "who-has", "token.py")
        assert ([each["agent_id"] for each in found["contexts"]], list(found)) == (["furiosa", "nux"], ["contexts"])
        status, out, _ = await desk.run("max", "who-has", "tokne.py", "README.md")
        open_ = "git knows no such file (misspelt, ignored, or not written yet)"
        assert (status, out) == (
            1,
            f"No agents are currently editing README.md\nNot known who is editing tokne.py: {open_}\n",
        )
        assert (await desk.run("max", "who-has"))[0] == 2
        status, _, err = await desk.run("max", "who-has", "../elsewhere")
        assert (status, err.split("\n")[0]) == (2, 'Error: who-has: "../elsewhere" is not a path in the repository')


async def test_who_has_takes_no_answer_for_no_and_names_all_of_one_worktree(tmp_path: Path) -> None:
    async with open_commands(tmp_path, "furiosa", "nux") as desk:
        desk.agents["max"] = await desk.daemon.registered("max", "reviewer", root=str(desk.trees["nux"]))
        for name in ("furiosa", "nux"):
            await desk.says(name, "session", "start")
        await desk.agents["max"]("session.start")
        desk.trees.write(desk.trees["nux"], {"src/auth/token.py": "one\n2\n3\n4\n"})
        shared = "@max or @nux is editing src/auth/token.py (+3 -2, uncommitted, branch: nux; they share a worktree)"
        assert await desk.says("furiosa", "who-has", "token.py") == shared
        desk.trees.break_index(desk.trees["nux"])
        status, out, err = await desk.run("furiosa", "who-has", "token.py", "README.md")
        assert out.startswith("Not known whether @max or @nux is editing token.py or README.md: git: ")
        assert (status, err, out.count("\n")) == (1, "", 1)
        status, out, _ = await desk.run("furiosa", "who-has", "token.py", "--json")
        assert (status, [each["agent_id"] for each in json.loads(out)["unknown"]]) == (1, ["max", "nux"])


async def test_ping_tells_who_is_there_and_what_it_works_on(tmp_path: Path) -> None:
    async with open_commands(tmp_path, "nux", "max") as desk:
        await desk.says("nux", "session", "start")
        await desk.says("nux", "session", "set-intent", "Merging journals")
        await desk.says("nux", "session", "set-task", "SYNC-7")
        desk.trees.commit(desk.trees["nux"], {"a.py": "x\n"}, "mine")
        desk.daemon.clock.ms += 300_000
        assert (await desk.says("max", "ping", "@nux")).split("\n") == [
            "@nux: active, last heartbeat 5m ago",
            "Intent:   Merging journals",
            "Task:     SYNC-7",
            "Branch:   nux (1 commit ahead)",
        ]
        await desk.says("nux", "session", "end")
        desk.daemon.clock.ms += 10_800_000
        assert await desk.says("max", "ping", "nux") == "@nux: offline (last seen 3h ago)"
        document = await desk.json("max", "ping", "nux")
        assert [each["agent_id"] for each in document["agents"]["agents"]] == ["nux"]
        assert document["contexts"] == {"contexts": []}
        status, out, _ = await desk.run("max", "ping", "nix", "--json")
        assert (status, json.loads(out)["error"]["details"]) == (1, {"suggestions": ["nux"]})
