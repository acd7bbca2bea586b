"""Deletion, cleanup, status, and what quickstart and prime ask of a registration (identity.md §8.3 to §8.5, §12)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.daemon.in_process import Agent, Daemon, SaidEvidence, open_daemon
from tests.support.here import HandClock
from tests.support.trusted import trust_here
from thrum.identity.evidence import AgentPlace
from thrum.identity.files import Pid, read_identity, update_identity
from thrum.identity.processes import OwnerState, Process, Program
from thrum.model import errors, notes
from thrum.model.events import AgentRegistered
from thrum.store.api import Decision

DAY_MS = 86_400_000


def file_of(root: Path | str, name: str) -> Path:
    return Path(root) / ".thrum" / "identities" / f"{name}.json"


def root_of(daemon: Daemon, name: str) -> Path:
    row = daemon.ctx.view.agent(name)
    assert row is not None
    return Path(row.worktree_path)


def facts(daemon: Daemon, kind: str) -> list[dict[str, Any]]:
    layout = daemon.ctx.here.layout
    files = [path for path in (layout.branch_dir / "events.jsonl", layout.local_journal) if path.exists()]
    lines = [line for path in files for line in path.read_text().splitlines()]
    return [fact for fact in map(json.loads, lines) if fact["type"] == kind]


def claude(daemon: Daemon, pid: int) -> Process:
    """A runtime that lives."""
    process = Process(pid, 1, f"boot/{pid}", 0.0, comm="claude")
    daemon.processes.processes[pid] = process
    daemon.processes.programs[pid] = Program("claude")
    return process


def dies(daemon: Daemon, process: Process) -> None:
    del daemon.processes.processes[process.pid]


class SeenEvidence(SaidEvidence):
    """What the kernel would say while processes come and go."""

    def __init__(self, daemon: Daemon, root: str, process: Process | None) -> None:
        super().__init__(root, process)
        self.processes = daemon.processes
        self.pid = 4711

    def state_of(self, agent: AgentPlace) -> OwnerState:
        found = self.processes.read(agent.agent_pid)
        if agent.agent_pid and (found is None or found.started != agent.agent_pid_started):
            return "dead"
        return super().state_of(agent)


def desk_of(daemon: Daemon, agent_id: str, root: Path, process: Process | None) -> Agent:
    desk = daemon.as_agent(agent_id, str(root), process)
    evidence: Any = SeenEvidence(daemon, str(root), process)
    evidence.agent_id = agent_id
    desk.connection.evidence = evidence
    return desk


async def quickstart(
    daemon: Daemon, name: str, process: Process | None = None, root: Path | None = None, **more: Any
) -> tuple[Any, Agent]:
    """As `thrum quickstart` begins: a registration by the process, and its session."""
    home = root or daemon.ctx.here.layout.root.parent / f"w-{name}"
    (home / ".thrum" / "identities").mkdir(parents=True, exist_ok=True)
    trust_here(home)
    desk = desk_of(daemon, "", home, process)
    words = {"role": "worker", "module": name, "command": "quickstart"} | more
    result = await desk("agent.register", name=name, **words)
    if result.status != "conflict":
        await desk("session.start", agent_id=name, resume=True)
    return result, desk_of(daemon, name, home, process)


# -- delete


@pytest.mark.spec("ID-52")
async def test_deleting_an_agent_takes_its_files_and_record_and_leaves_what_it_said(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_, nux = await daemon.registered("max"), await daemon.registered("nux")
        sent = await nux("message.send", content="mine", to=["@max"])
        root = root_of(daemon, "nux")
        notes.save_notes(root, "nux", "notes")
        notes.save_preamble(root, "nux", "preamble")
        result = await max_("agent.delete", name="@nux")
        assert (result.agent_id, result.deleted, result.message) == ("nux", True, "")
        assert not file_of(root, "nux").exists()
        assert list((root / ".thrum" / "context").iterdir()) == []
        row = daemon.ctx.view.agent("nux")
        assert row is None or not row.live
        assert daemon.ctx.view.sessions("nux") == []
        assert [fact["method"] for fact in facts(daemon, "agent.cleanup")] == ["manual"]
        inbox = await max_("message.list", for_agent="max")
        assert [each.message_id for each in inbox.messages] == [sent.message_id]
        with pytest.raises(errors.AgentNotFound):
            await max_("agent.delete", name="nux")


@pytest.mark.spec("ID-52")
async def test_with_messages_takes_them_everywhere_and_keeps_a_copy(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_, nux = await daemon.registered("max"), await daemon.registered("nux")
        sent = await nux("message.send", content="mine", to=["@max"])
        layout = daemon.ctx.here.layout
        line = next(
            line
            for line in (layout.branch_dir / "messages" / "nux.jsonl").read_text().splitlines()
            if sent.message_id in line
        )
        result = await max_("agent.delete", name="nux", with_messages=True)
        (kept,) = (layout.state_dir / "archive").iterdir()
        assert kept.name.startswith("nux-") and line in kept.read_text()
        assert kept.name in result.message
        assert (await max_("message.list", for_agent="max")).messages == ()
        assert facts(daemon, "agent.cleanup")[0]["messages"] is True


@pytest.mark.spec("ID-52")
async def test_a_live_agent_of_another_process_is_deleted_by_force_alone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_ = await daemon.registered("max")
        await quickstart(daemon, "nux", claude(daemon, 77))
        with pytest.raises(errors.AgentAlive):
            await max_("agent.delete", name="nux")
        assert file_of(root_of(daemon, "nux"), "nux").exists()
        assert (await max_("agent.delete", name="nux", force=True)).deleted


@pytest.mark.spec("ID-52")
async def test_an_agent_may_delete_itself_though_it_lives(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        _, nux = await quickstart(daemon, "nux", claude(daemon, 77))
        assert (await nux("agent.delete", name="nux")).deleted


async def test_a_retried_deletion_gets_the_first_answer(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_, _ = await daemon.registered("max"), await daemon.registered("nux")
        for _ in range(2):
            assert (await max_("agent.delete", name="nux", client_key="k")).deleted
        assert len(facts(daemon, "agent.cleanup")) == 1


async def test_a_deletion_that_was_killed_before_the_files_went_is_completed_by_the_next(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_ = await daemon.registered("max", root=str(daemon.ctx.here.layout.root))
        await daemon.registered("nux", root=str(daemon.ctx.here.layout.root))
        left = file_of(daemon.ctx.here.layout.root, "nux")
        data = left.read_bytes()
        await max_("agent.delete", name="nux")
        left.write_bytes(data)
        assert (await max_("agent.delete", name="nux")).deleted
        assert not left.exists()


@pytest.mark.parametrize("name", ["../x", "../../config", "a/b", "", "user:max", "system"])
async def test_a_name_that_no_agent_can_have_deletes_no_file(tmp_path: Path, name: str) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_ = await daemon.registered("max")
        outside = daemon.ctx.here.layout.root / ".thrum" / "x.json"
        outside.write_text("{}")
        with pytest.raises(errors.AgentNotFound):
            await max_("agent.delete", name=name, force=True, with_messages=True)
        assert outside.exists()


@pytest.mark.spec("ID-52")
async def test_a_deleted_agent_that_comes_back_starts_afresh(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_, nux = await daemon.registered("max"), await daemon.registered("nux")
        await max_("message.send", content="old", to=["@nux"])
        await max_("agent.delete", name="nux")
        daemon.clock.ms += 1000
        assert (await nux("agent.register", name="nux", role="implementer", module="nux")).status == "registered"
        assert (await nux("message.list", for_agent="nux")).messages == ()


# -- cleanup


@pytest.mark.spec("ID-53")
@pytest.mark.parametrize(("days", "orphans"), [(30, []), (31, ["nux"])])
async def test_unseen_for_exactly_thirty_days_is_no_orphan_a_day_more_is(
    tmp_path: Path, days: int, orphans: list[str]
) -> None:
    clock = HandClock()
    async with open_daemon(tmp_path, clock) as daemon:
        max_, _ = await daemon.registered("max"), await daemon.registered("nux")
        clock.ms += days * DAY_MS
        await max_("session.heartbeat")
        found = await max_("agent.cleanup", dry_run=True)
        assert [each.agent_id for each in found.orphans] == orphans
        assert found.deleted == () and found.dry_run
        assert file_of(root_of(daemon, "nux"), "nux").exists()


@pytest.mark.spec("ID-53")
async def test_what_is_missing_makes_an_orphan_and_force_alone_deletes_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_ = await daemon.registered("max")
        for name in ("no_file", "no_root", "no_branch", "fine"):
            await daemon.registered(name)
        file_of(root_of(daemon, "no_file"), "no_file").unlink()
        shutil.rmtree(root_of(daemon, "no_root"))
        root = root_of(daemon, "no_branch")

        def on_branch(identity: Any) -> Any:
            return dataclasses.replace(identity, branch="gone")

        update_identity(root / ".thrum/identities", "no_branch", on_branch, now_ms=daemon.clock.ms)
        object.__setattr__(daemon.ctx, "branch_exists", "gone".__ne__)
        listed = await max_("agent.cleanup")
        assert {each.agent_id for each in listed.orphans} == {"no_file", "no_root", "no_branch"}
        by_id = {each.agent_id: each for each in listed.orphans}
        assert by_id["no_file"].identity_missing and not by_id["no_file"].worktree_missing
        assert by_id["no_root"].worktree_missing
        assert by_id["no_branch"].branch_missing and by_id["no_branch"].branch == "gone"
        assert listed.deleted == () and facts(daemon, "agent.cleanup") == []
        done = await max_("agent.cleanup", force=True)
        assert set(done.deleted) == {"no_file", "no_root", "no_branch"}
        assert {fact["method"] for fact in facts(daemon, "agent.cleanup")} == {"automated"}
        assert not file_of(root, "no_branch").exists()
        assert daemon.ctx.view.agent_ids() == {"max", "fine"}


@pytest.mark.spec("ID-53")
async def test_live_remote_and_reserved_agents_and_users_are_never_orphans(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_daemon(tmp_path, clock) as daemon:
        max_ = await daemon.registered("max")
        await quickstart(daemon, "live", claude(daemon, 77))
        await daemon.registered("sender")
        directory = root_of(daemon, "sender") / ".thrum/identities"
        update_identity(
            directory,
            "sender",
            lambda identity: dataclasses.replace(identity, reserved=True) if identity else None,
            now_ms=clock.ms,
        )

        def foreign(_view: Any, stamp: Any) -> Any:
            far = stamp.make(AgentRegistered, agent_id="far", kind="agent", name="far", role="r", module="m")
            user = stamp.make(AgentRegistered, agent_id="user:leon", kind="user", name="", role="u", module="ui")
            made = [msgspec.structs.replace(far, origin_daemon="d_01KGH87Y00CCCCCCCCCCCCCCCC"), user]
            return Decision(made, lambda _view, _seqs: None)

        await daemon.ctx.journal.commit(foreign)
        clock.ms += 40 * DAY_MS
        await max_("session.heartbeat")
        assert (await max_("agent.cleanup", force=True)).orphans == ()
        assert daemon.ctx.view.agent_ids() == {"max", "live", "sender", "far", "user:leon"}


@pytest.mark.spec("ID-53")
async def test_dry_run_and_force_exclude_each_other(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_ = await daemon.registered("max")
        with pytest.raises(errors.InvalidParams):
            await max_("agent.cleanup", dry_run=True, force=True)
        with pytest.raises(errors.InvalidParams):
            await max_("agent.cleanup", threshold=-1)


# -- status


async def test_a_status_is_a_fact_and_in_the_agent_s_file(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_, _ = await daemon.registered("max"), await daemon.registered("nux")
        set_ = await max_("agent.set-status", status="blocked")
        assert (set_.agent_id, set_.agent_status) == ("max", "blocked")
        identity = read_identity(file_of(root_of(daemon, "max"), "max"))
        assert (identity.agent_status, identity.agent_status_updated_at) == ("blocked", set_.agent_status_updated_at)
        await max_("agent.set-status", status="stuck", agent="nux")
        assert read_identity(file_of(root_of(daemon, "nux"), "nux")).agent_status == "stuck"
        assert [(each["agent_id"], each["by"]) for each in facts(daemon, "agent.status")] == [
            ("max", "max"),
            ("nux", "max"),
        ]
        with pytest.raises(errors.AgentNotFound):
            await max_("agent.set-status", status="idle", agent="ghost")
        with pytest.raises(errors.InvalidParams):
            await max_("agent.set-status", status="asleep")


async def test_of_a_dead_agent_nobody_else_sets_the_status(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        max_ = await daemon.registered("max")
        process = claude(daemon, 77)
        await quickstart(daemon, "nux", process)
        dies(daemon, process)
        before = file_of(root_of(daemon, "nux"), "nux").read_bytes()
        with pytest.raises(errors.DaemonWriterLiveness):
            await max_("agent.set-status", status="stuck", agent="nux")
        assert file_of(root_of(daemon, "nux"), "nux").read_bytes() == before


# -- quickstart


@pytest.mark.spec("ID-50")
async def test_quickstart_may_stop_after_any_step_and_be_repeated(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        process, root = claude(daemon, 77), daemon.ctx.here.layout.root
        file = file_of(root, "nux")
        desk = daemon.as_agent("", str(root), process)
        words = {"name": "nux", "role": "worker", "module": "m", "command": "quickstart"}
        first = await desk("agent.register", **words)
        file.unlink()  # killed between record and file
        again = await desk("agent.register", **words)
        assert (first.status, again.status) == ("registered", "registered")
        identity = read_identity(file)
        assert identity.owner == Pid(77, "boot/77") and identity.agent_status == "idle"
        started = await desk("session.start", agent_id="nux", resume=True)
        await desk("agent.register", **words)
        resumed = await desk("session.start", agent_id="nux", resume=True)
        assert (resumed.session_id, resumed.resumed) == (started.session_id, True)
        assert read_identity(file).session_id == started.session_id
        assert len(facts(daemon, "agent.register")) == 1
        assert len(facts(daemon, "agent.status")) == 1


@pytest.mark.spec("ID-55")
async def test_quickstart_after_a_crash_ends_the_dead_process_s_session(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        first, second = claude(daemon, 77), claude(daemon, 78)
        await quickstart(daemon, "nux", first)
        old = daemon.ctx.view.open_session("nux")
        dies(daemon, first)
        await quickstart(daemon, "nux", second)
        new = daemon.ctx.view.open_session("nux")
        assert old and new and old.session_id != new.session_id
        ended = daemon.ctx.view.session(old.session_id)
        assert ended is not None and ended.end_reason == "crash_recovered"


@pytest.mark.spec("ID-70")
async def test_a_session_gets_a_second_name_by_force_alone_and_its_first_file_is_kept(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        process, root = claude(daemon, 77), daemon.ctx.here.layout.root
        await quickstart(daemon, "nux", process, root)
        with pytest.raises(errors.QuickstartSelfRename) as refusal:
            await quickstart(daemon, "max", process, root)
        assert refusal.value.details["detected_agent"] == "nux"
        assert not file_of(root, "max").exists()
        result, _ = await quickstart(daemon, "nux", process, root)
        assert result.status == "registered", "the same name again is no rename"
        result, _ = await quickstart(daemon, "max", process, root, force=True)
        assert result.status == "registered"
        assert read_identity(file_of(root, "max")).owner == Pid(77, "boot/77")
        assert (root / ".thrum/identities/nux.json.deleted").exists()
        assert not file_of(root, "nux").exists()
        assert daemon.ctx.view.open_session("nux") is None
        row = daemon.ctx.view.agent("nux")
        assert row is not None and row.live and row.agent_pid == 0


@pytest.mark.spec("ID-50", "ID-70")
async def test_a_rename_that_was_killed_before_the_file_went_is_completed_by_the_next(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        process, root = claude(daemon, 77), daemon.ctx.here.layout.root
        await quickstart(daemon, "nux", process, root)
        data = file_of(root, "nux").read_bytes()
        await quickstart(daemon, "max", process, root, force=True)
        for path in (root / ".thrum/identities").iterdir():
            path.unlink()
        file_of(root, "nux").write_bytes(data)
        result, _ = await quickstart(daemon, "max", process, root, force=True)
        assert result.status == "updated"
        assert {path.name for path in (root / ".thrum/identities").glob("*.json*")} == {"max.json", "nux.json.deleted"}
        assert read_identity(file_of(root, "max")).agent_pid == 77


@pytest.mark.spec("ID-70")
async def test_a_name_that_lives_elsewhere_is_taken_by_force_alone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root = daemon.ctx.here.layout.root
        await quickstart(daemon, "nux", claude(daemon, 77), root)
        with pytest.raises(errors.QuickstartNameCollision):
            await quickstart(daemon, "nux", claude(daemon, 78), root)
        assert read_identity(file_of(root, "nux")).agent_pid == 77
        result, _ = await quickstart(daemon, "nux", claude(daemon, 78), root, force=True)
        assert result.status == "updated"
        assert read_identity(file_of(root, "nux")).agent_pid == 78
        assert (root / ".thrum/identities/nux.json.deleted").exists()


@pytest.mark.spec("ID-51")
async def test_quickstart_retires_the_identities_that_nobody_is_any_more(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root = daemon.ctx.here.layout.root
        dead, live = claude(daemon, 71), claude(daemon, 72)
        await quickstart(daemon, "dead", dead, root)
        await quickstart(daemon, "live", live, root)
        await quickstart(daemon, "no_pid", None, root)
        await quickstart(daemon, "unknown", None, root)
        data = file_of(root, "unknown").read_bytes()
        await daemon.as_agent("live", str(root), live)("agent.delete", name="unknown")
        file_of(root, "unknown").write_bytes(data)
        dies(daemon, dead)
        result, _ = await quickstart(daemon, "new", claude(daemon, 73), root)
        here = {path.name for path in (root / ".thrum/identities").glob("*.json*")}
        assert here == {"new.json", "live.json", "no_pid.json", "dead.json.deleted", "unknown.json.deleted"}
        assert len(result.warnings) == 2
        assert "thrum quickstart dead --role worker --module dead" in result.warnings[0]
        assert daemon.ctx.view.open_session("dead") is None
        ended = daemon.ctx.view.sessions("dead")
        assert [each.end_reason for each in ended] == ["superseded"]
        assert daemon.ctx.view.open_session("live") and daemon.ctx.view.open_session("no_pid")
        back, _ = await quickstart(daemon, "dead", claude(daemon, 74), root)
        assert back.status == "registered" and file_of(root, "dead").exists()


@pytest.mark.spec("ID-51")
async def test_reserved_and_broken_files_stay_and_agent_register_retires_nothing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root = daemon.ctx.here.layout.root
        process = claude(daemon, 71)
        await quickstart(daemon, "dead", process, root)
        await quickstart(daemon, "sender", claude(daemon, 72), root)
        update_identity(
            root / ".thrum/identities",
            "sender",
            lambda identity: dataclasses.replace(identity, reserved=True) if identity else None,
            now_ms=daemon.clock.ms,
        )
        file_of(root, "broken").write_text("{")
        dies(daemon, process)
        del daemon.processes.processes[72]
        result, _ = await quickstart(daemon, "other", None, root, command="register")
        assert result.warnings == () and file_of(root, "dead").exists()
        await quickstart(daemon, "new", None, root)
        names = {path.name for path in (root / ".thrum/identities").glob("*.json")}
        assert names == {"sender.json", "broken.json", "other.json", "new.json"}


# -- prime


async def prime(daemon: Daemon, name: str, root: Path, process: Process | None) -> Any:
    words = {"role": "worker", "module": name, "command": "prime"}
    return await desk_of(daemon, "", root, process)("agent.register", name=name, **words)


@pytest.mark.spec("ID-74")
async def test_prime_claims_an_identity_without_a_live_process_and_notes_the_runtime(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root = daemon.ctx.here.layout.root
        first, second = claude(daemon, 71), claude(daemon, 72)
        await quickstart(daemon, "nux", None, root)
        assert (await prime(daemon, "nux", root, first)).status == "registered"
        identity = read_identity(file_of(root, "nux"))
        assert (identity.owner, identity.runtime, identity.preferred_runtime) == (
            Pid(71, "boot/71"),
            "claude",
            "claude",
        )
        dies(daemon, first)
        await prime(daemon, "nux", root, second)
        assert read_identity(file_of(root, "nux")).agent_pid == 72
        assert len(facts(daemon, "agent.register")) == 1


@pytest.mark.spec("ID-74", "ID-42")
async def test_prime_from_a_shell_clears_a_dead_pid_and_leaves_a_live_one(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root, process = daemon.ctx.here.layout.root, claude(daemon, 71)
        await quickstart(daemon, "nux", process, root)
        before = file_of(root, "nux").read_bytes()
        result = await prime(daemon, "nux", root, None)
        assert result.conflict.reason == "name_held"
        assert file_of(root, "nux").read_bytes() == before
        dies(daemon, process)
        await prime(daemon, "nux", root, None)
        assert read_identity(file_of(root, "nux")).owner == Pid()


async def test_prime_registers_nobody(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        with pytest.raises(errors.AgentNotRegistered):
            await prime(daemon, "ghost", daemon.ctx.here.layout.root, claude(daemon, 71))
        assert facts(daemon, "agent.register") == []


@pytest.mark.spec("ID-74")
async def test_another_runtime_is_refused_a_live_identity(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root = daemon.ctx.here.layout.root
        await quickstart(daemon, "nux", claude(daemon, 71), root)
        with pytest.raises(errors.PrimeOwnership) as refusal:
            await prime(daemon, "nux", root, claude(daemon, 72))
        assert refusal.value.details["reason"] == "caller_not_topmost_runtime"
        assert read_identity(file_of(root, "nux")).agent_pid == 71
