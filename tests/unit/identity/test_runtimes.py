"""Which processes are runtimes, and which pid is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.vectors import VECTORS
from thrum.identity.processes import Program
from thrum.identity.runtimes import Link, binding_pid, runtime_named, runtime_names, runtime_of_process


def about(case: dict[str, Any]) -> str:
    return str(case["about"])


@pytest.mark.spec("ID-24", "ID-25")
@pytest.mark.parametrize("case", VECTORS["runtime_of_process"], ids=about)
def test_a_process_is_known_by_its_program(case: dict[str, Any]) -> None:
    program = Program(case["comm"], case["exe"], tuple(case["argv"]))
    assert runtime_of_process(program, runtime_names(case.get("processes"))) == case["expect"]


@pytest.mark.spec("ID-24")
@pytest.mark.parametrize("case", VECTORS["binding_pid"], ids=about)
def test_the_session_is_recorded_and_not_its_side_processes(case: dict[str, Any]) -> None:
    chain = [Link(each["pid"], runtime=each["runtime"]) for each in case["chain"]]
    owned = {int(pid): identity for pid, identity in case["owned"].items()}
    assert binding_pid(chain, owned, case["identity"]) == case["expect"]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        # A script's own name is the command's name, whatever shell runs it.
        (Program("claude", "/usr/bin/bash", ("/bin/bash", "/home/u/bin/claude")), None),
        (Program("claude", "", ("-bash",)), None),
        (Program("claude", "/usr/bin/python3.11", ("/usr/bin/python3", "/home/u/bin/claude")), "claude"),
        (Program("bun", "/usr/bin/bun", ("bun", "run", "/x/gemini.ts")), "gemini"),
        (Program("python3", "/usr/bin/python3", ("python3", "-c", "pass", "claude")), None),
        (Program("python3", "/usr/bin/python3", ("python3", "-W", "error", "x.py", "claude")), None),
        (Program("node", "/usr/bin/node", ("node", "--", "/x/claude")), "claude"),
        (Program(), None),
    ],
)
def test_interpreters_are_what_they_run_and_shells_never(program: Program, expected: str | None) -> None:
    assert runtime_of_process(program) == expected


def test_a_long_name_is_known_by_the_part_that_the_kernel_keeps() -> None:
    names = runtime_names({"mytool": ["my-very-long-tool-name"]})
    assert runtime_of_process(Program("my-very-long-to"), names) == "mytool"


def test_a_runtime_of_the_users_own_takes_no_known_name() -> None:
    names = runtime_names(commands={"loud": "claude --verbose", "claude": "/opt/claude-wrapper", "mine": "mine"})
    assert runtime_of_process(Program(exe="/usr/bin/claude"), names) == "claude"
    assert runtime_of_process(Program(exe="/opt/claude-wrapper"), names) == "claude"
    assert runtime_of_process(Program(exe="/usr/bin/mine"), names) == "mine"


def test_kiro_is_short_for_kiro_cli() -> None:
    assert runtime_named("kiro") == "kiro-cli"
    assert runtime_named("codex") == "codex"
