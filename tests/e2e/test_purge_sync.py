"""A purge in one clone: the other follows. It takes what that clone wrote and nobody else's, pushed or not; what was
purged is in no file, on no branch, and does not come back.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon.clones import open_clones, shared
from tests.support.daemon.repo import Repo, wait_until


def texts(repo: Repo) -> list[str]:
    return [each["body"]["content"] for each in repo.json("inbox", "--all", "--limit", "100")["messages"]]


def journal_bytes(repo: Repo) -> bytes:
    directory: Path = repo.main / ".git" / "thrum-sync"
    return b"".join(path.read_bytes() for path in directory.rglob("*.jsonl"))


def test_what_was_purged_is_gone_in_both_clones_and_does_not_come_back() -> None:
    with open_clones(["furiosa"], ["nux"]) as clones:
        here, there = clones.repos
        here.thrum("send", "secret of furiosa", "--to", "@nux")
        there.thrum("send", "secret of nux", "--to", "@furiosa")
        clones.settle()
        assert len(texts(here)) == len(texts(there)) == 2
        # One that the other has written and not sent yet, when the purge comes.
        there.thrum("sync", "disable")
        there.thrum("send", "late secret of nux", "--to", "@furiosa")

        preview = here.json("purge", "--all")
        assert preview["dry_run"] and (preview["messages_deleted"], preview["others"]) == (1, 1)
        assert len(texts(here)) == 2
        done = here.thrum("purge", "--all", "--confirm")
        assert "1 message deleted" in done and "1 message that agents of other clones wrote: kept" in done

        there.thrum("sync", "enable", "--yes")
        for repo in clones.repos:
            repo.thrum("send", f"after, from {repo.main.name}")
        clones.settle()
        for repo in clones.repos:
            found = texts(repo)
            assert {"secret of nux", "late secret of nux"} <= {*found} and "secret of furiosa" not in found
            wait_until(lambda repo=repo: b"of furiosa" not in journal_bytes(repo), "its journals are compacted")
        there.thrum("purge", "--before", "0s", "--confirm")
        for repo in clones.repos:
            repo.thrum("send", f"after, from {repo.main.name}")
        here.thrum("purge", "--before", "1d", "--confirm")
        clones.settle()
        for repo in clones.repos:
            assert {*texts(repo)} == {f"after, from {each.main.name}" for each in clones.repos}
            wait_until(lambda repo=repo: b"secret" not in journal_bytes(repo), "its journals are compacted")
        clones.settle()
        assert len(set(clones.trees())) == 1
        for line in clones.tree().splitlines():
            assert "secret" not in clones.git("cat-file", "blob", line.split()[2])
        mine, theirs = shared(here), shared(there)
        for table in ("messages", "message_recipients", "message_edits", "horizons"):
            assert mine[table] == theirs[table]
        for repo in clones.repos:
            repo.thrum("daemon", "restart")
            repo.thrum("sync", "force", "--wait")
            assert {*texts(repo)} == {f"after, from {each.main.name}" for each in clones.repos}
            repo.thrum("verify")
