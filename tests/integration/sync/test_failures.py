"""What goes wrong with a remote, as one of five troubles: each against a real git that fails so."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.daemon.repo import wait_until
from tests.support.git.clones import git, make_clone, make_origin, write
from tests.support.git.opened_repository import open_repository
from tests.support.git.servers import PASSWORD, USER, fake_ssh, open_git_daemon, open_http
from thrum.model.errors import StoreFailed
from thrum.sync import remote as remote_module
from thrum.sync.branch import ensure_branch
from thrum.sync.ports import RemoteFailed
from thrum.sync.repository import GitRepository

LINES = b'{"e":1}\n'


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def alice(top: Path) -> Iterator[GitRepository]:
    make_origin(top)
    with open_repository(make_clone(top, "alice", "origin.git"), os.environ) as repo:
        write(repo, {"events.jsonl": LINES})
        yield repo


def set_url(top: Path, url: str) -> None:
    git(top / "alice", "remote", "set-url", "origin", url)


def fetching(repo: GitRepository) -> RemoteFailed:
    with pytest.raises(RemoteFailed) as caught:
        repo.fetch()
    return caught.value


def pushing(repo: GitRepository) -> RemoteFailed:
    with pytest.raises(RemoteFailed) as caught:
        repo.push(repo.tip())
    return caught.value


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
def test_a_port_where_nobody_listens_is_offline(alice: GitRepository, top: Path, scheme: str) -> None:
    set_url(top, f"{scheme}://127.0.0.1:{closed_port()}/x.git")
    for failed in (fetching(alice), pushing(alice)):
        assert (failed.trouble, "\n" in failed.reason) == ("offline", False), failed.reason
        assert failed.remedy in ("git fetch origin a-sync", "git push origin a-sync")


@pytest.mark.parametrize("url", ["http://no.such.invalid/x", "git://no.such.invalid/x", "git@no.such.invalid:x"])
def test_a_host_that_no_one_knows_is_offline(alice: GitRepository, top: Path, url: str) -> None:
    set_url(top, url)
    failed = fetching(alice)
    assert failed.trouble == "offline", failed.reason
    assert "no.such.invalid" in failed.reason


def test_a_path_that_is_not_mounted_is_offline_and_a_deleted_repository_is_missing(
    alice: GitRepository, top: Path
) -> None:
    set_url(top, f"{top}/usb/team.git")
    assert fetching(alice).trouble == pushing(alice).trouble == "offline"
    (top / "usb").mkdir()
    assert fetching(alice).trouble == pushing(alice).trouble == "missing"
    (top / "usb" / "team.git").mkdir()
    assert fetching(alice).trouble == "missing"
    assert fetching(alice).remedy == "git ls-remote origin"


def test_a_repository_that_a_server_has_not_is_missing(alice: GitRepository, top: Path) -> None:
    with open_http(top) as web, open_git_daemon(top) as daemon:
        for base in (web, daemon):
            set_url(top, f"{base}/nosuch.git")
            failed = fetching(alice)
            assert failed.trouble == "missing", failed.reason


@pytest.mark.parametrize(
    ("userinfo", "told"), [("", "credentials"), (f"{USER}:wrong-pa55@", "credentials"), ("wr0ng-token@", "credentials")]
)
def test_a_wrong_password_is_told_without_it(alice: GitRepository, top: Path, userinfo: str, told: str) -> None:
    with open_http(top, password=True) as url:
        set_url(top, url.replace("://", f"://{userinfo}") + "/origin.git?key=hidden-key")
        for failed in (fetching(alice), pushing(alice)):
            assert failed.trouble == told, failed.reason
            assert not any(word in failed.reason for word in ("wrong-pa55", "wr0ng-token", "hidden-key", PASSWORD))


@pytest.mark.parametrize(
    ("status", "trouble"), [(403, "refused"), (404, "missing"), (407, "credentials"), (500, "failed"), (503, "offline")]
)
def test_a_web_servers_refusals(alice: GitRepository, top: Path, status: int, trouble: str) -> None:
    with open_http(top, status=status) as url:
        set_url(top, f"{url}/origin.git")
        failed = pushing(alice)
        assert failed.trouble == trouble, failed.reason


@pytest.mark.parametrize(
    ("says", "trouble"),
    [
        ("git@host: Permission denied (publickey).", "credentials"),
        ("Host key verification failed.", "credentials"),
        ("ERROR: Repository not found.", "missing"),
        ("ERROR: Permission to team/app.git denied to furiosa.", "refused"),
        ("kex_exchange_identification: Connection closed by remote host", "offline"),
        ("ssh: connect to host host port 22: No route to host", "offline"),
        ("bash: git-upload-pack: command not allowed here", "failed"),
    ],
)
def test_what_ssh_says(alice: GitRepository, top: Path, says: str, trouble: str) -> None:
    command = fake_ssh(top, f"echo '{says}' >&2; exit 255")
    git(top / "alice", "config", "core.sshCommand", str(command))
    set_url(top, "git@host:team/app.git")
    failed = fetching(alice)
    if trouble == "failed":  # git hangs up on everything that it does not know
        assert failed.trouble in ("failed", "offline")
    else:
        assert failed.trouble == trouble
    assert failed.reason in says or says.removeprefix("ERROR: ") in failed.reason, failed.reason


def refuse_by_hook(origin: Path) -> None:
    hook = origin / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'branches are made by hand here' >&2\nexit 1\n")
    hook.chmod(0o755)


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        (refuse_by_hook, "branches are made by hand here"),
        (lambda origin: git(origin, "config", "receive.hideRefs", "refs/heads/a-sync"), "hidden ref"),
        (lambda origin: git(origin, "config", "receive.maxInputSize", "1"), ""),
    ],
    ids=["hook", "hidden", "too large"],
)
def test_a_refused_push_is_no_race_and_says_why(
    alice: GitRepository, top: Path, refuse: Callable[[Path], object], says: str
) -> None:
    refuse(top / "origin.git")
    failed = pushing(alice)
    assert failed.trouble == "refused", failed.reason
    assert says in failed.reason
    assert failed.remedy == "let origin accept refs/heads/a-sync, or: thrum config set sync.remote NAME"
    assert alice.remote_tip() == ""


def test_a_server_that_only_gives_refuses_a_push(alice: GitRepository, top: Path) -> None:
    with open_git_daemon(top, writable=False) as url:
        set_url(top, f"{url}/origin.git")
        assert alice.fetch() == ""
        assert pushing(alice).trouble == "refused"


@pytest.mark.parametrize("value", ["", "updateInstead"])
def test_an_older_thrum_or_a_user_on_the_branch_there_is_told_with_the_fix_and_nothing_is_overwritten(
    alice: GitRepository, top: Path, value: str
) -> None:
    bob = make_clone(top, "bob", "origin.git")
    (bob.branch_dir / "events.jsonl").write_text("not committed yet\n")
    (top / "bob/.git/worktrees/a-sync/HEAD").write_text("ref: refs/heads/a-sync\n")
    if value:
        git(top / "bob", "config", "receive.denyCurrentBranch", value)
    set_url(top, f"{top}/bob")
    failed = pushing(alice)
    assert failed.trouble == "refused"
    assert failed.reason.startswith(f"branch a-sync is checked out in {top}/bob: an older thrum uses it")
    assert (bob.branch_dir / "events.jsonl").read_text() == "not committed yet\n"
    ensure_branch(bob, os.environ)  # what a start of this version's does
    assert alice.push(alice.tip())
    assert (bob.branch_dir / "events.jsonl").read_text() == "not committed yet\n"


def test_a_branch_below_ours_is_no_race_and_told_with_the_fix(alice: GitRepository, top: Path) -> None:
    git(top / "origin.git", "update-ref", "refs/heads/a-sync/x", "refs/heads/main")
    failed = pushing(alice)
    assert (failed.trouble, "a-sync/x" in failed.reason) == ("refused", True), failed.reason
    assert failed.remedy == "delete or rename it: git push origin :a-sync/x"
    subprocess.run(failed.remedy.partition(": ")[2], shell=True, check=True, cwd=top / "alice")
    assert alice.push(alice.tip())


def test_a_lock_left_at_the_remote_is_no_race(alice: GitRepository, top: Path) -> None:
    (top / "origin.git" / "refs" / "heads" / "a-sync.lock").touch()
    failed = pushing(alice)
    assert failed.trouble == "refused", failed.reason


def test_a_remote_that_says_nothing_is_given_up(
    alice: GitRepository, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "SILENT_SECONDS_MAX", -4.7)
    pids = top / "pids"
    git(top / "alice", "config", "remote.origin.uploadpack", f"sh -c 'echo $$ >> {pids}; exec sleep 600' -")
    failed = fetching(alice)
    assert (failed.trouble, failed.reason) == ("offline", "origin did not answer in time")
    for pid in pids.read_text().split() if pids.exists() else []:
        wait_until(lambda pid=int(pid): not _runs(pid), "the end of what git started")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_full_disk_here_is_not_the_remotes_fault(alice: GitRepository, top: Path) -> None:
    objects = top / "alice" / ".git" / "objects"
    with open_repository(make_clone(top, "bob", "origin.git"), os.environ) as bob:
        write(bob, {"messages/nux.jsonl": os.urandom(5000).hex().encode()})
        assert bob.push(bob.tip())
    script = (
        "echo 'error: file write error: No space left on device' >&2; echo 'fatal: unpack-objects failed' >&2; exit 1"
    )
    command = fake_ssh(top, script)
    git(top / "alice", "config", "core.sshCommand", str(command))
    set_url(top, f"ssh://host{top}/origin.git")
    with pytest.raises(StoreFailed, match="could not store"):
        alice.fetch()
    assert list(objects.rglob("tmp_obj_*")) == []
