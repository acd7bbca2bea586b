"""A neighbour on the machine reads no message: not by git, not by thrum's files, sockets and processes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.daemon.repo import Repo
from tests.support.places import SUPPORT

NEIGHBOUR = 65534
HIS_PYTHON = "/usr/bin/python3"
SCRIPT = SUPPORT / "neighbour.py"
OPEN_UMASK = ("sh", "-c", 'umask 0; exec "$@"', "sh")
"""Whatever a user's umask gives away, thrum's files are his own."""
WORDS = ("kobold-alpha", "kobold-beta", "kobold-gamma", "kobold-notes")

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(HIS_PYTHON).exists(), reason="to become another user takes root"
)


@pytest.fixture
def repo() -> Iterator[Repo]:
    """A repository in a directory that everybody may enter, made under an open umask."""
    made = Repo()
    made.top.chmod(0o755)
    for path in (made.main, made.main / ".git"):
        path.chmod(0o755)
    yield made
    made.close()


def talk(repo: Repo) -> None:
    """Words in every place where thrum keeps some, and in git's objects, loose and packed."""
    for name in ("alice", "bob"):
        where = repo.main if name == "alice" else repo.worktree("bob")
        words = ("quickstart", name, "--role", name + "s", "--module", "m", "--no-agent-pid", "--intent", WORDS[2])
        repo.thrum(*words, at=where, under=OPEN_UMASK)
    repo.thrum("send", "--stdin", "--to", "@bob", stdin=WORDS[0], under=OPEN_UMASK)
    repo.thrum("context", "save", stdin=WORDS[3], under=OPEN_UMASK)
    repo.thrum("sync", "force", "--wait", under=OPEN_UMASK)
    repo.git("gc", "-q")
    repo.thrum("send", "--stdin", "--to", "@alice", at=repo.worktree("bob"), stdin=WORDS[1], under=OPEN_UMASK)
    repo.thrum("sync", "force", "--wait", under=OPEN_UMASK)
    repo.thrum("backup", under=OPEN_UMASK)
    repo.thrum("backup", under=OPEN_UMASK)  # the first one is an archive now
    repo.thrum("agent", "delete", "bob", "--force", "--with-messages", under=OPEN_UMASK)
    repo.thrum("sync", "force", "--wait", under=OPEN_UMASK)


def own_files(repo: Repo) -> list[Path]:
    """Everything that thrum keeps, in all worktrees."""
    folders = [repo.main / ".git/thrum-sync", *repo.top.glob("*/.thrum")]
    return [path for folder in folders for path in (folder, *folder.rglob("*")) if not path.is_symlink()]


def _is_socket(path: Path) -> bool:
    """False also for a file of the moment that is gone."""
    return path.exists() and stat.S_ISSOCK(path.lstat().st_mode)


def neighbour(repo: Repo) -> list[str]:
    """How another user comes at the words."""
    files = [path for path in own_files(repo) if path.is_file()]
    order: dict[str, Any] = {
        "words": WORDS,
        "guesses": [str(path.relative_to(repo.top)) for path in files],
        "folders": [str(path) for path in own_files(repo) if path.is_dir()],
        "sockets": [str(path) for path in own_files(repo) if _is_socket(path)],
        "pids": [process.pid for process in repo.daemons()],
        "git_dirs": [str(repo.main / ".git")],
    }
    done = subprocess.run(
        [HIS_PYTHON, "-I", "-c", SCRIPT.read_text(), str(repo.top)],
        input=json.dumps(order).encode(),
        capture_output=True,
        user=NEIGHBOUR,
        group=NEIGHBOUR,
        extra_groups=[],
        timeout=120,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@as_root
def test_a_neighbour_reads_no_word_by_any_path_and_the_owner_reads_all(repo: Repo) -> None:
    repo.thrum("init", under=OPEN_UMASK)
    talk(repo)
    assert repo.daemons()
    assert neighbour(repo) == []
    told = repo.git("log", "-p", "a-sync")
    assert WORDS[0] in told
    assert WORDS[1] in told
    assert repo.git("status", "--short") == ""


@as_root
def test_with_modes_kept_he_reads_them_in_gits_objects_and_it_is_said_everywhere(repo: Repo) -> None:
    said = repo.thrum("init", "--keep-modes", under=OPEN_UMASK)
    assert "every user of this machine can read the messages in it (--keep-modes)" in said
    talk(repo)
    ways = neighbour(repo)
    assert any("objects" in way for way in ways)
    assert any(way.startswith("git ") for way in ways)
    # … and nothing of thrum's own.
    assert not [way for way in ways if ".thrum" in way or "thrum-sync" in way or way.startswith("/proc")]
    sentence = "every user of this machine can read the messages in"
    assert sentence in repo.thrum("sync", "status")
    check = next(each for each in repo.json("doctor")["checks"] if each["name"] == "readers")
    assert (check["status"], check["remedy"]) == ("warn", f"chmod go-rwx {repo.main}/.git")
    assert sentence in check["detail"]
    # What was kept once stays so, whoever says `init` again.
    assert "--keep-modes left it so" in repo.thrum("init")
    assert stat.S_IMODE((repo.main / ".git").stat().st_mode) == 0o755


@as_root
def test_where_worktrees_lie_inside_only_the_objects_are_closed(repo: Repo) -> None:
    inner = repo.main / ".git" / "work"
    repo.git("worktree", "add", "-q", str(inner), "-b", "inner")
    said = repo.thrum("init", under=OPEN_UMASK)
    assert "mode of .git/objects, 0755→0700" in said
    assert stat.S_IMODE((repo.main / ".git").stat().st_mode) == 0o755
    talk(repo)
    assert neighbour(repo) == []
    # Nor who spoke: the index names journals, and they are named after agents.
    index = repo.main / ".git/worktrees/a-sync/index"
    assert b"alice.jsonl" in index.read_bytes()
    assert stat.S_IMODE(index.stat().st_mode) == 0o600


def test_all_that_thrum_keeps_is_its_owners_whatever_the_umask(repo: Repo) -> None:
    repo.thrum("init", under=OPEN_UMASK)
    talk(repo)
    open_ones = {
        str(path.relative_to(repo.top)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in own_files(repo)
        if path.stat().st_mode & 0o077
    }
    assert open_ones == {}


def test_an_installation_of_before_is_told_and_init_fixes_it(repo: Repo) -> None:
    repo.thrum("init")
    (repo.main / ".git").chmod(0o755)
    (repo.main / ".git/thrum-sync/modes.json").unlink()  # what a thrum of before left
    repo.thrum("daemon", "start")
    repo.thrum("daemon", "restart")
    assert stat.S_IMODE((repo.main / ".git").stat().st_mode) == 0o755  # nothing is changed unasked
    check = next(each for each in repo.json("doctor")["checks"] if each["name"] == "readers")
    assert check["remedy"] == "thrum init"
    assert "changed  mode of .git, 0755→0700  undo: chmod 755 .git" in repo.thrum("init")
    check = next(each for each in repo.json("doctor")["checks"] if each["name"] == "readers")
    assert check["status"] == "ok"
    assert "Exposed" not in repo.thrum("sync", "status")


def test_a_body_from_stdin_stands_in_no_process_arguments(repo: Repo) -> None:
    repo.thrum("init")
    repo.agent("alice", at=repo.main)
    waiting = repo.start("send", "--stdin", "--to", "@everyone")
    waiting.say(WORDS[0])
    seen = {
        word
        for process in psutil.process_iter(["cmdline"])
        for word in process.info["cmdline"] or ()
        if WORDS[0] in word
    }
    assert waiting.end().status == 0
    assert seen == set()
