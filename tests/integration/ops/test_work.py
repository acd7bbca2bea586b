"""Tasks, heartbeats, ends of sessions, who is at which file: on a real store and real worktrees."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.in_process import Agent
from tests.support.daemon.team import Team, open_team
from tests.support.here import START_MS
from tests.support.store.arrivals import foreign, found
from thrum.identity.processes import Process
from thrum.model import clock, errors, limits
from thrum.model.events import AgentRegistered, AgentUpdated, Pair, SessionStarted, Work


class AtWork(Team):
    async def agent(self, name: str) -> Agent:
        """In a worktree of its own, with an open session."""
        agent = await self.add(name)
        await agent("session.start", agent_id=name)
        return agent

    def later(self, ms: int) -> None:
        self.daemon.clock.ms += ms

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        layout = self.daemon.ctx.here.layout
        files = [*layout.branch_dir.rglob("*.jsonl"), layout.local_journal]
        facts = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
        return [fact for fact in facts if not kind or fact["type"] == kind]

    def identity(self, name: str) -> dict[str, Any]:
        return json.loads((self.trees[name] / f".thrum/identities/{name}.json").read_text())


@asynccontextmanager
async def open_work(tmp_path: Path) -> AsyncGenerator[AtWork]:
    async with open_team(tmp_path) as team:
        yield AtWork(team.trees, team.daemon)


async def test_a_task_is_set_and_cleared(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.daemon.registered("nux")
        done = await nux("session.setTask", current_task="AUTH-42")
        session = desk.daemon.store.view.open_session("nux")
        assert session is not None and done.session_id == session.session_id, "a session was started for it"
        work = desk.daemon.store.view.work(done.session_id)
        assert work is not None and (work.current_task, work.task_updated_at) == ("AUTH-42", done.task_updated_at)
        member = (await nux("team.list")).members[0]
        assert member.current_task == "AUTH-42"
        await nux("session.setTask", current_task="")
        assert (await nux("team.list")).members[0].current_task == ""
        with pytest.raises(errors.BodyTooLarge):
            await nux("session.setTask", current_task="x" * (limits.task_chars_max + 1))


async def test_a_heartbeat_notes_last_seen_once_a_minute_and_tells_the_git_state(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        desk.trees.commit(desk.trees["nux"], {"a.py": "x\n"}, "mine")
        desk.trees.write(desk.trees["nux"], {"README.md": "a project\nmore\n"})
        desk.later(5_000)
        first = await nux("session.heartbeat")
        assert (first.branch, first.unmerged_commits, first.last_seen_at) == (
            "nux",
            1,
            clock.format_ms(desk.daemon.clock.ms),
        )
        assert [(c.path, c.additions, c.deletions) for c in first.file_changes] == [("README.md", 1, 0)]
        assert desk.identity("nux")["branch"] == "nux"
        desk.later(limits.seen_interval_ms - 1)
        assert (await nux("session.heartbeat")).last_seen_at == first.last_seen_at
        desk.later(1)
        assert (await nux("session.heartbeat")).last_seen_at > first.last_seen_at
        assert len(desk.facts("agent.seen")) == 2


async def test_the_git_state_is_written_down_only_when_it_is_news_and_not_often(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        tree = desk.trees["nux"]
        desk.trees.write(tree, {f"f{number:03}.py": "x\n" for number in range(limits.work_fact_paths_max + 5)})
        await nux("session.heartbeat")
        (fact,) = desk.facts("agent.update")
        (work,) = fact["work_contexts"]
        assert work["branch"] == "nux" and work["git_updated_at"] == fact["timestamp"]
        assert len(work["uncommitted_files"]) == len(work["file_changes"]) == limits.work_fact_paths_max
        assert "worktree_path" not in work
        desk.later(limits.work_fact_interval_ms)
        await nux("session.heartbeat")
        assert len(desk.facts("agent.update")) == 1, "neither branch nor commits changed"
        desk.trees.commit(tree, {"a.py": "x\n"}, "mine")
        await nux("session.heartbeat")
        assert len(desk.facts("agent.update")) == 2
        desk.trees.commit(tree, {"a.py": "y\n"}, "again")
        desk.later(limits.work_fact_interval_ms - 1)
        told = await nux("session.heartbeat")
        assert told.unmerged_commits == 2, "the answer is of now"
        assert len(desk.facts("agent.update")) == 2, "the fact has time"
        desk.later(1)
        await nux("session.heartbeat")
        (work,) = desk.facts("agent.update")[-1]["work_contexts"]
        assert [commit["message"] for commit in work["unmerged_commits"]] == ["again", "mine"]


async def test_scopes_and_refs_stay_on_the_session_until_they_are_removed(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        pinned = [{"type": "module", "value": "auth"}]
        await nux("session.heartbeat", add_scopes=pinned, add_refs=[{"type": "pr", "value": "42"}])
        await nux("session.heartbeat", remove_scopes=pinned)
        added, removed = desk.facts("session.items")
        assert added["add_scopes"] == pinned == removed["remove_scopes"] and "add_refs" not in removed
        with pytest.raises(errors.BadRef):
            await nux("session.heartbeat", add_refs=[Pair("mention", "max")])


async def test_a_session_ends_with_its_last_git_state_and_its_length(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        await nux("session.heartbeat")
        desk.trees.commit(desk.trees["nux"], {"a.py": "x\n"}, "mine")
        desk.later(8_100_000)
        done = await nux("session.end", client_key="k.1")
        assert (done.duration_ms, done.ended_at) == (8_100_000, clock.format_ms(desk.daemon.clock.ms))
        again = await nux("session.end", client_key="k.1")
        assert again == done, "a retried call gets the first answer"
        (work,) = desk.facts("agent.update")[-1]["work_contexts"]
        assert work["changed_files"] == ["a.py"], "written although a quarter of an hour has not passed"
        assert [fact["reason"] for fact in desk.facts("agent.session.end")] == ["normal"]
        assert "session_id" not in desk.identity("nux")
        with pytest.raises(errors.NoSession, match="no open session"):
            await nux("session.end")
        with pytest.raises(errors.SessionEnded):
            await nux("session.end", session_id=done.session_id)
        with pytest.raises(errors.SessionNotFound):
            await nux("session.heartbeat", session_id="ses_01KGHF1TN0CCCCCCCCCCCCCCCC")


async def test_a_last_state_that_is_known_is_not_written_again(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        await nux("session.heartbeat")
        await nux("session.end")
        assert len(desk.facts("agent.update")) == 1


@pytest.mark.spec("ID-55")
@pytest.mark.parametrize("method", ["session.end", "session.heartbeat", "session.setTask", "session.setIntent"])
async def test_nobody_ends_or_changes_another_agents_session(tmp_path: Path, method: str) -> None:
    async with open_work(tmp_path) as desk:
        nux, max_ = await desk.agent("nux"), await desk.agent("max")
        session = desk.daemon.store.view.open_session("nux")
        assert session is not None
        more = {"session.setTask": {"current_task": "x"}, "session.setIntent": {"intent": "x"}}.get(method, {})
        before = desk.daemon.store.view.head_seq()
        with pytest.raises((errors.NotOwner, errors.IdentityMismatch), match="nux"):
            await max_(method, session_id=session.session_id, **more)
        assert desk.daemon.store.view.head_seq() == before
        await nux(method, session_id=session.session_id, **more)


@pytest.mark.spec("ID-55")
async def test_a_new_session_ends_the_older_one_and_says_whether_its_process_was_gone(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        process = Process(4711, 1, "boot/1", 0.0, comm="claude")
        desk.daemon.processes.processes[process.pid] = process
        root = str(desk.trees.add("nux"))
        nobody = desk.daemon.as_agent("", root, process)
        await nobody("agent.register", name="nux", role="tester", module="auth")
        nux = desk.daemon.as_agent("nux", root, process)
        for _ in range(2):
            await nux("session.start", agent_id="nux")
        del desk.daemon.processes.processes[process.pid]
        await nux("session.start", agent_id="nux")
        sessions = (await nux("session.list")).sessions
        assert [each.end_reason for each in sessions] == ["", "crash_recovered", "superseded"]


async def test_sessions_are_listed_newest_first(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux, max_ = await desk.agent("nux"), await desk.agent("max")
        await nux("session.setIntent", intent="Merging journals")
        desk.later(60_000)
        await nux("session.end", reason="crash")
        desk.later(60_000)
        await nux("session.start", agent_id="nux")
        listed = (await max_("session.list")).sessions
        assert [(each.agent_id, each.status) for each in listed] == [
            ("nux", "active"),
            ("max", "active"),
            ("nux", "ended"),
        ]
        assert (listed[-1].intent, listed[-1].end_reason) == ("Merging journals", "crash")
        assert listed[-1].last_seen_at == listed[-1].ended_at
        nobody = desk.daemon.as_agent("", "/")
        assert [each.status for each in (await nobody("session.list", agent_id="nux", active_only=True)).sessions] == [
            "active"
        ]


async def test_who_is_at_a_file_is_asked_of_git_now(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux, _max = await desk.agent("nux"), await desk.agent("max")
        idle = await desk.agent("idle")
        desk.trees.write(desk.trees["nux"], {"src/auth/token.py": "1\n"})
        desk.trees.commit(desk.trees["max"], {"src/auth/token.py": "2\n"}, "Two")
        nobody = desk.daemon.as_agent("", "/")
        for file in ("token.py", "auth/token.py", "src/auth/token.py", "./src//auth/token.py", "src/"):
            found = (await nobody("agent.listContext", file=file)).contexts
            assert [(each.agent_id, each.uncommitted_files, each.changed_files) for each in found] == [
                ("max", (), ("src/auth/token.py",)),
                ("nux", ("src/auth/token.py",), ()),
            ], file
        assert found[0].worktree_path == str(desk.trees["max"]) and found[0].git_updated_at
        assert (await nobody("agent.listContext", file="oken.py")).contexts == ()
        assert [c.agent_id for c in (await nobody("agent.listContext", branch="idle")).contexts] == ["idle"]
        everybody = (await nobody("agent.listContext")).contexts
        assert [each.agent_id for each in everybody] == ["idle", "max", "nux"]
        await nux("session.end")
        found = (await idle("agent.listContext", file="token.py")).contexts
        assert [each.agent_id for each in found] == ["max"], "who has no open session edits nothing"
        for outside in ("../x", "/etc/passwd", ".", "a\0b"):
            with pytest.raises(errors.InvalidParams):
                await nobody("agent.listContext", file=outside)


async def test_a_worktree_that_git_cannot_read_is_named_and_the_others_are_told(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux, _max = await desk.agent("nux"), await desk.agent("max")
        desk.trees.write(desk.trees["nux"], {"src/auth/token.py": "1\n"})
        desk.trees.break_index(desk.trees["max"])
        result = await nux("agent.listContext", file="token.py")
        assert [each.agent_id for each in result.contexts] == ["nux"]
        assert len(result.warnings) == 1 and result.warnings[0].startswith("what @max changed is not known: git: ")
        assert (await nux("team.list")).warnings == result.warnings
        (open_,) = result.unknown
        assert (open_.agent_id, open_.elsewhere, open_.reason[:5]) == ("max", False, "git: ")
        assert (await nux("agent.listContext")).unknown == (), "nothing was asked for"


async def test_a_file_that_git_does_not_know_is_named_one_that_is_new_somewhere_is_not(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux, _max = await desk.agent("nux"), await desk.agent("max")
        desk.trees.write(desk.trees["max"], {"fresh.py": "1\n", ".gitignore": "*.env\n", "prod.env": "1\n"})
        desk.trees.commit(desk.trees["nux"], {"mine.py": "1\n"}, "Mine")
        asked = ("README.md", "fresh.py", "mine.py", "tokne.py", "prod.env", "*.rs", "src/", "lib/", "auth/*")
        result = await nux("agent.listContext", file="nosuch", files=asked)
        assert result.unseen == ("nosuch", "tokne.py", "prod.env", "*.rs", "lib/")
        assert [(each.agent_id, each.uncommitted_files, each.changed_files) for each in result.contexts] == [
            ("max", ("fresh.py",), ()),
            ("nux", (), ("mine.py",)),
        ]


async def test_the_team_shows_the_branch_commits_and_files_of_now(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        desk.trees.git("switch", "-q", "-c", "feature/auth", at=desk.trees["nux"])
        desk.trees.commit(desk.trees["nux"], {"a.py": "x\n"}, "mine")
        desk.trees.write(desk.trees["nux"], {"src/auth/token.py": "1\n"})
        (member,) = (await nux("team.list")).members
        assert (member.branch, member.unmerged_commits) == ("feature/auth", 1)
        assert [(c.path, c.additions, c.deletions) for c in member.file_changes] == [("src/auth/token.py", 1, 3)]
        (quick,) = (await nux("team.list", include_files=False)).members
        assert (quick.branch, quick.unmerged_commits, quick.file_changes) == ("feature/auth", 1, ())
        assert (await nux("agent.lookup", name="@nux")).member == member
        assert (await nux("agent.lookup", name="ghost")).member is None


async def test_what_an_agent_of_another_clone_said_of_its_files_leaves_the_rest_unknown(tmp_path: Path) -> None:
    async with open_work(tmp_path) as desk:
        nux = await desk.agent("nux")
        work = Work(session_id="ses_1", branch="b", git_updated_at=clock.format_ms(START_MS), changed_files=("x.py",))
        facts = (
            foreign(AgentRegistered, agent_id="far", kind="agent", name="far", role="tester", module="m"),
            foreign(SessionStarted, session_id="ses_1", agent_id="far"),
            foreign(AgentUpdated, agent_id="far", work_contexts=(work,)),
        )
        await desk.daemon.store.committer.ingest(found(*facts))
        for file, editors in (("README.md", []), ("x.py", ["far"])):
            result = await nux("agent.listContext", file=file)
            assert [each.agent_id for each in result.contexts] == editors
            assert [(each.agent_id, each.elsewhere) for each in result.unknown] == [("far", True)]
