"""With which command a runtime is started in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from thrum.identity.runtimes import KNOWN_RUNTIMES
from thrum.model.errors import RuntimeNotFound
from thrum.runtimes.presets import presets
from thrum.runtimes.programs import command_of


def test_a_program_is_found_on_the_path_under_either_of_its_names(tmp_path: Path) -> None:
    for name in ("cursor-agent", "kiro-cli", "sh", "aider", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    known = presets({"custom_runtimes": {"own": {"command": "mine --fast 'a b'"}, "torn": {"command": "mine 'x"}}})

    def started(name: str) -> tuple[str, tuple[str, ...]]:
        return command_of(name, known, KNOWN_RUNTIMES, {"PATH": str(tmp_path)})

    assert started("cursor") == ("cursor", (f"{tmp_path}/cursor-agent",))
    assert started("kiro") == ("kiro-cli", (f"{tmp_path}/kiro-cli", "chat"))
    assert started("shell") == ("shell", (f"{tmp_path}/sh",))
    assert started("aider") == ("aider", (f"{tmp_path}/aider",)), "known by its processes alone"
    assert started("own") == ("own", (f"{tmp_path}/mine", "--fast", "a b"))
    with pytest.raises(RuntimeNotFound, match="no claude on the PATH"):
        started("claude")
    with pytest.raises(RuntimeNotFound, match="has no program") as refused:
        started("cli-only")
    assert refused.value.remedy
    with pytest.raises(RuntimeNotFound, match="has no program"):
        started("torn")
    with pytest.raises(RuntimeNotFound, match='no runtime "zork" is known'):
        started("zork")
