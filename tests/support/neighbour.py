"""Another user of the machine, who looks for words in everything of a repository that he can come at.

Run as that user: `python -I neighbour.py TOP`, the rest as JSON on stdin. Prints how he found which word, as JSON. It
is for an interpreter that he may run, and so uses nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import stat
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

TOP = Path(sys.argv[1])
ORDER = json.load(sys.stdin)
WORDS = [word.encode() for word in ORDER["words"]]
found: list[str] = []


def look(how: str, data: bytes) -> None:
    for word in WORDS:
        if word in data:
            found.append(f"{how}: {word.decode()}")


def look_at_file(path: Path) -> None:
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        look(str(path), data)
        with contextlib.suppress(zlib.error):
            look(f"{path} inflated", zlib.decompress(data))
        with contextlib.suppress(OSError, EOFError, zlib.error):
            look(f"{path} unzipped", gzip.decompress(data))
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            look(f"{path}:{name}", archive.read(name))


def talk_to(path: str) -> None:
    """As a client of the daemon's, and as whoever listens to the bus."""
    for said in (b'{"jsonrpc":"2.0","id":1,"method":"message.list","params":{}}\n', b"\xff" + b"\0" * 8 + b"\x01\x7f"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(2)
            line.connect(path)
            line.sendall(said)
            found.append(f"{path} takes a stranger's connection")
            look(f"{path} says", line.recv(1 << 20))


def git(*words: str) -> None:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *words],
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"},
        cwd="/",
    )
    look(f"git {' '.join(words)}", done.stdout)


def main() -> None:
    assert os.getuid() != 0
    for folder, _, names in os.walk(TOP):
        for name in names:
            look_at_file(Path(folder, name))
    for name in ORDER["guesses"]:  # what a closed directory does not list may be open all the same
        look_at_file(TOP / name)
    for folder in map(Path, ORDER["folders"]):
        with contextlib.suppress(OSError):
            os.chdir(folder)
            found.append(f"{folder} lets a stranger in")
        with contextlib.suppress(OSError):
            os.link(next(iter(ORDER["guesses"])), f"/tmp/thrum-neighbour-{os.getpid()}")
    for path in TOP.rglob("*"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(path.stat().st_mode):
                talk_to(str(path))
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        path = line.split()[-1]
        if path.startswith(str(TOP)) or path in ORDER["sockets"]:
            talk_to(path)
    for pid in ORDER["pids"]:
        process = Path("/proc", str(pid))
        for name in ("cmdline", "environ", "maps", "mem", "stack", "auxv", "root/etc/shadow"):
            if name != "mem":
                look_at_file(process / name)
            else:
                with contextlib.suppress(OSError):
                    (process / name).open("rb").close()
                    found.append(f"{process / name} opens")
        for place in ("fd", "cwd", "root", "map_files"):
            with contextlib.suppress(OSError):
                for entry in os.scandir(process / place):
                    look_at_file(Path(entry.path))
    for where in ORDER["git_dirs"]:
        git("--git-dir", where, "cat-file", "--batch", "--batch-all-objects", "--unordered")
        git("--git-dir", where, "log", "-p", "a-sync")
        git("clone", "-q", "--bare", where, f"/tmp/thrum-neighbour-{os.getpid()}")
        git("--git-dir", f"/tmp/thrum-neighbour-{os.getpid()}", "cat-file", "--batch", "--batch-all-objects")
    subprocess.run(["rm", "-rf", f"/tmp/thrum-neighbour-{os.getpid()}"], check=False)
    print(json.dumps(sorted(set(found))))


main()
