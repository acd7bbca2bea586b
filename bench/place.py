"""Throw-away repositories with a real daemon, real agents and, if wanted, a long history."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thrum.daemon import launch
from thrum.model import clock, events, ids, paths
from thrum.model.events import Body, MessageCreated, MessageReceipt, Pair
from thrum.model.methods.agents import AGENT_REGISTER, RegisterParams
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.sessions import SESSION_START, SessionStartParams
from thrum.model.paths import Layout
from thrum.rpc.client import BlockingClient
from thrum.rpc.sockets import real_path

_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false")
_CHUNK_LINES = 5_000

TEXT = (
    "Token refresh is in and the tests pass. The retry limit moved into limits.py; please look at the two places that "
    "read it, and tell me whether the web client may keep its own copy until Friday. Branch feature/auth, four commits."
)
"""A message as agents write them: 220 bytes, about 450 as a line of the journal."""


def clean_environment() -> dict[str, str]:
    """The user's, without what would lead git or thrum elsewhere, or make Python compile anew at each start."""
    left_out = ("THRUM_", "GIT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"THRUM_LOCAL": "1", "COLUMNS": "100", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def thrum_command() -> str:
    """The command that belongs to this interpreter."""
    script = Path(sys.executable).with_name("thrum")
    if not script.is_file():
        raise SystemExit(f"bench: no thrum beside {Path(sys.executable).name}: install the package first")
    return str(script)


@dataclass(frozen=True, slots=True)
class Repository:
    """One initialised repository; `worktrees[i]` is where agent `agents[i]` stands."""

    main: Path
    agents: tuple[str, ...]
    worktrees: tuple[Path, ...]

    @property
    def layout(self) -> Layout:
        """Where thrum keeps what is its own here."""
        return paths.find_layout(self.main)

    @property
    def socket(self) -> str:
        """Where the daemon answers."""
        return real_path(self.layout.socket_path)

    def run(self, *argv: str, cwd: Path | None = None) -> str:
        """One thrum command, its output. Raises CalledProcessError."""
        return _run([thrum_command(), *argv], cwd or self.main)

    def start(self) -> int:
        """Start the daemon; its pid."""
        return launch.start_in_background(self.layout, os.environ)

    def stop(self) -> None:
        """Stop the daemon, if one runs."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("daemon", "stop")

    def journal(self, agent: str) -> Path:
        """The file of an agent's messages."""
        return self.layout.main_root / ".git" / "thrum-sync" / "a-sync" / "messages" / f"{agent}.jsonl"


def _run(argv: Sequence[str], cwd: Path) -> str:
    return subprocess.run(
        argv, cwd=cwd, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


@contextlib.contextmanager
def open_repository(
    directory: Path, agents: int = 2, *, prefix: str = "agent", clone_of: Path | None = None
) -> Generator[Repository]:
    """A repository with a running daemon and that many agents, each registered from a worktree of its own."""
    home = Path(tempfile.mkdtemp(prefix="thrum-bench-", dir=directory)).resolve()
    main = home / "main"
    main.mkdir()
    repository = Repository(
        main, tuple(f"{prefix}{n}" for n in range(agents)), tuple(home / f"w{n}" for n in range(agents))
    )
    try:
        if clone_of is None:
            _run([*_GIT, "init", "-q", "-b", "main"], main)
            _run([*_GIT, "commit", "-q", "--allow-empty", "-m", "Start"], main)
        else:
            _run([*_GIT, "clone", "-q", str(clone_of), "."], main)
        for worktree in repository.worktrees:
            _run([*_GIT, "worktree", "add", "-q", "--detach", str(worktree)], main)
        repository.run("init")
        repository.start()
        for name, worktree in zip(repository.agents, repository.worktrees, strict=True):
            _register(repository, name, worktree)
        yield repository
    finally:
        if (main / ".thrum").is_dir():
            repository.stop()
        shutil.rmtree(home, ignore_errors=True)


def _register(repository: Repository, name: str, worktree: Path) -> None:
    # The daemon believes the kernel, so this process goes and stands where the agent is.
    with contextlib.chdir(worktree), BlockingClient(repository.socket) as client:
        role = "implementer" if name.endswith("0") else "reviewer"
        client.call(AGENT_REGISTER, RegisterParams(name=name, role=role, module=f"m{name}", bind_pid=False))
        client.call(SESSION_START, SessionStartParams(agent_id=name, resume=True))


def write_history(repository: Repository, messages: int, say: Callable[[str], None], *, receipts: bool = False) -> int:
    """Stop the daemon and write that many past messages into the journals, evenly over the agents; their bytes.

    Each goes from one agent to another, every seventh is a reply, every twentieth is to two. With `receipts` each has
    been read by its recipients.
    """
    layout = repository.layout
    daemon_id = _daemon_id(layout)
    repository.stop()
    # What the agents' registration wrote is younger than the history: it goes behind it.
    present = layout.local_journal.read_bytes()
    layout.local_journal.write_bytes(b"")
    ulids = ids.Ulids()
    ms = clock.SystemClock().now_ms() - messages - 3_600_000
    files: dict[str, list[bytes]] = {agent: [] for agent in repository.agents}
    local: list[bytes] = []
    size = 0
    earlier = ""
    agents = repository.agents
    for index in range(messages):
        ms += 1
        author = agents[index % len(agents)]
        to = [agents[(index * 7 + 1) % len(agents)]]
        if index % 20 == 0:
            to.append(agents[(index * 11 + 2) % len(agents)])
        message = _message(ulids, ms, daemon_id, author, to, earlier if index % 7 == 6 else "")
        files[author].append(events.encode(message))
        if receipts:
            local += [_receipt(ulids, ms, daemon_id, message.message_id, agent) for agent in message.recipients]
        if index % 7 == 0:
            earlier = message.message_id
        if len(files[author]) >= _CHUNK_LINES or len(local) >= _CHUNK_LINES:
            size += _append(repository, files, local)
            say(f"writing history: {index:,} of {messages:,}")
    size += _append(repository, files, local)
    with layout.local_journal.open("ab") as file:
        file.write(present)
    return size


def write_inbox(repository: Repository, messages: int) -> None:
    """Stop the daemon and write that many past messages from the first agent to the second one, unseen."""
    layout = repository.layout
    daemon_id = _daemon_id(layout)
    repository.stop()
    ulids = ids.Ulids()
    ms = clock.SystemClock().now_ms() - messages - 3_600_000
    author, reader = repository.agents[:2]
    lines = [events.encode(_message(ulids, ms + number, daemon_id, author, [reader], "")) for number in range(messages)]
    _append(repository, {author: lines}, [])


def _append(repository: Repository, files: dict[str, list[bytes]], local: list[bytes]) -> int:
    size = 0
    for path, lines in [(repository.journal(agent), lines) for agent, lines in files.items()] + [
        (repository.layout.local_journal, local)
    ]:
        if lines:
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                size += file.write(b"\n".join(lines) + b"\n")
            lines.clear()
    return size


def _daemon_id(layout: Layout) -> str:
    with BlockingClient(layout.socket_path) as client:
        health = client.call(HEALTH)
    return health.identity.daemon_id


def _message(ulids: ids.Ulids, ms: int, daemon_id: str, author: str, to: list[str], reply_to: str) -> MessageCreated:
    recipients = tuple(sorted(set(to)))
    refs = tuple(Pair("mention", agent) for agent in recipients)
    return MessageCreated(
        timestamp=clock.format_ms(ms),
        event_id="evt_" + ulids.at(ms),
        v=1,
        origin_daemon=daemon_id,
        message_id="msg_" + ulids.at(ms),
        agent_id=author,
        body=Body("markdown", TEXT),
        refs=(*refs, Pair("reply_to", reply_to)) if reply_to else refs,
        audiences=tuple(Pair("agent", agent) for agent in recipients),
        recipients=recipients,
    )


def _receipt(ulids: ids.Ulids, ms: int, daemon_id: str, message_id: str, agent: str) -> bytes:
    return events.encode(
        MessageReceipt(
            timestamp=clock.format_ms(ms),
            event_id="evt_" + ulids.at(ms),
            v=1,
            origin_daemon=daemon_id,
            message_id=message_id,
            agent_id=agent,
            receipt_type="read",
        )
    )
