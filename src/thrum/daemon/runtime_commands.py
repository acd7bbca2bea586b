"""With which command a runtime is started in a terminal (cli.md 3.20), by the PATH and the user's own runtimes."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from thrum.identity.guard_modes import runtimes_file
from thrum.identity.runtimes import RuntimeNames, runtime_named, runtimes
from thrum.model import json_text
from thrum.model.errors import RuntimeNotFound

SHELL: Final = "shell"
"""What needs no agent."""

_COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "cursor": ("agent", "cursor-agent"),
    "kiro-cli": ("kiro-cli chat",),
    SHELL: ("bash", "sh"),
    "cli-only": (),
}
"""Those that are not started by their own name: the first of these that is on the PATH."""


def command_of(runtime: str, names: RuntimeNames, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """A runtime in its one spelling, and the argv that starts it, its program as an absolute path.

    Raises RuntimeNotFound for one that is not known, and where its program is not on the PATH.
    """
    name = runtime_named(runtime)
    known = runtimes(names)
    if name not in known:
        raise RuntimeNotFound(f'no runtime "{runtime}" is known', remedy=f"one of {', '.join(known)}")
    own = _own_commands(environ)
    commands = (own[name],) if name in own else _COMMANDS.get(name, (name,))
    for command in commands:
        words = shlex.split(command)
        program = shutil.which(words[0], path=environ.get("PATH")) if words else None
        if program:
            return name, (program, *words[1:])
    if not commands:
        raise RuntimeNotFound(f"{name} has no program that could be started", remedy="name another: --runtime R")
    remedy = "install it, or name another: --runtime R; after a change of PATH: thrum daemon restart"
    raise RuntimeNotFound(f"{name}: there is no {shlex.split(commands[0])[0]} on the PATH of the daemon", remedy=remedy)


def _own_commands(environ: Mapping[str, str]) -> dict[str, str]:
    """The commands of the user's own runtimes; what can't be read is left out, and told in the log where names are."""
    path = runtimes_file(environ)
    try:
        found: Any = json_text.decode(path.read_bytes()).value if path else {}
    except (OSError, json_text.NotJson):
        return {}
    own: Any = found.get("custom_runtimes", {})
    if not isinstance(own, dict):
        return {}
    rows = cast("dict[str, Any]", own).items()
    commands = {name: cast("dict[str, Any]", row).get("command") for name, row in rows if isinstance(row, dict)}
    return {name: command for name, command in commands.items() if isinstance(command, str) and _is_command(command)}


def _is_command(text: str) -> bool:
    try:
        return bool(shlex.split(text))
    except ValueError:
        return False
