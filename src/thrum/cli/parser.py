"""argv → a command and its values. Cyclopts reads a command's flags off its signature; the rest of the grammar is here.

A command is an async function: what comes before `/` are its words, the rest its flags, and `run` what it runs on.
The plain ones don't even need Cyclopts (`quick`); it builds a command's arguments once and keeps them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import cyclopts
from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from thrum.cli.quick_parser import FLAG, SHIELD, Grammar
from thrum.cli.suggestions import INSTEAD_OF_FLAGS, MEANINGS, filled, likely_commands
from thrum.model.addressing import suggest
from thrum.model.durations import has_unit
from thrum.model.errors import UsageError
from thrum.model.limits import suggestions_max

Handler = Callable[..., Awaitable[Any]]

Use = Literal["act", "look", "unguarded", "prime"]
"""What a command does in an agent's name: it writes, it only looks, or it is `prime`, which claims a process and else
looks. Of an `unguarded` one the guard `cross_worktree` is not asked beforehand: it does nothing in an agent's name, or
what it may do is judged elsewhere, as for `quickstart` and `config set`. One that says nothing acts."""

RUN: Final = Parameter(parse=False)
"""Marks the parameter `run`, which is handed in and never parsed."""


def word(metavar: str, help: str = "") -> Parameter:
    """A word without a flag: TEXT, MSG_ID."""
    return Parameter(help=f"{metavar}\t{help}")


def option(metavar: str, help: str, *names: str) -> Parameter:
    """A flag with a value, which may begin with a dash; `names` when they don't follow from the parameter's."""
    return Parameter(name=names or None, help=f"{metavar}\t{help}", allow_leading_hyphen=True)


def switch(help: str, *names: str) -> Parameter:
    """A flag without a value."""
    return Parameter(name=names or None, help=f"\t{help}")


@dataclass(frozen=True, slots=True)
class Globals:
    """The flags that every command takes, before or after its words."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    help: bool = False
    version: bool = False
    role: str = ""
    module: str = ""
    repo: str = ""


_SWITCHES: Final[Mapping[str, str]] = {
    "--json": "json",
    "--quiet": "quiet",
    "--verbose": "verbose",
    "--help": "help",
    "-h": "help",
    "--version": "version",
    "-v": "version",
}
_TEXT_FLAGS: Final = frozenset(
    {"-m", "--message", "--text", "--intent", "--reason", "--display", "--description", "--search"}
)
_ASKS: Final = frozenset({"--help", "-h", "--version", "-v"})
"""Behind a flag of `_TEXT_FLAGS` they are the text: who writes a text about them wants no help with it."""
_VALUES: Final = ("role", "module", "repo")
_MAY_BE_EMPTY: Final = frozenset({"display", "intent", "reason", "runtime"})
"""Parameters whose empty value says something. Of the others it is a variable that the shell did not have."""
GLOBAL_FLAGS: Final[Mapping[str, str]] = {
    "--json": "print one JSON document on stdout",
    "--quiet": "print no success lines, hints or headers",
    "--verbose": "print diagnostics on stderr",
    "--role R": "override the identity's role for this command; in lists: filter by it",
    "--module M": "override the identity's module likewise",
    "--repo PATH": "work on the repository that contains PATH",
    "-h, --help": "print the help of this command",
    "-v, --version": "print the version",
}


@dataclass(frozen=True, slots=True)
class Line:
    """argv without the global flags. Tokens that are no flags although they begin with a dash carry the shield."""

    flags: Globals
    tokens: tuple[str, ...]


def split(argv: Sequence[str]) -> Line:
    """Take the global flags out, wherever they stand; after `--`, and where a flag's text stands, nothing is a flag.
    Raises UsageError.
    """
    found: dict[str, Any] = {}
    tokens: list[str] = []
    position = 0
    while position < len(argv):
        token = argv[position]
        position += 1
        if token == "--":
            tokens += [SHIELD + rest for rest in argv[position:]]
            break
        name, equals, value = token.partition("=")
        if token in _TEXT_FLAGS and argv[position : position + 1] and argv[position] in _ASKS:
            tokens += [token, SHIELD + argv[position]]
            position += 1
        elif token in _SWITCHES:
            found[_SWITCHES[token]] = True
        elif name.startswith("--") and name[2:] in _VALUES:
            if not equals:
                if position == len(argv):
                    raise UsageError(f"{name} needs a value", remedy=f"{name} VALUE; thrum help")
                value = argv[position]
                position += 1
            if name == "--repo" and not value:
                raise UsageError("--repo needs a value", remedy="--repo PATH; thrum help")
            found[name[2:]] = value
        elif token.startswith("-") and FLAG.fullmatch(token) is None:
            tokens.append(SHIELD + token)
        else:
            tokens.append(token)
    return Line(Globals(**found), tuple(tokens))


def wants_json(argv: Sequence[str]) -> bool:
    """Whether `--json` is among the flags, also when the rest cannot be parsed."""
    return "--json" in argv[: argv.index("--") if "--" in argv else len(argv)]


class _App(App):
    """An App that assembles a command's arguments once and hands out copies of them."""

    kept: ArgumentCollection | None = None

    def assemble_argument_collection(
        self, *, default_parameter: Parameter | None = None, parse_docstring: bool = False
    ) -> ArgumentCollection:
        if self.kept is None:
            self.kept = super().assemble_argument_collection(
                default_parameter=default_parameter, parse_docstring=parse_docstring
            )
        return self.kept.copy(reset_tokens=True)


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag or word of a command, for usage, help and completion."""

    names: tuple[str, ...]
    """Empty for a word."""
    metavar: str
    help: str
    repeatable: bool
    required: bool
    choices: tuple[str, ...] = ()
    parameter: str = ""
    """Its name in the handler."""

    @property
    def shown(self) -> str:
        """As it stands in a usage line."""
        if not self.names:
            text = self.metavar + ("…" if self.repeatable and " " not in self.metavar else "")
            return text if self.required else f"[{text}]"
        text = "/".join(self.names) + (f" {self.metavar}" if self.metavar else "")
        return text if self.required else f"[{text}]" + ("…" if self.repeatable else "")


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One command: its words, what it does in a line, and the function that does it."""

    path: tuple[str, ...]
    handler: Handler
    summary: str
    group: str
    notes: str = ""
    """Further lines of its help."""
    takes: str = ""
    """Global flags that belong to what it does, for the usage line."""
    completes: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its first word may be, each with a line of help, for the completion of the shells."""
    use: Use = "act"
    """What it does in an agent's name: see `used`."""
    look_with: tuple[str, ...] = ()
    """Parameters with any of which it only looks: without, it marks as read."""
    look_without: tuple[str, ...] = ()
    """Parameters without which it only looks: with one, it writes."""
    listed: bool = True
    """Whether the list of all commands has it; else the help of the command above names it."""
    guessed: bool = True
    """Whether it is suggested for a word that is spelled like it: what replaces all there is, never."""
    error_status: int = 0
    """The exit status of every error of it (cli.md §1.4); 0: each error has its own."""
    silent: bool = False
    """Whether what is wrong goes into thrum's own log alone, and the status is 0: it is a program that calls."""

    def used(self, arguments: Mapping[str, Any]) -> Use:
        """What it does in an agent's name with these arguments (identity.md §12)."""
        given = arguments.get
        is_look = any(given(name) for name in self.look_with) or (
            bool(self.look_without) and not any(given(name) for name in self.look_without)
        )
        return "look" if is_look else self.use

    @property
    def name(self) -> str:
        return " ".join(self.path)

    @property
    def flags(self) -> tuple[Flag, ...]:
        return _flags(self)

    @property
    def grammar(self) -> Grammar:
        return _grammar(self)

    @property
    def usage(self) -> str:
        """`thrum send TEXT [--to X]…`"""
        shown = [flag.shown for flag in self.flags]
        words = sum(not flag.names for flag in self.flags)
        return " ".join(part for part in ("thrum", *self.path, *shown[:words], self.takes, *shown[words:]) if part)

    @property
    def usage_in_short(self) -> str:
        """The same without the flags, where they are many: an agent pays for each."""
        whole = self.usage
        if len(whole) <= _USAGE_CHARS_MAX:
            return whole
        shown = [flag.shown for flag in self.flags if not flag.names or flag.required]
        return " ".join(part for part in ("thrum", *self.path, *shown, self.takes, "[FLAGS]") if part)

    def bind(self, tokens: Sequence[str]) -> inspect.BoundArguments:
        """The values for the handler, all but `run`. Raises UsageError."""
        quick = self.grammar.bind(tokens)
        bound = self.bind_fully(tokens) if quick is None else quick
        self._check_empty(bound)
        return bound

    def bind_fully(self, tokens: Sequence[str]) -> inspect.BoundArguments:
        """What `bind` gives, by Cyclopts alone. Raises UsageError."""
        try:
            _, bound, _ = _app(self).parse_args(list(tokens), exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise self._usage_error(error, tokens) from None
        for name, value in bound.arguments.items():
            if isinstance(value, str):
                bound.arguments[name] = value.removeprefix(SHIELD)
            elif isinstance(value, tuple):
                words = cast("tuple[str, ...]", value)
                bound.arguments[name] = tuple(each.removeprefix(SHIELD) for each in words)
        return bound

    def _check_empty(self, bound: inspect.BoundArguments) -> None:
        """Refuse a flag's empty value: `--thread "$ID"` without an ID would be the whole inbox."""
        for name, value in bound.arguments.items():
            if value != "" and not (isinstance(value, tuple) and "" in value):
                continue
            flag = next(each for each in self.flags if each.parameter == name)
            if flag.names and name not in _MAY_BE_EMPTY:
                raise self.error(f"{flag.names[0]} needs a value")

    def error(self, message: str, advice: str = "", **details: Any) -> UsageError:
        """A usage error of this command: what is wrong, and how it is written: by `advice`, else in short."""
        remedy = f"{advice or f'usage: {self.usage_in_short}'}; thrum help {self.name}"
        return UsageError(f"{self.name}: {message}", remedy=remedy, **details)

    def _usage_error(self, error: CycloptsError, tokens: Sequence[str]) -> UsageError:
        names = [name for flag in self.flags for name in flag.names]
        match error:
            case UnknownOptionError():
                return self._unknown_flag(error.token.keyword or error.token.value, names, tokens)
            case UnusedCliTokensError():
                words = [token.removeprefix(SHIELD) for token in error.unused_tokens or ()]
                return self.error(f"unexpected argument: {' '.join(words)}", self._too_many(tokens, words))
            case MissingArgumentError() if error.keyword:
                return self.error(f"{error.keyword} needs a value")
            case MissingArgumentError() if error.argument is not None:
                return self.error(f"{_described(error.argument).metavar} is missing")
            case RepeatArgumentError():
                return self.error(f"{error.token.keyword or error.token.value} is given twice")
            case CoercionError() if error.argument is not None and error.token is not None:
                flag = _described(error.argument)
                value = error.token.value.removeprefix(SHIELD)
                number = "true or false" if not flag.metavar else "a whole number"
                expected = f"one of {', '.join(flag.choices)}" if flag.choices else number
                return self.error(f'{error.token.keyword or flag.metavar} must be {expected}, not "{value}"')
            case _:
                return self.error(" ".join(str(error).replace(SHIELD, "").split()))

    @property
    def _takes_text(self) -> bool:
        return any(not flag.names and flag.metavar.endswith("TEXT") for flag in self.flags)

    def _too_many(self, tokens: Sequence[str], words: Sequence[str]) -> str:
        """How to write a line with words too many."""
        if not self._takes_text:
            is_span = any("--timeout" in flag.names for flag in self.flags) and has_unit(words[0])
            return f"thrum {self.name} --timeout {words[0]}" if is_span else ""
        before = [flag.metavar for flag in self.flags if not flag.names and not flag.metavar.endswith("TEXT")]
        typed = tokens[: len(before)]
        shown = before if any(each.startswith(("-", SHIELD)) for each in typed) else typed
        return f'quote the text: {" ".join(("thrum", *self.path, *shown))} "…"'

    def _unknown_flag(self, unknown: str, names: list[str], tokens: Sequence[str]) -> UsageError:
        name, _, value = unknown.partition("=")
        if name in _SWITCHES:
            return self.error(f"{name} takes no value")
        message = f"unknown flag {unknown}"
        if instead := INSTEAD_OF_FLAGS.get((self.name, name)):
            return self.error(message, filled(instead, name, value, tokens))
        everywhere = [*_SWITCHES, *(f"--{each}" for each in _VALUES)]
        # One dash and more than a letter is rather a text than a misspelt flag.
        if name[1] != "-" and f"-{name}" not in names:
            text = "put a text that begins with a dash last, after --" if self._takes_text and len(name) > 2 else ""
            close = [] if text else _abbreviated(name, [*names, *everywhere])
            return self.error(message, text or did_you_mean(close), suggestions=close or None)
        close = near_flags(name, names, everywhere)
        return self.error(message, did_you_mean(close), suggestions=close or None)


_USAGE_CHARS_MAX: Final = 80


@functools.cache
def _app(command: Command) -> _App:
    app = _App(
        name=command.name,
        help_flags=(),
        version_flags=(),
        default_parameter=Parameter(negative=(), json_list=False, json_dict=False, show_default=False),
    )
    app.default(command.handler)
    return app


@functools.cache
def _grammar(command: Command) -> Grammar:
    return Grammar(_app(command).assemble_argument_collection(), command.handler)


@functools.cache
def _flags(command: Command) -> tuple[Flag, ...]:
    arguments = _app(command).assemble_argument_collection()
    return tuple(_described(argument) for argument in arguments if argument.parse)


def _described(argument: cyclopts.Argument) -> Flag:
    metavar, _, help = (argument.parameter.help or "").partition("\t")
    hint = argument.hint
    choices = getattr(hint, "__args__", ()) if getattr(hint, "__origin__", None) is not tuple else ()
    return Flag(
        names=() if argument.index is not None else tuple(argument.names),
        metavar=metavar,
        help=help,
        repeatable=getattr(hint, "__origin__", None) is tuple,
        required=argument.required,
        choices=tuple(str(choice) for choice in choices if isinstance(choice, str)),
        parameter=argument.field_info.name,
    )


def near(text: str, names: Iterable[str], least: float = 0.5) -> list[str]:
    """The names closest in spelling, best first; dashes and `@` don't count."""
    bare = {name.lstrip("-@"): name for name in names}
    return [bare[close] for close in suggest(text.lstrip("-@"), bare, least)]


_CLOSE: Final = 0.65
"""Below it a spelling is another word: nothing said is better than nonsense."""
_VERY_CLOSE: Final = 0.8


def near_flags(name: str, own: Sequence[str], everywhere: Sequence[str]) -> list[str]:
    """Suggested flags: those that begin with the name, else close ones; of other commands only very close ones."""
    bare = name.lstrip("-")
    begun = [each for each in own if len(bare) > 2 and each.startswith(f"--{bare}")]
    least = 0.5 if len(bare) == 2 else _CLOSE  # of two letters one is right
    return begun or near(name, [each for each in own if len(each) > 2], least) or near(name, everywhere, _VERY_CLOSE)


def _abbreviated(name: str, flags: Sequence[str]) -> list[str]:
    """The flags that a letter may stand for: `-u` for `--unread`."""
    begun = f"--{name[1:].lower()}"
    return [each for each in dict.fromkeys(flags) if len(begun) == 3 and each.startswith(begun)][:suggestions_max]


def did_you_mean(close: Sequence[str]) -> str:
    """`did you mean X?`, or nothing."""
    return f"did you mean {' or '.join(close)}?" if close else ""


def find(
    tokens: Sequence[str], commands: Mapping[tuple[str, ...], Command], groups: Mapping[str, str]
) -> tuple[Command | None, tuple[str, ...], tuple[str, ...]]:
    """The command that the tokens begin with, its path as written, and the tokens after it.

    No command: the path of a group, or `()` for thrum itself. Raises UsageError for anything else.
    """
    if not tokens:
        return None, (), ()
    first, rest = tokens[0], tokens[1:]
    if first.startswith("-") and FLAG.fullmatch(first):
        raise UsageError(f"unknown flag {first}", remedy="thrum COMMAND FLAGS; thrum help")
    if first in groups:
        has_words = (first,) in commands and any(not flag.names for flag in commands[(first,)].flags)
        if (first,) in commands and (rest[0].startswith("-") if rest else not has_words):
            return commands[(first,)], (first,), tuple(rest)  # a command that has others below it
        if not rest:
            return None, (first,), ()
        path = (first, rest[0])
        if path in commands:
            return commands[path], path, tuple(rest[1:])
        if has_words:
            return commands[(first,)], (first,), tuple(rest)
        names = [words[1] for words in commands if words[0] == first and len(words) > 1]
        own = f"did you mean {first}? or " if (first,) in commands else ""
        words = sum(not each.startswith("-") for each in rest[1:])
        raise _unknown(path, commands, names, f"{own}one of: {', '.join(sorted(names))}", words)
    if (first,) in commands:
        return commands[(first,)], (first,), tuple(rest)
    raise _unknown((first,), commands, [*(words[0] for words in commands if len(words) == 1), *groups], "")


def _unknown(
    path: tuple[str, ...],
    commands: Mapping[tuple[str, ...], Command],
    names: Iterable[str],
    otherwise: str,
    words: int = 0,
) -> UsageError:
    """The refusal of a word that is none of `names`; what it means goes before what is spelled like it. `words`: how
    many follow it.
    """
    *above, word = (each.replace(SHIELD, "") for each in path)
    group = " ".join(above)
    close = likely_commands(group, word, commands, words)
    if not close:
        known = {**{name: f"{group} {name}".strip() for name in names}, **MEANINGS.get(group, {})}
        close = list(dict.fromkeys(known[name] for name in near(word, known, _CLOSE)))
    never = {command.path[-1] for command in commands.values() if not command.guessed}
    close = [each for each in close if each.split()[-1] not in never or word in never]
    advice = did_you_mean(close) or otherwise
    remedy = f"{advice}; thrum help" if advice else "thrum help"
    return UsageError(f'unknown command "{" ".join((*above, word))}"', remedy=remedy, suggestions=close or None)
