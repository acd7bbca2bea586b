"""What the shell itself makes of our completion."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from thrum.cli import completion
from thrum.cli.table import COMMANDS, GROUPS


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_subcommands_and_flags() -> None:
    script = completion.script("bash", COMMANDS, GROUPS)

    def complete(*words: str) -> list[str]:
        ask = (
            f'COMP_WORDS=(thrum {" ".join(words)}); COMP_CWORD={len(words)}; _thrum; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("sen") == ["send", "sent"]
    assert complete("daemon", "st") == ["start", "status", "stop"]
    assert complete("config", "set", "sync.") == ["sync.remote", "sync.interval", "sync.debounce"]
    assert complete("send", "hi", "--bro") == ["--broadcast"]
    assert "--lines" in complete("daemon", "logs", "--")
