"""A lab for agent programs: real ones or stand-ins, in real tmux panes, before a scripted model, with no way out.

The programs stand in a home of their own without any inherited variable. Real ones (`THRUM_REAL_CLAUDE=/path`, set by
`make test-runtimes`) run in a network namespace that has loopback alone; the stand-ins ask nobody but the model. The
model's log is the judge of what a program's model was given.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.daemon.repo import THRUM, wait_until

HERE = Path(__file__).parent
REAL: Final = {
    "claude": "THRUM_REAL_CLAUDE",
    "codex": "THRUM_REAL_CODEX",
    "opencode": "THRUM_REAL_OPENCODE",
    "gemini": "THRUM_REAL_GEMINI",
}
"""The variables that name the real programs, by runtime."""
PROGRAMS: Final = {"cursor": "cursor-agent"}
"""What a runtime's program is called, where it is not called as the runtime."""
API_KEY: Final = "sk-dummy-0000000000000001"
COLUMNS, ROWS = 100, 30


def real(runtime: str) -> str:
    """The path of the real program; empty where the stand-in stands in."""
    return os.environ.get(REAL.get(runtime, ""), "")


@dataclass(frozen=True)
class Pane:
    """One program in its pane."""

    lab: Lab
    pane: str
    pid: int
    """Of the program itself."""

    def keys(self, *names: str) -> None:
        """Press keys, by tmux's names."""
        self.lab.tmux("send-keys", "-t", self.pane, *names)

    def type(self, text: str) -> None:
        """Type text, as a person does: no Enter."""
        self.lab.tmux("send-keys", "-t", self.pane, "-l", text)

    def say(self, text: str) -> None:
        """Type a line and send it off, once it stands there."""
        self.type(text)
        end = "".join(text.split())[-20:]
        wait_until(lambda: end in "".join(self.text().split()), f"{text!r} in the prompt: {self.text()}")
        self.keys("Enter")

    def text(self) -> str:
        """What stands on the screen."""
        return self.lab.tmux("capture-pane", "-p", "-t", self.pane)

    def shows(self, text: str) -> str:
        """Wait until that stands on the screen."""
        return wait_until(lambda: text in (seen := self.text()) and seen, f"{text!r} on the screen of {self.pane}")

    @property
    def status(self) -> str:
        """What the program says of itself in its registry (Claude): idle, busy, waiting; empty without one."""
        try:
            entry = json.loads((self.lab.home / ".claude/sessions" / f"{self.pid}.json").read_text())
        except (OSError, ValueError):
            return ""
        return str(entry.get("status", ""))

    def wait_status(self, *wanted: str) -> None:
        wait_until(lambda: self.status in wanted, f"status {wanted}, not {self.status!r}: {self.text()}")


class Lab:
    """A home, a model and a tmux server. All that is started here is ended with it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.home = top / "home"
        self.bin = top / "bin"
        self.home.mkdir()
        self.bin.mkdir()
        (self.bin / "thrum").symlink_to(THRUM)
        (self.home / ".gitconfig").write_text("[user]\n\tname = Lab\n\temail = lab@localhost\n")
        self.port = _free_port()
        self._log = top / "model.jsonl"
        self._log.touch()
        self._tmux = str(top / "tmux.sock")
        self._panes = 0
        self._base = subprocess.Popen(
            [*_namespace(), "sh", "-c", self._start_script()],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: self._log.stat().st_size and os.path.exists(self._tmux), "the model and tmux")

    def environment(self, **more: str) -> dict[str, str]:
        """All that a program here inherits."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "USER": "lab",
            "SHELL": "/bin/bash",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self.port}",
            "ANTHROPIC_API_KEY": API_KEY,
            "FAKE_KEY": "dummy",
            "FAKE_CHAT_URL": f"http://127.0.0.1:{self.port}/v1",
            "GEMINI_API_KEY": "dummy",
            "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{self.port}",
            "GEMINI_TELEMETRY_ENABLED": "false",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "IS_SANDBOX": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            **more,
        }

    def _start_script(self) -> str:
        model = shlex.join([sys.executable, str(HERE / "scripted_model.py"), str(self.port), str(self._log)])
        server = shlex.join(
            ["tmux", "-S", self._tmux, "-f", str(HERE / "tmux.conf"), "new-session", "-d", "-s", "base"]
        )
        return f"ip link set lo up 2>/dev/null; {server}; exec {model}"

    # -- programs

    def install(self, runtime: str) -> None:
        """Put the program on the PATH: the real one, or its stand-in."""
        path = self.bin / PROGRAMS.get(runtime, runtime)
        if path.exists():
            return
        if program := real(runtime):
            path.symlink_to(program)
        elif (script := HERE / "standins" / f"{runtime}.mjs").exists():
            path.write_text(f"#!{shutil.which('node')}\n" + script.read_text())
            path.chmod(0o755)
        else:
            path.write_text(f"#!{sys.executable}\n" + (HERE / "standins" / f"{runtime}.py").read_text())
            path.chmod(0o755)
        _SET_UP[runtime](self)

    def start(self, command: str, at: Path, *, runtime: str = "", env: Mapping[str, str] | None = None) -> Pane:
        """A command in a pane of its own; a shell comes after it. `pid` is that of the program called `runtime`."""
        self._panes += 1
        variables = [f"-e{name}={value}" for name, value in (env or {}).items()]
        pane = self.tmux(
            *("new-session", "-d", "-P", "-F", "#{pane_id}", "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(at)),
            *variables,
            f"{command}; exec bash --norc",
        ).strip()
        shell = int(self.tmux("display-message", "-p", "-t", pane, "#{pane_pid}"))
        name = runtime or command.split()[0]
        pid = wait_until(lambda: _below(shell, name), f"a process {name} in {pane}")
        return Pane(self, pane, pid)

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._tmux, *words], env=self.environment(), check=True, capture_output=True, text=True
        )
        return done.stdout

    def run(self, *argv: str, at: Path) -> str:
        """A program of the lab that ends by itself; what it prints."""
        done = subprocess.run(
            [*_namespace(), *argv], cwd=at, env=self.environment(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done
        return done.stdout

    # -- the model

    def model_log(self) -> list[dict[str, Any]]:
        """Every request so far: `new` is what the model had not seen before."""
        whole, _, _ = self._log.read_text().rpartition("\n")  # the last line may just be written
        lines = whole.splitlines()
        return [entry for entry in (json.loads(line) for line in lines) if "api" in entry]

    def given(self, text: str) -> int:
        """How many requests brought that text new to a model."""
        return sum(text in entry["new"] for entry in self.model_log())

    def wait_given(self, text: str) -> None:
        wait_until(lambda: self.given(text), f"{text!r} in what a model was given")

    # -- the end

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.tmux("kill-server")
        self._base.kill()
        self._base.wait()
        _end_processes(str(self.top))
        shutil.rmtree(self.top, ignore_errors=True)


@contextlib.contextmanager
def open_lab(*runtimes: str) -> Generator[Lab]:
    """A lab with these programs."""
    lab = Lab(Path(tempfile.mkdtemp(prefix="thrum-lab-")).resolve())
    try:
        for runtime in runtimes:
            lab.install(runtime)
        yield lab
    finally:
        lab.close()


def trust(lab: Lab, directory: Path) -> None:
    """As if the person had said to each program that they trust this folder."""
    if (config := lab.home / ".codex/config.toml").exists():
        with config.open("a") as file:
            file.write(f'\n[projects."{directory}"]\ntrust_level = "trusted"\n')
    path = lab.home / ".claude.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault("projects", {})[str(directory)] = {"hasTrustDialogAccepted": True, "allowedTools": []}
    path.write_text(json.dumps(known))


def _set_up_claude(lab: Lab) -> None:
    settings = lab.home / ".claude/settings.json"
    settings.parent.mkdir(exist_ok=True)
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1"}
    settings.write_text(
        json.dumps(
            {
                "env": quiet,
                "permissions": {"allow": ["Bash(thrum:*)"]},
                "skipDangerousModePermissionPrompt": True,
            }
        )
    )
    (lab.home / ".claude.json").write_text(
        json.dumps(
            {
                "hasCompletedOnboarding": True,
                "numStartups": 9,
                "customApiKeyResponses": {"approved": [API_KEY[-20:]], "rejected": []},
                "lastReleaseNotesSeen": "9.9.9",
                "projects": {},
            }
        )
    )


def _set_up_codex(lab: Lab) -> None:
    home = lab.home / ".codex"
    home.mkdir()
    # Its tools run in login shells, whose PATH begins from nothing.
    (lab.home / ".profile").write_text(f'PATH="{lab.bin}:$PATH"\n')
    (home / "config.toml").write_text(
        f"""\
model = "fake"
model_provider = "local"
check_for_update_on_startup = false
approval_policy = "on-request"
sandbox_mode = "workspace-write"

[sandbox_workspace_write]
network_access = true
exclude_slash_tmp = true

[model_providers.local]
name = "local"
base_url = "http://127.0.0.1:{lab.port}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
requires_openai_auth = false

[analytics]
enabled = false

[features]
hooks = true

[tui]
screen_reader_detection_done = true
"""
    )


def supply_opencode(directory: Path) -> None:
    """Put what the real program would fetch into a folder that has plugins: without a network it tries for a minute."""
    if program := real("opencode"):
        packages = next(above for above in Path(program).parents if above.name == "node_modules")
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(packages.parent / "plugin" / name, directory)
        (directory / "node_modules").symlink_to(packages.parent / "plugin/node_modules")


def _set_up_gemini(lab: Lab) -> None:
    settings = lab.home / ".gemini/settings.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(
        json.dumps(
            {
                "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
                "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
                "privacy": {"usageStatisticsEnabled": False},
                "telemetry": {"enabled": False},
                "ui": {"theme": "Default"},
                "model": {"name": "gemini-2.5-flash"},
                "hooksConfig": {"enabled": True},
            }
        )
    )


def _set_up_opencode(lab: Lab) -> None:
    config = lab.home / ".config/opencode"
    supply_opencode(config)
    config.mkdir(parents=True, exist_ok=True)
    options = {"baseURL": f"http://127.0.0.1:{lab.port}/v1", "apiKey": "dummy"}
    model = {"fake": {"name": "fake", "limit": {"context": 100_000, "output": 4_000}}}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "local", "options": options, "models": model}
    (config / "opencode.json").write_text(
        json.dumps(
            {
                "autoupdate": False,
                "share": "disabled",
                "model": "local/fake",
                "small_model": "local/fake",
                "provider": {"local": provider},
                "permission": {"bash": {"*": "allow", "touch *": "ask"}, "external_directory": "allow"},
            }
        )
    )


def _set_up_nothing(lab: Lab) -> None:
    pass


_SET_UP: Final = {
    "claude": _set_up_claude,
    "codex": _set_up_codex,
    "gemini": _set_up_gemini,
    "opencode": _set_up_opencode,
    "cursor": _set_up_nothing,
}


def _namespace() -> list[str]:
    """What keeps real programs from the network; stand-ins need nothing."""
    if not any(real(runtime) for runtime in REAL):
        return []
    return ["unshare", "-n"] if os.getuid() == 0 else ["unshare", "-rn"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _below(pid: int, name: str) -> int:
    """The process of that name below `pid`, or itself; 0 if there is none yet."""
    for each in [pid, *_children(pid)]:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
            if any(os.path.basename(word.decode()) == name for word in words[:2]) and words[0] != b"bash":
                return each
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found


def _end_processes(top: str) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "environ").read_bytes()
                if f"HOME={top}/".encode() in words and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), 9)
