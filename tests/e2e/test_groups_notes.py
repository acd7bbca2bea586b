"""Groups, notes, settings and `setup` with real processes: who writes is what the kernel says."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.daemon.repo import SECONDS, THRUM, Repo, open_repo


@pytest.fixture(scope="module")
def repo() -> Generator[Repo]:
    with open_repo("furiosa", "nux") as made:
        yield made


def at_a_terminal(repo: Repo, answer: str, *words: str) -> tuple[int, str]:
    """Run thrum with a terminal on its stdin and stderr, and type the answer when asked."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(THRUM), *words], cwd=repo.main, env=repo.env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown, typed = b"", False
    try:
        while True:
            assert select.select([ours], [], [], SECONDS)[0], f"nothing more after {shown!r}"
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
            if not typed and b"[y/N] " in shown:
                os.write(ours, f"{answer}\n".encode())
                typed = True
        return process.wait(SECONDS), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_message_to_a_group_reaches_its_members_and_survives_a_rebuild(repo: Repo) -> None:
    wt = repo.worktree("nux")
    repo.thrum("group", "create", "core", "--description", "the core")
    repo.thrum("group", "add", "core", "@nux")
    sent = repo.json("send", "to the core", "--to", "@core")
    assert [each["agent_id"] for each in sent["recipients"]] == ["nux"]
    assert "to the core" in repo.thrum("inbox", at=wt)
    repo.thrum("group", "remove", "core", "nux", at=wt)
    done = repo.run("send", "nobody", "--to", "@core", "--json")
    assert (done.status, done.kind) == (1, "no_recipients")
    repo.thrum("group", "add", "core", "nux")
    repo.assert_projection_is_as_rebuilt()
    assert [each["member_value"] for each in repo.json("group", "members", "core")["members"]] == ["nux"]
    assert {"group.create", "group.member.add", "group.member.remove"} <= {fact["type"] for fact in repo.facts()}


def test_deleting_a_group_asks_the_person_at_the_terminal(repo: Repo) -> None:
    repo.thrum("group", "create", "doomed")
    status, shown = at_a_terminal(repo, "n", "group", "delete", "doomed")
    assert status == 1 and "Delete group 'doomed' (0 members)? [y/N]" in shown
    assert "cancelled, nothing changed" in shown
    status, shown = at_a_terminal(repo, "y", "group", "delete", "doomed")
    assert status == 0 and "Group deleted: doomed" in shown
    done = repo.run("group", "delete", "doomed", "--json")
    assert done.kind == "group_not_found"


def test_without_a_terminal_nobody_is_asked(repo: Repo) -> None:
    repo.thrum("group", "create", "kept")
    done = repo.run("group", "delete", "kept", stdin="y\n")
    assert done.status == 1 and "use --yes to confirm deletion" in done.err
    assert repo.json("group", "show", "kept")["name"] == "kept"


@pytest.mark.spec("ID-14")
def test_notes_are_written_in_their_own_worktree_only(repo: Repo) -> None:
    wt = repo.worktree("nux")
    assert repo.thrum("context", "save", stdin="what nux knows\n", at=wt) == "✓ Context saved for nux (15 bytes)\n"
    file = wt / ".thrum" / "context" / "nux.md"
    assert file.read_text() == "what nux knows\n" and file.stat().st_mode & 0o777 == 0o600
    (wt / ".thrum" / "context" / "nux_preamble.md").write_text("nux's own\n")
    for words in (("save",), ("clear",), ("preamble", "--init")):
        done = repo.run("context", *words, "--agent", "nux", "--json", stdin="forged")
        assert (done.status, done.kind) == (1, "identity_mismatch"), words
    assert file.read_text() == "what nux knows\n"
    assert (wt / ".thrum" / "context" / "nux_preamble.md").read_text() == "nux's own\n"
    assert "what nux knows" in repo.thrum("context", "show", "--agent", "nux"), "reading is free"
    (wt / "notes.md").write_text("from a file")
    said = repo.thrum("context", "save", "--file", "notes.md", at=wt)
    assert said == "✓ Context saved for nux (12 bytes, replaced 15)\n"


def test_notes_are_read_and_settings_changed_without_a_daemon(repo: Repo) -> None:
    repo.thrum("context", "save", stdin="for later\n")
    repo.thrum("daemon", "stop")
    assert "for later" in repo.thrum("context", "show")
    assert "\n  # @furiosa, worker of m0\n" in repo.thrum("context", "preamble")
    assert repo.thrum("config", "set", "project_name", "shop") == "✓ project_name = shop\n"
    assert repo.thrum("config", "get", "project_name") == "shop\n"
    assert repo.json("config", "show")["daemon"]["status"] == "stopped"
    assert repo.daemon is None, "none of them started it"


def test_settings_are_changed_from_every_worktree_and_the_log_level_at_once(repo: Repo) -> None:
    wt = repo.worktree("nux")
    repo.thrum("daemon", "start")
    repo.thrum("config", "set", "daemon.log_level", "error", at=wt)
    assert json.loads((repo.main / ".thrum" / "config.json").read_text())["daemon"]["log_level"] == "error"
    repo.thrum("config", "set", "sync.interval", "20s")
    quiet = [entry["message"] for entry in repo.json("daemon", "logs", "-n", "0")["lines"]]
    repo.thrum("config", "unset", "daemon.log_level")
    repo.thrum("config", "unset", "sync.interval")
    loud = [entry["message"] for entry in repo.json("daemon", "logs", "-n", "0")["lines"]]
    assert loud.count("setting changed") - quiet.count("setting changed") == 2
    done = repo.run("config", "set", "daemon.log_level", "loud")
    assert done.status == 1 and "daemon.log_level must be debug, info, warn or error" in done.err


def test_setup_joins_a_worktree_to_the_daemon_of_the_main_one(repo: Repo) -> None:
    path = repo.top / "late"
    repo.git("worktree", "add", "-q", str(path), "-b", "late")
    (path / ".thrum").mkdir()
    (path / ".thrum" / "redirect").write_text("/nowhere/at/all\n")
    done = repo.run("whoami", "--json", at=path)
    assert done.kind == "not_initialized", "nobody set that redirect up"
    assert repo.thrum("setup", at=path) == f"✓ Worktree set up: .thrum/redirect → {repo.main}/.thrum\n"
    repo.agent("late", role="helper", module="late", at=path)
    repo.thrum("send", "here I am", "--to", "@furiosa", at=path)
    assert "here I am" in repo.thrum("inbox")
    assert len(repo.daemons()) == 1


def test_linked_context_directories_are_refused_in_the_running_daemon_too(repo: Repo, tmp_path: Path) -> None:
    path = repo.agent("linky", role="linker", module="linky")
    directory = path / ".thrum" / "context"
    if directory.exists():
        directory.rename(path / ".thrum" / "moved")
    directory.symlink_to(tmp_path)
    done = repo.run("context", "save", "--json", stdin="x", at=path)
    assert (done.status, done.kind) == (1, "store_failed")
    assert list(tmp_path.iterdir()) == []
