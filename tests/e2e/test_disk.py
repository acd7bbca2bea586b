"""No room, and no right to write: the sender hears it, nothing half-written stays, and then it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.daemon.repo import Done, Repo, open_repo

BODY = 200_000


def _mounts() -> bool:
    """Whether this process may mount (root, and no sandbox that forbids it)."""
    with contextlib.suppress(OSError):
        done = subprocess.run(["unshare", "-m", "true"], capture_output=True)
        return os.geteuid() == 0 and done.returncode == 0
    return False


may_mount = pytest.mark.skipif(not _mounts(), reason="may not mount")


@contextlib.contextmanager
def mounted(path: Path, *words: str) -> Generator[None]:
    subprocess.run(["mount", *words, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def send(repo: Repo, content: str) -> Done:
    return repo.run("send", "--stdin", "--to", "@bob", "--json", stdin=content)


def contents(repo: Repo) -> list[str]:
    page = repo.json("inbox", "--peek", "--page-size", "1000", at=repo.worktree("bob"))
    return [message["body"]["content"] for message in reversed(page["messages"])]


def fill(repo: Repo) -> tuple[list[str], dict[str, Any]]:
    """Send until there is no room: what was taken, and the refusal."""
    taken: list[str] = []
    for number in range(100):
        content = f"{number} " + "x" * BODY
        done = send(repo, content)
        if done.status:
            return taken, done.json["error"]
        taken.append(content)
    raise AssertionError("the disk did not fill")


def assert_nothing_is_half_written(repo: Repo, taken: list[str]) -> None:
    for journal in [*repo.journals.rglob("*.jsonl"), repo.local_journal]:
        data = journal.read_bytes()
        assert data.endswith(b"\n") or not data, journal
    assert [fact["body"]["content"] for fact in repo.facts("message.create")] == taken


def fills_and_recovers(repo: Repo, make_room: Any) -> None:
    send(repo, "first")
    pid = repo.daemon
    taken, error = fill(repo)
    taken.insert(0, "first")
    assert error["kind"] == "store_failed", error
    assert "free space" in error["remedy"] or "repeat" in error["remedy"], error
    assert "could not write" in error["message"]
    assert_nothing_is_half_written(repo, taken)
    assert contents(repo) == taken, "reading goes on"
    assert repo.daemon == pid
    make_room()
    for content in ("after", "and on"):
        assert send(repo, content).status == 0
        taken.append(content)
    assert contents(repo) == taken
    assert repo.daemon == pid, "the same daemon goes on"
    assert_nothing_is_half_written(repo, taken)
    repo.assert_projection_is_as_rebuilt()


@may_mount
def test_a_full_disk_under_the_journals(tmp_path: Path) -> None:
    with open_repo("alice", "bob") as repo:
        repo.thrum("daemon", "stop")
        place = repo.main / ".git/thrum-sync"
        quarantined = repo.top / "aside"
        shutil.copytree(place, quarantined, symlinks=True)
        with mounted(place, "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"):
            shutil.copytree(quarantined, place, symlinks=True, dirs_exist_ok=True)
            ballast = place / "ballast"
            ballast.write_bytes(b"x" * 800_000)
            fills_and_recovers(repo, ballast.unlink)


@may_mount
def test_a_full_disk_under_the_database_alone(tmp_path: Path) -> None:
    """The projection may be lost; what was answered is in the journals."""
    with open_repo("alice", "bob") as repo:
        repo.thrum("daemon", "stop")
        with mounted(repo.var, "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs"):
            ballast = repo.var / "ballast"
            ballast.write_bytes(b"x" * 1_500_000)
            taken: list[str] = []
            refused: list[str] = []
            for number in range(12):
                content = f"{number} " + "x" * BODY
                done = send(repo, content)
                (refused if done.status else taken).append(content)
                if done.status:
                    assert done.json["error"]["remedy"]
            assert refused, "the disk did not fill"
            ballast.unlink()
            (repo.var / "daemon.log").write_bytes(b"")
            stored = [fact["body"]["content"] for fact in repo.facts("message.create")]
            assert [content for content in stored if content in taken] == taken
            for journal in repo.journals.rglob("*.jsonl"):
                assert journal.read_bytes().endswith(b"\n")
        # room enough again: the real directory
        repo.thrum("daemon", "restart")
        found = contents(repo)
        assert [content for content in found if content in taken] == taken
        assert send(repo, "after").status == 0


@pytest.mark.skipif(_mounts(), reason="here a real disk fills")
def test_a_file_size_limit_of_the_daemon_is_as_a_full_disk() -> None:
    with open_repo("alice", "bob") as repo:
        repo.thrum("daemon", "start")
        assert repo.daemon
        limited = psutil.Process(repo.daemon)
        if not hasattr(limited, "rlimit"):
            pytest.skip("no limits of another process here")
        _soft, hard = limited.rlimit(resource.RLIMIT_FSIZE)
        send(repo, "first")
        limited.rlimit(resource.RLIMIT_FSIZE, (3 * BODY, hard))

        def make_room() -> None:
            limited.rlimit(resource.RLIMIT_FSIZE, (hard, hard))

        taken, error = fill(repo)
        assert error["kind"] == "store_failed", error
        stored = [fact["body"]["content"] for fact in repo.facts("message.create")]
        assert stored == ["first", *taken]
        make_room()
        assert send(repo, "after").status == 0
        assert contents(repo) == ["first", *taken, "after"]
        repo.assert_projection_is_as_rebuilt()


@may_mount
def test_a_read_only_file_system_is_named_and_nothing_changes() -> None:
    with open_repo("alice", "bob") as repo:
        repo.thrum("send", "before", "--to", "@bob")
        repo.thrum("daemon", "stop")
        before = repo.facts()
        with mounted(repo.main, "--bind", str(repo.main)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(repo.main)], check=True)
            for words in (["send", "x", "--to", "@bob"], ["inbox"], ["daemon", "start"]):
                done = repo.run(*words, "--json")
                assert done.status == 1, done
                error = done.json["error"]
                assert error["kind"] in ("store_failed", "daemon_start_failed"), error
                assert "ead-only file system" in error["message"], error
                assert str(repo.main) in error["message"], error
                assert error["remedy"], error
            assert repo.run("whoami", "--json").json["agent_id"] == "alice"
        assert repo.facts() == before
        assert contents(repo) == ["before"]


@may_mount
def test_init_on_a_read_only_file_system_is_refused() -> None:
    repo = Repo()
    try:
        with mounted(repo.main, "--bind", str(repo.main)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(repo.main)], check=True)
            done = repo.run("init", "--json")
        assert done.status == 1, done
        assert "ead-only file system" in json.dumps(done.json), done
        assert done.json["error"]["remedy"]
        assert repo.git("branch", "--list", "a-sync") == ""
    finally:
        repo.close()


@may_mount
def test_a_file_system_that_becomes_read_only_under_the_daemon() -> None:
    """Marked so by the kernel after an error: here a journal that takes no more writes."""
    with open_repo("alice", "bob") as repo:
        repo.thrum("send", "before", "--to", "@bob")
        author_journal = repo.journals / "messages/alice.jsonl"
        repo.kill_daemon()
        subprocess.run(["chattr", "+i", str(author_journal)], check=False)
        try:
            done = send(repo, "while it cannot be written")
            if done.status == 0:
                pytest.skip("no immutable files here")
            assert done.json["error"]["kind"] == "store_failed", done
            assert contents(repo) == ["before"]
        finally:
            subprocess.run(["chattr", "-i", str(author_journal)], check=False)
        assert send(repo, "after").status == 0
        assert contents(repo) == ["before", "after"]


@may_mount
@pytest.mark.parametrize("free_kib", [4, 64, 160])
def test_a_disk_too_full_to_verify_on_is_named(free_kib: int) -> None:
    with open_repo("alice", "bob") as repo:
        send(repo, "x" * BODY)
        repo.thrum("daemon", "stop")
        with mounted(repo.var, "-t", "tmpfs", "-o", f"size={free_kib}k", "none"):
            error = repo.run("verify", "--json").json["error"]
        assert error["kind"] == "store_failed"
        assert str(repo.var) in error["message"]
        assert "no space left" in error["message"] or "disk is full" in error["message"]
