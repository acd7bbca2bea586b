"""thrum below a real seccomp filter, as Codex's default sandbox sets one."""

from __future__ import annotations

import sys

import pytest

from tests.support.cli.sandbox import REFUSED
from tests.support.daemon.repo import open_repo
from tests.support.places import SUPPORT

SANDBOX = SUPPORT / "cli" / "sandbox.py"


@pytest.mark.parametrize("denied", ["connect", "socket"])
def test_in_a_sandbox_without_sockets_every_command_says_so_and_what_to_allow(denied: str) -> None:
    with open_repo("furiosa") as repo:
        under = (sys.executable, str(SANDBOX), denied)
        probe = repo.run("--version", under=under)
        if probe.status == REFUSED:
            pytest.skip("this kernel takes no seccomp filter")
        assert probe.out.startswith("thrum ")
        for words in (("whoami",), ("inbox",), ("send", "hi"), ("daemon", "status")):
            done = repo.run(*words, under=under)
            fix = f"run thrum outside it, or allow it the socket {repo.socket}"
            assert (done.status, done.out) == (1, "")
            assert done.err == f"Error: a sandbox forbids Unix sockets\n  fix: {fix}\n", words
        refused = repo.run("wait", "--json", under=under, env={"CODEX_SANDBOX_NETWORK_DISABLED": "1"})
        assert (refused.status, refused.kind, refused.err) == (2, "daemon_unavailable", "")
        assert "network_access = true" in refused.json["error"]["remedy"]
        assert refused.json["error"]["details"] == {"socket": str(repo.socket)}
        assert repo.run("whoami").status == 0, "outside it goes on"
