"""Where the quick parser answers, Cyclopts gives the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thrum.cli.parser import Command, split
from thrum.cli.quick_parser import SHIELD
from thrum.cli.table import COMMANDS
from thrum.model.errors import UsageError

TEXTS = st.sampled_from(
    [
        "",
        "hi",
        "two words",
        "@nux",
        "a=b",
        "--",
        "-",
        "-30s",
        "- item",
        "-x",
        "--to",
        "ü",
        "1",
        "true",
        "json",
        "\n",
        "=",
        "#",
    ]
)
TOPICS = list({id(command): command for command in COMMANDS.values()}.values())


@st.composite
def lines(draw: st.DrawFn) -> tuple[Command, list[str]]:
    command = draw(st.sampled_from(TOPICS))
    names = [name for flag in command.flags for name in flag.names] or ["--to"]
    token = st.one_of(
        TEXTS,
        st.sampled_from(names),
        st.tuples(st.sampled_from(names), TEXTS).map("=".join),
        st.tuples(st.sampled_from(names), TEXTS).map(list),
    )
    tokens: list[str] = []
    for drawn in draw(st.lists(token, max_size=6)):
        tokens += drawn if isinstance(drawn, list) else [drawn]
    return command, tokens


@given(lines())
def test_the_quick_parser_never_says_anything_else_than_cyclopts(line: tuple[Command, list[str]]) -> None:
    command, argv = line
    try:
        tokens = split(argv).tokens
    except UsageError:
        return
    quick = command.grammar.bind(tokens)
    if quick is None:
        return
    fully = command.bind_fully(tokens)
    assert (quick.args, quick.kwargs) == (fully.args, fully.kwargs), (command.name, argv)


def test_what_agents_type_all_day_needs_no_cyclopts() -> None:
    for argv in (
        ["send", "done", "--to", "@nux"],
        ["send", "--to", "@nux", "--to=@max", "--", "-v is the flag"],
        ["inbox"],
        ["inbox", "--unread"],
        ["wait"],
        ["reply", "msg_01", "yes"],
        ["team"],
    ):
        command = COMMANDS[(argv[0],)]
        assert command.grammar.bind(split(argv[1:]).tokens) is not None, argv
    assert SHIELD == "\0"
