"""What is typed first is understood, a reply goes to whom it concerns, and the sender hears what matters (cli.md §3.3,
§3.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.terminal import Terminal, open_terminal
from tests.support.daemon.in_process import Daemon, open_daemon
from thrum.cli import recipients
from thrum.identity.processes import Process
from thrum.model import clock


async def at_desk(daemon: Daemon) -> Terminal:
    """Furiosa's desk; nux, max and slit are there too."""
    desk = await open_terminal(daemon, "furiosa")
    for name, role in (("nux", "tester"), ("max", "reviewer"), ("slit", "reviewer")):
        await daemon.registered(name, role)
    return desk


def reached(document: dict[str, Any]) -> list[str]:
    return [each["agent_id"] for each in document["recipients"]]


TEXT = "hi there"


@pytest.mark.parametrize(
    ("argv", "recipients", "content"),
    [
        (["@nux", TEXT], ["nux"], TEXT),
        (["nux", TEXT], ["nux"], TEXT),
        (["@nux", "@max", TEXT], ["max", "nux"], TEXT),
        (["@reviewer", TEXT], ["max", "slit"], TEXT),
        (["@everyone", TEXT], ["max", "nux", "slit"], TEXT),
        (["@nux", TEXT, "--to", "@max"], ["max", "nux"], TEXT),
        (["-m", TEXT, "--to", "nux"], ["nux"], TEXT),
        (["--message", TEXT, "@nux"], ["nux"], TEXT),
        (["nux", f"--text={TEXT}"], ["nux"], TEXT),
        ([TEXT, "@nux"], ["nux"], TEXT),
        (["hi", "@nux"], ["nux"], "hi"),
        ([TEXT, "@nux", "@max"], ["max", "nux"], TEXT),
        (["@nux", TEXT, "@max"], ["max", "nux"], TEXT),
        (["@nux @max: look"], ["max", "nux"], "@nux @max: look"),
        (["-m", "@nux, look"], ["nux"], "@nux, look"),
        (["@nux look", "--to", "@slit"], ["nux", "slit"], "@nux look"),
    ],
)
async def test_what_everybody_types_first_is_understood(
    tmp_path: Path, argv: list[str], recipients: list[str], content: str
) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        sent = await desk.json("send", *argv)
        assert (reached(sent), sent.get("quiet", False)) == (recipients, False)
        found = await daemon.as_agent("furiosa")("message.get", message_id=sent["message_id"])
        assert found.message.body.content == content


@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (["@Override public"], ""),
        (["@nux @Override look"], ""),
        (["@reviewer look"], ""),
        (["@everyone look"], ""),
        (["-"], "@nux look"),
        ([], "@nux look"),
        (["@furiosa here: look"], ""),
    ],
)
async def test_code_roles_and_what_comes_from_stdin_address_nobody(tmp_path: Path, argv: list[str], stdin: str) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        assert (await desk.json("send", *argv, stdin=stdin))["quiet"]


async def test_stdin_is_the_body_where_no_text_is_given_and_a_lone_name_is_none(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        for argv in (["--to", "nux"], ["@nux"]):
            sent = await desk.json("send", *argv, stdin="a report\n")
            assert reached(sent) == ["nux"]
        answer = await desk.json("reply", sent["message_id"], stdin="more\n")
        found = await daemon.as_agent("nux")("message.get", message_id=answer["message_id"])
        assert found.message.body.content == "more"
        for argv in (["send", "@nux"], ["send"], ["reply", sent["message_id"]]):
            assert "TEXT is missing" in (await desk.refused(*argv, status=2))["message"]


async def test_words_that_are_no_recipient_are_refused_with_the_way_to_write_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        error = await desk.refused("send", "hello", "world", status=2)
        assert (await desk.refused("send", "hello", "nux", status=2))["remedy"].startswith(
            'put the name first, or after --to: thrum send "hello" --to @nux'
        )
        assert "hello is not an agent" in error["message"] and 'thrum send "TEXT" --to @NAME' in error["remedy"]
        error = await desk.refused("send", "nux", "hello", "world", status=2)
        assert "unexpected argument: hello world" in error["message"] and "--to" in error["remedy"]
        error = await desk.refused("send", "@nuks", "hi")
        assert (error["kind"], error["details"]["suggestions"]) == ("unknown_recipient", ["nux"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("done, ask @nux about it", "nux"),
        ("@reviewer please look", "reviewer"),
        ("@everyone look", "everyone"),
        ("@Nux look", "nux"),
        ("@nuks look", "nux"),
        ("mail me@nux.org, see src/@max", ""),
        ("nobody named, @else", ""),
    ],
)
async def test_a_text_for_the_team_that_names_somebody_says_that_it_woke_nobody(
    tmp_path: Path, text: str, name: str
) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        out = await desk.says("send", text)
        assert out.endswith("\n  To: team (3 agents, nobody woken)\n")
        hint = f'hint: @{name} in the text wakes no one: thrum send "TEXT" --to @{name}\n'
        assert desk.err.decode() == (hint if name else "")


def test_words_are_told_apart_without_asking_anybody() -> None:
    assert recipients.tell_apart([], has_body=False) == recipients.Typed()
    assert recipients.tell_apart(["@a b"], has_body=False) == recipients.Typed(text="@a b")
    assert recipients.tell_apart(["a", "b", "c"], has_body=False) == recipients.Typed(text="a", rest=("b", "c"))
    assert recipients.tell_apart(["@a", "b", "c"], has_body=False) == recipients.Typed(("@a",), text="b", rest=("c",))
    assert recipients.tell_apart(["x!", "y"], has_body=False) == recipients.Typed(text="x!", rest=("y",))
    assert recipients.tell_apart(["@a"], has_body=True) == recipients.Typed(("@a",))
    assert recipients.tell_apart(["-"], has_body=True) == recipients.Typed(text="-")


# -- replies


async def test_a_reply_goes_to_whom_it_concerns_and_says_what_it_answers(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        nux = daemon.as_agent("nux")
        text = "Token refresh\nis in, on branch auth. Who can look at the two cases that fail?"
        sent = await nux("message.send", content=text, to=["furiosa", "max", "@reviewer"])
        said = await desk.says("reply", sent.message_id, "me")
        shown = "Token refresh is in, on branch auth. Who can look at the tw…"
        assert said.splitlines()[1:] == [f"  In reply to: {sent.message_id} @nux: {shown}", "  To: @nux, @max"]
        for flag, line in (("--only-author", "@nux"), ("--all", "@nux, @max, @reviewer (3 recipients)")):
            assert (await desk.says("reply", sent.message_id, "me", flag)).splitlines()[2] == f"  To: {line}"
        broadcast = await nux("message.send", content="who is there?", to=["@everyone"])
        assert reached(await desk.json("reply", broadcast.message_id, "me")) == ["nux"]
        post = await nux("message.send", content="for all")
        assert reached(await desk.json("reply", post.message_id, "me")) == ["nux"]
        again = await desk.json("reply", post.message_id, "me", "--all")
        assert again["quiet"] and len(reached(again)) == 3


async def test_a_thread_is_gone_on_with_by_send(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        first = await daemon.as_agent("nux")("message.send", content="one", to=["furiosa"])
        reply = await desk.json("send", "two", "--thread", first.message_id)
        assert (reply["reply_to"], reached(reply)) == (first.message_id, ["nux"])
        nux = await daemon.as_agent("nux")("message.send", content="three", reply_to=reply["message_id"])
        on = await desk.json("send", "four", "--thread", reply["thread_id"], "--to", "@max")
        assert (on["reply_to"], on["thread_id"], reached(on)) == (nux.message_id, reply["thread_id"], ["max"])
        assert (await desk.refused("send", "x", "--thread", "thr_" + "0" * 26))["kind"] == "message_not_found"


# -- short references


async def test_ends_of_ids_last_and_names_stand_for_messages_everywhere(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        nux, max_ = daemon.as_agent("nux"), daemon.as_agent("max")
        assert (await desk.refused("reply", "last", "x"))["kind"] == "message_not_found"
        one = (await nux("message.send", content="one", to=["furiosa"])).message_id
        two = (await nux("message.send", content="two", to=["furiosa"])).message_id
        await max_("message.send", content="not to me", to=["nux"])
        assert (await desk.json("reply", "@nux", "x"))["reply_to"] == two
        assert (await desk.refused("reply", "@max", "x"))["kind"] == "message_not_found"
        await desk.says("message", "get", one[-4:].lower())
        assert (await desk.json("reply", "last", "x"))["reply_to"] == one
        await desk.says("inbox", "--page", "1")
        last = await desk.json("reply", "last", "x")
        assert last["reply_to"] == two
        assert (await desk.json("inbox", "--thread", last["message_id"][-6:]))["total"] == 3
        mine = last["message_id"]
        assert f"edited: {mine}" in await desk.says("message", "edit", mine[-5:], "y")
        assert f"deleted: {mine}" in await desk.says("message", "delete", mine[-5:], "--force")
        await desk.says("message", "read", one[-6:], "last")
        error = await desk.refused("message", "get", "zzz")
        assert error["kind"] == "message_not_found"


async def test_an_end_of_several_ids_is_refused_with_the_candidates(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        nux = daemon.as_agent("nux")
        sent = [await nux("message.send", content=str(number), to=["furiosa"]) for number in range(3)]
        ends = {each.message_id[-4:] for each in sent}
        assert len(ends) == 3
        view = daemon.ctx.view
        ids = [each.message_id for each in sent]
        alike = [ids[0][:-4] + ids[1][-4:], *ids[1:]]  # what no clock makes is made up
        setattr(type(view), "ids_in_steps", lambda _view: iter([alike]))  # noqa: B010
        try:
            error = await desk.refused("message", "get", ids[1][-4:])
        finally:
            delattr(type(view), "ids_in_steps")
        assert error["kind"] == "ambiguous_message"
        assert ids[1] in error["message"]


async def test_last_is_refused_while_another_authors_message_has_just_been_printed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        one = (await daemon.as_agent("nux")("message.send", content="one", to=["furiosa"])).message_id
        two = (await daemon.as_agent("max")("message.send", content="two", to=["furiosa"])).message_id
        await desk.says("inbox")
        error = await desk.refused("reply", "last", "x")
        assert (error["kind"], set(error["details"]["candidates"])) == ("ambiguous_message", {one, two})
        assert error["remedy"] == f'thrum reply {two[-6:]} "TEXT", or reply @max'
        error = await desk.refused("message", "get", "last")
        assert error["remedy"] == f"thrum message get {two[-6:]}, or get @max"
        assert f"{two[-6:]} by @max or {one[-6:]} by @nux" in error["message"]
        daemon.clock.ms += 5_001
        assert (await desk.json("reply", "last", "x"))["reply_to"] == two


async def test_last_is_what_this_process_was_shown_not_another_of_the_same_agent(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        nux = daemon.as_agent("nux")
        one = (await nux("message.send", content="one", to=["furiosa"])).message_id
        await desk.says("inbox")
        visitor = Terminal(desk.root, daemon.as_agent("furiosa", str(desk.root)))
        assert visitor.agent is not None
        visitor.agent.connection.evidence.tty = "/dev/pts/7"
        two = (await nux("message.send", content="two", to=["furiosa"])).message_id
        await visitor.says("message", "get", two)
        assert (await desk.json("reply", "last", "x"))["reply_to"] == one
        assert (await visitor.json("reply", "last", "x"))["reply_to"] == two


# -- what the sender hears


async def test_the_sender_hears_that_a_recipients_process_is_gone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        for pid, name in ((100, "rictus"), (200, "toast")):
            process = Process(pid, 1, f"boot/{pid}", 1.0, comm="claude")
            daemon.processes.processes[pid] = process
            await daemon.registered(name, "driver")
            again = daemon.as_agent("", str(tmp_path / f"w-{name}"), process)
            await again("agent.register", name=name, role="driver", module=name, re_register=True)
        desk.env["THRUM_NO_HINTS"] = "1"  # how long one was silent is another matter
        await desk.says("send", "hi", "--to", "@rictus", "--to", "@toast")
        reason = "no hooks: thrum hook install claude"
        assert desk.err.decode() == f"@rictus: {reason}\n@toast: {reason}\n"
        del daemon.processes.processes[100]
        await desk.says("send", "hi", "--to", "@driver", "--to", "@nux")
        assert desk.err == b"warning: @rictus is not running: they read it at the next start\n"
        await desk.says("send", "for all")
        assert desk.err == b"", "a post to the team wakes nobody anyway"


async def test_unknown_names_are_met_with_the_right_one(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        for argv in (
            ["send", "hi", "--to", "@NUX"],
            ["send", "hi", "--mention", "Nux"],
            ["wait", "--timeout", "0", "--mention", "@NUX"],
            ["wait", "--timeout", "0", "--mention", "nuks"],
        ):
            error = await desk.refused(*argv, status=2 if argv[0] == "wait" else 1)
            assert (error["kind"], error["details"]["suggestions"]) == ("unknown_recipient", ["nux"]), argv
            assert "did you mean @nux?" in error["remedy"]
        error = await desk.refused("wait", "--timeout", "0", "--from", "NUX", status=2)
        assert error["details"]["suggestions"] == ["nux"]
        assert await desk.status("wait", "--timeout", "0", "--mention", "@reviewer") == 1, "a role is nobody's mistake"


async def test_a_flag_that_was_quoted_with_the_text_is_told_of(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        for text, flag in (("hi --to qa", "--to"), ("hi --broadcast", "--broadcast"), ("hi --to=qa", "--to=qa")):
            (hint,) = (await desk.json("send", text))["hints"]
            assert hint["code"] == "send.flag-in-text"
            assert hint["message"].startswith(f"{flag} was sent as text; put flags outside the quotes")
        for text in ("--to is a flag of send", "use --to for that, please", "a\n--to qa", "rule ---"):
            assert "hints" not in await desk.json("send", text), text


async def test_of_ones_own_messages_last_is_the_newest_sent_one(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        assert (await desk.refused("message", "edit", "last", "x"))["message"] == "no message sent by @furiosa"
        theirs = (await daemon.as_agent("nux")("message.send", content="one", to=["furiosa"])).message_id
        await desk.says("inbox")
        first = (await desk.json("send", "first"))["message_id"]
        mine = await desk.json("send", "hi", "--thread", "last")
        assert mine["reply_to"] == theirs
        assert (await desk.json("message", "edit", "last", "y"))["message_id"] == mine["message_id"]
        assert (await desk.json("message", "delete", "last", "--yes"))["message_id"] == mine["message_id"]
        assert (await desk.json("message", "edit", "last", "y"))["message_id"] == first, "what was deleted is gone"


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("ABC", "give at least 4 characters of its end: thrum inbox; thrum sent"),
        ("nux", "did you mean @nux?"),
        ("nuxx", "did you mean @nux?"),
        ("slit", "did you mean @slit?"),
        ("@nuxx", "did you mean @nux?"),
        ("@Slit", "did you mean @slit?"),
        ("@slit", 'thrum send "TEXT" --to @slit'),
        ("@zzzzz", "thrum inbox; thrum team --all"),
        ("0ZZZ9", "thrum inbox; thrum sent"),
    ],
)
async def test_a_word_that_is_no_message_leads_to_what_was_meant(tmp_path: Path, word: str, remedy: str) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        error = await desk.refused("reply", word, "x")
        assert (error["kind"], error["remedy"]) == ("message_not_found", remedy)


async def test_several_recipients_in_one_word_are_told_apart(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        for word in ("nux max", "@nux,@max", "nux, max"):
            error = await desk.refused("send", "hi", "--to", word)
            assert error["remedy"] == "one --to for each: --to @nux --to @max"


async def test_a_name_alone_is_no_text_and_the_overrides_of_ones_own_role_are_no_recipients(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        await desk.says("group", "create", "core")
        for name, meant in (
            ("nux", "nux"),
            ("Nux", "nux"),
            ("@nux", "nux"),
            ("reviewer", "reviewer"),
            ("core", "core"),
        ):
            error = await desk.refused("send", name, status=2)
            assert error["message"] == "send: TEXT is missing"
            assert error["remedy"].startswith(f'thrum send "TEXT" --to @{meant};'), error
        piped = await desk.json("send", "nux", stdin="from a pipe\n")
        assert reached(piped) == ["nux"]
        assert reached(await desk.json("send", "nux", "--to", "@max")) == ["max"], "then it is the text"
        assert (await desk.json("send", "done")).get("quiet")
        parent = (await desk.json("send", "x", "--to", "@nux"))["message_id"]
        for argv, advice in (
            (("send", "x", "--role", "tester"), 'thrum send "TEXT" --to @tester'),
            (("send", "x", "--module", "auth"), 'thrum send "TEXT" --scope module:auth'),
            (("reply", parent, "x", "--role", "tester"), f'thrum send "TEXT" --thread {parent} --to @tester'),
        ):
            error = await desk.refused(*argv, status=2)
            assert error["remedy"].startswith(advice), error
        for flag in ("--important", "--priority=high"):
            assert "each --to wakes" in (await desk.refused("send", "x", flag, status=2))["remedy"]


async def test_flags_say_whom_a_message_wakes_and_what_it_replaces(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        nux = daemon.as_agent("nux")
        first = await desk.json("send", "at 3", "--to", "@nux", "--urgent")
        end = first["message_id"][-6:]
        said = await desk.says("send", "at 4", "--supersedes", end, "--no-wake", "--expires", "2h")
        assert "To: @nux (nobody woken)" in said
        told = await nux("message.wait", timeout_ms=0)
        assert told.status == "timeout", "one was replaced, the other wakes nobody"
        second, shown = (await nux("message.list", for_agent="nux")).messages
        assert (shown.urgent, shown.superseded_by) == (True, second.message_id)
        assert (second.quiet, second.supersedes) == (True, first["message_id"])
        assert second.expires_at == clock.format_ms(clock.parse_ms(second.created_at) + 7_200_000)
        sent = await desk.says("sent")
        assert f"{first['message_id']}" in sent and f"(urgent)  (superseded by {second.message_id[-6:]})" in sent
        got = await desk.says("message", "get", end)
        assert f"Status:  urgent, superseded by {second.message_id[-6:]}" in got
        asked = await nux("message.send", content="why?", to=["@furiosa"])
        await desk.json("reply", asked.message_id, "because", "--supersedes", "last", "--urgent")
        [answer] = (await nux("message.wait", timeout_ms=0)).messages
        assert (answer.supersedes, answer.urgent, answer.reply_to) == (second.message_id, True, asked.message_id)


@pytest.mark.parametrize(
    ("flags", "kind", "status"),
    [
        (["--urgent", "--no-wake"], "usage", 2),
        (["--expires", "soon"], "bad_duration", 2),
        (["--expires", "0s"], "usage", 2),
        (["--supersedes", "ZZZZZZ"], "message_not_found", 1),
    ],
)
async def test_flags_that_say_nothing_sensible_are_refused_and_nothing_is_sent(
    tmp_path: Path, flags: list[str], kind: str, status: int
) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        before = daemon.store.view.head_seq()
        assert (await desk.refused("send", "hi there", "--to", "@nux", *flags, status=status))["kind"] == kind
        assert daemon.store.view.head_seq() == before


async def test_nobody_is_woken_by_an_urgent_word_to_the_team_and_it_says_so(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        desk = await at_desk(daemon)
        error = await desk.refused("send", "hi there", "--urgent")
        assert "wakes no one" in error["message"] and "--to @NAME --urgent" in error["remedy"]
