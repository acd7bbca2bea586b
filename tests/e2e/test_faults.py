"""Bad input: each is refused by name with its fix, a status that is not 0, and nothing stored (cli.md §6)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import THRUM, Done, Repo, open_repo
from thrum.model.methods.daemon import HEALTH

pytestmark = pytest.mark.usefixtures("nothing_is_stored")

BODY_MAX = 1_048_576
LINE_MAX = 8 * 1_048_576


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo("alice", "nux") as opened:
        yield opened


@pytest.fixture(autouse=True)
def the_daemon_goes_on(repo: Repo) -> Iterator[None]:
    pid = repo.daemon
    yield
    assert repo.daemon == pid


@pytest.fixture
def nothing_is_stored(repo: Repo) -> Iterator[None]:
    before = repo.facts()
    yield
    assert repo.facts() == before


def refused(done: Done, kind: str, *words: str, status: int = 1) -> dict[str, Any]:
    """The JSON refusal of this kind, whose message and fix hold these words."""
    assert (done.status, done.kind) == (status, kind), done
    error = done.json["error"]
    for word in words:
        assert word in error["message"] + "\n" + error["remedy"], error
    assert error["remedy"]
    return error


def send(repo: Repo, *words: str | bytes, **options: Any) -> Done:
    return repo.run("send", *words, "--to", "@nux", "--json", **options)


# -- bodies


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_an_empty_body(repo: Repo, text: str) -> None:
    refused(send(repo, text), "empty_body", "the message is empty", "--stdin")
    refused(send(repo, "--stdin", stdin=text), "empty_body")


def test_no_body_at_all(repo: Repo) -> None:
    refused(send(repo), "usage", "TEXT", status=2)


def test_a_refusal_for_people_has_two_lines(repo: Repo) -> None:
    done = repo.run("send", "", "--to", "@nux")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[0] == "Error: the message is empty"
    assert done.err.splitlines()[1].startswith("  fix: give TEXT")


def test_a_body_over_the_limit(repo: Repo, tmp_path: Path) -> None:
    error = refused(
        send(repo, "--stdin", stdin="x" * (BODY_MAX + 1)),
        "body_too_large",
        f"message body too large: {BODY_MAX + 1} bytes, the limit is {BODY_MAX}",
        "split",
    )
    assert error["details"]["limit"] == BODY_MAX
    refused(send(repo, "-", stdin="ü" * (BODY_MAX // 2 + 1)), "body_too_large")
    (tmp_path / "body").write_text("x" * (BODY_MAX + 2))
    done = send(repo, "--body-file", str(tmp_path / "body"))
    assert done.status == 1
    assert done.kind in ("file_too_large", "body_too_large")


def test_text_that_is_no_utf_8(repo: Repo, tmp_path: Path) -> None:
    refused(send(repo, b"caf\xe9"), "bad_encoding", "is not UTF-8 (byte 4)", status=2)
    refused(send(repo, "--stdin", stdin=b"caf\xe9"), "bad_encoding", "is not UTF-8 (byte 4)", status=2)
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    refused(send(repo, "--body-file", str(tmp_path / "latin")), "bad_encoding", "latin", "(byte 4)", status=2)


def test_body_files_that_cannot_be_read(repo: Repo, tmp_path: Path) -> None:
    refused(send(repo, "--body-file", str(tmp_path / "none")), "file_not_found", "no such file")
    refused(send(repo, "--body-file", str(tmp_path)), "file_unreadable", "cannot read")


def test_structured_text_that_is_no_json(repo: Repo) -> None:
    refused(send(repo, "x", "--structured", '{"a":'), "bad_json", "--structured is not valid JSON", "shell", status=2)
    refused(send(repo, "x", "--structured", "[1]"), "bad_json", "must be a JSON object", status=2)
    refused(send(repo, "no json", "--format", "json"), "bad_json", "--format json", status=2)


def test_two_bodies(repo: Repo) -> None:
    refused(send(repo, "x", "--stdin", stdin="y"), "ambiguous_body", "more than one body", status=2)


# -- words


def test_an_unknown_recipient_with_the_one_that_was_meant(repo: Repo) -> None:
    done = repo.run("send", "x", "--to", "@nuks", "--json")
    error = refused(done, "unknown_recipient", "@nuks", "did you mean @nux?", "thrum team --all")
    assert error["details"]["suggestions"] == ["nux"]


def test_one_unknown_recipient_of_several_stops_them_all(repo: Repo) -> None:
    done = repo.run("send", "x", "--to", "@nux", "--to", "@ghost", "--to", "@spectre", "--json")
    refused(done, "unknown_recipient", "unknown recipients: @ghost, @spectre", "thrum team --all")


@pytest.mark.parametrize("scope", ["auth", ":x", "auth:", "Bad Type:x"])
def test_a_bad_scope(repo: Repo, scope: str) -> None:
    refused(send(repo, "x", "--scope", scope), "bad_scope", "type:value", "module:auth", status=2)
    refused(repo.run("inbox", "--scope", scope, "--json"), "bad_scope", status=2)


def test_a_reference_that_is_thrum_s_own(repo: Repo) -> None:
    refused(send(repo, "x", "--ref", "reply_to:msg_1"), "bad_ref", "reply_to", status=2)


@pytest.mark.parametrize("text", ["5 minutes", "-3s", "1x", "m"])
def test_a_bad_duration(repo: Repo, text: str) -> None:
    refused(repo.run("wait", f"--timeout={text}", "--json"), "bad_duration", f'bad duration "{text}"', "30s", status=2)


def test_unknown_words(repo: Repo) -> None:
    refused(repo.run("frobnicate", "--json"), "usage", "frobnicate", status=2)
    refused(repo.run("send", "x", "--frob", "--json"), "usage", "--frob", status=2)
    refused(repo.run("sned", "x", "--json"), "usage", "send", status=2)


def test_a_message_that_is_not_there(repo: Repo) -> None:
    ghost = "msg_01HXE8Z7R9K3Q6M2W8F4VYABCD"
    for words in (["message", "get", ghost], ["reply", ghost, "x"], ["message", "read", ghost]):
        refused(repo.run(*words, "--json"), "message_not_found", ghost)


# -- places


def test_no_git_repository(repo: Repo, tmp_path: Path) -> None:
    for words in (["send", "x"], ["inbox"], ["daemon", "status"], ["team"]):
        refused(repo.run(*words, "--json", at=tmp_path), "not_a_repository", "git init")
    error = refused(repo.run("init", "--json", at=tmp_path), "not_a_repository")
    assert error["details"]["guard"] == "non_git_bootstrap"
    assert list(tmp_path.iterdir()) == []


def test_a_repository_without_thrum(repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "-q", str(tmp_path))
    refused(repo.run("send", "x", "--json", at=tmp_path), "not_initialized", str(tmp_path), "thrum init")
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


def test_a_bare_repository(repo: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    repo.git("init", "-q", "--bare", str(bare))
    before = sorted(path.name for path in bare.iterdir())
    done = repo.run("init", "--json", at=bare)
    assert done.status == 1, done
    assert "worktree" in done.json["error"]["message"] + done.json["error"]["remedy"]
    done = repo.run("send", "x", "--json", at=bare)
    assert done.status == 1, done
    assert done.json["error"]["remedy"]
    assert sorted(path.name for path in bare.iterdir()) == before


# -- the wire


def talk(repo: Repo, *pieces: bytes) -> list[dict[str, Any]]:
    """What the daemon answers to these bytes; then this end is closed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(repo.socket))
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    return [json.loads(line) for line in data.splitlines()]


def is_well(repo: Repo) -> bool:
    with repo.client() as client:
        return client.call(HEALTH).status == "ok"


@pytest.mark.parametrize(
    "line", [b"hello\n", b"{\n", b"[]\n", b"\xff\xfe\n", b'{"jsonrpc":"2.0","id":1}\n', b"\x00" * 99 + b"\n"]
)
def test_lines_that_are_no_request(repo: Repo, line: bytes) -> None:
    [answer] = talk(repo, line)
    assert answer["error"]["data"]["kind"] in ("parse_error", "invalid_request")
    assert answer["error"]["data"]["remedy"]
    assert is_well(repo)


def test_a_line_that_is_too_long(repo: Repo) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(repo.socket))
        try:
            connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"health","params":{"x":"' + b"x" * LINE_MAX)
        except BrokenPipeError:
            pass
        answer = json.loads(connection.makefile().readline())
    assert answer["error"]["data"]["kind"] == "line_too_long"
    assert is_well(repo)


def test_a_client_that_hangs_up_in_the_middle_of_a_line(repo: Repo) -> None:
    request = b'{"jsonrpc":"2.0","id":1,"method":"message.send","params":{"content":"half","to":["@nux"]}}'
    for cut in (1, 20, len(request)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(repo.socket))
            connection.sendall(request[:cut])
    assert is_well(repo)


def test_a_command_whose_reader_goes_away_ends_silently(repo: Repo) -> None:
    reader = repo.shell(f"{THRUM} inbox --all | head -c 0")
    done = reader.end()
    assert "Traceback" not in done.err
    assert "Error" not in done.err
