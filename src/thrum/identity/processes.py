"""Processes as the kernel reports them: start, parents, program, working directory; and who is alive (identity.md §5).

No `ps`, no signals: a zombie answers signals but is dead, and a pid may be reused. A process is identified by pid and
start time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from thrum.model.files import open_following

CHAIN_MAX = 64
"""Steps of a walk to the top; a deeper tree is cut there."""

START_SLACK_SECONDS = 2.0
"""How much later than its record a process may have started, when the record has no start."""


@dataclass(frozen=True, slots=True)
class Process:
    """One look at a process."""

    pid: int
    ppid: int
    started: str
    """Tells it from all others that ever have this pid: `{boot_id}/{ticks}`, else `{seconds}.{microseconds}`."""
    started_at: float
    """Seconds since 1970."""
    state: str = "S"
    """The kernel's letter; Z and X are dead."""
    comm: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """What a process runs. What can't be read is empty."""

    comm: str = ""
    exe: str = ""
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terminal:
    """The controlling terminal of a process."""

    name: str
    """Its device, such as `/dev/pts/3`."""
    foreground: bool
    """Whether the process is of the group that the terminal listens to: not a job in its background."""


class ProcessTable(Protocol):
    """The processes of this machine. `ProcTable`, `PsutilTable` and `ProcessMap` are alike (one contract suite)."""

    def read(self, pid: int) -> Process | None:
        """The process with this pid, zombies included; None if there is none. OSError if it can't be told."""
        ...

    def chain(self, pid: int) -> tuple[Process, ...]:
        """The process and its ancestors, nearest first, without pid 1 unless it is the process itself, as a container's
        command is. OSError if it or a parent can't be read."""
        ...

    def cwd(self, pid: int) -> str:
        """Its working directory, free of links. OSError if it can't be read or is no more."""
        ...

    def program(self, pid: int) -> Program:
        """What it runs; empty where that can't be read."""
        ...

    def terminal(self, pid: int) -> Terminal | None:
        """Its controlling terminal, whatever its streams are; None if it has none. OSError if it can't be told."""
        ...

    def environ(self, pid: int) -> Mapping[str, str]:
        """Its first environment: what its program was started with. OSError if it can't be read."""
        ...


class Seen(Protocol):
    """What `same_process` looks at."""

    @property
    def pid(self) -> int: ...
    @property
    def started(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def state(self) -> str: ...


def is_live(process: Seen | None) -> bool:
    """Whether it exists and has not exited: a zombie is dead."""
    return process is not None and process.pid > 1 and process.state not in ("Z", "X", "x")


def same_process(
    started: str, recorded_at: float, seen: Seen | None, is_runtime: Callable[[], bool] = lambda: False
) -> bool:
    """Whether the process now seen at a recorded pid is still the recorded one, alive (identity.md §5).

    `started` is the recorded start. Empty, as in older files: then it must be a runtime that started no later than the
    record was made (`recorded_at`, seconds since 1970).
    """
    if seen is None or not is_live(seen):
        return False
    if started:
        return seen.started == started
    return seen.started_at <= recorded_at + START_SLACK_SECONDS and is_runtime()


def is_daemon(program: Program) -> bool:
    """Whether a process is a daemon of thrum's, of whatever repository."""
    return ("-m", "thrum.daemon") in zip(program.argv, program.argv[1:], strict=False)


class RunningDaemon(NamedTuple):
    """A daemon of this user's, as the process table tells. `root` is the repository that it was started for."""

    pid: int
    root: str
    started_at: float
    """Seconds since 1970."""
    rss_bytes: int


def daemons_of_user() -> list[RunningDaemon]:
    """Every daemon of this user, of whatever repository, by its root."""
    import psutil

    found: list[RunningDaemon] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real != os.getuid():
                continue
            argv = process.cmdline()
            if is_daemon(Program("", "", tuple(argv))):
                root = argv[argv.index("thrum.daemon") + 1]
                found.append(RunningDaemon(process.pid, root, process.create_time(), process.memory_info().rss))
    return sorted(found, key=lambda each: each.root)


OwnerState = Literal["none", "dead", "chain", "elsewhere"]
"""Of an identity, seen from a caller: no pid; not that process any more; alive among its ancestors; alive, not so."""


def _walk(
    read: Callable[[int], Process | None], pid: int, is_hidden: Callable[[int], bool] = lambda pid: False
) -> tuple[Process, ...]:
    """A chain by single looks; it ends below a parent that another user hides (as /proc mounted with `hidepid` does).

    A parent that vanishes on the way makes its children another's: then walk once more.
    """
    for _ in range(2):
        chain: list[Process] = []
        process = read(pid)
        if process is None:
            break
        while process is not None and (process.pid > 1 or not chain):
            chain.append(process)
            if process.ppid <= 1 or len(chain) == CHAIN_MAX:
                return tuple(chain)
            try:
                parent = read(process.ppid)
            except PermissionError:
                return tuple(chain)
            if parent is None and is_hidden(process.ppid):
                return tuple(chain)
            # A parent is never younger than its child: a younger one took over its pid while we walked.
            process = parent if parent is not None and parent.started_at <= process.started_at else None
        if process is not None:
            return tuple(chain)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"pid {pid}")


def _is_hidden(pid: int) -> bool:
    """Whether a process that can't be seen is there all the same: not being allowed to signal it says so."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


class ProcTable:
    """Linux: straight from /proc. A look takes some ten microseconds."""

    def __init__(self, proc: str = "/proc") -> None:
        """Raises OSError if there is no readable /proc."""
        self._proc = proc
        self._ticks = float(os.sysconf("SC_CLK_TCK"))
        self._boot_time = _boot_time(f"{proc}/stat")
        try:
            self._boot = Path(proc, "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            self._boot = f"{self._boot_time:.0f}"
        self._is_ours = _counts_as_we_do(proc)

    def read(self, pid: int) -> Process | None:
        if not self._is_ours:
            # The pid would be another process there.
            raise OSError(errno.EXDEV, f"{self._proc} is of another pid namespace")
        try:
            data = _content(f"{self._proc}/{pid}/stat")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command's name may hold blanks and brackets; the last bracket closes it.
        end = data.rindex(b")")
        fields = data[end + 2 :].split(None, 20)
        ticks = int(fields[19])
        comm = data[data.index(b"(") + 1 : end].decode("utf-8", "replace")
        return Process(
            pid,
            int(fields[1]),
            f"{self._boot}/{ticks}",
            self._boot_time + ticks / self._ticks,
            fields[0].decode(),
            comm,
        )

    def chain(self, pid: int) -> tuple[Process, ...]:
        return _walk(self.read, pid, _is_hidden)

    def cwd(self, pid: int) -> str:
        path = os.readlink(f"{self._proc}/{pid}/cwd")
        if not path.startswith("/") or (path.endswith(" (deleted)") and not os.path.isdir(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return path

    def program(self, pid: int) -> Program:
        comm, argv, exe = b"", b"", ""
        try:
            comm = _content(f"{self._proc}/{pid}/comm").removesuffix(b"\n")
            argv = _content(f"{self._proc}/{pid}/cmdline").removesuffix(b"\0")
            exe = os.readlink(f"{self._proc}/{pid}/exe")
        except OSError:
            # Another user's, or gone: what was read so far is what can be known.
            pass
        words = tuple(os.fsdecode(argv).split("\0")) if argv else ()
        return Program(comm.decode("utf-8", "replace"), exe, words)

    def terminal(self, pid: int) -> Terminal | None:
        data = _content(f"{self._proc}/{pid}/stat")
        # After the name: state, parent, group, session, terminal, the terminal's foreground group.
        fields = data[data.rindex(b")") + 2 :].split(None, 6)
        device = int(fields[4]) & 0xFFFFFFFF
        return Terminal(_device_name(device), fields[2] == fields[5]) if device else None

    def environ(self, pid: int) -> Mapping[str, str]:
        return environment_of(_content(f"{self._proc}/{pid}/environ", _ENVIRONMENT_BYTES_MAX))


_CONTENT_BYTES = 65536
_ENVIRONMENT_BYTES_MAX = 16 * 1024 * 1024
"""More than the kernel lets a program be started with, by default."""


def _content(path: str, bytes_max: int = _CONTENT_BYTES) -> bytes:
    """The first 64 KiB of a file; a runtime's name stands at the beginning of a command line.

    More of it with a larger `bytes_max`.
    """
    descriptor = open_following(path, os.O_RDONLY)
    try:
        data = os.read(descriptor, _CONTENT_BYTES)
        while len(data) < bytes_max and (piece := os.read(descriptor, _CONTENT_BYTES)):
            data += piece
        return data
    finally:
        os.close(descriptor)


def environment_of(data: bytes) -> dict[str, str]:
    """The variables in the kernel's own form, `NAME=VALUE` with a zero after each. Of one that occurs twice the first
    counts, as for `getenv`."""
    found: dict[str, str] = {}
    for entry in os.fsdecode(data).split("\0"):
        name, equals, value = entry.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def _device_name(device: int) -> str:
    """The usual name of a terminal's device, by its number."""
    major, minor = (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"/dev/pts/{(major - 136) * 256 + minor}"
    return f"/dev/tty{minor}" if major == 4 and minor < 64 else f"device {major}:{minor}"


def _counts_as_we_do(proc: str) -> bool:
    """Whether a /proc numbers processes as the kernel does for us: not in a container without one of its own."""
    try:
        return int(os.readlink(f"{proc}/self")) == os.getpid()
    except (OSError, ValueError):
        return False


def _boot_time(path: str) -> float:
    for line in Path(path).read_bytes().splitlines():
        if line.startswith(b"btime "):
            return float(line[6:])
    raise OSError(errno.EINVAL, "no btime", path)


class PsutilTable:
    """macOS and others, by psutil: the same answers, slower."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil

    def read(self, pid: int) -> Process | None:
        psutil = self._psutil
        if pid <= 0:
            return None
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                born = process.create_time()
                status = process.status()
                ppid, comm = process.ppid(), process.name()
        except psutil.NoSuchProcess as error:
            # A zombie is one, too, for psutil: it can say no more of it.
            if isinstance(error, psutil.ZombieProcess):
                return Process(pid, 0, "", 0.0, "Z")
            return None
        except psutil.AccessDenied as error:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"pid {pid}") from error
        state = {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_DEAD: "X"}.get(status, "S")
        return Process(pid, ppid or 0, f"{born:.6f}", born, state, comm)

    def chain(self, pid: int) -> tuple[Process, ...]:
        return _walk(self.read, pid, _is_hidden)

    def cwd(self, pid: int) -> str:
        psutil = self._psutil
        try:
            path = psutil.Process(pid).cwd()
        except psutil.NoSuchProcess as error:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"pid {pid}") from error
        except psutil.AccessDenied as error:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"pid {pid}") from error
        if not path or not os.path.isdir(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return os.path.realpath(path)

    def program(self, pid: int) -> Program:
        psutil = self._psutil
        comm, exe = "", ""
        argv: tuple[str, ...] = ()
        try:
            process = psutil.Process(pid)
            comm = process.name()
            argv = tuple(process.cmdline())
            exe = process.exe()
        except (psutil.Error, OSError):
            pass
        return Program(comm, exe, argv)

    def terminal(self, pid: int) -> Terminal | None:
        """Which group is in the foreground is not known here: a process with a terminal counts as being there."""
        name: str | None = self._ask(pid, "terminal")
        return Terminal(name, foreground=True) if name else None

    def environ(self, pid: int) -> Mapping[str, str]:
        return dict(self._ask(pid, "environ"))

    def _ask(self, pid: int, what: str) -> Any:
        psutil = self._psutil
        try:
            return getattr(psutil.Process(pid), what)()
        except psutil.NoSuchProcess as error:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"pid {pid}") from error
        except psutil.AccessDenied as error:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"pid {pid}") from error


class ProcessMap:
    """Processes in memory, for tests; `processes`, `cwds` and the others may be changed at any time."""

    def __init__(self, *processes: Process) -> None:
        self.processes = {process.pid: process for process in processes}
        self.cwds: dict[int, str] = {}
        self.programs: dict[int, Program] = {}
        self.terminals: dict[int, Terminal] = {}
        self.environs: dict[int, Mapping[str, str]] = {}

    def read(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def chain(self, pid: int) -> tuple[Process, ...]:
        return _walk(self.read, pid)

    def cwd(self, pid: int) -> str:
        if pid not in self.processes:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"pid {pid}")
        if pid not in self.cwds:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"pid {pid}")
        return self.cwds[pid]

    def program(self, pid: int) -> Program:
        process = self.processes.get(pid)
        return self.programs.get(pid) or Program(process.comm if process else "")

    def terminal(self, pid: int) -> Terminal | None:
        self._there(pid)
        return self.terminals.get(pid)

    def environ(self, pid: int) -> Mapping[str, str]:
        self._there(pid)
        return self.environs.get(pid, {})

    def _there(self, pid: int) -> None:
        if pid not in self.processes:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"pid {pid}")


def open_process_table() -> ProcessTable:
    """The table of this machine: /proc where there is one, else psutil."""
    if sys.platform == "linux":
        try:
            return ProcTable()
        except OSError:
            pass
    return PsutilTable()
