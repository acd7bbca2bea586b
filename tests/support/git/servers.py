"""Real git servers on loopback: smart HTTP with and without a password, the git protocol, and ssh without a network."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.daemon.repo import wait_until

USER, PASSWORD = "furiosa", "s3cret-pass"


class _Backend(BaseHTTPRequestHandler):
    """`git http-backend` as a web server runs it."""

    protocol_version = "HTTP/1.1"
    root: Path
    password: bool
    status: int = 0
    """Answer everything with this instead."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.status:
            self._answer(self.status, {}, b"no\n")
            return
        if self.password and self.headers.get("Authorization") != wanted:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"who are you?\n")
            return
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": USER,
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self._answer(int(fields.pop("Status", "200").split()[0]), fields, data)

    def _answer(self, status: int, fields: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def open_http(root: Path, *, password: bool = False, status: int = 0) -> Generator[str]:
    """Serves the bare repositories in a directory; gives `http://127.0.0.1:PORT`. `status`: refuse all with it."""
    handler = type("Handler", (_Backend,), {"root": root, "password": password, "status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def open_git_daemon(root: Path, *, writable: bool = True) -> Generator[str]:
    """`git daemon` for the repositories in a directory; gives `git://127.0.0.1:PORT`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all"]
    words += [f"--base-path={root}", *(["--enable=receive-pack"] if writable else []), str(root)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0) as process:

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(answers, "git daemon answers")
            yield f"git://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def fake_ssh(directory: Path, script: str = "") -> Path:
    """An ssh command that runs here what it should run there; `script` goes before that."""
    path = directory / "fake-ssh"
    path.write_text(f'#!/bin/sh\n{script}\nfor last; do :; done\nexec sh -c "$last"\n')
    path.chmod(0o755)
    return path
