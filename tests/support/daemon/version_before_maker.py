"""Makes `tests/data/version_before`: a rich history, played with the program of another commit, and what it printed.

    python -m tests.support.daemon.version_before_maker CHECKOUT

CHECKOUT is a clone of this repository at the commit `COMMIT`, with its own `.venv` (`make venv`). While the history is
played its clock stands in the past, so that nothing in the data is ever of the future. What was asked of it afterwards
(`answers.txt`) it was asked where the data were laid out again, as the tests do.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemon.repo import Repo, wait_until
from tests.support.daemon.version_before import (
    ACTS,
    DATA,
    RENAMED,
    TOP,
    WORKTREES,
    About,
    answers,
    come_to_rest,
    lay_out,
    reads,
    rebase,
)
from tests.support.detached import DETACHED, call_detached, marks_above, runtimes_above
from thrum.model.clock import format_ms, parse_ms

COMMIT = "21ba511"
"""The last one before issue 11: another schema, other rooms."""
DAYS_AGO = 325
LEFT_OUT = {
    "messages.db",
    "daemon.log",
    "daemon.lock",
    "setup.lock",
    "config.lock",
    ".lock",
    "verified.json",
    "loose-bytes",
}
"""Of a repository: what is elsewhere in the data, or made again and of no meaning elsewhere."""


class History:
    """Plays it: `alpha` is what is kept; `beta` is the other clone, and `remote` what they exchange."""

    def __init__(self, alpha: Repo, beta: Repo, remote: Path) -> None:
        self.alpha, self.beta, self.remote = alpha, beta, remote
        self.ids: dict[str, str] = {}

    def play(self) -> None:
        self._settle_in()
        self._purge()
        self._talk()
        self._regroup()
        self._go_apart()

    # -- the parts

    def _settle_in(self) -> None:
        alpha, beta = self.alpha, self.beta
        for repo in (alpha, beta):
            repo.thrum("init", "--sync")
        alpha.agent("furiosa", "coordinator", "all", at=alpha.main)
        alpha.agent("toast", "reviewer", "docs", at=alpha.main)
        alpha.agent("nux", "tester", "auth")
        alpha.agent("max", "implementer", "auth")
        alpha.agent("slit", "implementer", "parser")
        alpha.agent("left", "implementer", "old")
        beta.agent("ace", "coordinator", "all", at=beta.main)
        beta.agent("dag", "tester", "seeds")
        self.settle()

    def _purge(self) -> None:
        alpha = self.alpha
        for number in range(6):
            self.send(f"old{number}", f"An old word, number {number} " + "x" * 200, "--to", "@nux", by="max")
        alpha.thrum("session", "start", at=alpha.worktree("max"))
        self.settle()
        alpha.thrum("purge", "--all", "--yes", env={"THRUM_NAME": "furiosa"})
        self.settle()

    def _talk(self) -> None:
        alpha, beta = self.alpha, self.beta
        nux, max_ = alpha.worktree("nux"), alpha.worktree("max")
        alpha.thrum("group", "create", "wardens", "--description", "who looks after `main`", at=nux)
        alpha.thrum("group", "add", "wardens", "nux", "max", "--role", "reviewer", at=nux)
        alpha.thrum("group", "create", "empty", at=max_)
        self.send(
            "plan", "The plan:\n\n1. tokens\n2. *tests*\n", "--to", "@nux", "--scope", "module:auth", by="furiosa"
        )
        self.send(
            "asked", "Who has it? äöü € 𝄞 \u202e", "--to", "@nux", "--to", "@max", "--ref", "issue:11", by="toast"
        )
        self.send("all", "To everyone: lunch", "--to", "@everyone", by="nux")
        self.send("group", "Wardens, look", "--to", "@wardens", "--mention", "@slit", by="max")
        self.send("role", "Implementers: rebase", "--to", "@implementer", by="furiosa")
        self.send("team", "For information @nux", by="slit")
        self.send(
            "shape",
            "with a shape",
            "--to",
            "@max",
            "--structured",
            '{"a":[1,2.5,null],"b":"ü"}',
            "--format",
            "plain",
            by="nux",
        )
        self.send("left", "I go", "--to", "@furiosa", by="left")
        self.reply("re_plan", "plan", "On it", by="nux")
        self.reply("re_re", "re_plan", "Good", by="furiosa")
        self.send("thread", "In its thread", "--to", "@nux", "--thread", self.ids["plan"], by="toast")
        self.reply("re_asked", "asked", "I do", "--all", by="max")
        self.send("edited", "Frist", "--to", "@nux", by="max")
        for text in ("First", "First, once more"):
            alpha.thrum("message", "edit", self.ids["edited"], text, at=max_)
        self.send("deleted", "Never said", "--to", "@nux", by="max")
        alpha.thrum("message", "delete", self.ids["deleted"], "--yes", "--reason", "wrong one", at=max_)
        alpha.thrum("message", "read", self.ids["all"], at=max_)
        alpha.thrum("inbox", at=nux)
        alpha.thrum("wait", "--timeout", "1s", at=alpha.worktree("slit"))
        self.settle()
        self.send("far", "From beta", "--to", "@nux", by="ace")
        self.send("far_all", "All of you", "--to", "@everyone", by="dag")
        self.reply("re_all", "all", "We too", by="ace")
        beta.thrum("inbox", at=beta.worktree("dag"))
        beta.thrum("message", "edit", self.ids["far"], "From beta, edited", at=beta.main)
        self.settle()
        self.reply("re_far", "far", "Heard", by="nux")
        self.settle()
        beta.thrum("inbox")

    def _regroup(self) -> None:
        alpha = self.alpha
        nux, max_, slit = alpha.worktree("nux"), alpha.worktree("max"), alpha.worktree("slit")
        alpha.thrum("group", "delete", "empty", "--yes", at=max_)
        alpha.thrum("group", "remove", "wardens", "max", at=nux)
        alpha.thrum("agent", "rename", "rockatansky", at=max_)
        self.send("renamed", "I am rockatansky now", "--to", "@nux", by="max")
        (nux / "token.txt").write_text("one\ntwo\n")
        (nux / "README").write_text("a project\nwith tokens\n")
        alpha.thrum("session", "heartbeat", "--add-scope", "module:auth", "--add-ref", "issue:11", at=nux)
        alpha.thrum("session", "heartbeat", "--add-scope", "file:x", at=nux)
        alpha.thrum("session", "heartbeat", "--remove-scope", "file:x", at=nux)
        alpha.thrum("session", "set-intent", "Token refresh", at=nux)
        alpha.thrum("session", "set-intent", "Token refresh, second try", at=nux)
        alpha.thrum("session", "set-task", "auth-7", at=nux)
        alpha.thrum("agent", "set-status", "blocked", at=nux)
        alpha.thrum("agent", "set-status", "stuck", "--agent", "nux", env={"THRUM_NAME": "furiosa"})
        alpha.thrum("session", "end", "--reason", "crash", at=slit)
        alpha.thrum("session", "start", at=slit)
        alpha.thrum("session", "end", at=slit)
        alpha.thrum("context", "save", "Notes of nux:\n- refresh\n", at=nux)
        alpha.thrum("context", "sync", at=nux)
        alpha.thrum("context", "save", "Notes of nux, later\n", at=nux)
        alpha.thrum("context", "save", "Notes of toast\n", env={"THRUM_NAME": "toast"})
        alpha.thrum("context", "preamble", "--init", at=nux)
        (alpha.main / ".thrum/context/project_state.md").write_text("# State\n\nTokens are half done.\n")
        alpha.thrum("agent", "delete", "left", "--yes", "--with-messages", at=alpha.worktree("left"))
        alpha.git("worktree", "remove", "--force", str(alpha.worktree("left")))
        for key, value in (
            ("daemon.stale_session_end", "400000h"),  # for whoever opens the data in years
            ("sync.debounce", "50ms"),
            ("daemon.log_level", "debug"),
            ("backup.retention.daily", "2"),
            ("project_name", "war rig"),
            ("permission_supervisors", '["coordinator","reviewer"]'),
            ("runtime.processes", '{"mytool":["mytool","mt"]}'),
            ("identity_guard.quickstart_self_rename", "warn"),
        ):
            alpha.thrum("config", "set", key, value, env={"THRUM_NAME": "furiosa"})
        self.settle()

    def _go_apart(self) -> None:
        """What only one side has: unsynced lines here, and a commit of beta's at the remote that is not here yet."""
        alpha, beta = self.alpha, self.beta
        away = self.remote.rename(self.remote.with_suffix(".away"))
        self.send("unsynced", "Nobody else has this yet", "--to", "@ace", "--to", "@nux", by="furiosa")
        alpha.run("sync", "force", "--wait")
        alpha.thrum("daemon", "stop")
        away.rename(self.remote)
        self.send("unfetched", "On its way", "--to", "@nux", by="ace")
        beta.run("sync", "force", "--wait")
        wait_until(lambda: self.at_remote(self.ids["unfetched"]), "beta's message at the remote")
        beta.thrum("daemon", "stop")
        copy = alpha.main / ".thrum/config.json"
        settings = json.loads(copy.read_text())
        copy.write_text(json.dumps({**settings, "later_version": {"x": 1}}, indent=2))
        alpha.thrum("config", "accept", "--yes")
        alpha.thrum("daemon", "stop")
        copy.write_text(copy.read_text().replace('"war rig"', '"rig"'))
        with alpha.local_journal.open("ab") as local:
            local.write(
                b'{"type":"queue.submit","timestamp":"2026-01-10T00:00:00.000Z","event_id":"evt_01KEJ000000000000000000001",'
                b'"v":1,"origin_daemon":"","attempt":"of a version to come"}\nno fact\n'
            )

    # -- who does it

    def settle(self) -> None:
        def agreed() -> bool:
            for repo in (self.alpha, self.beta):
                repo.run("sync", "force", "--wait")
            heads = {repo.git("ls-tree", "-r", "a-sync") for repo in (self.alpha, self.beta)}
            return {self.alpha.git("ls-tree", "-r", "a-sync", cwd=self.remote)} == heads

        wait_until(agreed, "both clones agree")

    def at_remote(self, message_id: str) -> bool:
        return message_id in self.beta.git("grep", "-hF", message_id, "a-sync", cwd=self.remote)

    def send(self, key: str, *words: str, by: str) -> None:
        self._said(key, by, "send", *words)

    def reply(self, key: str, to: str, *words: str, by: str) -> None:
        self._said(key, by, "reply", self.ids[to], *words)

    def _said(self, key: str, by: str, *words: str) -> None:
        repo = self.beta if by in ("ace", "dag") else self.alpha
        at = repo.main if by in ("furiosa", "toast", "ace") else repo.worktree(by)
        env = {"THRUM_NAME": by} if by in ("furiosa", "toast") else {}
        self.ids[key] = repo.json(*words, at=at, env=env)["message_id"]


# -- making the data


@contextmanager
def in_the_past(checkout: Path) -> Generator[None]:
    """Whatever Python of that checkout starts: its clock is DAYS_AGO behind."""
    (site,) = checkout.glob(".venv/lib/python3*/site-packages")
    hook = site / "in_the_past.pth"
    late = DAYS_AGO * 86_400
    hook.write_text(  # once, however often Python reads the directory
        f"import time; hasattr(time, 'late') or vars(time).update(late={late},"
        f" time_ns=lambda now=time.time_ns: now() - {late} * 10**9, time=lambda now=time.time: now() - {late})\n"
    )
    try:
        yield
    finally:
        hook.unlink()


def play(program: Path) -> tuple[Repo, Repo, History]:
    alpha = Repo()
    remote = alpha.top / "remote.git"
    alpha.git("clone", "-q", "--bare", str(alpha.main), str(remote))
    alpha.git("remote", "add", "origin", str(remote))
    beta = Repo(clone_of=remote)
    for repo, host in ((alpha, "alpha"), (beta, "beta")):
        repo.program = program
        repo.env["THRUM_HOSTNAME"] = host
    history = History(alpha, beta, remote)
    history.play()
    return alpha, beta, history


def pack(alpha: Repo) -> None:
    """Everything but what `LEFT_OUT` names, with TOP for its directory."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    _pack_git(alpha)
    _pack_database(alpha)
    roots = [alpha.main / ".thrum", alpha.main / ".git/thrum-sync"]
    roots += [path for name in WORKTREES for path in (alpha.top / name).iterdir()]
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file() and path.name not in LEFT_OUT | {".git"}:
                names = {there: here for here, there in RENAMED.items()}
                parts = [names.get(part, part) for part in path.relative_to(alpha.top).parts]
                target = DATA.joinpath("tree", *parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path.read_text().replace(str(alpha.top), TOP))


def _pack_git(alpha: Repo) -> None:
    """One bundle: the remote's branches, and in refs/local where alpha's branch was, and where it saw the remote's."""
    remote = alpha.top / "remote.git"
    local = ("refs/heads/a-sync:refs/local/a-sync", "refs/thrum/origin/a-sync:refs/local/seen")
    alpha.git("fetch", "-q", str(alpha.main), *local, cwd=remote)
    alpha.git("bundle", "create", "-q", str(DATA / "repo.bundle"), "HEAD", "--all", cwd=remote)


def _pack_database(alpha: Repo) -> None:
    copy = alpha.top / "copy.db"
    shutil.copy(alpha.var / "messages.db", copy)
    rebase(copy, str(alpha.top), TOP)
    (DATA / "messages.db.gz").write_bytes(gzip.compress(copy.read_bytes(), mtime=0))


def describe(alpha: Repo, ids: dict[str, str]) -> About:
    """Read the data's last time and id off the journals."""
    journals = alpha.main / ".git/thrum-sync"
    lines = [line for path in sorted(journals.rglob("*.jsonl")) for line in path.read_text().splitlines()]
    facts = [json.loads(line) for line in lines if line.startswith("{")]
    beyond = max(fact["timestamp"] for fact in facts if "timestamp" in fact)
    until = format_ms(parse_ms(beyond) + 60_000)
    return About(COMMIT, until, ids_from(parse_ms(until)), ids)


def ids_from(ms: int) -> str:
    """The least ULID of that time."""
    digits = ""
    for _ in range(10):
        ms, digit = divmod(ms, 32)
        digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[digit] + digits
    return digits + "0" * 16


def record(about: About, program: Path) -> None:
    """What that program prints of the data, laid out."""
    repo = lay_out(about, program)
    try:
        come_to_rest(repo)
        lines = [f"$ {title}\n{answer}" for title, answer in answers(repo, about, [*reads(), *ACTS])]
        repo.thrum("daemon", "stop")
    finally:
        repo.close()
    (DATA / "answers.txt").write_text("".join(line.rstrip("\n") + "\n" for line in lines))


def main(checkout: Path) -> None:
    at = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True).stdout
    if not at.startswith(COMMIT):
        sys.exit(f"{checkout} is at {at.strip()}, not at {COMMIT}")
    program = checkout / ".venv/bin/thrum"
    with in_the_past(checkout):
        alpha, beta, history = play(program)
    try:
        pack(alpha)
        about = describe(alpha, history.ids)
        (DATA / "about.json").write_text(json.dumps(vars(about), indent=1) + "\n")
    finally:
        alpha.close()
        beta.close()
    record(about, program)


def _alone() -> None:
    """Below no agent, and with nothing of the developer's own."""
    if not os.environ.get(DETACHED) and (runtimes_above() or marks_above()):
        sys.exit(call_detached([sys.executable, *sys.orig_argv[1:]]))
    for name in [*os.environ]:
        if name.startswith(("THRUM_", "GIT_", "XDG_")) or name == DETACHED:
            del os.environ[name]


if __name__ == "__main__":
    _alone()
    with tempfile.TemporaryDirectory() as home:
        Path(home, ".gitconfig").write_text(
            "[user]\n\tname = Test\n\temail = test@localhost\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
        )
        os.environ |= {"HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        main(Path(sys.argv[1]))
