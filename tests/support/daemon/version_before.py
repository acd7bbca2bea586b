"""A repository that another version left, laid out again somewhere; and what its commands print, made comparable.

`tests/data/version_before` is made by `tests/support/daemon/version_before_maker.py`, with the program of the commit
that its `about.json` names. In it `{TOP}` stands for the directory that holds the worktrees and the remote.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import places
from tests.support.daemon.repo import Repo, wait_until
from thrum.model.clock import parse_ms

DATA = places.DATA / "version_before"
TOP = "{TOP}"
RENAMED = {"dot_thrum": ".thrum", "dot_git": ".git", "dot_gitignore": ".gitignore"}
"""How the data call what git would not take under its own name."""
WORKTREES = ("nux", "max", "slit")


@dataclass
class About:
    """Of the data: what made them, and when."""

    commit: str
    """Whose program it was."""
    until: str
    """Later than every time in them."""
    until_ulid: str
    """Greater than every id in them."""
    ids: dict[str, str] = field(default_factory=dict[str, str])
    """Of messages, by the names that the commands below call them by."""

    @classmethod
    def read(cls) -> About:
        return cls(**json.loads((DATA / "about.json").read_text()))


# -- laying out


def lay_out(about: About, program: Path | None = None) -> Repo:
    """The repository as that version left it, with its remote beside it; `program`: whose commands it runs."""
    bundle = str(DATA / "repo.bundle")
    repo = Repo(clone_of=DATA / "repo.bundle")
    if program is not None:
        repo.program = program
    repo.env["THRUM_HOSTNAME"] = "alpha"
    repo.git("clone", "-q", "--bare", bundle, str(repo.top / "remote.git"))
    repo.git("remote", "set-url", "origin", str(repo.top / "remote.git"))
    repo.git("update-ref", "-d", "refs/remotes/origin/a-sync")
    repo.git("fetch", "-q", bundle, "refs/local/a-sync:refs/heads/a-sync", "refs/local/seen:refs/thrum/origin/a-sync")
    for name in WORKTREES:
        repo.worktree(name)
    for path in sorted((DATA / "tree").rglob("*")):
        if path.is_file():
            parts = [RENAMED.get(part, part) for part in path.relative_to(DATA / "tree").parts]
            _copy(path, repo.top.joinpath(*parts), repo.top)
    with (repo.main / ".git/info/exclude").open("a") as exclude:
        exclude.write(".thrum/\n")
    (repo.main / ".git").chmod(0o700)
    _own(repo)
    _unpack_database(repo)
    stamp = parse_ms(about.until) / 1000 - 1  # files have times, too, and commands tell them
    for path in [*repo.top.glob("*/.thrum/**/*"), *repo.top.glob("nux/*")]:
        os.utime(path, (stamp, stamp))
    return repo


def _copy(source: Path, target: Path, top: Path) -> None:
    """In directories and with a mode as thrum makes them."""
    for directory in reversed(target.relative_to(top).parents):
        (top / directory).mkdir(mode=0o700, exist_ok=True)
    target.write_text(source.read_text().replace(TOP, str(top)))
    if {*RENAMED.values()} & {*target.parts}:
        target.chmod(0o600)


def _own(repo: Repo) -> None:
    """Its key lies in another inode now: as if the repository had been here from the beginning."""
    path = repo.main / ".git/thrum-sync/daemon.json"
    said = json.loads(path.read_text())
    said["key_inode"] = path.with_name("daemon.key").stat().st_ino
    path.write_text(json.dumps(said))


def _unpack_database(repo: Repo) -> None:
    path = repo.var / "messages.db"
    path.write_bytes(gzip.decompress((DATA / "messages.db.gz").read_bytes()))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    rebase(path, TOP, str(repo.top))


def rebase(database: Path, before: str, after: str) -> None:
    """Replace a directory in all texts of a database."""
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table.startswith(("sqlite_", "messages_fts")):
                continue
            for column in [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[2] == "TEXT"]:
                db.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?1, ?2) WHERE instr({column}, ?1)",
                    (before, after),
                )


# -- asking


@dataclass(frozen=True)
class Asked:
    """A command, and where it was typed: in a worktree, and with which THRUM_NAME."""

    at: str
    name: str
    words: str

    @property
    def title(self) -> str:
        return f"{self.name or self.at} $ {self.words}"


FURIOSA, TOAST, NUX, ROCKATANSKY, SLIT = ("main", "furiosa"), ("main", "toast"), ("nux", ""), ("max", ""), ("slit", "")
NOBODY = ("main", "")
EVERYBODY = (FURIOSA, TOAST, ROCKATANSKY, SLIT, NUX)
"""Who asks most is last: teams are listed by who was seen last, and is seen again each minute."""

READS_OF_EACH = ("whoami", "inbox --peek -n 3", "sent -n 2", "context show")
"""What depends on who asks."""

READS = """\
prime
whoami --field role
overview
team --all --files --system
team --host beta
team --role tester
agent list --role tester
agent list --module auth --context
ping nux
ping @ace
ping max
ping rockatansky
ping gone
ping nobody
who-has token.txt
who-has README no-such-file
who-has .
session list --active
session list --agent nux
group list
group show wardens
group members wardens --expand
group members everyone --expand
group show empty
inbox --peek --all --oldest -n 3
inbox --peek --page 2 -n 3
inbox --peek --from max
inbox --peek --from @ace
inbox --peek --scope module:auth
inbox --peek --mentions -n 2
inbox --peek --thread {plan}
inbox --peek --search lunch --all
inbox --peek --search old --all
inbox --peek --to @nux --all -n 2
sent -n 2 --page 2
message get {plan} --peek
message get {re_re} --peek
message get {asked} --peek
message get {shape} --peek
message get {edited} --peek
message get {deleted} --peek
message get {far} --peek
message get {old1} --peek
message get {unsynced} --peek
message get {unfetched} --peek
message get {left} --peek
context show --agent toast
context show --project
context show --session
context show --raw
context show --no-preamble
context preamble
sync status
sync accept
purge accept
purge --all
purge --before 2025-01-01
daemon status
config show
config diff
config get sync.interval
config get runtime.processes
config get later_version
backup status
backup config
log --commits
agent cleanup --dry-run
verify
doctor
init --dry-run
quickstart nux --role tester --module auth --dry-run""".splitlines()

ACTS = (
    Asked(*NUX, "inbox"),
    Asked(*NUX, "send wake --to @slit"),
    Asked(*SLIT, "wait --timeout 30s"),
    Asked(*SLIT, "message read --all"),
    Asked(*TOAST, "message get {asked}"),
    Asked(*NUX, "send more --to @toast --scope module:auth"),
    Asked(*NUX, "send again --to @everyone"),
    Asked(*NUX, "reply {far} yes"),
    Asked(*NUX, "reply {re_asked} sure --all"),
    Asked(*NUX, "message edit {re_far} heard"),
    Asked(*ROCKATANSKY, "message edit {edited} mine"),
    Asked(*FURIOSA, "message delete {re_re} --yes"),
    Asked(*NUX, "session heartbeat --add-scope module:x"),
    Asked(*NUX, "session set-intent on"),
    Asked(*NUX, "session set-task auth-8"),
    Asked(*NUX, "agent set-status working"),
    Asked(*NUX, "session end"),
    Asked(*NUX, "session start"),
    Asked(*NUX, "group add wardens furiosa"),
    Asked(*NUX, "group remove wardens --role reviewer"),
    Asked(*TOAST, "context save later"),
    Asked(*TOAST, "context clear"),
    Asked(*FURIOSA, "config set sync.interval 20s"),
    Asked(*FURIOSA, "config unset sync.debounce"),
    Asked(*ROCKATANSKY, "agent rename mad"),
    Asked(*NUX, "agent delete slit --force"),
    Asked(*NUX, "group members wardens"),
    Asked(*NUX, "sent -n 3"),
    Asked(*TOAST, "inbox"),
    Asked(*FURIOSA, "backup"),
)
"""What goes on with it, in this order."""


NOT_ASKED = {
    "wake": "came later",
    "hook": "a runtime asks it",
    "worktree list": "came later",
    "tmux status": "came later",
    "tmux capture": "came later",
    "daemon start": "starts one",
    "daemon stop": "stops one",
    "daemon restart": "does both",
    "daemon logs": "prints what this daemon did",
}
"""Commands that write nothing in an agent's name, and of which nothing is recorded."""


def reads() -> list[Asked]:
    """Every command that only looks."""
    each = [Asked(*place, words) for words in READS_OF_EACH for place in EVERYBODY]
    return [*(Asked(*NUX, words) for words in READS), *each]


def come_to_rest(repo: Repo) -> None:
    """Everybody has looked at all there is, and the remote has what came of it: reading changes nothing any more."""
    repo.thrum("sync", "force", "--wait")  # first, so that what comes has the same numbers wherever it is done
    for at, name in EVERYBODY:
        repo.thrum("inbox", "--peek", "--all", "-n", "50", at=repo.top / at, env={"THRUM_NAME": name} if name else {})
    wait_until(lambda: repo.json("sync", "force", "--wait")["result"] == "nothing_to_do", "nothing is left to sync")


def answers(repo: Repo, about: About, commands: Sequence[Asked]) -> Iterator[tuple[str, str]]:
    """What each prints with `--json`, by its title: its status, and the bytes without what must differ."""
    for asked in commands:
        env = {"THRUM_NAME": asked.name} if asked.name else {}
        words = asked.words.format_map(about.ids).split()
        done = repo.run(*words, "--json", at=repo.top / asked.at, env=env)
        yield asked.title, f"{done.status} {comparable(done.out, repo.top, about)}".rstrip("\n")


# -- what must differ

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z")
_ULID = re.compile(r"\b(?:[a-z]+_)?([0-7][0-9A-HJKMNP-TV-Z]{25})\b")
_ELSEWHERE: Mapping[str, str] = {
    r'"(pid|uptime_ms|duration_ms|events_deleted)":\d+': r'"\1":0',
    r'"seq":\d+,"sync_state"': '"seq":0,"sync_state"',
    r'("message_id":"{ID}",(?:"created_at":"{NOW}",)?"seq":)\d+': r"\g<1>0",
    r"\d+ facts, (each|rows)": r"0 facts, \1",
    r'"uptime":"[^"]*"': '"uptime":""',
    r',"why":"[^"]*"': "",
    r"\bsyncing\b": "synced",
    r'"pending":\d+': '"pending":0',
    r'"version":"[^"]*"': '"version":""',
    r"running \(pid \d+\)": "running (pid 0)",
    r"\br_[0-9A-Z]{12}\b": "{REPO}",
    r'"ok":\w+(?=,"checks":\[\{"name":"python")': '"ok":true',
    r'\{"type":"commit","commit":"\w+","at":"{NOW}","subject":"[^"]*"\}\n': "",
    r'"head":"\w+"': '"head":""',
    r"\b(reply|read) [0-9A-Z]{6}\b": r"\1 {ID}",
    r'\{"name":"(python|git|tmux|space|open files|hooks|readers|socket)",.*?"\}(?=[],])': r'{"name":"\1"}',
}
"""The daemon's process and the version; how long something took; whether a round is under way; the project's id, which
follows from the remote's path; commits made since; ends of new ids in hints; why an
agent was not given a message, which was not known then; how
many facts there are and with them the numbers of new ones, for signs of life come with the minutes; and what `doctor`
says of the machine.
"""


def comparable(text: str, top: Path, about: About) -> str:
    """Without what must differ between two places, two runs and two versions: the directory, times and ids since the
    data were made, and what `_ELSEWHERE` says.
    """
    text = text.replace(str(top), TOP)
    text = _TIME.sub(lambda found: found[0] if found[0] < about.until else "{NOW}", text)
    text = _ULID.sub(lambda found: found[0] if found[1] < about.until_ulid else "{ID}", text)
    for pattern, instead in _ELSEWHERE.items():
        text = re.sub(pattern, instead, text)
    return text


def recorded() -> dict[str, str]:
    """What the version that made the data answered, by the title of the command."""
    each = (answer.partition("\n") for answer in f"\n{(DATA / 'answers.txt').read_text()}".split("\n$ ")[1:])
    return {title: answer.rstrip("\n") for title, _, answer in each}
