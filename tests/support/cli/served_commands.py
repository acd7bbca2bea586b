"""A command line whose words are what it does, served in a daemon of its own; and the launcher that asks for it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.support.places import ROOT
from thrum.model.methods.daemon import CliRunParams
from thrum.rpc.dispatch import PeerConnection
from thrum.rpc.framed_run import RunIO

# A launcher whose own command line says what it was given.
STUBBED = """
import os, sys, types
app = types.ModuleType("thrum.cli.app")
def main(argv, client_key=""):
    body = sys.stdin.read() if "stdin" in argv else ""
    print("own", " ".join(map(ascii, argv)), len(client_key), body, flush=True)
    os._exit(9)
app.main = main
cli = types.ModuleType("thrum.cli")
cli.app = app
sys.modules.update({"thrum.cli": cli, "thrum.cli.app": app})
from thrum.launcher import main
main()
"""


@dataclass
class Commands:
    """`run` is the `RunCommand`; the words of argv are executed one by one."""

    begun: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    cancelled: bool = False
    marked: list[str] = field(default_factory=list[str])
    params: list[CliRunParams] = field(default_factory=list[CliRunParams])
    peers: list[PeerConnection] = field(default_factory=list[PeerConnection])

    async def run(self, streams: RunIO, params: CliRunParams, connection: PeerConnection) -> int | None:
        self.params.append(params)
        self.peers.append(connection)
        self.begun.set()
        try:
            for word in params.argv:
                verb, _, rest = word.partition(":")
                match verb:
                    case "out":
                        await streams.write_stdout(rest.encode())
                    case "err":
                        await streams.write_stderr(rest.encode())
                    case "big":
                        await streams.write_stdout(b"x" * int(rest))
                    case "piece":
                        await streams.write_stdout(b"<" + await streams.read_stdin() + b">")
                    case "stdin":
                        while data := await streams.read_stdin():
                            await streams.write_stdout(data)
                    case "mark":
                        await streams.flush()
                        self.marked.append(rest)
                    case "wait":
                        await trio.sleep_forever()
                    case "own":
                        return None
                    case "fail":
                        raise ZeroDivisionError("a bug")
                    case "exit":
                        return int(rest)
                    case _:
                        pass
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.ended.set()
        return 0


def launcher_argv(*words: str | bytes, stubbed: bool = True) -> list[str | bytes]:
    front = ["-c", STUBBED] if stubbed else [str(ROOT / "scripts" / "thrum")]
    return [sys.executable, *front, *words]


def launcher_env(path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "THRUM_SOCKET": str(path)}
