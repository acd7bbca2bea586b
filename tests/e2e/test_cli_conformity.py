"""The command line against its specification (cli.md): exact words, shapes, refusals and variables."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, open_repo, wait_until


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    """furiosa in `main`, nux in a worktree of its own; tests of this module share it."""
    with open_repo("furiosa", "nux") as made:
        yield made


@pytest.fixture
def nux(repo: Repo) -> Path:
    return repo.worktree("nux")


@pytest.fixture
def fresh() -> Iterator[Repo]:
    made = Repo()
    try:
        yield made
    finally:
        made.close()


def first_id(text: str) -> str:
    return next(word for word in text.split() if word.startswith("msg_"))


# -- 5.1 init


def test_init_says_what_it_touched_and_how_to_undo_it(fresh: Repo) -> None:
    files = [
        (".thrum/                ", "thrum daemon stop; rm -r .thrum"),
        (
            ".git/thrum-sync/a-sync/",
            "git worktree remove -f -f .git/thrum-sync/a-sync; rm -r .git/thrum-sync",
        ),
        ("branch a-sync          ", "git branch -D a-sync"),
    ]
    (fresh.main / ".git").chmod(0o755)
    closed = "undo: chmod 755 .git  # if another user, web server, container or borrowing clone needs it"
    would = [f"  create  {path}  undo: {undo}" for path, undo in files]
    dry = fresh.thrum("init", "--dry-run").split("\n")
    assert dry == [
        f"Would initialize thrum in {fresh.main}",
        *would,
        "  change  .git/info/exclude        undo: remove the line .thrum/",
        f"  change  mode of .git, 0755→0700  {closed}",
        "  Sync: local only (turn on: thrum sync enable)",
        "",
    ]
    assert not (fresh.main / ".thrum").exists()
    done = fresh.run("init")
    assert done.out.split("\n") == [
        f"✓ Thrum initialized in {fresh.main}",
        *(each.replace("  create ", "  created ") for each in would),
        "  changed  .git/info/exclude        undo: remove the line .thrum/",
        f"  changed  mode of .git, 0755→0700  {closed}",
        "  Sync: local only (turn on: thrum sync enable)",
        "",
    ]
    assert done.err == "hint: register: thrum quickstart NAME --role ROLE --module MODULE\n"
    for words in (["init"], ["init", "--dry-run"]):
        assert fresh.thrum(*words) == "Thrum is already initialized\n  Sync: local only (turn on: thrum sync enable)\n"
    fresh.agent("max", at=fresh.main)
    assert fresh.run("init").err == "", "who is registered needs no such hint"
    assert "hints" not in fresh.json("init")


# -- section 4: JSON

PAGE = "total page page_size total_pages"
MESSAGE = (
    "message_id seq agent_id body created_at deleted",
    "thread_id reply_to updated_at scopes refs audiences recipients read_count quiet origin_daemon",
)
SHAPES: dict[str, tuple[str, str]] = {
    "whoami": (
        "agent_id role module display source",
        "selected_by session_id session_start branch worktree intent repo_id identity_file updated_at status host pid"
        " tmux_session tmux_alive is_local",
    ),
    "send": (
        "message_id created_at seq resolved_to audiences recipients",
        "thread_id reply_to quiet warnings hints",
    ),
    "inbox": (f"messages unread {PAGE}", "hidden_by_filter"),
    "sent": (f"messages {PAGE}", ""),
    "detail": (
        "message_id seq version author body scopes refs metadata created_at deleted",
        "quiet thread_id reply_to updated_at audiences recipients",
    ),
    "edit": ("message_id updated_at version", ""),
    "delete": ("message_id deleted_at", ""),
    "read": ("marked_count", "skipped_count remaining"),
    "wait": ("status messages", "action remaining"),
    "member": (
        "agent_id role module unmerged_commits inbox_total inbox_unread status",
        "display hostname origin_daemon agent_pid pid_live runtime worktree session_id session_start last_seen intent"
        " current_task branch file_changes agent_status tmux_session tmux_state hooks_seen_at reserved is_local",
    ),
    "agent": ("agent_id kind role module display registered_at", "last_seen_at agent_pid"),
    "daemon status": (
        "running status",
        "pid repo_path socket uptime uptime_ms version sync_state ws_port identity",
    ),
    "daemon": ("status repo_path", "pid socket ws_port"),
    "logs": ("path lines", ""),
    "version": ("version build python_version", "repo_url website_url"),
    "help": ("command help", ""),
}


def assert_shape(found: dict[str, Any], required: str, optional: str) -> None:
    needed = set(required.split())
    assert needed <= found.keys(), f"missing: {needed - found.keys()}"
    assert found.keys() <= needed | set(optional.split()), f"unknown: {found.keys() - needed}"
    assert None not in found.values()


def test_every_document_has_the_keys_of_its_shape(repo: Repo, nux: Path) -> None:
    def check(shape: str, *words: str, at: Path | None = None, status: int = 0) -> Any:
        done = repo.run(*words, "--json", at=at)
        assert (done.status, done.out.count("\n"), done.out[-1:]) == (status, 1, "\n"), words
        assert_shape(done.json, *SHAPES[shape])
        return done.json

    check("whoami", "whoami")
    one = check("send", "send", "one", "--to", "nux", "--scope", "module:auth", "--structured", '{"a":1}')
    check("send", "send", "to the team")
    answer = check("send", "reply", one["message_id"], "yes", at=nux)
    assert answer["thread_id"] and answer["reply_to"] == one["message_id"]
    listed = check("inbox", "inbox", "--peek", at=nux)
    for each in listed["messages"]:
        assert_shape(each, MESSAGE[0] + " is_read", MESSAGE[1])
    for each in check("sent", "sent")["messages"]:
        assert_shape(each, *MESSAGE)
    assert_shape(check_message(repo, one["message_id"]), *SHAPES["detail"])
    check("edit", "message", "edit", one["message_id"], "two")
    check("delete", "message", "delete", one["message_id"], "--force")
    assert check_message(repo, one["message_id"])["metadata"].keys() == {"deleted_at"}
    check("read", "message", "read", "--all")
    assert check("wait", "wait", "--timeout", "0", status=1) == {"status": "timeout", "messages": []}
    for each in check("wait", "wait", "--after", "-1h", "--timeout", "0")["messages"]:
        assert_shape(each, MESSAGE[0] + " is_read", MESSAGE[1])
    for each in repo.json("team")["members"]:
        assert_shape(each, *SHAPES["member"])
    agents = repo.json("agent", "list")
    assert set(agents) <= {"agents", "contexts", "warnings"}
    for each in agents["agents"]["agents"]:
        assert_shape(each, *SHAPES["agent"])
    check("daemon status", "daemon", "status")
    check("daemon", "daemon", "start")
    check("logs", "daemon", "logs", "-n", "1")
    check("version", "version")
    check("help", "send", "--help")


def check_message(repo: Repo, message_id: str) -> Any:
    return repo.json("message", "get", message_id, "--peek")["message"]


@pytest.mark.parametrize(("field", "unset"), [("pid", 0), ("tmux_session", ""), ("tmux_alive", False)])
def test_an_unset_field_of_whoami_keeps_its_type(repo: Repo, field: str, unset: Any) -> None:
    assert repo.json("whoami", "--field", field) == {field: unset}
    assert repo.thrum("whoami", "--field", field) == "\n"


# -- section 6: refusals


@pytest.mark.parametrize(
    ("words", "kind", "status", "text"),
    [
        (
            "inbox --thread msg_x",
            "message_not_found",
            1,
            "message not found: msg_x\n  fix: give at least 4 characters of its end",
        ),
        ("inbox --from ghost", "agent_not_found", 1, "agent not found: ghost\n  fix: thrum agent list"),
        ("inbox --all --to nuk", "agent_not_found", 1, "agent not found: nuk\n  fix: did you mean @nux?"),
        ("wait --from nuk --timeout 9", "agent_not_found", 2, "agent not found: nuk\n  fix: did you mean @nux?"),
        ("wait --after soon", "bad_time", 2, 'bad time "soon" for --after\n  fix: write now, -30s, +60s'),
        ("send hi --to all", "unknown_recipient", 1, "unknown recipient: @all\n  fix: to wake everyone: --to"),
        ("send hi --to nux,max", "unknown_recipient", 1, "unknown recipient: @nux,max\n  fix: one --to for each"),
        ("inbox --repo=", "usage", 2, "--repo needs a value\n  fix: --repo PATH"),
        ("inbox --thread=", "usage", 2, "inbox: --thread needs a value\n  fix: usage: thrum inbox"),
        ("inbox --json=1", "usage", 2, "inbox: --json takes no value\n  fix: usage: thrum inbox"),
        ("inbox --to nux", "usage", 2, "inbox: --to goes with --all\n  fix: usage: thrum inbox"),
        ("message delete msg_x", "message_not_found", 1, "message not found: msg_x\n  fix: give at least 4"),
        ("reply msg_x --file a --stdin", "ambiguous_body", 2, "more than one body: --stdin, --body-file\n  fix: give"),
        ("send --file nowhere", "file_not_found", 1, "no such file: nowhere\n  fix: check the path"),
        ("quickstart max --role r2 --module m --name=", "usage", 2, "quickstart: --name needs a value\n  fix: usage"),
        ("watch --since yesterday", "bad_cursor", 2, 'not a cursor: "yesterday"\n  fix: one printed by'),
    ],
)
def test_a_refusal_names_its_fix(repo: Repo, words: str, kind: str, status: int, text: str) -> None:
    human = repo.run(*words.split())
    assert (human.status, human.out, human.err[: len(text) + 7]) == (status, "", f"Error: {text}")
    document = repo.run(*words.split(), "--json")
    if "--json=1" not in words:
        assert (document.status, document.err, document.kind) == (status, "", kind)
        assert human.err == f"Error: {document.json['error']['message']}\n  fix: {document.json['error']['remedy']}\n"


def test_a_deleted_message_is_named_in_the_fix(repo: Repo) -> None:
    sent = first_id(repo.thrum("send", "a slip", "--to", "nux"))
    repo.thrum("message", "delete", sent, "--force")
    for words in (["message", "edit", sent, "x"], ["reply", sent, "x"], ["message", "delete", sent, "--force"]):
        assert repo.run(*words).err.endswith(f"\n  fix: thrum message get {sent} still shows it; send a new one\n")


@pytest.mark.spec("ID-08")
def test_a_missing_role_or_module_is_asked_for_with_what_was_given(repo: Repo) -> None:
    at = repo.worktree("empty")
    done = repo.run("quickstart", "max", at=at)
    assert done.err.endswith("  fix: thrum quickstart max --role ROLE --module MODULE\n")
    done = repo.run("agent", "register", "--name", "max", "--role", "tester", at=at)
    assert done.err.endswith("  fix: thrum quickstart max --role tester --module MODULE\n")


# -- looks


def test_a_look_into_an_inbox_shows_what_its_owner_has_read(repo: Repo, nux: Path) -> None:
    sent = first_id(repo.thrum("send", "for nux", "--to", "nux"))
    words = ("inbox", "--all", "--to", "@nux", "--page-size", "1")
    for at in (repo.main, nux):
        looked = repo.thrum(*words, at=at).split("\n")
        assert looked[0].startswith(f"● {sent}  @furiosa → @nux")
        assert looked[2].endswith(" unread)") and not looked[2].endswith("(0 unread)")
        assert not repo.json(*words, at=at)["messages"][0]["is_read"], "a look marks nothing"
    repo.thrum("message", "read", "--all", at=nux)
    looked = repo.thrum(*words).split("\n")
    assert looked[0].startswith(f"○ {sent}") and looked[2].endswith("(0 unread)")


def test_a_post_to_everyone_shows_no_scopes_that_nobody_gave(repo: Repo, nux: Path) -> None:
    sent = first_id(repo.thrum("send", "all hands", "--broadcast"))
    shown = repo.thrum("message", "get", sent, at=nux)
    assert "\nTo:      @everyone\n\n  all hands\n" in shown
    assert repo.thrum("inbox", "--thread", sent).split("\n")[1:3] == [
        "  all hands",
        "Showing 1-1 of 1 message (0 unread)",
    ]


def test_sent_says_when_there_is_more(repo: Repo) -> None:
    for number in range(3):
        repo.thrum("send", f"number {number}", "--to", "nux")
    total = repo.json("sent")["total"]
    assert repo.thrum("sent", "--page-size", "2").split("\n")[-2] == f"Showing 1-2 of {total} messages"
    assert "Showing" not in repo.thrum("sent", "--page-size", "1000")
    assert "Showing" not in repo.thrum("sent", "--page-size", "2", "--quiet")
    assert repo.thrum("sent", "--page", "99") == f"No messages on page 99 ({total} messages).\n"
    assert repo.thrum("sent", "--page", "99", "--to", "nobody") == "Nothing matches.\n"


def test_the_table_of_open_sessions_has_those_that_said_nothing(repo: Repo) -> None:
    lines = repo.thrum("agent", "list", "--context").split("\n")
    assert lines[0].split() == ["AGENT", "SESSION", "BRANCH", "COMMITS", "FILES", "INTENT", "UPDATED"]
    assert [line.split()[0] for line in lines[1:3]] == ["@furiosa", "@nux"]


def test_a_log_without_lines_of_that_time_is_not_called_empty(repo: Repo) -> None:
    assert repo.thrum("daemon", "logs", "--since", "2099-01-01") == "Nothing in the log since 2099-01-01.\n"


def test_a_display_that_nobody_chose_goes_with_role_and_module(repo: Repo) -> None:
    at = repo.agent("zed", "tester", "old")
    repo.thrum("quickstart", "--module", "new", at=at)
    assert repo.thrum("whoami", "--field", "display", at=at) == "Tester (new)\n"
    repo.thrum("quickstart", "--display", "Zed", at=at)
    repo.thrum("quickstart", "--module", "newer", at=at)
    assert repo.thrum("whoami", "--field", "display", at=at) == "Zed\n"


def test_a_conflict_of_quickstart_names_only_flags_that_quickstart_has(repo: Repo) -> None:
    done = repo.run("quickstart", "nux", "--role", "worker", "--module", "other")
    assert done.status == 1
    assert "--force to take over" in done.err and "--re-register" not in done.err


# -- 1.10: variables


@pytest.mark.spec("ID-15", "ID-30")
def test_variables_that_lead_nowhere_are_named(repo: Repo, nux: Path) -> None:
    err = repo.run("inbox", env={"THRUM_NAME": "nux"}).err
    assert err == (
        "Error: THRUM_NAME=nux, but .thrum/identities/nux.json does not exist\n"
        f"  fix: nux lives in {nux}: cd there, or correct or unset THRUM_NAME\n"
    )
    err = repo.run("inbox", env={"THRUM_HOME": str(repo.top)}).err
    assert err == (f"Error: not a git repository: {repo.top} (THRUM_HOME)\n  fix: correct or unset THRUM_HOME\n")
    done = repo.run("inbox", "--json", env={"THRUM_SOCKET": f"{repo.top}/none.sock"})
    assert done.json["error"]["remedy"] == "correct or unset THRUM_SOCKET"
    assert done.json["error"]["details"]["socket"] == f"{repo.top}/none.sock"


@pytest.mark.spec("ID-34", "ID-36")
@pytest.mark.parametrize(
    ("env", "words", "field", "value"),
    [
        ({}, [], "source", "identity_file"),
        ({}, [], "selected_by", "only_file"),
        ({"THRUM_NAME": "furiosa"}, [], "source", "environment"),
        ({"THRUM_NAME": "furiosa"}, [], "selected_by", "thrum_name"),
        ({"THRUM_AGENT_ID": "furiosa"}, [], "selected_by", "agent_id"),
        ({"THRUM_ROLE": "boss"}, [], "role", "boss"),
        ({"THRUM_ROLE": "boss"}, ["--role", "chief"], "role", "chief"),
        ({"THRUM_ROLE": "boss"}, ["--role", "chief"], "source", "flags"),
        ({"THRUM_MODULE": "core"}, [], "module", "core"),
        ({"THRUM_DISPLAY": "F."}, [], "display", "F."),
        ({"THRUM_ROLE": "", "THRUM_NAME": ""}, [], "source", "identity_file"),
    ],
)
def test_whoami_tells_what_the_variables_did(
    repo: Repo, env: dict[str, str], words: list[str], field: str, value: str
) -> None:
    assert repo.thrum("whoami", *words, "--field", field, env=env) == f"{value}\n"


def test_verbose_tells_the_socket_the_identity_and_each_call(repo: Repo) -> None:
    done = repo.run("sent", "--verbose", "--json")
    assert json.loads(done.out)
    lines = done.err.split("\n")
    assert lines[0] == "debug: identity furiosa by only_file"
    assert lines[1] == f"debug: socket {repo.socket}"
    assert lines[2].startswith("debug: message.outbox ") and lines[2].endswith(" ms")


# -- 3.7 watch


def test_watch_says_that_it_had_to_reconnect_and_goes_on(repo: Repo) -> None:
    programs, people = repo.start("watch", "--json"), repo.start("watch")
    wait_until(lambda: people.err_lines, "the watch of people")
    start = json.loads(programs.line())
    assert start.keys() == {"type", "cursor", "timestamp"} and start["type"] == "watch.start"
    before = repo.json("send", "before", "--to", "nux")["message_id"]
    assert json.loads(programs.line())["message_id"] == before
    assert people.line().endswith(f"@furiosa → @nux  before  {before}")
    repo.thrum("daemon", "stop")
    gone = "the daemon is gone; waiting up to 60 s for it"
    for each in (programs, people):
        wait_until(lambda each=each: gone in each.err, "the watch tells that nothing comes")
    repo.thrum("daemon", "start")
    back = json.loads(programs.line())
    assert back.keys() == {"type", "cursor", "timestamp"} and back["type"] == "watch.reconnect"
    after = repo.json("send", "after", "--to", "nux")["message_id"]
    assert json.loads(programs.line())["message_id"] == after
    assert people.line().endswith(f"  after  {after}")
    for each in (programs, people):
        each.kill(signal.SIGINT)
        assert each.end().status == 0
    assert people.err.split("\n") == [f"watching from {start['cursor']}", gone, "the daemon is back, nothing was lost"]
    resumed = repo.start("watch", "--json", "--since", back["cursor"])
    assert json.loads(resumed.line())["cursor"] == back["cursor"]
    assert json.loads(resumed.line())["message_id"] == after
    resumed.kill(signal.SIGTERM)
    assert resumed.end().status == 0
