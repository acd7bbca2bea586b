"""Completion scripts for bash, zsh and fish: commands, subcommands and flags. Pure; made from the table of commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from thrum.cli.parser import GLOBAL_FLAGS, Command

Shell = Literal["bash", "zsh", "fish"]


def script(shell: Shell, commands: Mapping[tuple[str, ...], Command], groups: Mapping[str, str]) -> str:
    """The script that a shell reads once, e.g. `source <(thrum completion bash)`."""
    return _fish(commands, groups) if shell == "fish" else _bash(commands, groups, zsh=shell == "zsh")


def _globals() -> list[str]:
    return [name for names in GLOBAL_FLAGS for name in names.split(" ")[0::1] if name.startswith("--")]


def _flags(command: Command) -> list[str]:
    return sorted({name for flag in command.flags for name in flag.names} | set(_globals()))


def _words(command: Command) -> list[str]:
    return [*command.completes, *_flags(command)]


def _firsts(commands: Iterable[tuple[str, ...]], groups: Iterable[str]) -> list[str]:
    return sorted({path[0] for path in commands} | set(groups))


def _bash(commands: Mapping[tuple[str, ...], Command], groups: Mapping[str, str], *, zsh: bool) -> str:
    cases = [f'    "{" ".join(path)}") words="{" ".join(_words(command))}" ;;' for path, command in commands.items()]
    for group in groups:
        names = sorted(path[1] for path in commands if path[0] == group and len(path) > 1)
        cases.append(f'    "{group}") words="{" ".join(names)}" ;;')
    group_pattern = "|".join(sorted(groups))
    lines = [
        "# thrum completion",
        *(["autoload -U +X bashcompinit && bashcompinit"] if zsh else []),
        "_thrum() {",
        '  local current="${COMP_WORDS[COMP_CWORD]}" path="" word words="" index',
        "  for ((index = 1; index < COMP_CWORD; index++)); do",
        '    word="${COMP_WORDS[index]}"',
        '    case "$word" in -*) continue ;; esac',
        f'    case "$path" in "") path="$word" ;; {group_pattern}) path="$path $word" ;; esac',
        "  done",
        '  case "$path" in',
        f'    "") words="{" ".join(_firsts(commands, groups))} {" ".join(_globals())}" ;;',
        *cases,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o default -F _thrum thrum",
    ]
    return "\n".join(lines)


def _fish(commands: Mapping[tuple[str, ...], Command], groups: Mapping[str, str]) -> str:
    lines = ["# thrum completion", "complete -c thrum -f"]
    none = "not __fish_seen_subcommand_from " + " ".join(_firsts(commands, groups))
    for name, summary in groups.items():
        lines.append(f"complete -c thrum -n {_quoted(none)} -a {name} -d {_quoted(summary)}")
    for path, command in commands.items():
        if len(path) == 1:
            seen = f"__fish_seen_subcommand_from {path[0]}"
            lines.append(f"complete -c thrum -n {_quoted(none)} -a {path[0]} -d {_quoted(command.summary)}")
        else:
            seen = f"__fish_seen_subcommand_from {path[0]}; and __fish_seen_subcommand_from {path[1]}"
            names = " ".join(each[1] for each in commands if each[0] == path[0] and len(each) > 1)
            open_group = f"__fish_seen_subcommand_from {path[0]}; and not __fish_seen_subcommand_from {names}"
            lines.append(f"complete -c thrum -n {_quoted(open_group)} -a {path[1]} -d {_quoted(command.summary)}")
        for name, help in command.completes.items():
            lines.append(f"complete -c thrum -n {_quoted(seen)} -a {name} -d {_quoted(help)}")
        for flag in command.flags:
            for name in flag.names:
                kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                value = " -r" if flag.metavar else ""
                lines.append(f"complete -c thrum -n {_quoted(seen)} {kind}{value} -d {_quoted(flag.help)}")
    lines += [f"complete -c thrum -l {name[2:]}" for name in _globals()]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
