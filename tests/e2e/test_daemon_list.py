"""daemon list: every daemon of this user, from anywhere."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon.repo import Repo, open_repo


def row(repo: Repo, at: Path) -> list[dict[str, object]]:
    return [each for each in repo.json("daemon", "list", at=at)["daemons"] if each["repo_path"] == str(repo.main)]


def test_every_daemon_of_this_user_is_listed_from_anywhere() -> None:
    with open_repo("furiosa", "nux") as repo:
        (found,) = row(repo, Path("/"))
        assert (found["pid"], found["agents"]) == (repo.daemon, 2)
        assert isinstance(found["rss_bytes"], int) and found["rss_bytes"] > 2**20
        assert isinstance(found["uptime_ms"], int) and found["uptime_ms"] >= 0
        head, *lines = repo.thrum("daemon", "list").splitlines()
        assert head.split() == ["REPOSITORY", "PID", "UP", "MEMORY", "AGENTS"]
        (line,) = [each.split() for each in lines if each.startswith(f"{repo.main} ")]
        assert (line[1], line[-1], line[-2]) == (str(repo.daemon), "2", "MB")
        repo.thrum("daemon", "stop")
        assert row(repo, Path("/")) == []
