"""The console script: hands the command line to the warm daemon and copies out what it says (rpc.md §6).

Agents run `thrum` at every turn, so this imports nothing but os, sys and _socket, and ends without tearing the
interpreter down. Every other case (no daemon, an unusual directory, bytes that are not text) goes to `cli.app` in
this process, which runs the same command and reports what is wrong.
"""

import os
import sys

from thrum import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import collections.abc

_ENVIRONMENT = ("NO_COLOR", "TERM", "COLUMNS", "TMUX", "TMUX_PANE", "CODEX_THREAD_ID")
_SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
_SOCKET = "/var/thrum.sock"
_CHUNK = 65536
_INTERRUPTED = 130
_NO_RUNTIMES = ("install", "uninstall", "status")
"""Commands of people below `hook`; what else stands there a runtime says, and never from a terminal."""


def main() -> None:
    """Run the command line of this process. Does not return."""
    argv = sys.argv[1:]
    _fill_streams()
    try:
        if argv == ["--version"] or argv == ["-v"]:
            from thrum.version import version_text

            _write(1, version_text().encode() + b"\n")
            os._exit(0)
        if argv[:1] == ["hook"] and len(argv) == 3 and argv[1] not in _NO_RUNTIMES and not os.isatty(0):
            run_hook(argv)
        address = "" if _is_about_the_daemon(argv) else find_socket(argv)
        key = run_in_daemon(address, argv) if address else ""
        _let_garbage_wait(True)
        from thrum.cli import app

        _let_garbage_wait(False)
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    app.main(argv, client_key=key)


def _let_garbage_wait(wait: bool) -> None:
    """Nothing of what a command line loads becomes garbage: to look for it meanwhile takes a fifth of the time."""
    import gc

    gc.disable() if wait else gc.enable()


def _is_about_the_daemon(argv: list[str]) -> bool:
    """Whether it is for the command to look after a daemon that may hang: then we don't wait for its answer."""
    words = [word for word in argv if not word.startswith("-")]
    return words[:1] == ["daemon"] or words[:1] == ["doctor"]


# -- where the daemon is


def find_socket(argv: list[str]) -> str:
    """The path of the socket of the daemon that is asked, by the walk of identity.md §3; empty when that takes a closer
    look.

    `paths.find_layout` is the rule; where it finds a place, this finds the same. What counts is the daemon's to judge.
    """
    environ = os.environ
    address = environ.get("THRUM_SOCKET", "")
    if address:
        return address if len(os.fsencode(address)) <= _SOCKET_PATH_BYTES_MAX else ""
    try:
        state = _find_state(_start(argv, environ.get("THRUM_HOME", "")))
    except (OSError, ValueError):
        return ""
    return state + _SOCKET if state else ""


def connect(connection: "_socket.socket", address: str) -> None:
    """Connect to the socket of a state directory: no link on the way, and all of it this user's. Raises OSError.

    `sockets.connect` is the rule.
    """
    if not address.endswith("/.thrum" + _SOCKET):
        connection.connect(address)  # as the user named it
        return
    own = _open_own(address[: -len(_SOCKET)], None)
    try:
        if not _connect_beside(connection, own, address):
            _connect_short(connection, os.fstat(own))
    finally:
        os.close(own)


def _connect_beside(connection: "_socket.socket", own: int, address: str) -> bool:
    """Whether there was a socket in `var`, below the directory `own`."""
    try:
        var = _open_own("var", own)
    except FileNotFoundError:
        return False
    try:
        if os.stat("thrum.sock", dir_fd=var, follow_symlinks=False).st_mode & 0o170000 == 0o120000:
            return False
        # By the descriptor: of any length, and whatever is put in the place of the directories meanwhile.
        connection.connect(f"/proc/self/fd/{var}/thrum.sock" if sys.platform == "linux" else address)
        return True
    except FileNotFoundError:
        return False
    finally:
        os.close(var)


def _connect_short(connection: "_socket.socket", state: os.stat_result) -> None:
    short = f"{os.path.realpath('/tmp')}/thrum-{os.getuid()}-{state.st_dev:x}-{state.st_ino:x}"
    status = os.lstat(short)
    if status.st_uid != os.getuid() or status.st_mode & 0o170077 != 0o040000:
        raise PermissionError
    connection.connect(short + "/thrum.sock")


def _open_own(path: str, directory: "int | None") -> int:
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(path, flags, dir_fd=directory)
    if os.fstat(descriptor).st_uid != os.getuid():
        os.close(descriptor)
        raise PermissionError
    return descriptor


def _start(argv: list[str], home: str) -> str:
    """Where the walk begins: `--repo`, `THRUM_HOME`, the working directory."""
    repo = ""
    for index, word in enumerate(argv):
        if word == "--":
            break
        if word == "--repo" or word.startswith("--repo="):
            if repo or (word == "--repo" and index + 1 == len(argv)):
                raise ValueError("which repository is not plain")
            repo = word[7:] if word != "--repo" else argv[index + 1]
            if not repo:
                raise ValueError("no repository is named")
    return os.path.realpath(repo or home) if repo or home else os.getcwd()


def _find_state(directory: str) -> str:
    """The state directory of a process in `directory`, a real path; empty: none. Raises ValueError, OSError."""
    while True:
        state = _state_at(directory)
        if state:
            return state
        parent = os.path.dirname(directory)
        if parent == directory:
            return ""
        directory = parent


def _state_at(directory: str, follow: bool = True) -> str:
    own = directory.rstrip("/") + "/.thrum"
    if os.path.lexists(own + "/redirect"):
        return _redirected(own)
    common = _common_dir(directory.rstrip("/") + "/.git") if follow else ""
    if os.path.isfile(own + "/config.json"):
        return own
    if not common and (os.path.lexists(own + "/identities") or os.path.lexists(own + "/.mark")):
        return own
    if not common:
        return ""
    main_worktree, name = os.path.split(common)
    if name != ".git":
        raise ValueError("a bare repository has no main worktree")
    return "" if main_worktree == directory else _state_at(main_worktree, False)


def _redirected(own: str) -> str:
    target = _read(own + "/redirect")
    if not target.startswith("/") or not os.path.isdir(target):
        raise ValueError("a bad redirect")
    target = os.path.realpath(target)
    if target == own or os.path.lexists(target + "/redirect"):
        raise ValueError("a bad redirect")
    return target


def _common_dir(dot_git: str) -> str:
    """Git's common directory if `.git` belongs to a linked worktree, else empty."""
    if not os.path.isfile(dot_git):
        return ""
    text = _read(dot_git)
    if not text.startswith("gitdir:"):
        return ""
    git_dir = os.path.realpath(os.path.join(os.path.dirname(dot_git), text[7:].strip()))
    if not os.path.isfile(git_dir + "/commondir"):
        return ""
    return os.path.realpath(os.path.join(git_dir, _read(git_dir + "/commondir")))


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # whatever it is, don't block on it
    try:
        return os.fsdecode(os.read(descriptor, _CHUNK)).strip()
    finally:
        os.close(descriptor)


# -- hooks of runtimes


_WAIT_SECONDS = 1.0
"""How often a waiter looks for a daemon that is away."""
_CARES = (b"wak_", b'"SessionStart"')
"""What in a payload is worth a process of its own where no daemon answers: a proof, and a session's start."""


def run_hook(argv: list[str]) -> None:
    """A hook of a runtime, `hook RUNTIME EVENT`: it ends in silence and with 0 whatever is wrong (wake.md §1.6).

    Returns when this process is to run it: stdin is then as it was.
    """
    try:
        # Where its session began, wherever the agent went since: a hook is of that repository (wake.md §3).
        os.chdir(os.environ.get("CLAUDE_PROJECT_DIR") or ".")
    except OSError:
        os._exit(0)
    address = find_socket(argv)
    if not address:
        os._exit(0)
    payload = b"".join(iter(_read_stdin, b""))
    waits = argv[2] == "wait"
    status = _wait_for_mail(address, argv, payload) if waits else _call_hook(address, argv, payload)
    if status == _CUT_SHORT:
        status = 2 if waits else 0  # what was said was said
    hands_in = status == _RUN_HERE and argv[1] == "codex"  # what waits in a sandboxed session's outbox
    if status >= 0 or not (hands_in or any(word in payload for word in _CARES)):
        os._exit(max(status, 0))
    _give_back([payload, b""])


def _call_hook(address: str, argv: list[str], payload: bytes) -> int:
    connection = _request(address, argv, "")
    if connection is None:
        return _NO_ANSWER
    pieces = iter([payload[at : at + _CHUNK] for at in range(0, len(payload), _CHUNK)])
    try:
        return _converse(connection, lambda: next(pieces, b""))
    finally:
        connection.close()


def _wait_for_mail(address: str, argv: list[str], payload: bytes) -> int:
    """Sleep in the daemon until there is mail, over its restarts, for as long as the process above lives."""
    import time

    parent = os.getppid()
    while True:
        status = _call_hook(address, argv, payload)
        if status >= 0 or status == _CUT_SHORT:
            return status
        time.sleep(_WAIT_SECONDS)
        if os.getppid() != parent or not os.path.isdir(os.path.dirname(address)):
            return 0
        if status == _RUN_HERE:  # a daemon of another version: what is installed may be another one by now, too
            _give_back([payload, b""])
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


# -- the request


_ESCAPES = {code: f"\\u{code:04x}" for code in range(32)}
_ESCAPES[34] = '\\"'
_ESCAPES[92] = "\\\\"


def _json(text: str) -> str:
    return '"' + text.translate(_ESCAPES) + '"'


def request_line(argv: list[str], key: str) -> bytes:
    """The call `cli.run` of this process. UnicodeEncodeError: a word is no UTF-8, which JSON can't carry."""
    environ = os.environ
    claims = [name for name in environ if name.startswith("THRUM_") or name in _ENVIRONMENT]
    tty = sum(1 << fd for fd in (0, 1, 2) if os.isatty(fd))
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        width = int(columns)
    else:
        width = os.get_terminal_size(1).columns if tty & 2 else 0
    words = ",".join([_json(word) for word in argv])
    variables = ",".join([f"{_json(name)}:{_json(environ[name])}" for name in claims])
    return (
        f'{{"jsonrpc":"2.0","id":1,"method":"cli.run","params":{{"argv":[{words}],"cwd":{_json(os.getcwd())},'
        f'"env":{{{variables}}},"width":{width},"tty":{tty},"frames":"raw","program":"{__version__}",'
        f'"client_key":"{key}"}}}}\n'
    ).encode()


# -- the conversation


def run_in_daemon(address: str, argv: list[str]) -> str:
    """Let the daemon run the command, and end with its exit status. Returns when this process is to run it.

    Then the answer is the key under which the daemon may already have carried it out, or empty if it never got it.
    """
    key = os.urandom(16).hex()
    stdin: list[bytes] = []

    def read() -> bytes:
        stdin.append(_read_stdin())
        return stdin[-1]

    connection = _request(address, argv, key)
    if connection is None:
        return ""
    status = _converse(connection, read)
    if status == _CUT_SHORT:
        _write(2, _LOST)
        status = 1
    if status >= 0:
        os._exit(status)
    connection.close()
    if stdin:
        _give_back(stdin)
    return key


_LOST = b"Error: the daemon went away while the command ran\n  fix: thrum daemon logs -n 20, then look and repeat\n"


def _request(address: str, argv: list[str], key: str) -> "_socket.socket | None":
    """A connection on which the daemon was asked to run the command; None: it was not."""
    import _socket

    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    except OSError:  # a sandbox that has none
        return None
    try:
        line = request_line(argv, key)
        connect(connection, address)
        _check_owner(connection)
        _send(connection, line)
    except (OSError, ValueError):  # no daemon, a sandbox, no working directory, no UTF-8
        # A part of a line is no request: nothing was executed.
        connection.close()
        return None
    return connection


def _check_owner(connection: "_socket.socket") -> None:
    """Raise PermissionError if another user's process listens there, as in a directory that is open to all."""
    import _socket

    level, option = (0, 1) if sys.platform == "darwin" else (_socket.SOL_SOCKET, _socket.SO_PEERCRED)
    # `ucred` and, on macOS, `xucred` both have the user in their second word.
    if int.from_bytes(connection.getsockopt(level, option, 76)[4:8], sys.byteorder) != os.getuid():
        raise PermissionError


_NO_ANSWER, _RUN_HERE, _CUT_SHORT = -1, -2, -3
"""No status came: nothing was done that shows, this process is asked to run the command, or something was printed."""


def _converse(connection: "_socket.socket", read: "collections.abc.Callable[[], bytes]") -> int:
    """Do what the frames say; the exit status, or why there is none. `read`: the next bytes of stdin."""
    lost = _NO_ANSWER
    buffer = b""
    while True:
        while len(buffer) < 5 or len(buffer) < 5 + int.from_bytes(buffer[1:5], "big"):
            if buffer[:1] == b"{":
                # An error, not a frame.
                return lost
            try:
                data = connection.recv(2 * _CHUNK)
            except OSError:
                data = b""
            if not data:
                return lost
            buffer += data
        kind = buffer[:1]
        end = 5 + int.from_bytes(buffer[1:5], "big")
        payload, buffer = buffer[5:end], buffer[end:]
        if kind == b"o" or kind == b"e":
            lost = _CUT_SHORT
            _write(1 if kind == b"o" else 2, payload)
        elif kind == b"x" and payload:
            return payload[0]
        elif kind == b"f":
            _answer(connection, b"a\0\0\0\0")
        elif kind == b"i":
            piece = read()
            _answer(connection, b"s" + len(piece).to_bytes(4, "big") + piece)
        else:
            return _RUN_HERE if kind == b"l" and lost == _NO_ANSWER else lost


def _send(connection: "_socket.socket", data: bytes) -> None:
    while data:
        data = data[connection.send(data) :]


def _answer(connection: "_socket.socket", data: bytes) -> None:
    try:
        _send(connection, data)
    except OSError:
        pass  # its end shows when it is read


# -- the streams of this process


def _fill_streams() -> None:
    """Fill the place of a stream that was closed before us: else the next file opened is taken for it, our socket say.

    Like the closed one, it can't be read or written.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if fd else os.O_WRONLY)


def _write(fd: int, data: bytes) -> None:
    """Write all of it at once. Ends the process when stdout can't be written; stderr is not worth that."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            _wait(fd, write=True)
        except OSError as error:
            if fd == 2:
                return
            if isinstance(error, BrokenPipeError):
                _end_by_sigpipe()
            _write(2, f"Error: cannot write the output: {error.strerror}\n".encode())
            os._exit(1)


def _end_by_sigpipe() -> None:
    """End as any program whose reader went away: silently, and seen as such by the shell."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


def _read_stdin() -> bytes:
    """The next bytes, empty at the end; a stdin that is closed or can't be read has none."""
    while True:
        try:
            return os.read(0, _CHUNK)
        except BlockingIOError:
            _wait(0, write=False)
        except OSError:
            return b""


def _wait(fd: int, write: bool) -> None:
    """Another program made our descriptor non-blocking (Node does so with its children's pipes)."""
    import select

    select.select([] if write else [fd], [fd] if write else [], [])


def _give_back(stdin: list[bytes]) -> None:
    """Make stdin again what it was, for the run in this process."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        while stdin[-1]:
            stdin.append(_read_stdin())
        file.write(b"".join(stdin))
        file.seek(0)
        os.dup2(file.fileno(), 0)
