"""Backups: everything comes back as it was, whatever is killed loses nothing, and nobody's zip writes outside."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, open_repo
from tests.support.git.branch import commit_journals
from thrum.model import clock, ids
from thrum.model.methods.admin import BACKUP_RESTORE, RestoreParams


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def send(repo: Repo, *contents: str) -> None:
    for content in contents:
        repo.thrum("send", content, "--to", "@bob")


def inbox(repo: Repo) -> list[str]:
    found = repo.json("inbox", "--peek", "--page-size", "1000", at=repo.worktree("bob"))
    return [message["body"]["content"] for message in reversed(found["messages"])]


def shelf(repo: Repo) -> Path:
    return repo.main / ".thrum/backup/main"


# -- what is kept


def test_a_backup_holds_the_journals_the_settings_and_the_notes_of_every_worktree(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("context", "save", at=repo.worktree("bob"), stdin="remember\n")
    result = repo.json("backup")
    current = Path(result["location"])
    assert current == shelf(repo) / "current"
    assert (current / "events.jsonl").read_bytes() == (repo.journals / "events.jsonl").read_bytes()
    assert (current / "messages/alice.jsonl").read_bytes() == (repo.journals / "messages/alice.jsonl").read_bytes()
    kept = (current / "local/local.jsonl").read_bytes()
    assert repo.local_journal.read_bytes().startswith(kept)
    assert json.loads((current / "config/config.json").read_text())["identity"]["daemon_id"]
    assert (current / "config/identities/alice.json").is_file()
    assert (current / "config/worktrees/w1/context/bob.md").read_text() == "remember\n"
    counts = result["counts"]
    assert counts["events"] == len((repo.journals / "events.jsonl").read_text().splitlines())
    assert (counts["message_files"], counts["local_tables"]) == (1, 1)
    files = [path for path in current.rglob("*") if path.is_file()]
    assert counts["config_files"] == sum("config/" in str(path.relative_to(current)) for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    secret = (repo.journals.parent / "daemon.key").read_bytes().split()[1]
    assert not any(secret in path.read_bytes() for path in files), "who has a backup can't sign as this daemon"


def test_the_last_backup_becomes_an_archive_and_status_tells_of_both(repo: Repo) -> None:
    assert repo.run("backup", "status", "--json").kind == "backup_not_found"
    send(repo, "one")
    first = repo.json("backup")
    assert "archives" not in repo.json("backup", "status")
    send(repo, "two")
    repo.thrum("daemon", "stop")
    second = repo.json("backup")
    assert not repo.daemon, "it starts none"
    status = repo.json("backup", "status")
    assert {key: status[key] for key in second} == second
    assert status["archives"]["count"] == 1
    [archive] = (shelf(repo) / "archives").iterdir()
    with zipfile.ZipFile(archive) as packed:
        assert json.loads(packed.read("manifest.json"))["timestamp"] == first["timestamp"]
        assert b"one" in packed.read("messages/alice.jsonl")
        assert b"two" not in packed.read("messages/alice.jsonl")
    shown = repo.thrum("backup", "status")
    assert shown.startswith("Last backup:    ")
    assert "\nArchives:       1 (" in shown


def test_archives_go_as_the_retention_says(repo: Repo) -> None:
    for key in ("daily", "weekly", "monthly"):
        repo.thrum("config", "set", f"backup.retention.{key}", "0")
    for _ in range(3):
        repo.thrum("backup")
    assert list((shelf(repo) / "archives").iterdir()) == []
    assert repo.json("backup", "config")["retention"] == {"daily": 0, "weekly": 0, "monthly": 0}
    assert "Retention:  0 daily, 0 weekly, 0 monthly" in repo.thrum("backup", "config")


def test_the_directory_comes_from_the_flag_else_the_setting(repo: Repo) -> None:
    repo.thrum("config", "set", "backup.dir", str(repo.top / "set"))
    assert repo.json("backup")["location"] == str(repo.top / "set/main/current")
    assert repo.json("backup", "--dir", "../given")["location"] == str(repo.top / "given/main/current")
    assert repo.json("backup", "config")["dir"] == str(repo.top / "set")


def test_whole_lines_are_kept_and_truncated_ones_left(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("daemon", "stop")
    with (repo.journals / "messages/alice.jsonl").open("ab") as file:
        file.write(b'{"type":"mess')
    kept = (Path(repo.json("backup")["location"]) / "messages/alice.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert b'{"type":"mess\n' not in kept


def test_a_backup_that_was_damaged_is_never_archived_over_a_good_one_nor_restored(repo: Repo) -> None:
    send(repo, "one")
    current = Path(repo.json("backup")["location"])
    author_journal = current / "messages/alice.jsonl"
    author_journal.write_bytes(author_journal.read_bytes().replace(b"one", b"eno"))
    before = inbox(repo)
    refused = repo.run("backup", "restore", "--yes", "--json")
    assert refused.kind == "backup_invalid"
    assert inbox(repo) == before


# -- back again

READS: tuple[tuple[str, ...], ...] = (
    ("inbox", "--peek", "--page-size", "100"),
    ("inbox", "--all", "--page-size", "100"),
    ("sent",),
    ("team", "--all"),
    ("agent", "list"),
    ("agent", "list", "--context"),
    ("session", "list"),
    ("group", "list"),
    ("group", "show", "crew"),
    ("group", "members", "crew", "--expand"),
    ("context", "show"),
    ("whoami",),
    ("config", "show"),
    ("daemon", "status"),
    ("overview",),
    ("who-has", "README"),
    ("ping", "alice"),
)
PASSING = {"uptime", "uptime_ms", "pid", "git_updated_at", "last_seen_at", "last_seen", "epoch"}


def lasting(value: Any) -> Any:
    """A document without what changes by itself."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in PASSING}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def answers(repo: Repo, message_ids: list[str]) -> dict[str, Any]:
    """What every read command says to each agent."""
    commands = [*READS, *(("message", "get", message_id, "--peek") for message_id in message_ids)]
    return {
        f"{at.name}: {' '.join(words)}": lasting(repo.json(*words, at=at))
        for at in (repo.main, repo.worktree("bob"))
        for words in commands
    }


def wipe(repo: Repo) -> None:
    """Everything that thrum has, but the backups."""
    repo.thrum("daemon", "stop")
    shutil.rmtree(repo.main / ".thrum")
    shutil.rmtree(repo.worktree("bob") / ".thrum")
    repo.git("worktree", "remove", "-f", "-f", str(repo.journals))
    shutil.rmtree(repo.journals.parent)
    repo.git("branch", "-D", "a-sync")


def id_and_birth(repo: Repo) -> tuple[str, str]:
    """The daemon's id, and when that was made."""
    daemon_id = json.loads((repo.main / ".thrum/config.json").read_text())["identity"]["daemon_id"]
    return daemon_id, clock.format_ms(ids.ulid_ms(daemon_id) or 0)


def test_after_backup_wipe_and_restore_every_read_command_says_the_same(repo: Repo) -> None:
    bob = repo.worktree("bob")
    repo.thrum("group", "create", "crew", "--description", "all of us")
    repo.thrum("group", "add", "crew", "@alice", "@bob")
    first = repo.json("send", "one", "--to", "@bob", "--scope", "module:auth")["message_id"]
    second = repo.json("send", "two", "--to", "@crew")["message_id"]
    third = repo.json("send", "to the team")["message_id"]
    repo.thrum("message", "read", first, at=bob)
    repo.thrum("reply", first, "answer", at=bob)
    repo.thrum("message", "edit", second, "two, fixed")
    gone = repo.json("send", "a mistake", "--to", "@bob")["message_id"]
    repo.thrum("message", "delete", gone, "--force")
    repo.thrum("session", "set-intent", "Merging", at=bob)
    repo.thrum("session", "set-task", "T-1", at=bob)
    repo.thrum("context", "save", at=bob, stdin="notes\n")
    repo.thrum("config", "set", "daemon.stale_session_end", "48h")
    repo.thrum("agent", "set-status", "blocked", at=bob)
    answers(repo, [first, second, third, gone])  # what is shown counts as seen: from now on nothing changes
    before = answers(repo, [first, second, third, gone])
    store = repo.top / "backups"
    repo.thrum("backup", "--dir", str(store))
    was = id_and_birth(repo)
    wipe(repo)
    repo.thrum("init")
    assert repo.run("inbox", "--json").status != 0, "all is gone"
    repo.thrum("backup", "restore", "--yes", "--dir", str(store))
    after = answers(repo, [first, second, third, gone])
    for command, said in before.items():
        # Its key is gone too, so it has another id, and the group of everyone is as old as that.
        # It says who it is now, so the number of facts is another one.
        now, said = (re.sub(r'"seq": \d+', '"seq": 0', json.dumps(each, indent=1)) for each in (after[command], said))
        for new, old in zip(id_and_birth(repo), was, strict=True):
            now = now.replace(new, old)
        assert now == said, command
    assert repo.json("verify")["ok"]
    assert repo.git("status", "--porcelain") == ""
    repo.assert_projection_is_as_rebuilt()


def test_a_running_daemon_goes_on_with_what_was_restored(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("backup")
    send(repo, "two")
    pid = repo.daemon
    waiting = repo.start("wait", "--timeout", "60s", at=repo.worktree("bob"))
    waiting.line()
    waiting.end()
    waiting = repo.start("wait", "--timeout", "60s", "--json", at=repo.worktree("bob"))
    result = repo.json("backup", "restore", "--yes")
    assert result["daemon_restarted"]
    assert Path(result["safety_backup"]).name.startswith("pre-restore-")
    assert repo.daemon == pid
    assert inbox(repo) == ["one"]
    send(repo, "three")
    told = waiting.end().json
    assert {each["body"]["content"] for each in told["messages"]} <= {"one", "three"}
    assert inbox(repo) == ["one", "three"]
    assert repo.json("verify")["ok"]
    safe = repo.json("backup", "restore", Path(result["safety_backup"]).name, "--yes")
    assert inbox(repo) == ["one", "two"]
    assert safe["source"] == result["safety_backup"]


def tip(repo: Repo) -> str:
    return repo.git("rev-parse", "a-sync").strip()


def author_journal(repo: Repo) -> str:
    return (repo.journals / "messages/alice.jsonl").read_text()


def test_the_branch_goes_back_to_the_commit_that_it_was_at(repo: Repo) -> None:
    send(repo, "one")
    then = commit_journals(repo, {"messages/alice.jsonl": author_journal(repo)})
    repo.thrum("backup")
    send(repo, "two")
    commit_journals(repo, {"messages/alice.jsonl": author_journal(repo)})
    repo.thrum("backup", "restore", "--yes")
    assert tip(repo) == then
    assert repo.json("verify")["ok"]
    assert repo.git("-C", str(repo.journals), "status", "--porcelain") == ""


def test_a_branch_that_holds_more_than_the_backup_begins_anew(repo: Repo) -> None:
    first = tip(repo)
    send(repo, "one")
    current = Path(repo.json("backup")["location"])
    send(repo, "two")
    later = commit_journals(repo, {"messages/alice.jsonl": author_journal(repo)})
    manifest = json.loads((current / "manifest.json").read_text())
    for head in (later, repo.git("rev-parse", "HEAD").strip(), "--all", "0" * 40):
        (current / "manifest.json").write_text(json.dumps({**manifest, "head": head}))
        repo.thrum("backup", "restore", "--yes")
        assert tip(repo) == first, head
        assert inbox(repo) == ["one"]


def test_agents_that_came_after_the_backup_and_their_journals_are_gone(repo: Repo) -> None:
    repo.thrum("backup")
    repo.agent("carol")
    repo.thrum("send", "hi", "--to", "@alice", at=repo.worktree("carol"))
    repo.thrum("backup", "restore", "--yes")
    assert not (repo.journals / "messages/carol.jsonl").exists()
    assert "carol" not in repo.thrum("team", "--all")


def test_without_a_yes_nothing_is_restored(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("backup")
    send(repo, "two")
    assert repo.run("backup", "restore", "--json").kind == "confirmation_required"
    assert inbox(repo) == ["one", "two"]
    with repo.client() as client, pytest.raises(Exception, match="--yes"):
        client.call(BACKUP_RESTORE, RestoreParams())


def test_what_is_no_backup_is_named(repo: Repo) -> None:
    assert repo.run("backup", "restore", "--yes", "--json").kind == "backup_not_found"
    repo.thrum("backup")
    assert repo.run("backup", "restore", "20200101T000000Z", "--yes", "--json").kind == "backup_not_found"
    assert repo.run("backup", "restore", "./nothing.zip", "--yes", "--json").kind == "backup_not_found"
    assert repo.run("backup", "restore", "README", "--yes", "--json").kind == "backup_invalid"


def test_elsewhere_the_daemon_keeps_its_own_id_and_the_messages_stay_its_own(repo: Repo) -> None:
    send(repo, "one")
    archive = repo.top / "there.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        current = Path(repo.json("backup")["location"])
        for path in current.rglob("*"):
            packed.write(path, path.relative_to(current))
    theirs = repo.json("daemon", "status")["identity"]["daemon_id"]
    with closing(Repo(clone_of=repo.main)) as other:
        other.thrum("init")
        other.agent("dora")
        mine = other.json("daemon", "status")["identity"]["daemon_id"]
        other.thrum("backup", "restore", str(archive), "--yes")
        assert other.json("daemon", "status")["identity"]["daemon_id"] == mine != theirs
        [message] = other.json("inbox", "--all")["messages"]
        assert message["body"]["content"] == "one"
        assert "origin_daemon" not in message
        assert json.loads((other.main / ".thrum/config.json").read_text())["identity"]["previous_ids"] == [theirs]


def test_a_backup_of_another_project_is_restored_only_if_one_insists(repo: Repo) -> None:
    send(repo, "ours")
    with open_repo("alice") as other:
        (other.main / "README").write_text("another project\n")
        other.git("commit", "-q", "-a", "--amend", "-m", "another first")
        theirs = other.json("backup")["location"]
        for _ in range(2):
            refused = repo.run("backup", "restore", theirs, "--yes", "--json")
            assert refused.kind == "backup_invalid"
            message = refused.json["error"]["message"]
            assert message == f"{theirs} is a backup of another repository, main, not of {repo.main}"
            assert refused.json["error"]["remedy"] == f"thrum backup restore {theirs} --other-repository"
            assert inbox(repo) == ["ours"]
            repo.thrum("daemon", "stop")
        repo.thrum("backup", "restore", theirs, "--yes", "--other-repository")
        assert repo.json("inbox", "--all")["messages"] == []


def test_a_backup_without_a_history_is_told_by_its_repositorys_name(repo: Repo) -> None:
    manifest = Path(repo.json("backup")["location"]) / "manifest.json"
    told = json.loads(manifest.read_text())
    assert told.pop("roots") == repo.git("rev-list", "--max-parents=0", "HEAD").split()
    manifest.write_text(json.dumps(told))
    repo.thrum("backup", "restore", "--yes")  # its own daemon's
    manifest.write_text(json.dumps({**told, "daemon_id": "d_01KGH87Y00STRANGERSTRANGER"}))
    repo.thrum("backup", "restore", "--yes")
    manifest.write_text(json.dumps({**told, "daemon_id": "d_01KGH87Y00STRANGERSTRANGER", "repo_name": "shop"}))
    assert repo.run("backup", "restore", "--yes", "--json").kind == "backup_invalid"


@pytest.mark.parametrize("on", [True, False])
def test_whether_a_clone_syncs_stays_as_it_is_whatever_the_backup_says(repo: Repo, on: bool) -> None:
    repo.thrum("config", "set", "daemon.local_only", json.dumps(on))
    repo.thrum("backup")
    repo.thrum("config", "set", "daemon.local_only", json.dumps(not on))
    said = repo.thrum("backup", "restore", "--yes")
    assert f"Sync stays {'on' if on else 'off'} here" in said
    assert json.loads((repo.main / ".thrum/config.json").read_text())["daemon"]["local_only"] is (not on)
    repo.thrum("backup")
    assert "Sync stays" not in repo.thrum("backup", "restore", "--yes")


def test_what_guards_agents_stays_as_it_is_whatever_the_backup_says(repo: Repo) -> None:
    def guards() -> Any:
        return json.loads((repo.main / ".thrum/config.json").read_text()).get("identity_guard")

    repo.thrum("config", "set", "identity_guard.cross_worktree", "off")
    repo.thrum("config", "set", "project_name", "of the backup")
    repo.thrum("backup")
    repo.thrum("config", "unset", "identity_guard.cross_worktree")
    repo.thrum("config", "set", "identity_guard.prime_ownership", "warn")
    repo.thrum("config", "unset", "project_name")
    repo.thrum("backup", "restore", "--yes")
    assert guards() == {"prime_ownership": "warn"}
    assert repo.json("config", "get", "project_name")["value"] == "of the backup"


@pytest.mark.parametrize("running", [True, False])
def test_a_setting_that_is_refused_today_is_left_out_of_a_restore_and_named(repo: Repo, running: bool) -> None:
    repo.thrum("config", "set", "project_name", "of the backup")
    send(repo, "one")
    backed_up = good_files(repo)
    told = json.loads(backed_up["config/config.json"])
    told |= {"sync": {"interval": "0s", "remote": "origin"}, "restart": [], "later": {"x": "0s"}}
    archive = repo.top / "before.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in replaced("config/config.json", json.dumps(told).encode())(backed_up).items():
            packed.writestr(name, data)
    repo.thrum("config", "unset", "project_name")
    send(repo, "two")
    if not running:
        repo.thrum("daemon", "stop")
    done = repo.run("backup", "restore", str(archive), "--yes")
    assert done.status == 0
    assert [text for text in done.err.splitlines() if text.startswith("warning: left out")] == [
        "warning: left out of the restored settings: restart [] (restart must be an object)",
        'warning: left out of the restored settings: sync.interval "0s"'
        " (sync.interval must be a duration above 0, e.g. 15s)",
    ]
    assert inbox(repo) == ["one"]
    assert repo.json("config", "get", "project_name")["value"] == "of the backup"
    counts = json.loads(repo.settings.read_text())
    assert (counts["sync"], counts["later"]) == ({"remote": "origin"}, {"x": "0s"}) and "restart" not in counts
    assert repo.json("config", "get", "sync.interval")["source"] == "default"


# -- hostile archives


def good_files(repo: Repo) -> dict[str, bytes]:
    current = Path(repo.json("backup")["location"])
    return {str(path.relative_to(current)): path.read_bytes() for path in current.rglob("*") if path.is_file()}


def with_file(name: str, data: bytes = b"x") -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """One file more, which the manifest knows."""

    def change(files: dict[str, bytes]) -> dict[str, bytes]:
        import hashlib

        manifest = json.loads(files["manifest.json"])
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return {**files, name: data, "manifest.json": json.dumps(manifest).encode()}

    return change


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def replaced(name: str, data: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return with_file(name, data)


HOSTILE: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "a way out": with_file("../../evil.jsonl"),
    "a way out below a known name": with_file("messages/../../../evil.jsonl"),
    "a directory of its own": with_file("messages/sub/evil.jsonl"),
    "an absolute path": with_file("/tmp/thrum-evil.jsonl"),
    "a hidden journal": with_file("messages/.evil.jsonl"),
    "a hook": with_file("config/../../.git/hooks/post-checkout"),
    "a file of no backup": with_file("bin/evil"),
    "a redirect": with_file("config/redirect"),
    "a worktree of its own": with_file("config/worktrees/../identities/x.json", b"{}"),
    "an identity that is not an object": with_file("config/identities/x.json", b"[]"),
    "settings that are none": replaced("config/config.json", b"{"),
    "no manifest": without("manifest.json"),
    "a journal less": without("events.jsonl"),
    "other bytes": lambda files: {**files, "events.jsonl": files["events.jsonl"].swapcase()},
    "a manifest of rubbish": lambda files: {**files, "manifest.json": b"[[["},
    "a newer version": lambda files: {
        **files,
        "manifest.json": files["manifest.json"].replace(b'"version": 1', b'"version": 9'),
    },
}


def state(repo: Repo) -> dict[str, bytes]:
    """Every file that a restore could touch."""
    found = list(repo.journals.rglob("*.jsonl"))
    found += [path for path in (repo.main / ".thrum").glob("*/*.*") if path.parent.name in ("identities", "context")]
    return {str(path): path.read_bytes() for path in [*found, repo.main / ".thrum/config.json"]}


def assert_refused(repo: Repo, archive: Path) -> None:
    before, above = state(repo), set(os.listdir(repo.top))
    refused = repo.run("backup", "restore", str(archive), "--yes", "--json")
    assert refused.kind == "backup_invalid", refused
    assert state(repo) == before
    assert set(os.listdir(repo.top)) == above
    assert not Path("/tmp/thrum-evil.jsonl").exists()
    assert not (repo.main / ".git/hooks/post-checkout").exists()
    assert not list(repo.journals.parent.glob("restore*"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Repo]:
    """For what is refused."""
    with open_repo("alice", "bob") as opened:
        opened.thrum("send", "one", "--to", "@bob")
        yield opened


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_changes_nothing(shared: Repo, kind: str) -> None:
    archive = shared.top / "hostile.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in HOSTILE[kind](good_files(shared)).items():
            packed.writestr(name, data)
    assert_refused(shared, archive)


def test_links_twins_and_bombs_in_an_archive_are_refused(shared: Repo) -> None:
    files = good_files(shared)
    archive = shared.top / "hostile.zip"

    def write(extra: Callable[[zipfile.ZipFile], None], files: dict[str, bytes]) -> None:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in files.items():
                packed.writestr(name, data)
            extra(packed)

    def link(packed: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("messages/link.jsonl")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")

    told = with_file("messages/link.jsonl", b"/etc/passwd")(files)
    del told["messages/link.jsonl"]
    write(link, told)
    assert_refused(shared, archive)
    write(lambda packed: None, files)
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    assert_refused(shared, archive)
    with pytest.warns(UserWarning, match="Duplicate name"):
        write(lambda packed: packed.writestr("events.jsonl", b"{}\n"), files)
    assert_refused(shared, archive)


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(shared: Repo) -> None:
    files = good_files(shared)
    archive, zeros = shared.top / "hostile.zip", io.BytesIO(bytes(1 << 20))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
        with packed.open("messages/bomb.jsonl", "w", force_zip64=True) as bomb:
            for _ in range(1_100):
                bomb.write(zeros.getvalue())
    assert archive.stat().st_size < 4 << 20
    assert_refused(shared, archive)


def test_a_directory_with_a_link_in_it_is_no_backup(shared: Repo) -> None:
    files = good_files(shared)
    directory = shared.top / "hostile"
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    (directory / "messages/alice.jsonl").unlink()
    (directory / "messages/alice.jsonl").symlink_to(shared.main / "README")
    assert_refused(shared, directory)


# -- kills


def save(repo: Repo) -> Callable[[], None]:
    """Remember all that thrum has while no daemon runs; gives what brings it back."""
    copy = repo.top / "saved"
    tip = repo.git("rev-parse", "a-sync").strip()
    shutil.copytree(repo.main / ".thrum", copy / "state", symlinks=True)
    shutil.copytree(repo.journals.parent, copy / "sync", symlinks=True)

    def back() -> None:
        shutil.rmtree(repo.main / ".thrum")
        shutil.rmtree(repo.journals.parent)
        shutil.copytree(copy / "state", repo.main / ".thrum", symlinks=True)
        shutil.copytree(copy / "sync", repo.journals.parent, symlinks=True)
        repo.git("update-ref", "refs/heads/a-sync", tip)

    return back


def killed_at(repo: Repo, number: int, *words: str) -> tuple[int, list[str]]:
    """Run a command that is killed at that touch of the file system: its status, and all touches."""
    log = repo.top / "touches"
    done = repo.python("tests.support.cli.killed_at", str(number), str(log), *words).end()
    return done.status, log.read_text().splitlines()


@pytest.mark.long
def test_a_restore_that_is_killed_at_any_step_is_executed_or_has_not_happened(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("backup")
    send(repo, "two")
    repo.agent("carol")
    repo.thrum("daemon", "stop")
    back = save(repo)
    status, touches = killed_at(repo, 0, "backup", "restore", "--yes")
    assert status == 0
    outcomes: set[str] = set()
    for number in range(1, len(touches) + 1):
        back()
        status, _ = killed_at(repo, number, "backup", "restore", "--yes")
        where = f"killed before {touches[number - 1]} ({number} of {len(touches)})"
        found = inbox(repo)
        outcomes.add(" ".join(found))
        assert found in (["one"], ["one", "two"]), where
        archives = list((shelf(repo) / "archives").glob("pre-restore-*.zip"))
        if found == ["one"]:
            [archive] = archives
            with zipfile.ZipFile(archive) as packed:
                assert b"two" in packed.read("messages/alice.jsonl"), where
        verified = repo.run("verify", "--json").json
        assert all(each["ok"] for each in verified["checks"] if each["name"] != "identities"), (where, verified)
        assert not list(repo.journals.parent.glob("restore*")), where
        repo.thrum("daemon", "stop")
    assert outcomes == {"one", "one two"}


@pytest.mark.long
def test_a_backup_that_is_killed_at_any_step_leaves_a_whole_one(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("backup")
    send(repo, "two")
    repo.thrum("daemon", "stop")
    back = save(repo)
    status, touches = killed_at(repo, 0, "backup")
    assert status == 0
    for number in range(1, len(touches) + 1):
        back()
        killed_at(repo, number, "backup")
        where = f"killed before {touches[number - 1]}"
        repo.thrum("backup", "status")
        assert b"one" in (shelf(repo) / "current/messages/alice.jsonl").read_bytes(), where
        repo.thrum("backup")
        assert b"two" in (shelf(repo) / "current/messages/alice.jsonl").read_bytes(), where
        assert len(list((shelf(repo) / "archives").glob("*.zip"))) == 1, where
        assert sorted(path.name for path in shelf(repo).iterdir()) == [".lock", "archives", "current"], where


def test_a_daemon_that_is_killed_after_it_agreed_to_restore_does_so_when_it_starts(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("backup")
    send(repo, "two")
    with repo.client() as client:
        client.call(BACKUP_RESTORE, RestoreParams(confirm=True))
        repo.kill_daemon()
    assert inbox(repo) == ["one"]
    assert len(list((shelf(repo) / "archives").glob("pre-restore-*.zip"))) == 1


def test_what_was_sent_while_it_was_restored_is_in_the_safety_archive_or_stays(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("backup")
    restoring = repo.start("backup", "restore", "--yes", "--json")
    sent: list[str] = []
    while restoring.process.poll() is None:
        content = f"meanwhile {len(sent)}"
        if repo.run("send", content, "--to", "@bob").status == 0:
            sent.append(content)
    archive = Path(restoring.end().json["safety_backup"])
    with zipfile.ZipFile(archive) as packed:
        kept = packed.read("messages/alice.jsonl").decode()
    here = inbox(repo)
    for content in sent:
        assert f'"{content}"' in kept or content in here, content
