"""uninstall undoes what init made, says each step, and loses no message without saying it."""

from __future__ import annotations

import os
import stat
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.repo import Repo


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def words_in_git(repo: Repo, word: str) -> bool:
    """Whether any object holds the word, reachable or not."""
    loose = (repo.main / ".git/objects").glob("[0-9a-f][0-9a-f]/*")
    if any(word.encode() in zlib.decompress(path.read_bytes()) for path in loose):
        return True
    words = ["git", "cat-file", "--batch", "--batch-all-objects"]
    return word.encode() in subprocess.run(words, cwd=repo.main, capture_output=True, check=True).stdout


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and mode but git's objects and logs."""
    return {
        str(path.relative_to(root)): (mode(path), path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
        if not {"objects", "logs"} & set(path.relative_to(root).parts) and not path.is_symlink()
    }


@pytest.fixture
def repo() -> Iterator[Repo]:
    made = Repo()
    (made.main / ".git").chmod(0o755)
    yield made
    made.close()


def talk(repo: Repo) -> None:
    repo.thrum("init")
    repo.agent("alice", at=repo.main)
    repo.agent("bob")
    repo.thrum("send", "kobold", "--to", "@bob")
    repo.thrum("sync", "force", "--wait")


def test_it_asks_and_off_a_terminal_says_what_would_be_lost(repo: Repo) -> None:
    talk(repo)
    done = repo.run("uninstall")
    assert done.status == 1
    assert "with 1 message, 1 of them not at any remote (keep them: --keep-messages)\n" in done.err
    assert "  fix: thrum uninstall --yes\n" in done.err
    assert repo.daemon
    assert repo.run("uninstall", "--json").kind == "confirmation_required"
    assert "kobold" in repo.git("log", "-p", "a-sync")


def test_nothing_is_left_but_what_it_names(repo: Repo) -> None:
    bob = repo.worktree("bob")
    (repo.main / ".git/info/exclude").write_bytes(b"# mine\nbuild/\n")
    before = tree(repo.top)
    talk(repo)
    assert mode(repo.main / ".git") == 0o700
    done = repo.json("uninstall", "--yes")
    assert done["removed"] == [
        "branch a-sync",
        f"mode of {repo.main}/.git, 0700→0755",
        f"{bob}/.thrum",
        f"{repo.main}/.thrum",
        f"the line .thrum/ of {repo.main}/.git/info/exclude",
        f"{repo.main}/.git/thrum-sync",
    ]
    assert done["kept"] == []
    assert not repo._leftover()
    assert tree(repo.top) == before
    assert not words_in_git(repo, "kobold"), "with the old mode others would read it"
    assert "not initialized" in repo.run("inbox").err
    repo.thrum("init")  # and it can be set up anew


def test_with_messages_kept_a_later_init_goes_on_with_them(repo: Repo) -> None:
    talk(repo)
    repo.thrum("backup")
    done = repo.json("uninstall", "--yes", "--keep-messages")
    kept = "\n".join(done["kept"])
    for word in ("branch a-sync", "thrum-sync", ".thrum/backup", f"chmod 755 {repo.main}/.git"):
        assert word in kept
    assert mode(repo.main / ".git") == 0o700, "what is kept is kept from others"
    assert sorted(each.name for each in (repo.main / ".thrum").iterdir()) == ["backup"]
    assert not (repo.worktree("bob") / ".thrum").exists()
    repo.thrum("init")
    repo.agent("bob")
    assert "kobold" in repo.thrum("inbox", at=repo.worktree("bob"))


def test_what_was_pushed_stays_at_the_remote_and_is_named(repo: Repo) -> None:
    origin = repo.top / "origin.git"
    repo.git("clone", "-q", "--bare", str(repo.main), str(origin))
    repo.git("remote", "add", "origin", str(origin))
    repo.git("fetch", "-q", "origin")
    talk(repo)
    repo.thrum("sync", "enable", "--yes")
    repo.thrum("sync", "force", "--wait")
    said = repo.thrum("uninstall", "--yes")
    assert "a-sync at origin: what was pushed stays there, and in other clones" in said
    assert "gone     1 message, all of them at the remote too" in said
    assert "a-sync" in repo.git("ls-remote", "origin")
    assert "a-sync" not in repo.git("for-each-ref")
    assert not words_in_git(repo, "kobold")


def test_messages_packed_with_the_users_own_objects_keep_the_directory_closed(repo: Repo) -> None:
    talk(repo)
    repo.git("gc", "-q")
    repo.thrum("daemon", "stop")
    said = repo.thrum("uninstall", "--yes")
    assert f"git gc --prune=now; chmod 755 {repo.main}/.git" in said
    assert mode(repo.main / ".git") == 0o700
    assert words_in_git(repo, "kobold")
    repo.git("gc", "-q", "--prune=now")
    assert not words_in_git(repo, "kobold")


@pytest.mark.short(2)
@pytest.mark.parametrize(
    "words",
    [
        ("branch", "mine", "a-sync"),
        ("tag", "mine", "a-sync"),
        ("update-ref", "refs/remotes/team/up/a-sync", "a-sync"),
        ("update-ref", "refs/pull/1/head", "a-sync"),
        ("worktree", "add", "-q", "--detach", "../looked", "a-sync"),
        ("read-tree", "--prefix=here/", "a-sync"),
        ("reflog",),
    ],
    ids=lambda words: words[0] if words[0] != "update-ref" else words[1].split("/")[1],
)
def test_messages_that_something_of_the_users_leads_to_keep_the_directory_closed(
    repo: Repo, words: tuple[str, ...]
) -> None:
    talk(repo)
    if words == ("reflog",):
        repo.git("switch", "-q", "a-sync")
        repo.git("switch", "-q", "-")
    else:
        repo.git(*words)
    repo.thrum("daemon", "stop")
    said = repo.thrum("uninstall", "--yes")
    assert words_in_git(repo, "kobold")
    assert mode(repo.main / ".git") == 0o700
    assert "journals that a branch, tag, worktree, index or reflog of yours leads to" in said
    assert f"git gc --prune=now; chmod 755 {repo.main}/.git" in said


def test_a_lost_stash_of_the_users_is_not_taken_away(repo: Repo) -> None:
    talk(repo)
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=repo.main, input=b"my lost work", capture_output=True, check=True
    ).stdout.decode()
    repo.thrum("uninstall", "--yes")
    assert repo.git("cat-file", "blob", blob.strip()) == "my lost work"


def test_a_link_in_the_place_of_thrum_is_unlinked_and_never_followed(repo: Repo) -> None:
    talk(repo)
    bob, treasure = repo.worktree("bob"), repo.top / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("mine")
    (bob / ".thrum").rename(repo.top / "old")
    (bob / ".thrum").symlink_to(treasure)
    (repo.main / ".thrum/backup").symlink_to(treasure)
    repo.thrum("uninstall", "--yes")
    assert os.listdir(treasure) == ["gold"]
    assert not os.path.lexists(bob / ".thrum")
    assert not os.path.lexists(repo.main / ".thrum")


def test_what_calls_thrum_is_named_to_be_taken_out_by_hand(repo: Repo) -> None:
    (repo.main / ".claude").mkdir()
    (repo.main / ".claude/settings.json").write_text('{"hooks": "thrum prime"}')
    (repo.main / ".gitignore").write_text("build/\n.thrum/\n")
    talk(repo)
    kept = repo.json("uninstall", "--yes")["kept"]
    assert kept == [
        ".claude/settings.json: it calls thrum; remove that by hand",
        ".gitignore: it is tracked; the line .thrum/ may be removed",
    ]
