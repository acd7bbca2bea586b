"""Sandboxes without sockets: Codex's default one even refuses the socket pair that trio needs to start."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from thrum.model.errors import DaemonUnavailable

_CODEX = "; Codex: network_access = true under [sandbox_workspace_write] in ~/.codex/config.toml"


def refusal(path: Path | None, env: Mapping[str, str]) -> DaemonUnavailable:
    """What to say of it: the daemon's socket is at `path`, None if that is not known."""
    allow = f"allow it the socket {path}" if path is not None else "allow it Unix sockets"
    codex = _CODEX if any(name.startswith("CODEX_") for name in env) else ""
    details = {} if path is None else {"socket": str(path)}
    return DaemonUnavailable(
        "a sandbox forbids Unix sockets", remedy=f"run thrum outside it, or {allow}{codex}", **details
    )


def forbids_sockets() -> bool:
    """Whether this process may not have what an event loop needs: a pair of sockets, set up as it likes."""
    try:
        here, there = socket.socketpair()
        with here, there:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
