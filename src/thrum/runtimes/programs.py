"""With which command a runtime is started in a terminal: that of its preset, found on the PATH (cli.md 3.20)."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from typing import Final

from thrum.identity.runtimes import RuntimeNames, runtime_named, runtimes
from thrum.model.errors import RuntimeNotFound
from thrum.runtimes.presets import Runtime

SHELL: Final = "shell"
"""What needs no agent."""
_OTHERWISE: Final[Mapping[str, str]] = {"cursor": "cursor-agent", SHELL: "sh"}
"""What a program is called where it does not have the name of its preset."""


def command_of(
    runtime: str,
    presets: Mapping[str, Runtime],
    names: RuntimeNames,
    environ: Mapping[str, str],
    *,
    remedy: str = "install it, or name another",
) -> tuple[str, tuple[str, ...]]:
    """A runtime in its one spelling, and the argv that starts it, its program as an absolute path.

    One that is only known by its processes is started by its name. Raises RuntimeNotFound for one that is not known,
    and, with `remedy`, where its program is not on the PATH.
    """
    name = runtime_named(runtime)
    known = sorted({*presets, *runtimes(names)})
    if name not in known:
        raise RuntimeNotFound(f'no runtime "{runtime}" is known', remedy=f"one of {', '.join(known)}")
    command = presets[name].command if name in presets else name
    commands = [words for text in (command, _OTHERWISE.get(name, "")) if (words := _words(text))]
    for program, *arguments in commands:
        if found := shutil.which(program, path=environ.get("PATH")):
            return name, (found, *arguments)
    if not commands:
        raise RuntimeNotFound(f"{name} has no program that could be started", remedy="name another")
    raise RuntimeNotFound(f"{name}: there is no {commands[0][0]} on the PATH", remedy=remedy)


def any_command_of(
    runtime: str, presets: Mapping[str, Runtime], names: RuntimeNames, environ: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """The same, also of a program that is no runtime: by its name on the PATH, or its path. Raises RuntimeNotFound."""
    name = runtime_named(runtime)
    if name in presets or name in runtimes(names):
        return command_of(runtime, presets, names, environ)
    found = shutil.which(runtime, path=environ.get("PATH"))
    if found is None:
        known = ", ".join(sorted({*presets, *runtimes(names)}))
        raise RuntimeNotFound(f"there is no runtime and no program {runtime!r}", remedy=f"runtimes: {known}")
    return os.path.basename(runtime), (os.path.abspath(found),)


def _words(command: str) -> list[str]:
    """A command's words; none of one that no shell would take."""
    try:
        return shlex.split(command)
    except ValueError:
        return []
