"""argv, usage errors, help and completion: everything that needs no daemon."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrum.cli import completion, help
from thrum.cli.app import help_answer
from thrum.cli.parser import GLOBAL_FLAGS, find, near, split, wants_json
from thrum.cli.suggestions import MEANINGS, OF_SEVERAL
from thrum.cli.table import COMMANDS, GROUPS, HELP_GROUPS
from thrum.model.errors import UsageError

W1 = """init|quickstart|agent register|agent list|agent whoami|whoami|send|reply|inbox|sent|message get|message edit
message delete|message read|wait|watch|team|daemon start|daemon stop|daemon restart|daemon status|daemon logs|demo
version|help|completion"""


def parse(*argv: str) -> dict[str, Any]:
    line = split(argv)
    command, _, rest = find(line.tokens, COMMANDS, GROUPS)
    assert command is not None
    return dict(command.bind(rest).arguments)


def refusal(*argv: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    return caught.value


def test_every_command_of_the_first_wave_is_there() -> None:
    expected = {
        tuple(name.split()) for name in W1.replace("init quickstart", "init|quickstart").replace("\n", "|").split("|")
    }
    assert expected <= set(COMMANDS)


def test_flags_may_stand_before_and_after_and_be_joined_by_an_equals_sign() -> None:
    same = {"words": ("hi",), "to": ("@a", "@b"), "scope": ("module:auth",)}
    assert parse("send", "hi", "--to", "@a", "--to=@b", "--scope", "module:auth") == same
    assert parse("send", "--to", "@a", "--to=@b", "--scope=module:auth", "hi") == same


@pytest.mark.parametrize(
    "text", ["- a list\n- in markdown", "-", "--- rule", "-30 degrees", "-1", "", "@x", "--", "[1]"]
)
def test_a_text_that_begins_with_a_dash_is_a_text(text: str) -> None:
    argv = ("send", "--", text) if text == "--" else ("send", text)
    assert parse(*argv) == {"words": (text,)}


def test_an_empty_value_that_says_something_is_one() -> None:
    expected = {"intent": "", "display": "", "runtime": ""}
    assert parse("quickstart", "--intent", "", "--display=", "--runtime", "") == expected
    assert parse("send", "") == {"words": ("",)}


def test_a_value_may_begin_with_a_dash() -> None:
    assert parse("wait", "--after", "-30s") == {"after": "-30s"}
    assert parse("quickstart", "--intent", "-x") == {"intent": "-x"}


def test_after_two_dashes_nothing_is_a_flag() -> None:
    line = split(["send", "--json", "--", "--json"])
    assert line.flags.json
    assert parse("send", "--", "--to") == {"words": ("--to",)}
    assert not wants_json(["send", "--", "--json"])


def test_commas_never_split_and_an_empty_string_is_a_value() -> None:
    assert parse("send", "hi", "--to", "a,b")["to"] == ("a,b",)
    assert parse("quickstart", "--intent", "") == {"intent": ""}
    assert parse("send", "hi", "--to", '["a"]')["to"] == ('["a"]',)


def test_global_flags_stand_anywhere() -> None:
    for argv in (["--json", "--repo", "/x", "inbox"], ["inbox", "--repo=/x", "--json"]):
        line = split(argv)
        assert (line.flags.json, line.flags.repo, line.tokens) == (True, "/x", ("inbox",))
    flags = split(["agent", "--role", "tester", "list", "--module=auth", "--quiet", "--verbose", "-h"]).flags
    assert (flags.role, flags.module, flags.quiet, flags.verbose, flags.help) == ("tester", "auth", True, True, True)


def test_a_global_flag_without_its_value_is_named() -> None:
    with pytest.raises(UsageError, match="--role needs a value"):
        split(["send", "hi", "--role"])


@pytest.mark.parametrize(
    ("argv", "message", "advice"),
    [
        (["frobnicate"], 'unknown command "frobnicate"', "thrum help"),
        (["inbx"], 'unknown command "inbx"', "did you mean inbox"),
        (["message", "gett"], 'unknown command "message gett"', "did you mean message get"),
        (
            ["backup", "create"],
            'unknown command "backup create"',
            "did you mean backup?",
        ),
        (["backup", "stat"], 'unknown command "backup stat"', "did you mean backup status?"),
        (["send", "hi", "--tp", "x"], "send: unknown flag --tp", "did you mean --to?"),
        (
            ["reply", "a", "b", "c"],
            "reply: unexpected argument: c",
            'quote the text: thrum reply a "…"; thrum help reply',
        ),
        (["context", "save", "a", "b"], "unexpected argument: b", 'quote the text: thrum context save "…"; thrum help'),
        (
            ["reply", "last", "x", "--to", "boss"],
            "unknown flag --to",
            'thrum send "TEXT" --to @boss --thread last; thrum',
        ),
        (["reply", "--to=x y"], "unknown flag --to", 'thrum send "TEXT" --to @NAME --thread MSG_ID'),
        (["send", "hi", "-to", "x"], "unknown flag -to", "did you mean --to?"),
        (["send", "hi", "--broad"], "unknown flag --broad", "did you mean --broadcast?"),
        (["send", "hi", "--colour", "x"], "unknown flag --colour", "usage: thrum send [[@X…] TEXT] [FLAGS]; thrum"),
        (["wait", "10s"], "unexpected argument: 10s", "thrum wait --timeout 10s; thrum help wait"),
        (["inbox", "--last"], "unknown flag --last", "thrum message get last"),
        (
            ["sync", "enable", "--remote", "x"],
            "unknown flag --remote",
            "thrum config set sync.remote x, then thrum sync enable",
        ),
        (["watch", "--timeout", "1s"], "unknown flag --timeout", "thrum wait --timeout"),
        (["reply"], "reply: MSG_ID is missing", "usage: thrum reply MSG_ID [TEXT]"),
        (["send", "hi", "--to"], "send: --to needs a value", "usage: thrum send"),
        (["inbox", "--page", "x"], 'inbox: --page must be a whole number, not "x"', "usage: thrum inbox"),
        (["inbox", "--page", "1", "--page", "2"], "inbox: --page is given twice", "usage: thrum inbox"),
        (["send", "hi", "--format", "xml"], "must be one of markdown, plain, json", "usage"),
        (["completion", "tcsh"], 'SHELL must be one of bash, zsh, fish, not "tcsh"', "usage"),
        (["--frob"], "unknown flag --frob", "thrum help"),
        (["inbox", "--no-unread"], "unknown flag --no-unread", "did you mean --unread"),
        (["inbox", "--json=1"], "inbox: --json takes no value", "usage: thrum inbox"),
        (["send", "-hello"], "send: unknown flag -hello", "put a text that begins with a dash last, after --"),
        (["inbox", "-x"], "inbox: unknown flag -x", "usage: thrum inbox"),
        (["inbox", "--thread", ""], "inbox: --thread needs a value", "usage: thrum inbox"),
        (["inbox", "--from="], "inbox: --from needs a value", "usage: thrum inbox"),
        (["send", "hi", "--to", "a", "--to", ""], "send: --to needs a value", "usage: thrum send"),
        (["send", "hi", "--structured", ""], "send: --structured needs a value", "usage: thrum send"),
        (["inbox", "--repo="], "--repo needs a value", "--repo PATH"),
        (["inbox", "--repo", ""], "--repo needs a value", "--repo PATH"),
    ],
)
def test_words_that_cannot_be_parsed_are_refused_with_the_way_to_write_them(
    argv: list[str], message: str, advice: str
) -> None:
    error = refusal(*argv)
    assert error.status == 2
    assert message in error.message
    assert advice in error.remedy
    assert len(error.remedy) < 160, "an agent pays for each word"


def test_close_spellings_are_details_too() -> None:
    assert refusal("inbx").details["suggestions"][0] == "inbox"
    assert near("@nuks", ["nux", "max"]) == ["nux"]


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), max_size=6))
def test_any_argv_is_parsed_or_refused_as_usage(argv: list[str]) -> None:
    for command in ("send", "inbox", "message read"):
        try:
            parse(*command.split(), *argv)
        except (UsageError, AssertionError):
            pass


@given(st.text(st.characters(exclude_characters="\0")))
def test_every_text_can_be_sent(text: str) -> None:
    assert parse("send", "--", text) == {"words": (text,)}


def test_a_command_parsed_twice_remembers_nothing() -> None:
    assert parse("send", "a", "--to", "x") == {"words": ("a",), "to": ("x",)}
    assert parse("send", "b") == {"words": ("b",)}


# -- help


def test_the_root_help_has_a_line_for_every_command_and_all_global_flags() -> None:
    text = help_answer((), 0).data
    lines = text.split("\n")
    for path, command in COMMANDS.items():
        if not command.listed:
            assert f"thrum {command.name}" in help_answer(path[:1], 0).data
            assert not re.search(rf"^  {command.name}  ", text, re.MULTILINE)
        elif command.path == path:
            assert any(line.startswith(f"  {command.name} ") for line in lines), command.name
    assert all(flag in text for flag in GLOBAL_FLAGS)
    assert [line.rstrip(":") for line in lines if line.rstrip(":") in HELP_GROUPS] == list(HELP_GROUPS)


EACH_ONCE = [command for path, command in sorted(COMMANDS.items()) if path == command.path]


@pytest.mark.parametrize("command", EACH_ONCE)
def test_every_command_explains_each_of_its_words_and_flags(command: Any) -> None:
    text = help.command_help(command, (), 0)
    assert text.startswith(f"Usage: thrum {command.name}")
    parameters = [name for name in inspect.signature(command.handler).parameters if name != "run"]
    assert len(command.flags) == len(parameters)
    for flag in command.flags:
        assert flag.metavar or flag.names, command.name
        assert flag.help or not flag.names, f"{command.name} {flag.names}"
        assert all(name in text for name in flag.names)


def test_help_fits_its_width() -> None:
    for path in COMMANDS:
        text = help_answer(path, 72).data
        assert max(len(line) for line in text.split("\n")) <= 72, path


def test_a_group_alone_explains_its_commands() -> None:
    text = help_answer(("daemon",), 0).data
    assert "daemon restart" in text and "daemon logs" in text
    assert "unknown command" in refusal("daemon", "sing").message


def test_a_group_lists_each_command_once() -> None:
    for group in GROUPS:
        lines = [line for line in (help_answer((group,), 0).data or "").split("\n") if line.startswith("  ")]
        assert len(lines) == len(set(lines)), group


def test_an_alias_has_the_help_of_its_command() -> None:
    answer = help_answer(("agent", "whoami"), 0)
    assert answer.document["command"] == "whoami"
    assert "Also: thrum agent whoami" in answer.data


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_know_every_command_and_flag(shell: completion.Shell) -> None:
    text = completion.script(shell, COMMANDS, GROUPS)
    for path, command in COMMANDS.items():
        assert path[-1] in text
        for flag in command.flags:
            assert all(name.lstrip("-") in text for name in flag.names)


def test_the_usage_shows_the_global_flags_that_a_command_lives_by() -> None:
    assert COMMANDS[("quickstart",)].usage.startswith("thrum quickstart [NAME] --role R --module M [--name N]")
    assert COMMANDS[("agent", "list")].usage == "thrum agent list [--role R] [--module M] [--context]"


ASKING = {
    "init",
    "message delete",
    "agent delete",
    "agent cleanup",
    "group delete",
    "sync enable",
    "purge",
    "config accept",
    "hook install",
    "backup restore",
    "uninstall",
}
"""Commands that ask, or refuse without a word of confirmation."""


def test_every_command_that_asks_takes_yes_and_what_it_took_before() -> None:
    asks = ("confirm(", "_ask_each(", "_ask(", "ConfirmationRequired(", "dry_run=not yes")
    found = {each.name for each in COMMANDS.values() if any(ask in inspect.getsource(each.handler) for ask in asks)}
    assert found == ASKING
    names = {each: {name for flag in COMMANDS[tuple(each.split())].flags for name in flag.names} for each in ASKING}
    assert [each for each in sorted(ASKING) if "--yes" not in names[each]] == []
    for line in (
        "message delete MSG --force",
        "agent cleanup --force",
        "group delete G --force",
        "purge --all --confirm",
    ):
        command, _, rest = find(line.split(), COMMANDS, GROUPS)
        assert command is not None and command.bind(rest).arguments["yes"], line


@pytest.mark.parametrize(
    ("line", "suggested"),
    [
        ("read", "message read"),
        ("unread", "inbox"),
        ("notify", "send"),
        ("ack", "message read"),
        ("restore", "backup restore"),
        ("search", "inbox --search"),
        ("serach", "inbox --search"),
        ("list", "agent list"),
        ("register", "quickstart"),
        ("stop", "daemon stop"),
        ("logs", "daemon logs"),
        ("inbx", "inbox"),
        ("set-status", "agent set-status"),
        ("message lst", "inbox"),
        ("message list", "inbox"),
        ("message raed", "message read"),
        ("daemon log", "daemon logs"),
        ("daemon kill", "daemon stop"),
        ("context write", "context save"),
        ("sync now", "sync force"),
        ("config lst", "config show"),
        ("group new", "group create"),
        ("group rm core", "group delete"),
        ("group rm core nux", "group remove"),
        ("intent x", "session set-intent"),
        ("task x", "session set-task"),
        ("rename nux2", "agent rename"),
    ],
)
def test_a_word_that_is_no_command_is_understood_by_its_meaning_at_every_level(line: str, suggested: str) -> None:
    error = refusal(*line.split())
    assert error.details["suggestions"][0] == suggested
    assert error.remedy.startswith(f"did you mean {suggested}")


@pytest.mark.parametrize(
    ("line", "suggested"),
    [
        ("inbox -u", "--unread"),
        ("inbox -V", "--verbose or --version"),
        ("agent list -r tester", "--role or --repo"),
        ("wait -t 5m", "--timeout"),
        ("send hi -t nux", "--text or --to or --thread"),
        ("inbox -j", "--json"),
    ],
)
def test_a_letter_is_understood_as_the_flag_that_it_begins(line: str, suggested: str) -> None:
    command, _, rest = find(line.split(), COMMANDS, GROUPS)
    assert command is not None
    with pytest.raises(UsageError) as caught:
        command.bind(rest)
    assert f"did you mean {suggested}?" in caught.value.remedy


def test_every_meaning_is_a_command_and_no_meaning_is_in_its_way() -> None:
    for group, words in MEANINGS.items():
        for word, meaning in words.items():
            path = tuple(f"{group} {word}".split())
            assert path not in COMMANDS and (group or word not in GROUPS), path
            command, _, _ = find(meaning.split(), COMMANDS, GROUPS)
            assert command is not None, meaning
    assert all(tuple(meaning.split()) in COMMANDS for meaning in OF_SEVERAL.values())
    assert "restore" not in refusal("restor").remedy, "nobody is led to what replaces all there is by a slip"


def test_help_in_the_place_of_a_text_is_a_text() -> None:
    for asks in ("--help", "-h", "--version", "-v"):
        assert parse("quickstart", "--intent", asks)["intent"] == asks
        assert parse("send", "--", asks)["words"] == (asks,)
        for line in (("send", asks), ("send", "hi", asks), ("send", "--to", asks), ("quickstart", "--name", asks)):
            flags = split(line).flags
            assert flags.help or flags.version, line
    assert split(("--message", "--help", "--help")).flags.help
    assert not split(("send", "-m", "--help")).flags.help
