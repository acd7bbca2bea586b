"""Remotes as users have them: passwords, ssh, `insteadOf`; and what others may read is not pushed unasked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo, wait_until
from tests.support.git.servers import PASSWORD, USER, fake_ssh, open_git_daemon, open_http
from thrum.git.runner import GitRunner
from thrum.sync.ports import RemoteInfo
from thrum.sync.visibility import who_can_read


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa"], ["nux"]) as made:
        yield made


@pytest.fixture
def here(clones: Clones) -> Iterator[Repo]:
    """The first clone; its remote is the plain path again afterwards."""
    repo = clones.repos[0]
    yield repo
    repo.thrum("daemon", "stop")
    repo.git("remote", "set-url", "origin", str(clones.remote))
    for name in ("core.sshCommand", "credential.helper"):
        repo.git("config", "--unset-all", name) if repo.git("config", "--list").count(f"{name.lower()}=") else None
    (repo.main / ".git/thrum-sync/remotes.json").unlink(missing_ok=True)


def goes_over(clones: Clones, text: str) -> None:
    """A message of the first clone comes to the second, and its status is clean."""
    here, there = clones.repos
    here.thrum("send", text, "--to", "@nux")
    here.thrum("sync", "force", "--wait")
    there.thrum("sync", "force", "--wait")
    assert text in [each["body"]["content"] for each in there.json("inbox", "--peek", "--limit", "100")["messages"]]
    assert here.json("sync", "status")["sync_state"] == "synced"


def test_a_password_from_a_credential_helper(clones: Clones, here: Repo) -> None:
    with open_http(clones.network, password=True) as url:
        here.git("remote", "set-url", "origin", f"{url}/remote.git")
        helper = f"!f() {{ echo username={USER}; echo password={PASSWORD}; }}; f"
        here.git("config", "credential.helper", helper)
        here.thrum("daemon", "restart")
        goes_over(clones, "By http, with a password")
        assert here.run("sync", "enable").status == 0, "a server that wants a password is private"


def test_no_password_is_said_and_no_secret_is_told(clones: Clones, here: Repo) -> None:
    with open_http(clones.network, password=True) as url:
        here.git("remote", "set-url", "origin", url.replace("://", f"://{USER}:wrong-{PASSWORD}@") + "/remote.git")
        here.thrum("daemon", "restart")
        done = here.run("sync", "force", "--wait", "--json")
        status = here.json("sync", "status")
        assert done.kind == "sync_failed" and status["sync_state"] == "error" and status["remedy"]
        told = [done.out, here.thrum("sync", "status"), (here.var / "daemon.log").read_text(), str(status)]
        assert all(PASSWORD not in text for text in told)


def test_ssh_by_the_users_own_command(clones: Clones, here: Repo, tmp_path: Path) -> None:
    here.git("config", "core.sshCommand", str(fake_ssh(tmp_path)))
    here.git("remote", "set-url", "origin", f"nobody@host.invalid:{clones.remote}")
    here.thrum("daemon", "restart")
    done = here.run("sync", "enable", "--json")
    assert done.kind == "confirmation_required" and "does not say" in done.json["error"]["message"]
    here.thrum("send", "Not before it is meant", "--to", "@nux")
    assert here.run("sync", "force", "--wait").status == 1
    status = here.json("sync", "status")
    assert status["remedy"] == "thrum sync enable" and status["pending"] >= 1
    here.thrum("sync", "enable", "--yes")
    goes_over(clones, "By ssh")
    assert here.run("sync", "enable").status == 0, "said once for this remote"


def test_instead_of_and_the_git_protocol(clones: Clones, here: Repo) -> None:
    with open_git_daemon(clones.network) as url:
        here.git("config", f"url.{url}/.insteadOf", "shop:")
        here.git("remote", "set-url", "origin", "shop:remote.git")
        here.thrum("daemon", "restart")
        done = here.run("sync", "enable", "--json")
        assert done.kind == "confirmation_required" and "can be read by anyone" in done.json["error"]["message"]
        here.thrum("sync", "enable", "--yes")
        goes_over(clones, "By git's own protocol")
        here.git("config", "--unset", f"url.{url}/.insteadOf")


def test_what_anybody_can_read_waits_for_a_word(clones: Clones, here: Repo) -> None:
    with open_http(clones.network) as url:
        here.git("remote", "set-url", "origin", f"{url}/remote.git")
        here.thrum("daemon", "restart")
        before = clones.git("rev-parse", "a-sync")
        here.thrum("send", "For our ears only", "--to", "@nux")
        done = here.run("sync", "force", "--wait")
        assert done.status == 1 and "others can read the remote" in done.err and "fix: thrum sync enable" in done.err
        assert clones.git("rev-parse", "a-sync") == before
        assert here.json("sync", "status")["last_error"]
        done = here.run("sync", "enable")
        assert done.status == 1 and "thrum sync enable --yes" in done.err


def test_a_second_place_to_push_to_waits_for_a_word_too(clones: Clones, here: Repo) -> None:
    with open_http(clones.network) as url:
        here.git("config", "--add", "remote.origin.pushurl", str(clones.remote))
        here.git("config", "--add", "remote.origin.pushurl", f"{url}/remote.git")
        try:
            done = here.run("sync", "enable", "--json")
            message = done.json["error"]["message"]
            assert done.kind == "confirmation_required" and f"{url}/remote.git" in message
            assert str(clones.remote) not in message, "that one is private"
        finally:
            here.git("config", "--unset-all", "remote.origin.pushurl")


@pytest.mark.parametrize("verb", ["fetch", "push"])
def test_a_remote_that_hangs_is_no_hindrance(clones: Clones, here: Repo, tmp_path: Path, verb: str) -> None:
    service = "upload-pack" if verb == "fetch" else "receive-pack"
    script = f'case "$*" in *{service}*) sleep 600;; esac'
    here.git("config", "core.sshCommand", str(fake_ssh(tmp_path, script)))
    here.git("remote", "set-url", "origin", f"nobody@host.invalid:{clones.remote}")
    here.thrum("daemon", "restart")
    here.run("sync", "enable", "--yes")
    sent = here.json("send", f"While it hangs in {verb}", "--to", "@nux")
    assert sent["message_id"]
    wait_until(lambda: here.json("sync", "status")["sync_state"] == "syncing", "a round is under way")
    assert here.run("daemon", "stop").status == 0
    assert here.daemon is None


def test_after_disable_nothing_more_is_pushed(clones: Clones, here: Repo, tmp_path: Path) -> None:
    here.thrum("sync", "force", "--wait")
    before = clones.git("rev-parse", "a-sync")
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    os.mkfifo(gate)
    here.git("config", "core.sshCommand", str(fake_ssh(tmp_path, f"echo $$ > {begun}; read _ < {gate}")))
    here.git("remote", "set-url", "origin", f"nobody@host.invalid:{clones.remote}")
    here.thrum("sync", "enable", "--yes")
    here.thrum("send", "On second thought, not for the remote", "--to", "@nux")
    wait_until(begun.exists, "git talks to the remote")
    here.thrum("sync", "disable")
    wait_until(lambda: not psutil.pid_exists(int(begun.read_text())), "git has ended")
    status = here.json("sync", "status")
    assert (status["sync_state"], status.get("last_error", "")) == ("local-only", "")
    assert clones.git("rev-parse", "a-sync") == before
    here.git("config", "--unset-all", "core.sshCommand")
    here.git("remote", "set-url", "origin", str(clones.remote))
    here.thrum("sync", "enable")
    goes_over(clones, "Now it may")


def test_another_remote_counts_without_a_restart(clones: Clones, here: Repo, tmp_path: Path) -> None:
    here.thrum("sync", "force", "--wait")
    other = tmp_path / "other.git"
    here.git("init", "-q", "--bare", str(other))
    here.git("remote", "add", "backup", str(other))
    try:
        assert here.run("config", "set", "sync.remote", "backup").err == ""
        here.thrum("send", "To the other remote", "--to", "@nux")
        here.thrum("sync", "force", "--wait")
        assert here.json("sync", "status")["remote_url"] == str(other)
        assert here.git("rev-parse", "a-sync").strip() in here.git("ls-remote", str(other), "refs/heads/a-sync")
        here.git("remote", "remove", "backup")
        status = here.json("sync", "status")
        assert (status["local_only"], status["local_only_reason"]) == (True, "there is no remote backup")
    finally:
        here.thrum("config", "set", "sync.remote", "origin")
    goes_over(clones, "Back at the first")


def test_another_address_is_another_remote(clones: Clones, here: Repo, tmp_path: Path) -> None:
    here.thrum("sync", "force", "--wait")
    other = tmp_path / "other.git"
    here.git("remote", "set-url", "origin", str(other))
    status = here.json("sync", "status")
    assert status["pending"] >= 1 and "last_sync_at" not in status, "nothing was ever sent there"
    assert here.run("sync", "force", "--wait").status == 1
    assert here.json("sync", "status")["last_error"]
    here.git("init", "-q", "--bare", str(other))
    here.git("remote", "set-url", "origin", f"file://{other}")
    assert "last_error" not in here.json("sync", "status"), "that was said of the other"
    here.thrum("sync", "force", "--wait")
    assert here.git("rev-parse", "a-sync").strip() in here.git("ls-remote", str(other), "refs/heads/a-sync")
    assert here.json("sync", "status")["pending"] == 0


def test_a_remote_that_was_just_added_is_met_by_force(clones: Clones, here: Repo) -> None:
    here.git("remote", "remove", "origin")
    assert "there is no remote origin" in here.thrum("sync", "force", "--wait")
    here.git("remote", "add", "origin", str(clones.remote))
    assert here.thrum("sync", "force", "--wait").startswith("✓ Synced")


def test_sync_that_is_off_is_told_from_a_remote_that_is_not_there(clones: Clones, here: Repo) -> None:
    here.thrum("context", "save", "--agent", "furiosa", stdin="notes")
    here.thrum("sync", "disable")
    assert "local only (sync is off: thrum sync enable)" in here.thrum("sync", "status")
    said = "Local only: nothing is exchanged (sync is off: thrum sync enable)\n"
    assert here.thrum("sync", "force") == said
    assert "locally for furiosa (sync is off)" in here.thrum("context", "sync", "--agent", "furiosa")
    here.git("remote", "remove", "origin")
    assert "locally for furiosa (no remote)" in here.thrum("context", "sync", "--agent", "furiosa")
    here.git("remote", "add", "origin", str(clones.remote))
    here.thrum("sync", "enable")


def test_local_only_in_a_commands_environment_is_no_matter_of_the_daemons(here: Repo) -> None:
    here.thrum("daemon", "start")
    for words in (["sync", "status"], ["sync", "force", "--wait"]):
        done = here.run(*words, env={"THRUM_LOCAL": "1"})
        assert done.status == 0 and "the running daemon syncs" in done.err, done.err
        assert "the running daemon syncs" not in here.run(*words).err


def test_nobody_at_the_address_is_offline(clones: Clones, here: Repo) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        here.git("remote", "set-url", "origin", f"http://127.0.0.1:{taken.getsockname()[1]}/remote.git")
        here.thrum("daemon", "restart")
        here.run("sync", "enable", "--yes")
        here.run("sync", "force", "--wait")
        assert here.json("sync", "status")["sync_state"] == "offline"


# -- who can read it


def readers(url: str) -> str:
    return who_can_read(RemoteInfo("origin", url, ""), os.environ, GitRunner())


def test_who_can_read_is_asked_as_a_stranger_would(clones: Clones) -> None:
    assert (
        who_can_read(RemoteInfo("origin", str(clones.remote), str(clones.remote)), os.environ, GitRunner()) == "private"
    )
    with open_http(clones.network) as url:
        assert readers(f"{url}/remote.git") == "public"
        assert readers(f"{url}/none.git") == "private"
    with open_http(clones.network, password=True) as url:
        assert readers(f"{url}/remote.git") == "private"
    with open_http(clones.network, status=403) as url:
        assert readers(f"{url}/remote.git") == "private"
    with open_http(clones.network, status=500) as url:
        assert readers(f"{url}/remote.git") == "unknown"
    with open_git_daemon(clones.network, writable=False) as url:
        assert readers(f"{url}/remote.git") == "public"
    for url in ("git@host.invalid:me/shop.git", "ssh://git@host.invalid:2222/me/shop", "ext::sh -c 'exit 1'"):
        assert readers(url) == "unknown", url
