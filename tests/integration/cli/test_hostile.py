"""Every command's output with hostile text in every field: nothing of it acts, hides, or can be taken for thrum's own.

The daemon stands in here, since a real one refuses much of it: what a result's type can hold, each field holds. The
repository's path, its settings, log, notes and identity file are as hostile.
"""

from __future__ import annotations

import itertools
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect as mi
import pytest

from tests.support.cli.fake_daemon import FakeDaemon, add_identity, go
from thrum.cli.render import hint_line
from thrum.cli.table import ALIASES, COMMANDS
from thrum.cli.text import clean
from thrum.model import errors, wire_types
from thrum.model.methods.table import METHODS

MARKS = (
    "Error:", "fix:", "warning:", "hint:", "debug:", "Next:", "MESSAGES_RECEIVED", "NO_MESSAGES_TIMEOUT", "✓", "●", "○",
    "Message:", "From:", "To:", "Showing", "You:", "# ", "## ", "-", "@", "$",
)  # fmt: skip
"""How lines of thrum's begin, that an agent or a person goes by."""
ACTS = "\x1b[2J\x9b31m\x7f\x85\r\u202e\u200b\U000e0041\u2028\u2029\xad"
HOSTILE = f"{ACTS}x" + "".join(f"\n{mark} FORGED" for mark in MARKS) + "\n  fix: FORGED"
BODY = HOSTILE.replace("FORGED", "BODIED") + "\n\n"
MANY_LINES = {"content", "preamble", "project_state", "text"}
"""Fields that have more than one line where they are shown."""
TIMES = ("_at", "timestamp", "session_start", "last_seen", "last_modified", "before", "oldest", "newest")
TIME = "2026-02-03T10:00:00.000Z"
MSG = "msg_01HXE8Z7R9K3Q6M2W8F4VYABCD"


def filled(kind: mi.Type, name: str, *, yes: bool, times: bool, deep: int = 0) -> Any:
    """A value of a type with everything hostile in it that it can hold, as JSON has it."""
    match kind:
        case mi.StrType() | mi.AnyType() | mi.RawType():
            if times and name.endswith(TIMES):
                return TIME
            return BODY if name in MANY_LINES else HOSTILE
        case mi.BoolType():
            return yes
        case mi.IntType():
            return 3 if yes else 0
        case mi.FloatType():
            return 1.5
        case mi.LiteralType(values=values):
            return values[0 if yes else -1]
        case mi.UnionType(types=types):
            some = [each for each in types if not isinstance(each, mi.NoneType)]
            return filled(some[0], name, yes=yes, times=times, deep=deep)
        case mi.ListType() | mi.VarTupleType() | mi.SetType() | mi.FrozenSetType():
            return [filled(kind.item_type, name, yes=yes, times=times, deep=deep + 1)] * 2 if deep < 8 else []
        case mi.TupleType(item_types=types):
            return [filled(each, name, yes=yes, times=times, deep=deep + 1) for each in types]
        case mi.DictType(value_type=value):
            return {HOSTILE: filled(value, name, yes=yes, times=times, deep=deep + 1)}
        case mi.StructType(fields=fields):
            return {
                each.encode_name: filled(each.type, each.name, yes=yes, times=times, deep=deep + 1)
                for each in fields
                if deep < 8
            }
        case mi.BytesType():
            return ""
        case _:
            return None


def hostile_answers(*, yes: bool, times: bool) -> Any:
    epochs = itertools.count()

    def answer(method: str, _params: Any) -> Any:
        kind = METHODS[method].result
        made = filled(mi.type_info(kind), "", yes=yes, times=times)
        if method == "health":
            made["epoch"] += str(next(epochs))  # a repair is over when it is another one
        if method == "message.wait":
            made["status"] = "received"
        return msgspec.convert(made, kind)

    return answer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose path, settings, log, notes and identity are hostile."""
    root = tmp_path / HOSTILE.replace("/", "")[:120]
    (root / ".git").mkdir(parents=True)
    state = root / ".thrum"
    for name in ("identities", "context", "var"):
        (state / name).mkdir(parents=True)
    settings = {"runtime": {"primary": HOSTILE}, "worktrees": {"base_path": HOSTILE}, HOSTILE: HOSTILE}
    (state / "config.json").write_text(json.dumps(settings))
    add_identity(root, "nux")
    path = state / "identities" / "nux.json"
    identity = json.loads(path.read_text())
    identity |= {"branch": HOSTILE, "intent": HOSTILE, "worktree": HOSTILE, "tmux_session": HOSTILE, "runtime": HOSTILE}
    identity["agent"]["display"] = HOSTILE
    path.write_text(json.dumps(identity))
    for name in ("nux.md", "nux_preamble.md", "project_state.md"):
        (state / "context" / name).write_text(BODY)
    entry = {"time": TIME, "level": HOSTILE, "message": HOSTILE, "traceback": BODY, HOSTILE: HOSTILE}
    (state / "var" / "daemon.log").write_text(f"{json.dumps(entry)}\n{HOSTILE}\n{json.dumps(entry)}\n")
    return root


WALK: dict[str, tuple[str, ...]] = {
    "quickstart": ("quickstart nux --role reviewer --module auth --intent X",),
    "agent register": ("agent register --role reviewer --module auth",),
    "agent list": ("agent list", "agent list --context"),
    "agent rename": ("agent rename X", "agent rename rictus"),
    "agent delete": ("agent delete nux --force", "agent delete nux"),
    "agent cleanup": ("agent cleanup", "agent cleanup --force"),
    "agent set-status": ("agent set-status idle", "agent set-status idle --agent X"),
    "whoami": ("whoami", "whoami --field intent", "whoami --field branch"),
    "send": ("send hi --to X", "send hi"),
    "reply": (f"reply {MSG} hi", f"reply {MSG} hi --only-author", "reply X hi"),
    "inbox": ("inbox", "inbox --all", "inbox --search x --page 2", "inbox --all --to X --from X", "inbox --thread X"),
    "sent": ("sent", "sent --to X"),
    "message get": (f"message get {MSG}", f"message get {MSG} --peek", "message get X"),
    "message edit": (f"message edit {MSG} hi",),
    "message delete": (f"message delete {MSG} --force", f"message delete {MSG}"),
    "message read": (f"message read {MSG}", "message read --all", "message read X"),
    "wait": ("wait --timeout 0", "wait --timeout 0 --from X"),
    "team": ("team --all --files", "team"),
    "overview": ("overview",),
    "prime": ("prime",),
    "who-has": ("who-has X", "who-has a/b"),
    "ping": ("ping nux", "ping X"),
    "session start": ("session start",),
    "session end": ("session end",),
    "session list": ("session list", "session list --agent X"),
    "session heartbeat": ("session heartbeat",),
    "session set-intent": ("session set-intent X",),
    "session set-task": ("session set-task X",),
    "group create": ("group create X --description X",),
    "group delete": ("group delete X --force", "group delete X"),
    "group add": ("group add X nux", "group add X X", "group add X --role X"),
    "group remove": ("group remove X nux", "group remove X X"),
    "group list": ("group list",),
    "group show": ("group show X",),
    "group members": ("group members X --expand",),
    "context show": ("context show", "context show --raw", "context show --agent nux", "context show --agent X"),
    "context save": ("context save",),
    "context clear": ("context clear",),
    "context preamble": ("context preamble", "context preamble --init", "context preamble --agent X"),
    "context sync": ("context sync",),
    "sync status": ("sync status",),
    "sync force": ("sync force", "sync force --wait"),
    "sync enable": ("sync enable --yes",),
    "sync disable": ("sync disable",),
    "sync accept": ("sync accept X", "sync accept X --gone", "sync accept"),
    "daemon status": ("daemon status",),
    "daemon list": ("daemon list",),
    "daemon logs": ("daemon logs -n 0", "daemon logs --since X"),
    "purge": ("purge --all", "purge --all --confirm"),
    "purge accept": ("purge accept X",),
    "config show": ("config show",),
    "config get": ("config get runtime.primary", "config get X"),
    "config set": ("config set runtime.primary X", "config set X X"),
    "config unset": ("config unset runtime.primary",),
    "config diff": ("config diff",),
    "config accept": ("config accept --yes", "config accept"),
    "backup": ("backup", "backup --dir X"),
    "backup status": ("backup status",),
    "backup config": ("backup config",),
    "verify": ("verify",),
    "wake": ("wake", "wake X"),
    "ask": ("ask nux hi --timeout 0",),
    "runtime list": ("runtime list",),
    "runtime show": ("runtime show claude", "runtime show X"),
    "runtime set-default": ("runtime set-default X",),
    "hook install": ("hook install X", "hook install claude"),
    "hook uninstall": ("hook uninstall X", "hook uninstall claude"),
    "hook status": ("hook status",),
    "worktree create": ("worktree create w",),
    "worktree list": ("worktree list",),
    "worktree teardown": ("worktree teardown w",),
    "tmux create": ("tmux create w --no-agent",),
    "tmux launch": ("tmux launch w",),
    "tmux status": ("tmux status",),
    "tmux kill": ("tmux kill w",),
    "tmux send": ("tmux send w hi",),
    "tmux capture": ("tmux capture w",),
    "tmux restart": ("tmux restart w",),
    "tmux snapshot": ("tmux snapshot check",),
    "doctor": ("doctor",),
    "version": ("version",),
    "help": ("help", "help X"),
    "completion": ("completion bash", "completion X"),
    "init": ("init --dry-run", "init --runtime X --dry-run"),
    "setup": ("setup", "setup --main-repo X"),
    "setup claude-md": ("setup claude-md", "setup claude-md --runtime X"),
    "uninstall": ("uninstall",),
    "backup restore": ("backup restore", "backup restore X --yes"),
    "log": ("log", "log --agent X --since X"),
}
"""Command lines; a word X is the hostile text."""
STREAMS = {
    "watch",
    "daemon start",
    "daemon stop",
    "daemon restart",
    "demo",
    "run",
    "tmux start",
    "tmux connect",
    "hook",
}
"""What runs processes, or never ends: `render.hint_line` of `watch` has a test of its own below."""


def walk() -> Iterator[list[str]]:
    for lines in WALK.values():
        for each in lines:
            yield [HOSTILE if word == "X" else word for word in each.split()]


def check(argv: list[str], out: str, err: str) -> None:
    """Nothing acts or hides; no line that is not thrum's begins as thrum's do."""
    for text in (out, err):
        assert clean(text) == text, (argv, text)
        if "--raw" in argv:
            continue  # the bare files, as asked
        for line in text.split("\n"):
            stripped = line.lstrip()
            assert not any(stripped.startswith(f"{mark} FORGED") for mark in MARKS), (argv, line)
            if any(stripped.startswith(f"{mark} BODIED") for mark in MARKS):
                assert line.startswith("  "), (argv, line)


def test_a_line_of_watch_is_one_line() -> None:
    for yes in (True, False):
        made = filled(mi.type_info(wire_types.Hint), "", yes=yes, times=False)
        made.pop("fact")  # bytes of the journal, for programs
        hint = msgspec.convert(made, wire_types.Hint)
        for kind in (HOSTILE, "message.create"):
            shown = hint_line(msgspec.structs.replace(hint, type=kind), 0)
            assert "\n" not in shown
            check(["watch"], shown, "")


def test_every_command_is_walked() -> None:
    names = {" ".join(path) for path in COMMANDS if path not in ALIASES}
    assert names == set(WALK) | STREAMS


@pytest.mark.parametrize("words", list(walk()), ids=lambda words: " ".join(words).replace(HOSTILE, "X"))
async def test_no_command_prints_what_acts_hides_or_forges(
    words: list[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root))
    for yes in (True, False):
        for times in (True, False):
            for more in ((), ("--json",), ("--verbose",)):
                daemon = FakeDaemon(hostile_answers(yes=yes, times=times))
                argv = [*words, *more]
                _, out, err = await go(daemon, root, *argv, local=True, stdin=b"hi")
                if "--json" in more:
                    assert clean(out) == out, argv
                    assert out or words[0] == "log"  # a line an entry
                    for line in out.splitlines():
                        json.loads(line)
                else:
                    check(argv, out, err)


REFUSALS = [
    errors.UnknownRecipient(HOSTILE, remedy=HOSTILE, suggestions=[HOSTILE]),
    errors.CrossWorktree(
        f'identity guard "x" fired: {HOSTILE}',
        remedy=HOSTILE,
        guard=HOSTILE,
        expected_agent=HOSTILE,
        detected_agent=HOSTILE,
        caller_cwd=HOSTILE,
        log=HOSTILE,
    ),
    RuntimeError(HOSTILE),
]


@pytest.mark.parametrize("words", list(walk()), ids=lambda words: " ".join(words).replace(HOSTILE, "X"))
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: type(each).__name__)
async def test_no_refusal_of_a_daemon_forges_a_line(words: list[str], refusal: Exception, root: Path) -> None:
    daemon = FakeDaemon(lambda _method, _params: refusal)
    _, out, err = await go(daemon, root, *words, local=True, stdin=b"hi")
    check(words, out, err)


async def test_in_a_worktree_whose_git_leads_nowhere_every_command_says_so_in_plain_words(tmp_path: Path) -> None:
    lost = tmp_path / "w"
    (lost / ".thrum" / "identities").mkdir(parents=True)
    (lost / ".git").write_text(f"gitdir: {tmp_path}/not-mounted/.git/worktrees/w\n")
    placeless = {"version", "help", "completion", "purge accept", "daemon list", "setup claude-md"}
    placeless |= {"runtime list", "runtime show", "runtime set-default"}
    words = [each.split() for name, some in WALK.items() if name not in placeless for each in some]
    for argv in (*words, ["watch"], ["daemon", "stop"]):
        daemon = FakeDaemon(hostile_answers(yes=True, times=True))
        status, out, err = await go(daemon, lost, *argv, local=True, stdin=b"hi")
        wrong_words = status == 2 or "to confirm" in err or "unknown setting" in err or "no runtime" in err
        assert wrong_words or f"{lost}/.git leads to {tmp_path}/not-mounted/" in out + err, argv
        assert (status != 0 or argv == ["prime"]) and "unexpected error" not in out + err, argv
    assert not (tmp_path / "not-mounted").exists()


def test_the_walk_would_see_what_is_printed_raw() -> None:
    for text in (HOSTILE, f"Group: {HOSTILE}", BODY):
        with pytest.raises(AssertionError):
            check([], clean(text), "")
    with pytest.raises(AssertionError):
        check([], "\u202e", "")
    assert all(
        unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")
        for char in ACTS
        if not char.isalnum() and char not in "["
    )
    assert os.sep not in HOSTILE
