"""The command line as its users have it: real processes, a real daemon, real pipes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.daemon.repo import THRUM, Done, Repo, Running, open_repo, wait_until


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    """Two agents in two worktrees; tests of this module share it and leave the daemon running or startable."""
    with open_repo("furiosa", "nux") as made:
        yield made


@pytest.fixture
def nux(repo: Repo) -> Path:
    return repo.worktree("nux")


def in_own_process(repo: Repo, *words: str, at: Path | None = None) -> Done:
    """The same command without the launcher's warm path."""
    code = "import sys; from thrum.cli.app import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=at or repo.main, env=repo.env, capture_output=True, text=True
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_waiting_agent_is_woken_and_answers(repo: Repo, nux: Path) -> None:
    waiting = repo.start("wait", "--timeout", "30s", at=nux)
    sent = repo.json("send", "Token refresh is in", "--to", "@nux", "--scope", "module:auth")
    done = waiting.end()
    lines = done.out.split("\n")
    assert (done.status, lines[0], lines[2:4]) == (
        0,
        "MESSAGES_RECEIVED",
        ["  Token refresh is in", "  scopes: module:auth"],
    )
    assert lines[1].startswith(f"● {sent['message_id']}  @furiosa → @nux")
    assert repo.run("wait", "--timeout", "0", at=nux).status == 1, "nothing is told twice"
    reply = repo.json("reply", sent["message_id"], "Reading it", at=nux)
    assert reply["reply_to"] == sent["message_id"]
    assert repo.thrum("inbox").startswith(f"● {reply['message_id']}  @nux → @furiosa  just now  ↳ {sent['message_id']}")
    assert repo.thrum("sent").split("\n")[0].endswith("to @nux  1/1 read"), "who answers has read"
    assert repo.json("inbox", "--unread")["messages"] == []


COMPARED = (
    "whoami",
    "team --all",
    "agent list --context",
    "inbox --peek --chronological",
    "inbox --all --page-size 3",
    "sent",
    "message get msg_none",
    "send hi --to @furoisa",
    "inbox --from ghost",
    "daemon",
)


def test_a_command_says_the_same_in_the_daemon_and_in_its_own_process(repo: Repo, nux: Path) -> None:
    repo.thrum("daemon", "start")
    for number, command in enumerate(COMPARED):
        words = [*command.split(), *(["--json"] if number % 2 else [])]
        inside, outside = repo.run(*words, at=nux), in_own_process(repo, *words, at=nux)
        assert timeless(outside) == timeless(inside), command
        if number % 2:
            assert inside.out.endswith("\n") and inside.out.count("\n") == 1
            assert isinstance(json.loads(inside.out), dict)


def timeless(done: Done) -> Done:
    """Without how long ago things were, and when an agent was last seen."""
    ages = re.compile(r"\bactive \w+|just now|\d+m ago|\"last_seen\w*\":\"[^\"]*\"")
    return Done(done.status, ages.sub("", done.out), ages.sub("", done.err))


def test_what_a_closed_pipe_swallowed_stays_unread(repo: Repo, nux: Path) -> None:
    sent = repo.json("send", "-", "--to", "nux", stdin="x" * 300_000)
    process = subprocess.Popen([str(THRUM), "inbox", "--page", "1"], cwd=nux, env=repo.env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) in (-signal.SIGPIPE, 0)
    assert [each["message_id"] for each in repo.json("inbox", "--unread", at=nux)["messages"]] == [sent["message_id"]]
    repo.thrum("message", "read", "--all", at=nux)
    assert repo.thrum("message", "read", "--all", at=nux) == "No unread messages.\n"


def test_bodies_come_from_the_argument_stdin_or_a_file(repo: Repo, nux: Path) -> None:
    (nux / "note.md").write_text("- from\n- a file\n")
    for words, stdin, expected in (
        (["- a list\n- in markdown"], "", "- a list\n- in markdown"),
        (["-"], "from stdin\n", "from stdin"),
        (["--stdin"], "two\n\n", "two\n"),
        ([], "from a pipe\n", "from a pipe"),
        (["-m", "in a flag"], "ignored", "in a flag"),
        (["--body-file", "note.md"], "", "- from\n- a file"),
    ):
        sent = repo.json("send", *words, "--to", "@furiosa", at=nux, stdin=stdin)
        got = repo.json("message", "get", sent["message_id"], "--peek")
        assert got["message"]["body"]["content"] == expected


def test_stdin_that_says_nothing_is_no_text_and_holds_nobody_up(repo: Repo, nux: Path) -> None:
    """A pipe that somebody left open, as runtimes do, an empty one, and no stdin at all; a file is a text."""
    (nux / "report.md").write_text("a report\n")
    for stdin in (subprocess.PIPE, subprocess.DEVNULL):
        running = subprocess.Popen(
            [str(THRUM), "send", "--to", "@furiosa"],
            cwd=nux,
            env=repo.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with running:
            assert running.wait(60) == 2 and running.stderr is not None
            assert running.stderr.read().startswith(b"Error: send: TEXT is missing\n")
    assert repo.run("send", "@furiosa", "--json", at=nux).kind == "usage"
    with (nux / "report.md").open() as file:
        out = subprocess.run(
            [str(THRUM), "send", "@furiosa", "--json"], cwd=nux, env=repo.env, stdin=file, stdout=subprocess.PIPE
        ).stdout
    sent = json.loads(out)
    got = repo.json("message", "get", sent["message_id"][-5:].lower(), "--peek")
    assert got["message"]["body"]["content"] == "a report"


@pytest.mark.parametrize(
    ("words", "stdin", "kind", "status"),
    [
        (["send", "", "--to", "nux"], b"", "empty_body", 1),
        (["send", " \n\t", "--to", "nux"], b"", "empty_body", 1),
        (["send", "-"], b"a\xffb", "bad_encoding", 2),
        (["send", b"a\xffb"], b"", "bad_encoding", 2),
        (["send", "-"], b"x" * 1_048_577, "body_too_large", 1),
        (["send", "hi", "--to", "nuks"], b"", "unknown_recipient", 1),
        (["send", "hi", "--to", "@worker", "--structured", "{}", "--format", "json"], b"", "bad_json", 2),
        (["send", "hi", "--scope", "auth"], b"", "bad_scope", 2),
        (["reply", "msg_none", "hi"], b"", "message_not_found", 1),
        (["message", "edit", "msg_none", "hi"], b"", "message_not_found", 1),
        (["wait", "--timeout", "5 minutes"], b"", "bad_duration", 2),
        (["watch", "--since", "yesterday"], b"", "bad_cursor", 2),
        (["frobnicate"], b"", "usage", 2),
    ],
)
def test_bad_input_is_refused_with_its_fix(
    repo: Repo, words: list[str | bytes], stdin: bytes, kind: str, status: int
) -> None:
    done = repo.run(*words, "--json", stdin=stdin)
    assert (done.status, done.kind, done.err) == (status, kind, "")
    assert done.json["error"]["remedy"]
    human = repo.run(*words, stdin=stdin)
    assert (human.status, human.out) == (status, "")
    assert human.err.startswith("Error: ") and "\n  fix: " in human.err


def test_foreign_text_does_not_act_on_the_terminal(repo: Repo, nux: Path) -> None:
    repo.thrum("send", "-", "--to", "nux", stdin="\x1b]0;owned\x07\x1b[2J\n● msg_fake\r\u202eback")
    out = repo.thrum("inbox", at=nux)
    assert r"  \x1b]0;owned\x07\x1b[2J" in out
    assert "\n  ● msg_fake\\x0d\\u202eback\n" in out
    assert not set(out) & set("\x1b\x07\r\u202e")


def test_edited_and_deleted_messages_say_so(repo: Repo, nux: Path) -> None:
    message_id = repo.json("send", "frist", "--to", "nux")["message_id"]
    assert repo.thrum("message", "edit", message_id, "first") == f"✓ Message edited: {message_id} (version 1)\n"
    head = repo.thrum("inbox", at=nux).split("\n")[0]
    assert head.startswith(f"● {message_id}") and head.endswith("(edited)")
    assert f"fix: thrum message delete {message_id[-6:]} --yes\n" in repo.run("message", "delete", message_id).err
    assert repo.run("message", "delete", message_id, "--force", "--json", at=nux).kind == "not_author"
    repo.thrum("message", "delete", message_id, "--force", "--reason", "wrong")
    assert "Status:  DELETED" in repo.thrum("message", "get", message_id, at=nux)
    assert message_id not in repo.thrum("inbox", at=nux)


# -- watch


def test_watch_shows_what_happens_and_goes_on_over_a_restart(repo: Repo, nux: Path) -> None:
    watching = repo.start("watch", "--to-me", at=nux)
    wait_until(lambda: "watching from" in watching.err, "the start of watch")
    repo.thrum("send", "one\nline", "--to", "nux")
    repo.thrum("send", "not for nux", "--to", "furiosa", at=nux)
    line = watching.line()
    assert "  message.create  @furiosa → @nux  one line  msg_" in line
    repo.thrum("daemon", "restart")
    repo.thrum("send", "to the team")
    assert "@furiosa → team  to the team  msg_" in watching.line()
    watching.kill(signal.SIGINT)
    assert watching.end().status == 0


def test_watch_resumes_right_after_the_line_of_its_cursor(repo: Repo) -> None:
    def watched(*words: str, until: str) -> list[dict[str, object]]:
        process = repo.start("watch", "--json", *words)
        if not words:
            assert json.loads(process.line())["type"] == "watch.start"
            repo.thrum("send", until)
        lines = [json.loads(line) for line in process.lines(lambda line: f'"content":"{until}"' in line)]
        process.kill(signal.SIGTERM)
        assert process.end().status == 0
        return lines

    marker = f"marker {os.getpid()}"
    first = watched(until=marker)[-1]
    repo.thrum("send", "after it")
    later = watched("--since", str(first["cursor"]), until="after it")
    assert [line["type"] for line in later] == ["watch.start", "message.create"]
    everything = watched("--since", "0", until="after it")
    ids = [line["event_id"] for line in everything if line["type"] != "watch.start"]
    assert len(set(ids)) == len(ids)
    assert ids[-2:] == [first["event_id"], later[-1]["event_id"]]
    assert not {"message.receipt", "agent.seen", "agent.place"} & {str(line["type"]) for line in everything}


# -- wait and the daemon's life


def test_wait_lives_through_a_restart_and_a_crash_of_the_daemon(repo: Repo, nux: Path) -> None:
    repo.thrum("wait", "--timeout", "0", "--after", "-1h", at=nux)
    for end in (lambda: repo.thrum("daemon", "restart"), repo.kill_daemon):
        waiting = start_waiting(repo, nux, "--timeout", "60s", "--json")
        end()
        if repo.daemon is None:
            wait_until(lambda: repo.daemon, "the wait to start a crashed daemon")
        sent = repo.json("send", "still there?", "--to", "nux")
        done = waiting.end()
        assert done.status == 0
        assert [each["message_id"] for each in done.json["messages"]] == [sent["message_id"]]


def start_waiting(repo: Repo, nux: Path, *words: str, cold: bool = False) -> Running:
    """A `wait` that has reached the daemon. `cold`: without the launcher's warm path."""
    wait_until(lambda: not _clients(repo), "the end of earlier commands")
    code = "import sys; from thrum.cli.app import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", code] if cold else [str(THRUM)]
    waiting = Running([*argv, "wait", *words], nux, repo.env)
    repo.started.append(waiting)
    wait_until(lambda: _clients(repo), "the wait to reach the daemon")
    return waiting


def _clients(repo: Repo) -> int:
    """How many connections the daemon has accepted."""
    assert repo.daemon is not None
    sockets = psutil.Process(repo.daemon).net_connections("unix")
    return sum(each.laddr == str(repo.socket) for each in sockets) - 1


@pytest.mark.parametrize("cold", [False, True])
def test_an_interrupted_command_ends_with_the_status_of_its_signal(repo: Repo, nux: Path, cold: bool) -> None:
    repo.thrum("daemon", "start")
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        waiting = start_waiting(repo, nux, "--timeout", "60s", cold=cold)
        waiting.kill(number)
        done = waiting.end()
        assert (done.status, done.err) == (status, "")


def test_wait_does_not_start_a_daemon_that_was_stopped_on_purpose(repo: Repo, nux: Path) -> None:
    for seconds in (3, 15, 45):  # on a busy machine its time may be over before the daemon is stopped
        repo.thrum("daemon", "start")
        waiting = start_waiting(repo, nux, "--timeout", f"{seconds}s")
        repo.thrum("daemon", "stop")
        done = waiting.end()
        if done.status == 2:
            break
    assert repo.daemon is None
    assert done.status == 2 and "no daemon is running" in done.err
    assert repo.run("wait", "--timeout", "0", at=nux).status == 1, "a new wait starts it again"
    assert repo.daemon is not None


def test_the_daemons_commands_say_what_they_did(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    assert repo.thrum("daemon", "stop") == "Daemon is not running\n"
    stopped = repo.run("daemon", "status")
    assert (stopped.status, stopped.out) == (1, "Daemon:   not running\n")
    assert repo.json("daemon", "status")["running"] is False
    refused = repo.run("team", "--json", env={"THRUM_NO_AUTOSTART": "1"})
    assert (refused.status, refused.kind) == (1, "daemon_unavailable")
    assert repo.json("whoami")["agent_id"] == "furiosa", "whoami needs no daemon"
    assert repo.daemon is None
    started = repo.json("daemon", "start")
    assert (started["status"], started["pid"]) == ("started", repo.daemon)
    assert repo.thrum("daemon", "start") == f"✓ Daemon already running (pid {repo.daemon})\n"
    status = repo.json("daemon", "status")
    assert (status["pid"], status["repo_path"]) == (repo.daemon, str(repo.main))
    assert repo.thrum("daemon", "status").startswith(f"Daemon:   running (pid {repo.daemon}, up ")


def test_the_log_is_shown_and_followed(repo: Repo) -> None:
    repo.thrum("daemon", "restart")
    last = repo.json("daemon", "logs", "-n", "1")["lines"]
    assert len(last) == 1 and {"time", "level", "message"} <= last[0].keys()
    assert len(repo.json("daemon", "logs", "--lines", "0")["lines"]) > 1
    assert repo.thrum("daemon", "logs", "--since", "0s") == "Nothing in the log since 0s.\n"
    following = repo.start("daemon", "logs", "-f", "-n", "1", "--json")
    following.line()
    repo.thrum("daemon", "restart")
    assert any(json.loads(line)["message"] == "serving" for line in following.lines(lambda line: "serving" in line))
    following.kill(signal.SIGINT)
    assert following.end().status == 0


# -- set-up


def test_init_says_what_it_touched_and_how_to_undo_it(tmp_path: Path) -> None:
    fresh = Repo(tmp_path)
    try:
        (fresh.main / ".git").chmod(0o755)
        planned = fresh.json("init", "--dry-run")
        assert planned["dry_run"] is True and not (fresh.main / ".thrum").exists()
        lines = fresh.run("init")
        assert lines.out.split("\n") == [
            f"✓ Thrum initialized in {fresh.main}",
            "  created  .thrum/                  undo: thrum daemon stop; rm -r .thrum",
            "  created  .git/thrum-sync/a-sync/  undo: git worktree remove -f -f .git/thrum-sync/a-sync; "
            "rm -r .git/thrum-sync",
            "  created  branch a-sync            undo: git branch -D a-sync",
            "  changed  .git/info/exclude        undo: remove the line .thrum/",
            "  changed  mode of .git, 0755→0700  undo: chmod 755 .git  "
            "# if another user, web server, container or borrowing clone needs it",
            "  Sync: local only (turn on: thrum sync enable)",
            "",
        ]
        assert lines.err == "hint: register: thrum quickstart NAME --role ROLE --module MODULE\n"
        assert fresh.thrum("init").startswith("Thrum is already initialized\n")
        both = fresh.json("init", "--name", "max", "--role", "tester", "--module", "auth")
        assert (both["already_initialized"], both["register"]["agent_id"]) == (True, "max")
        assert fresh.json("whoami")["agent_id"] == "max"
    finally:
        fresh.close()


def test_outside_a_repository_the_errors_name_the_way(tmp_path: Path) -> None:
    def kind(*words: str) -> str:
        done = subprocess.run([str(THRUM), *words, "--json"], cwd=tmp_path, capture_output=True, text=True)
        return json.loads(done.stdout)["error"]["kind"]

    assert kind("inbox") == kind("init") == kind("daemon", "start") == "not_a_repository"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert kind("inbox") == kind("daemon", "start") == "not_initialized"


def test_the_demo_shows_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([str(THRUM), "demo", "--json"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert all(step["status"] == 0 for step in document["steps"])
    shown = {" ".join(step["argv"][:2]): step["stdout"] for step in document["steps"]}
    assert shown["thrum wait"].startswith("MESSAGES_RECEIVED\n")
    assert '"type":"message.create"' in shown["cat .git/thrum-sync/a-sync/messages/furiosa.jsonl"]
    assert " | furiosa | Token refresh is in." in shown["python -c"]
    assert "kept" not in document
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_demo_can_be_kept(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([str(THRUM), "demo", "--keep"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (home,) = tmp_path.iterdir()
    assert f"kept: {home}" in done.stdout
    assert 'app $ thrum send "Token refresh is in. Can you review it?" --to @nux' in done.stdout
    assert (home / "app" / ".git" / "thrum-sync" / "a-sync" / "messages" / "nux.jsonl").is_file()
