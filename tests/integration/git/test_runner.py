"""Running git: whatever thrum was started from, git stays in the repository that it is given, and ends."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.git.repository import make_repository
from thrum.git.runner import LOCAL_VARIABLES, GitFailed, GitRunner, git_environ, read_git, run_git

Run = Callable[[Path, list[str], dict[str, str]], str]


def by_run(repo: Path, words: list[str], environ: dict[str, str]) -> str:
    done = run_git(["-C", str(repo), *words], environ)
    assert done is not None
    return done.stdout.decode()


def by_read(repo: Path, words: list[str], environ: dict[str, str]) -> str:
    try:
        return read_git(str(repo), words, environ, time.monotonic() + 60).decode()
    except GitFailed:
        return ""


def by_runner(repo: Path, words: list[str], environ: dict[str, str]) -> str:
    return GitRunner().run(words, environ, cwd=str(repo), silent_seconds_max=60, seconds_max=60).out


WAYS = pytest.mark.parametrize("run", [by_run, by_read, by_runner])


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repo", message="First")


def test_every_variable_that_git_calls_local_is_known() -> None:
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True)
    assert set(listed.stdout.split()) <= LOCAL_VARIABLES


def test_only_what_is_true_of_every_repository_is_inherited() -> None:
    local = dict.fromkeys((*LOCAL_VARIABLES, "GIT_NAMESPACE", "GIT_LITERAL_PATHSPECS", "GIT_TRACE_CURL"), "x")
    settings = {"GIT_CONFIG_KEY_0": "core.bare", "GIT_CONFIG_VALUE_0": "true", "GIT_CONFIG_KEY_17": "a.b"}
    kept = {"PATH": "/bin", "GIT_SSH_COMMAND": "ssh", "GIT_CONFIG_GLOBAL": "/g", "GIT_CONFIG_NOSYSTEM": "1"}
    policy = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    loud = {"GIT_TERMINAL_PROMPT": "1", "GIT_OPTIONAL_LOCKS": "1", "LC_ALL": "de_DE.UTF-8"}
    assert git_environ({**local, **settings, **kept, **loud}) == {**kept, **policy}
    assert git_environ(local, {"GIT_CONFIG_COUNT": "1"}) == {**policy, "GIT_CONFIG_COUNT": "1"}


@WAYS
def test_git_is_not_sent_to_another_repository_or_given_the_settings_of_another_command(
    run: Run, repo: Path, tmp_path: Path
) -> None:
    astray = dict.fromkeys(LOCAL_VARIABLES, str(tmp_path / "nowhere")) | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "thrum.test",
        "GIT_CONFIG_VALUE_0": "counted",
        "GIT_CONFIG_PARAMETERS": "'thrum.test=parameter'",
    }
    environ = {**os.environ, **astray}
    assert run(repo, ["rev-parse", "--absolute-git-dir"], environ).strip() == str(repo / ".git")
    assert run(repo, ["config", "--get", "thrum.test"], environ) == ""


@WAYS
def test_no_hook_of_the_user_runs(run: Run, repo: Path, tmp_path: Path) -> None:
    hook = repo / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\necho ran >>{tmp_path}/ran\n")
    hook.chmod(0o755)
    run(repo, ["update-ref", "refs/heads/other", "HEAD"], dict(os.environ))
    assert run(repo, ["rev-parse", "other"], dict(os.environ)) == run(repo, ["rev-parse", "HEAD"], dict(os.environ))
    assert not (tmp_path / "ran").exists()


def test_a_git_that_hangs_is_killed_with_its_children_and_has_failed(repo: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        hang = f"!exec 3>{tmp_path}/alive; echo >&3; sleep 3600 & sleep 3600"
        done = run_git(["-C", str(repo), "-c", f"alias.hang={hang}", "hang"], os.environ, seconds_max=2)
        assert done is not None and done.returncode != 0
        assert done.stderr == b"fatal: git did not answer in time\n"
        # The other end of a pipe is closed when the last child is gone.
        while select.select([reader], [], [], 60)[0] and os.read(reader, 4096):
            pass
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_a_git_that_was_given_no_time_is_reported_in_words(repo: Path) -> None:
    with pytest.raises(GitFailed, match=r"^git did not answer in time$"):
        read_git(str(repo), ["-c", "alias.hang=!sleep 3600", "hang"], os.environ, time.monotonic() - 1)
    with pytest.raises(GitFailed, match=r"^git: bad revision"):
        read_git(str(repo), ["rev-parse", "no-such-thing", "--"], os.environ, time.monotonic() + 60)
