"""version, help, completion. Source: cli.md §1.1, §2."""

from __future__ import annotations

import platform
from typing import Annotated, Any

from thrum.cli import completion as scripts
from thrum.cli.completion import Shell
from thrum.cli.parser import RUN, word
from thrum.cli.run import Answer, Run
from thrum.version import BUILD, VERSION, version_text


async def version(*, run: Annotated[Run, RUN]) -> Answer:
    del run
    document = {"version": VERSION, "build": BUILD, "python_version": platform.python_version()}
    return Answer(document, data=version_text())


async def help(command: Annotated[tuple[str, ...], word("COMMAND", "")] = (), /, *, run: Annotated[Run, RUN]) -> Answer:
    from thrum.cli.app import help_answer

    return help_answer(command, run.session.terminal.width)


async def completion(
    shell: Annotated[Shell, word("SHELL", "bash, zsh or fish")], /, *, run: Annotated[Run, RUN]
) -> Answer:
    from thrum.cli.table import COMMANDS, GROUPS

    del run
    text = scripts.script(shell, COMMANDS, GROUPS)
    document: dict[str, Any] = {"shell": shell, "script": text + "\n"}
    return Answer(document, data=text)
