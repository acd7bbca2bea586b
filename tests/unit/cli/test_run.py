"""Commands against a daemon that only remembers what it was asked: order of output and marks, retries, errors."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.fake_daemon import (
    MSG,
    NOW,
    QUICK,
    Answerer,
    FakeDaemon,
    FakeTerminal,
    add_identity,
    always,
    conflict,
    go,
    make_root,
    registering,
    sent,
    session,
)
from tests.support.here import HandClock
from thrum.cli.app import run
from thrum.cli.session import NeedsOwnProcess, Session
from thrum.model import clock, wire_types
from thrum.model.errors import Busy, DaemonUnavailable, ShuttingDown, StoreFailed, UnknownRecipient
from thrum.model.events import Body, Pair
from thrum.model.methods.agents import AgentListResult, TeamListParams, TeamListResult
from thrum.model.methods.messages import (
    MarkReadResult,
    MessageGetResult,
    MessageListResult,
    SilentRecipient,
    WaitResult,
)
from thrum.model.methods.method import Empty
from thrum.model.paths import Layout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def message(message_id: str = MSG, **more: Any) -> wire_types.Message:
    fields: dict[str, Any] = {
        "message_id": message_id,
        "seq": 7,
        "agent_id": "furiosa",
        "body": Body("markdown", "hi"),
        "created_at": clock.format_ms(NOW - 60_000),
        "deleted": False,
        "is_read": False,
        "audiences": (Pair("agent", "nux"),),
    }
    return wire_types.Message(**(fields | more))


def listing(*some: wire_types.Message, total: int | None = None) -> MessageListResult:
    count = len(some) if total is None else total
    return MessageListResult(
        messages=some, unread=count, total=count, page=1, page_size=10, total_pages=1 if count else 0
    )


def of(**results: Any) -> Answerer:
    """Answers by the method's name; what was printed is always taken note of."""
    results.setdefault("message_printed", Empty())
    return lambda method, params: results[method.replace(".", "_")]


async def test_a_purge_with_both_flags_and_one_with_none_name_what_is_wrong(repository: Path) -> None:
    daemon = FakeDaemon(of())
    for words, wrong in (
        (("--all", "--before", "1d"), "--before and --all exclude each other"),
        ((), "--before T or --all is missing"),
    ):
        status, _, err = await go(daemon, repository, "purge", *words)
        assert (status, err.split("\n")[0]) == (2, f"Error: purge: {wrong}")
    assert daemon.calls == []


# -- what is marked, and when

MARKED = MarkReadResult(marked_count=1)


async def test_the_inbox_marks_what_it_printed_only_once_it_was_handed_over(repository: Path) -> None:
    daemon = FakeDaemon(of(message_list=listing(message(), message("msg_b", is_read=True)), message_markRead=MARKED))
    status, out, _ = await go(daemon, repository, "inbox")
    assert status == 0
    assert daemon.story == ["message.list", "out", "flush", "message.markRead", "message.printed"]
    (marks,) = daemon.asked("message.markRead")
    assert marks["message_ids"] == [MSG]
    assert "state" not in marks, "read is the default"
    assert out.count("● ") == 1 and out.count("○ ") == 1


@pytest.mark.parametrize("flag", ["--unread", "--peek"])
async def test_looking_only_makes_seen(repository: Path, flag: str) -> None:
    daemon = FakeDaemon(of(message_list=listing(message()), message_markRead=MARKED))
    await go(daemon, repository, "inbox", flag, "--json")
    assert daemon.asked("message.markRead")[0]["state"] == "seen"


async def test_looking_at_everything_needs_no_identity_and_marks_nothing(repository: Path) -> None:
    (repository / ".thrum" / "identities" / "nux.json").unlink()
    daemon = FakeDaemon(of(message_list=listing(message())))
    status, out, _ = await go(daemon, repository, "inbox", "--all", "--to", "@max")
    assert status == 0
    assert daemon.asked("message.list")[0]["recipient"] == "max"
    assert daemon.asked("message.markRead") == []
    assert out.endswith("Showing 1-1 of 1 message (1 unread)\n"), "unread by whose inbox it is"


async def test_output_that_nobody_took_marks_nothing(repository: Path) -> None:
    daemon = FakeDaemon(of(message_list=listing(message()), message_markRead=MARKED))
    with pytest.raises(BrokenPipeError):
        await go(daemon, repository, "inbox", broken=True)
    assert daemon.asked("message.markRead") == []


async def test_a_message_that_was_shown_but_not_marked_is_a_warning(repository: Path) -> None:
    failure = StoreFailed("could not write x: no space left on device")
    daemon = FakeDaemon(of(message_list=listing(message()), message_markRead=failure))
    status, out, err = await go(daemon, repository, "inbox")
    assert status == 0
    assert MSG in out
    assert err == "warning: shown, but not marked as read: could not write x: no space left on device\n"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["inbox"], "No messages for @nux."),
        (["inbox", "--peek"], "No messages for @nux."),
        (["inbox", "--unread"], "No unread messages for @nux."),
        (["inbox", "--scope", "module:auth"], "No messages match --scope module:auth (0 in the inbox)."),
        (["inbox", "--all"], "No messages."),
    ],
)
async def test_an_empty_inbox_says_why_it_is_empty(repository: Path, argv: list[str], text: str) -> None:
    daemon = FakeDaemon(always(listing()))
    assert await go(daemon, repository, *argv) == (0, text + "\n", "")


async def test_getting_a_message_marks_it_unless_one_peeks(repository: Path) -> None:
    detail = wire_types.Detail(
        message_id=MSG,
        seq=1,
        version=0,
        author=wire_types.Author("furiosa", ""),
        body=Body("markdown", "hi"),
        scopes=(),
        refs=(),
        metadata=wire_types.Metadata(),
        created_at=clock.format_ms(NOW),
        deleted=False,
        recipients=(wire_types.Recipient("nux", clock.format_ms(NOW)),),
    )
    daemon = FakeDaemon(of(message_get=MessageGetResult(detail), message_markRead=MARKED))
    await go(daemon, repository, "message", "get", MSG, "--peek")
    assert daemon.asked("message.markRead") == []
    await go(daemon, repository, "message", "get", MSG)
    assert daemon.story[-4:] == ["out", "flush", "message.markRead", "message.printed"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (MarkReadResult(marked_count=2), "✓ Marked 2 messages as read\n"),
        (MarkReadResult(marked_count=0), "No unread messages.\n"),
        (
            MarkReadResult(marked_count=1, remaining=1),
            "✓ Marked 1 message as read\n1 message came later: still unread.\n",
        ),
    ],
)
async def test_reading_all_leaves_what_came_later(repository: Path, result: MarkReadResult, said: str) -> None:
    daemon = FakeDaemon(always(result))
    assert (await go(daemon, repository, "message", "read", "--all"))[1] == said
    (asked,) = daemon.asked("message.markRead")
    assert asked == {"caller_agent_id": "nux", "all": True, "marked_before": clock.format_ms(NOW)}, (
        "no client key: in a repeated try the moment is another one"
    )


async def test_reading_what_is_not_mine_says_so(repository: Path) -> None:
    daemon = FakeDaemon(always(MarkReadResult(marked_count=0, skipped_count=1, remaining=3)))
    assert (await go(daemon, repository, "message", "read", MSG))[1] == "1 message not addressed to you.\n"


async def test_a_wait_for_a_name_that_nobody_has_is_an_error(repository: Path) -> None:
    daemon = FakeDaemon(of(agent_list=known(0, "furiosa")))
    status, _, err = await go(daemon, repository, "wait", "--from", "furoisa")
    assert (status, err) == (2, "Error: agent not found: furoisa\n  fix: did you mean @furiosa?; thrum agent list\n")


# -- wait


def waited(*some: wire_types.Message, remaining: int = 0) -> WaitResult:
    status = "received" if some else "timeout"
    return WaitResult(status=status, messages=some, next_seq=1, epoch="e", remaining=remaining)


async def test_wait_hands_its_output_over_before_anything_counts_as_seen(repository: Path) -> None:
    daemon = FakeDaemon(of(message_wait=waited(message()), agent_list=known(0, "furiosa")))
    status, out, _ = await go(daemon, repository, "wait", "--timeout", "5m", "--from", "@furiosa", "--scope", "a:b")
    assert status == 0
    assert daemon.story == ["agent.list", "message.wait", "out", "flush", "delivered", "message.printed"]
    (asked,) = daemon.asked("message.wait")
    assert (asked["author_id"], asked["scope"]) == ("furiosa", {"type": "a", "value": "b"})
    assert 295_000 < asked["timeout_ms"] <= 300_000
    assert out.split("\n") == [
        "MESSAGES_RECEIVED",
        f"● {MSG}  @furiosa → @nux  1m ago",
        "  hi",
        'Next: thrum reply VYABCD "TEXT"  (mark as read: thrum message read VYABCD)',
        "",
    ]


async def test_wait_with_nothing_to_tell_ends_with_status_one(repository: Path) -> None:
    daemon = FakeDaemon(always(waited()))
    line = "NO_MESSAGES_TIMEOUT — re-run thrum wait to continue listening\n"
    assert await go(daemon, repository, "wait", "--timeout", "0") == (1, "", line)
    status, out, err = await go(daemon, repository, "wait", "--timeout", "0", "--json")
    assert (status, json.loads(out), err) == (1, {"status": "timeout", "messages": []}, "")


@pytest.mark.parametrize("argv", [["--timeout", "soon"], ["--agent-name", "max"], ["--frob"], []])
async def test_every_error_of_wait_has_status_two(repository: Path, argv: list[str]) -> None:
    daemon = FakeDaemon(always(DaemonUnavailable("no daemon is running for x")))
    status, out, _ = await go(daemon, repository, "wait", *argv, "--json")
    assert status == 2
    assert json.loads(out)["error"]["message"]


async def test_wait_goes_on_when_its_daemon_restarts(repository: Path) -> None:
    answers: list[Any] = [
        ShuttingDown("the daemon is stopping"),
        DaemonUnavailable("gone", reason="closed"),
        waited(message()),
        MarkReadResult(marked_count=0),
        Empty(),
    ]
    daemon = FakeDaemon(lambda method, params: answers.pop(0))
    status, _, _ = await go(daemon, repository, "wait", "--after", "now", local=True)
    assert (status, daemon.connections) == (0, 3)
    assert daemon.asked("message.markRead")[0]["message_ids"], "on disk before the process ends"
    assert [asked["since"] for asked in daemon.asked("message.wait")] == ["now"] + ["2026-02-03T12:00:00.000Z"] * 2


async def test_a_wait_in_a_daemon_that_stops_goes_on_in_the_users_process(repository: Path) -> None:
    daemon = FakeDaemon(always(ShuttingDown("the daemon is stopping")))
    with pytest.raises(NeedsOwnProcess):
        await go(daemon, repository, "wait")


# -- calls


async def test_changing_calls_carry_the_runs_key_and_a_number_each(repository: Path) -> None:
    daemon = FakeDaemon(of(message_send=sent(), agent_list=AgentListResult(())))
    await go(daemon, repository, "send", "hi", "--to", "@max")
    assert daemon.asked("message.send") == [
        {"caller_agent_id": "nux", "client_key": "KEY.1", "content": "hi", "to": ["@max"]}
    ]


async def test_a_busy_daemon_is_asked_again_under_the_same_key(repository: Path) -> None:
    answers: list[Any] = [
        Busy("the daemon is busy", retry_after_ms=1),
        Busy("the daemon is busy", retry_after_ms=1),
        sent(),
    ]
    daemon = FakeDaemon(lambda method, params: answers.pop(0))
    status, out, _ = await go(daemon, repository, "send", "hi all", "--quiet")
    assert (status, out) == (0, "")
    assert [each["client_key"] for each in daemon.asked("message.send")] == ["KEY.1"] * 3


async def test_a_daemon_that_died_under_a_call_is_asked_again_in_the_own_process_only(repository: Path) -> None:
    def dying() -> FakeDaemon:
        answers: list[Any] = [DaemonUnavailable("gone", reason="closed"), sent()]
        return FakeDaemon(lambda method, params: answers.pop(0))

    daemon = dying()
    assert (await go(daemon, repository, "send", "hi all", "--quiet", local=True))[0] == 0
    assert (daemon.connections, [each["client_key"] for each in daemon.asked("message.send")]) == (2, ["KEY.1"] * 2)
    with pytest.raises(NeedsOwnProcess):
        await go(dying(), repository, "send", "hi all", "--quiet")


@pytest.mark.parametrize(
    "argv",
    [
        ["init"],
        ["daemon", "start"],
        ["daemon", "stop"],
        ["daemon", "restart"],
        ["daemon", "logs", "-f"],
        ["watch"],
        ["demo"],
        ["send", "--body-file", "x"],
        ["message", "edit", MSG, "--file", "x"],
        ["quickstart", "x", "--role", "r", "--module", "m", "--preamble-file", "p"],
    ],
)
async def test_what_needs_its_own_process_says_so_before_any_output(repository: Path, argv: list[str]) -> None:
    daemon = FakeDaemon(always(None))
    made, terminal = session(daemon, repository)
    with pytest.raises(NeedsOwnProcess):
        await run(argv, made)
    assert (terminal.out, terminal.err, daemon.calls) == (b"", b"", [])


# -- bodies


@pytest.mark.parametrize("argv", [["send", "-"], ["send", "--stdin"]])
async def test_stdin_is_the_body_less_one_final_newline(repository: Path, argv: list[str]) -> None:
    daemon = FakeDaemon(always(sent(quiet=True)))
    await go(daemon, repository, *argv, stdin=b" a\r\n\n\n")
    assert daemon.asked("message.send")[0]["content"] == " a\r\n\n"


@pytest.mark.parametrize(
    ("argv", "kind", "status"),
    [
        (["reply", MSG, "hi", "--stdin"], "ambiguous_body", 2),
        (["send", "two words", "-m", "hi"], "ambiguous_body", 2),
        (["send", "-", "--body-file", "x"], "ambiguous_body", 2),
        (["send", "-m", "hi", "--stdin"], "ambiguous_body", 2),
        (["send", "a", "b", "c"], "usage", 2),
        (["reply", MSG, "hi", "--all", "--only-author"], "usage", 2),
        (["send"], "usage", 2),
        (["send", "--stdin"], "bad_encoding", 2),
        (["send", "a\udcffb"], "bad_encoding", 2),
        (["send", "hi", "--scope", "auth"], "bad_scope", 2),
        (["send", "hi", "--ref", "reply_to:x"], "bad_ref", 2),
        (["send", "hi", "--structured", "{"], "bad_json", 2),
        (["send", "hi", "--structured", "[1]"], "bad_json", 2),
        (["send", "hi", "--structured", "[" * 100_000], "bad_json", 2),
        (["message", "read"], "usage", 2),
        (["message", "read", MSG, "--all"], "usage", 2),
        (["inbox", "--page-size", "1001"], "usage", 2),
        (["inbox", "--to", "x"], "usage", 2),
    ],
)
async def test_bad_input_is_refused_before_the_daemon_hears_of_it(
    repository: Path, argv: list[str], kind: str, status: int
) -> None:
    daemon = FakeDaemon(always(None))
    got, out, err = await go(daemon, repository, *argv, "--json", local=True, stdin=b"a\xff")
    error = json.loads(out)["error"]
    assert (got, error["kind"], err, daemon.calls) == (status, kind, "", [])
    assert error["remedy"]


async def test_the_first_bad_byte_is_named(repository: Path) -> None:
    daemon = FakeDaemon(always(None))
    _, _, err = await go(daemon, repository, "send", "-", stdin=b"ab\xff")
    assert err.startswith("Error: stdin is not UTF-8 (byte 3)\n  fix: ")


# -- errors, hints, streams


async def test_an_error_is_two_lines_on_stderr_or_one_document_on_stdout(repository: Path) -> None:
    error = UnknownRecipient(
        "unknown recipient: @nuks", remedy="did you mean @nux? Names: thrum team --all", suggestions=["nux"]
    )
    daemon = FakeDaemon(always(error))
    status, out, err = await go(daemon, repository, "send", "hi", "--to", "@nuks")
    assert (status, out) == (1, "")
    assert err == "Error: unknown recipient: @nuks\n  fix: did you mean @nux? Names: thrum team --all\n"
    status, out, err = await go(daemon, repository, "send", "hi", "--to", "@nuks", "--json")
    assert (status, err) == (1, "")
    assert json.loads(out) == {
        "error": {
            "kind": "unknown_recipient",
            "message": "unknown recipient: @nuks",
            "remedy": "did you mean @nux? Names: thrum team --all",
            "details": {"suggestions": ["nux"]},
        }
    }


async def test_an_unforeseen_error_shows_its_traceback_only_when_asked(repository: Path) -> None:
    daemon = FakeDaemon(always(ZeroDivisionError("boom")))
    status, _, err = await go(daemon, repository, "send", "hi all")
    assert status == 1
    assert err.startswith("Error: unexpected error in send: ZeroDivisionError: boom\n  fix: ")
    assert "Traceback" not in err
    _, _, err = await go(daemon, repository, "send", "hi all", "--verbose")
    assert "Traceback" in err and "debug: identity nux by only_file" in err


def known(last_seen_minutes: int, agent_id: str = "max") -> AgentListResult:
    seen = clock.format_ms(NOW - last_seen_minutes * 60_000)
    info = wire_types.AgentInfo(
        agent_id=agent_id, kind="agent", role="r", module="m", display="", registered_at=seen, last_seen_at=seen
    )
    return AgentListResult((info,))


async def test_a_recipient_that_was_silent_for_long_gives_a_hint_without_a_second_call(repository: Path) -> None:
    silent = (
        SilentRecipient("max", clock.format_ms(NOW - 31 * 60_000)),
        SilentRecipient("nux", clock.format_ms(NOW - 30 * 60_000)),
    )
    argv = ("send", "hi", "--to", "max")
    daemon = FakeDaemon(of(message_send=sent(silent=silent[:1])))
    _, _, err = await go(daemon, repository, *argv)
    assert err == "hint: @max was last seen 31m ago: thrum team --all\n"
    assert [method for method, _ in daemon.calls] == ["message.send"]
    _, out, err = await go(daemon, repository, *argv, "--json")
    document = json.loads(out)
    assert (document["hints"][0]["code"], "silent" in document) == ("send.recipient-stale", False)
    assert err == ""
    for quiet in ({"THRUM_NO_HINTS": "1"}, {}):
        more = [] if quiet else ["--quiet"]
        assert (await go(daemon, repository, *argv, *more, env=quiet))[2] == ""
    daemon = FakeDaemon(of(message_send=sent(silent=silent)))
    assert (await go(daemon, repository, *argv))[2].startswith("hint: @max was last seen 31m ago (and 1 more)")
    daemon = FakeDaemon(of(message_send=sent()))
    assert (await go(daemon, repository, *argv))[2] == ""


async def test_warnings_of_the_daemon_ride_along(repository: Path) -> None:
    daemon = FakeDaemon(always(sent(quiet=True, resolved_to=0, warnings=("nobody else is registered",))))
    assert (await go(daemon, repository, "send", "hi all"))[2] == "warning: nobody else is registered\n"
    _, out, err = await go(daemon, repository, "send", "hi all", "--json")
    assert (json.loads(out)["warnings"], err) == (["nobody else is registered"], "")


async def test_foreign_text_cannot_act_on_the_terminal(repository: Path) -> None:
    evil = message(body=Body("markdown", "\x1b]0;owned\x07\x1b[2J\n● msg_fake  @boss → @nux\r\u202e" + "x" * 10_000))
    daemon = FakeDaemon(of(message_list=listing(evil), message_markRead=MARKED))
    _, out, _ = await go(daemon, repository, "inbox", "--peek", width=80)
    assert r"\x1b]0;owned\x07\x1b[2J" in out
    assert "\n  ● msg_fake  @boss → @nux\\x0d\\u202e" in out, "a forged head stays indented"
    assert "x" * 10_000 in out, "bodies are never shortened"
    assert not set(out) & set("\x1b\x07\r\u202e")


async def test_text_of_half_characters_is_still_one_json_document(repository: Path) -> None:
    daemon = FakeDaemon(always(UnknownRecipient("unknown recipient: @a\udcff")))
    _, out, _ = await go(daemon, repository, "send", "hi all", "--json")
    assert json.loads(out)["error"]["message"] == r"unknown recipient: @a\udcff"


async def test_a_word_that_is_no_utf_8_is_refused_by_its_number(repository: Path) -> None:
    status, _, err = await go(FakeDaemon(always(None)), repository, "send", "hi", "--to", "@a\udcff")
    assert status == 2
    assert err.startswith("Error: argument 4 is not UTF-8 (byte 3)\n")


# -- who


async def test_variables_choose_and_flags_override_the_identity(repository: Path) -> None:
    add_identity(repository, "max")

    @asynccontextmanager
    async def nobody(layout: Layout, autostart: bool) -> AsyncGenerator[Any]:
        raise DaemonUnavailable("no daemon is running for x")
        yield

    async def whoami(env: dict[str, str], *argv: str) -> dict[str, Any]:
        terminal = FakeTerminal([])
        made = Session(terminal, env, str(repository), True, nobody, clock=HandClock(NOW))
        await run(["whoami", "--json", *argv], made)
        return json.loads(terminal.out)

    me = await whoami({"THRUM_NAME": "max"})
    assert (me["agent_id"], me["source"], me["selected_by"]) == ("max", "environment", "thrum_name")
    me = await whoami({"THRUM_NAME": "max"}, "--role", "tester")
    assert (me["role"], me["source"]) == ("tester", "flags")
    assert (await whoami({"THRUM_NAME": "ghost"}))["error"]["kind"] == "identity_not_found"
    error = (await whoami({}))["error"]
    assert (error["kind"], error["details"]["candidates"]) == ("several_identities", ["max", "nux"])
    assert await whoami({"THRUM_NAME": "max"}, "--field", "branch") == {"branch": ""}


async def test_where_thrum_is_not_set_up_the_error_names_the_way(tmp_path: Path) -> None:
    daemon = FakeDaemon(always(None))
    status, out, _ = await go(daemon, tmp_path, "inbox", "--json")
    assert (status, json.loads(out)["error"]["kind"]) == (1, "not_a_repository")
    (tmp_path / ".git").mkdir()
    _, out, _ = await go(daemon, tmp_path, "inbox", "--json")
    assert json.loads(out)["error"]["kind"] == "not_initialized"
    _, out, _ = await go(daemon, Path("/"), "inbox", "--json", env={"THRUM_HOME": str(tmp_path)})
    assert "THRUM_HOME" in json.loads(out)["error"]["message"]


@pytest.mark.parametrize("name", ["x", "x y"])
async def test_the_fix_for_another_repository_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name / ".git").mkdir(parents=True)
    _, out, _ = await go(FakeDaemon(always(None)), tmp_path, "--repo", name, "team", "--json")
    assert json.loads(out)["error"]["remedy"] == f"thrum init --repo {shlex.quote(name)}"


async def test_registering_refuses_a_variable_that_names_another_worktree(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / ".git").mkdir(parents=True)
    argv = ("quickstart", "x", "--role", "r", "--module", "m", "--json")
    daemon = FakeDaemon(always(None))
    _, out, _ = await go(daemon, other, *argv, env={"THRUM_HOME": str(repository)})
    assert json.loads(out)["error"]["kind"] == "repo_conflict"


async def test_a_name_that_a_live_process_holds_is_refused(repository: Path) -> None:
    daemon = registering(conflict("name_held"), conflict("name_held"))
    status, out, err = await go(daemon, repository, *QUICK, "--json")
    document = json.loads(out)
    assert (status, err, document["error"]["kind"]) == (1, "", "conflict")
    assert document["register"]["status"] == "conflict"
    assert [name for name, _ in daemon.calls] == ["agent.register"] * 2


async def test_a_conflict_of_agent_register_is_an_answer_with_an_error_beside_it(repository: Path) -> None:
    daemon = registering(conflict("same_role_module"), conflict("same_role_module"))
    argv = ("agent", "register", "--name", "x", "--role", "tester", "--module", "auth")
    status, out, _ = await go(daemon, repository, *argv, "--json")
    document = json.loads(out)
    assert (status, document["agent_id"], document["error"]["kind"]) == (1, "", "conflict")
    _, out, err = await go(daemon, repository, *argv)
    assert out == ""
    assert err.startswith("Error: @max is already tester of auth\n  existing agent id: max\n")


async def test_a_dry_run_registers_nothing(repository: Path) -> None:
    daemon = FakeDaemon(always(None))
    _, out, _ = await go(daemon, repository, *QUICK, "--dry-run")
    assert (out, daemon.calls) == ("Would register @max (tester, auth)\n", [])


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        (["quickstart", "Bad-Name", "--role", "r", "--module", "m"], "invalid_name"),
        (["quickstart", "daemon", "--role", "r", "--module", "m"], "reserved_name"),
        (["quickstart", "x", "--role", "x", "--module", "m"], "name_equals_role"),
        (["quickstart", "x", "--module", "m"], "role_missing"),
        (["quickstart", "x", "--role", "r"], "module_missing"),
    ],
)
async def test_names_are_checked_before_a_daemon_is_asked(repository: Path, argv: list[str], kind: str) -> None:
    daemon = FakeDaemon(always(None))
    _, out, _ = await go(daemon, repository, *argv, "--json")
    assert (json.loads(out)["error"]["kind"], daemon.calls) == (kind, [])


async def test_no_active_agents_says_how_many_are_offline(repository: Path) -> None:
    offline = wire_types.TeamMember(
        agent_id="max", role="r", module="m", unmerged_commits=0, inbox_total=0, inbox_unread=0, status="offline"
    )

    def answer(method: str, params: TeamListParams) -> TeamListResult:
        return TeamListResult(members=(offline,) if params.include_offline else ())

    assert await go(FakeDaemon(answer), repository, "team") == (
        0,
        "No active agents. (1 offline: thrum team --all)\n",
        "",
    )


@pytest.mark.parametrize("argv", [[], ["--help"], ["send", "--help"], ["daemon"], ["help", "message", "get"], ["-v"]])
async def test_help_and_version_obey_json(repository: Path, argv: list[str]) -> None:
    daemon = FakeDaemon(always(None))
    status, out, _ = await go(daemon, repository, *argv, "--json")
    assert status == 0
    assert out.count("\n") == 1
    assert {"help", "version"} & set(json.loads(out))
    status, out, _ = await go(daemon, repository, *argv)
    assert status == 0 and out.strip()
