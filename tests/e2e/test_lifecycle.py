"""The life of an agent with real sessions: quickstart, prime, their guards, deletion (identity.md §8, §12)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.typed import at_a_terminal
from tests.support.daemon.callers import Desk, Desks, runtime_argv
from tests.support.daemon.repo import THRUM, Repo, open_repo


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


def identities(root: Path) -> set[str]:
    return {path.name for path in (root / ".thrum/identities").glob("*.json*")}


def in_file(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / f".thrum/identities/{name}.json").read_text())


def quickstart(at: Desk, name: str, *words: str, **env: str) -> dict[str, Any]:
    return at.thrum("quickstart", name, "--role", "builder", "--module", f"m_{name}", *words, **env)


def done(answer: dict[str, Any]) -> str:
    assert answer["status"] == 0, answer
    return answer["out"]


def under(repo: Repo, outer: Desk, runtime: str, *words: str) -> dict[str, Any]:
    """A command of a runtime that the desk's own process starts."""
    return outer.order(run=[*runtime_argv(repo.top / "bin", runtime), str(THRUM), *words])


def fired(repo: Repo, guard: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (repo.var / "daemon.log").read_text().splitlines())
    return [line for line in lines if line["message"] == "identity_guard_fire" and line.get("guard") == guard]


@pytest.mark.spec("ID-50")
def test_quickstart_again_resumes_its_session_and_records_nothing_new(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("again")
    claude = desk(root, "claude")
    first = done(quickstart(claude, "again_one", "--intent", "T"))
    facts = len(repo.facts("agent.register"))
    again = done(quickstart(claude, "again_one"))
    assert first.splitlines()[1].replace("started", "resumed") == again.splitlines()[1]
    assert len(repo.facts("agent.register")) == facts
    told = in_file(root, "again_one")
    assert (told["agent_pid"], told["runtime"], told["agent_status"]) == (claude.pid, "claude", "idle")
    assert (root / ".thrum/context/again_one_preamble.md").read_text().startswith("# @again_one, builder of")
    (root / ".thrum/context/again_one_preamble.md").write_text("my own\n")
    done(quickstart(claude, "again_one"))
    assert (root / ".thrum/context/again_one_preamble.md").read_text() == "my own\n"


@pytest.mark.spec("ID-51")
def test_one_runtime_after_another_leaves_one_identity_and_says_the_way_back(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("relay")
    first = desk(root, "claude")
    done(quickstart(first, "relay_one"))
    first.close()
    second = desk(root, "codex")
    answer = quickstart(second, "relay_two")
    done(answer)
    assert identities(root) == {"relay_two.json", "relay_one.json.deleted"}
    assert answer["err"] == (
        "warning: @relay_one is moved away, its process is gone: .thrum/identities/relay_one.json.deleted"
        " (back: thrum quickstart relay_one --role builder --module m_relay_one)\n"
    )
    third = desk(root, "gemini")
    done(quickstart(third, "relay_one"))
    assert {"relay_one.json", "relay_two.json"} <= identities(root), "both live"


@pytest.mark.spec("ID-70")
def test_a_session_keeps_its_name_unless_it_is_forced(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("rename")
    claude = desk(root, "claude")
    done(quickstart(claude, "rename_one"))
    refusal = json.loads(quickstart(claude, "rename_two", "--json")["out"])["error"]
    assert (refusal["kind"], refusal["details"]["reason"]) == ("quickstart_self_rename", "caller_already_owns_identity")
    assert "keep your mail: thrum agent rename rename_two; --force moves rename_one away" in refusal["remedy"]
    assert fired(repo, "quickstart_self_rename")[-1]["outcome"] == "denied"
    side = under(repo, claude, "claude", "quickstart", "rename_two", "--role", "r", "--module", "m", "--json")
    assert json.loads(side["out"])["error"]["kind"] == "quickstart_self_rename"
    assert identities(root) == {"rename_one.json"}
    done(quickstart(claude, "rename_two", "--force"))
    assert identities(root) == {"rename_two.json", "rename_one.json.deleted"}
    assert in_file(root, "rename_two")["agent_pid"] == claude.pid
    assert "✓ Message sent" in done(claude.thrum("send", "x"))
    assert done(claude.thrum("whoami", "--field", "agent_id")) == "rename_two\n"


@pytest.mark.spec("ID-70")
def test_a_name_that_another_session_lives_under_is_taken_by_force_alone(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("collide")
    first, second = desk(root, "claude"), desk(root, "claude")
    done(quickstart(first, "collide_one"))
    refusal = json.loads(quickstart(second, "collide_one", "--json")["out"])["error"]
    assert (refusal["kind"], refusal["details"]["expected_pid"]) == ("quickstart_name_collision", first.pid)
    assert in_file(root, "collide_one")["agent_pid"] == first.pid
    done(quickstart(second, "collide_one", "--force"))
    assert identities(root) == {"collide_one.json", "collide_one.json.deleted"}
    assert in_file(root, "collide_one")["agent_pid"] == second.pid


@pytest.mark.spec("ID-69")
def test_a_guard_in_warn_says_its_line_and_goes_on(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("warned")
    claude = desk(root, "claude")
    done(quickstart(claude, "warned_one"))
    repo.guards('{"quickstart_self_rename": "warn"}')
    answer = quickstart(claude, "warned_two")
    done(answer)
    assert 'warning: identity guard "quickstart_self_rename" fired: caller_already_owns_identity' in answer["err"]
    assert fired(repo, "quickstart_self_rename")[-1]["outcome"] == "allowed"
    assert "agent_pid" not in in_file(root, "warned_two"), "its process is another agent"
    repo.guards('{"quickstart_self_rename": "off"}')
    count = len(fired(repo, "quickstart_self_rename"))
    said = "warning: export THRUM_NAME=warned_three, else you act as @warned_one\n"
    assert quickstart(claude, "warned_three")["err"] == said
    assert len(fired(repo, "quickstart_self_rename")) == count


@pytest.mark.spec("ID-74", "ID-69", "ID-42")
def test_prime_is_for_the_session_s_own_runtime_and_a_shell_looks(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("primed")
    shell, claude = desk(root), desk(root, "claude")
    done(quickstart(shell, "primed_one"))
    assert "agent_pid" not in in_file(root, "primed_one")
    assert done(claude.thrum("prime")).startswith("# @primed_one (builder, m_primed_one)\n")
    told = in_file(root, "primed_one")
    assert (told["agent_pid"], told["runtime"], told["preferred_runtime"]) == (claude.pid, "claude", "claude")
    assert done(under(repo, claude, "claude", "prime")).startswith("# @primed_one"), "a side process of the session"
    refusal = json.loads(under(repo, claude, "codex", "prime", "--json")["out"])["error"]
    assert (refusal["kind"], refusal["details"]["expected_pid"]) == ("prime_ownership", claude.pid)
    assert fired(repo, "prime_ownership")[-1]["outcome"] == "denied"
    assert done(shell.thrum("prime")).startswith("# @primed_one"), "a person looks"
    assert in_file(root, "primed_one") == told
    claude.close()
    assert done(shell.thrum("prime")).startswith("# @primed_one")
    assert "agent_pid" not in in_file(root, "primed_one"), "a shell clears what is dead"
    gemini = desk(root, "gemini")
    done(gemini.thrum("prime"))
    told = in_file(root, "primed_one")
    assert (told["agent_pid"], told["runtime"]) == (gemini.pid, "gemini")


@pytest.mark.spec("ID-52")
def test_a_deleted_agent_leaves_nothing_but_its_words(repo: Repo) -> None:
    root, other = repo.agent("gone_one", module="g1"), repo.agent("gone_two", module="g2")
    repo.thrum("send", "last words", "--to", "@gone_two", at=root)
    repo.thrum("context", "save", at=root, stdin="notes")
    refused = repo.run("agent", "delete", "gone_one", "--json", at=other)
    assert refused.kind == "confirmation_required"
    said = refused.json["error"]["message"]
    assert said.startswith("use --force to confirm deletion: @gone_one lives elsewhere, in gone_one;")
    by_yes = repo.run("agent", "delete", "gone_one", "--yes", "--json", at=other)
    assert by_yes.kind == "confirmation_required" and "--force" in by_yes.json["error"]["remedy"]
    assert "its inbox: 0 messages, 0 unread, deleted; what it wrote: 1 message, kept;" in said
    assert "starts fresh" in said and "thrum agent rename NEW" in said
    assert f"Error: {said}\n" in repo.run("agent", "delete", "gone_one", at=other).err
    assert (
        "1 message, deleted too, everywhere" in repo.run("agent", "delete", "gone_one", "--with-messages", at=other).err
    )
    assert "@gone_one is you;" in repo.run("agent", "delete", "gone_one", at=root).err
    assert repo.thrum("agent", "delete", "gone_one", "--force", at=other) == "✓ Agent deleted: gone_one\n"
    assert identities(root) == set() and list((root / ".thrum/context").iterdir()) == []
    assert "last words" in repo.thrum("inbox", at=other)
    assert repo.run("send", "x", "--json", at=root).kind == "no_identity"
    repo.kill_daemon()
    assert "gone_one" not in repo.thrum("agent", "list", at=other)


def test_a_running_agent_is_said_to_run_before_anybody_is_asked(repo: Repo, desk: Desks) -> None:
    other = repo.agent("asker", module="g3")
    claude = desk(repo.worktree("runner"), "claude")
    done(claude.thrum("quickstart", "runner", "--role", "worker", "--module", "g4"))
    status, shown = at_a_terminal(repo, other, ["agent", "delete", "runner"])
    assert status == 1 and f"@runner is running (pid {claude.pid})" in shown and "[y/N]" not in shown


@pytest.mark.spec("ID-53")
def test_agents_whose_branch_or_worktree_is_gone_are_cleaned_up(repo: Repo) -> None:
    desk_root = repo.agent("tidy_one", module="t1")
    branch, tree = repo.agent("tidy_branch", module="t2"), repo.agent("tidy_tree", module="t3")
    repo.git("checkout", "-q", "--detach", cwd=branch)
    repo.git("branch", "-q", "-D", "tidy_branch")
    repo.git("worktree", "remove", "--force", str(tree))
    listed = repo.json("agent", "cleanup", "--dry-run", at=desk_root)
    found = {each["agent_id"]: each for each in listed["orphans"] if each["agent_id"].startswith("tidy")}
    assert found.keys() == {"tidy_branch", "tidy_tree"}
    assert found["tidy_branch"]["branch_missing"] and found["tidy_tree"]["worktree_missing"]
    assert listed["deleted"] == [] and identities(branch) == {"tidy_branch.json"}
    out = repo.thrum("agent", "cleanup", "--force", at=desk_root)
    assert "✓ Deleted tidy_branch\n" in out and "✓ Deleted tidy_tree\n" in out
    assert identities(branch) == set()


@pytest.mark.spec("ID-53")
def test_at_a_terminal_each_orphan_is_asked_for(repo: Repo) -> None:
    home = repo.agent("asked_home", module="a0")
    for name in ("asked_one", "asked_two"):
        repo.agent(name, module=name)
        (repo.top / name / f".thrum/identities/{name}.json").unlink()
    status, shown = at_a_terminal(repo, home, ["agent", "cleanup"], "n", "y")
    assert status == 0
    assert shown.startswith("Orphaned agents (2):\n  @asked_")
    assert shown.count("Delete agent 'asked_") == 2 and shown.count("✓ Deleted asked_") == 1
    left = {each["agent_id"] for each in repo.json("agent", "list", at=home)["agents"]["agents"]}
    assert len(left & {"asked_one", "asked_two"}) == 1
    (last,) = left & {"asked_one", "asked_two"}
    status, shown = at_a_terminal(repo, home, ["agent", "delete", last], "no")
    assert status == 1 and "cancelled, nothing changed" in shown
    assert shown.index("its inbox: 0 messages") < shown.index(f"Delete agent '{last}'? [y/N]")
    status, shown = at_a_terminal(repo, home, ["agent", "delete", last], "yes")
    assert status == 0 and f"✓ Agent deleted: {last}\n" in shown


def test_prime_without_a_daemon_reads_files_and_starts_none(repo: Repo) -> None:
    root = repo.agent("offline_one", module="o1")
    repo.thrum("daemon", "stop")
    out = repo.thrum("prime", at=root, env={"THRUM_NO_AUTOSTART": "1"})
    assert out.startswith("# @offline_one (worker, o1)\n") and "not running" in out
    assert repo.daemon is None
    assert "## Daemon: running" in repo.thrum("prime", at=root)
