"""An agent registered in a worktree by `thrum quickstart`, run there as a person would: with the guards, conflicts and
facts of any other registration, and no process recorded (identity.md §8.3).

It is run in the worktree rather than typed into its pane: then its answer is data, and no screen has to be read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
import trio

from thrum.identity.files import identity_path
from thrum.model.errors import KINDS, InternalError, ThrumError, TimedOut, from_wire
from thrum.model.files import read_bytes
from thrum.ops.identity_file import identities_of
from thrum.terminal.tmux import is_unwanted

SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Recruit:
    """Who is to be registered, and where; `root`: a worktree that thrum is set up in."""

    root: str
    name: str
    role: str
    module: str
    intent: str = ""
    runtime: str = ""
    force: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The command line, after `thrum`."""
        given = {"--role": self.role, "--module": self.module, "--intent": self.intent, "--runtime": self.runtime}
        words = [f"{flag}={value}" for flag, value in given.items() if value]
        force = ("--force",) if self.force else ()
        return ("quickstart", self.name, *words, "--no-agent-pid", "--json", *force)


async def register(recruit: Recruit, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Register; the agent's id and what there is to warn of. Raises what `thrum quickstart` would refuse it for."""
    argv = (sys.executable, "-P", "-m", "thrum", *recruit.words)
    env = {name: value for name, value in environ.items() if not is_unwanted(name)} | {"THRUM_NO_HINTS": "1"}
    try:
        with trio.fail_after(SECONDS_MAX):
            done = await trio.run_process(
                argv,
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=env,
                cwd=recruit.root,
            )
    except trio.TooSlowError:
        raise TimedOut(
            f"@{recruit.name} was not registered in {recruit.root} within {SECONDS_MAX:g} s",
            remedy="repeat the command: what was done stays",
        ) from None
    return read_answer(done.stdout, done.stderr)


def read_answer(out: bytes, err: bytes) -> tuple[str, tuple[str, ...]]:
    """What `quickstart --json` answered. Pure. Raises its refusal."""
    try:
        answer: Any = msgspec.json.decode(out)
        if "error" in answer:
            raise _refusal(answer["error"])
        return str(answer["register"]["agent_id"]), tuple(map(str, answer.get("warnings", ())))
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        said = err.decode("utf-8", "replace").strip() or "it said nothing"
        raise InternalError(f"thrum quickstart failed: {said}") from error


def _refusal(told: Mapping[str, Any]) -> ThrumError:
    kind = str(told["kind"])
    code = KINDS[kind].code if kind in KINDS else ThrumError.code
    details: dict[str, Any] = told.get("details", {})
    return from_wire(kind, code, str(told["message"]), str(told.get("remedy", "")), details)


def identity_document(root: str, agent_id: str) -> dict[str, Any]:
    """An agent's identity file as it is; empty if it can't be read. Blocks."""
    try:
        found: Any = msgspec.json.decode(read_bytes(identity_path(identities_of(root), agent_id)))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
