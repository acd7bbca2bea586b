"""README and docs are run: every command, its output, every Python example, every link."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs.pages import Block, Step, blocks, code_of, links_of, name_of, pages, steps
from tests.support.docs.stage import SECONDS, Background, Stage, open_stage
from tests.support.places import ROOT
from thrum.cli.table import COMMANDS

NOT_RUN = {
    "make demo": "test_make_demo_shows_the_main_job runs it",
    "make test": "it is what runs this; test_a_fresh_clone_can_be_tried_at_once does it in a clone",
    "make bench": "takes minutes, and its figures mean nothing beside other tests",
    "pipx install .": "it would change the environment that the tests run in; in a clone make does it",
}
"""What a test can't run, each with the reason."""
SKIPPED_WITHOUT = ("jq", "sqlite3")
"""Tools that a page offers, and that a machine may lack."""

WORKTREES = (
    "shop: git worktree add -q -b auth ../shop-auth",
    "shop: git worktree add -q -b tests ../shop-tests",
)
AGENTS = (
    *WORKTREES,
    "shop: thrum init --quiet",
    "shop-auth: thrum quickstart furiosa --role implementer --module auth --quiet",
    "shop-tests: thrum quickstart nux --role tester --module auth --quiet",
    "shop: thrum quickstart leon --role developer --module all --quiet",
)
AGENTS_AT_WORK = AGENTS[:-1]
"""The developer's own seat is empty."""
PREPARED = {
    "README.md": WORKTREES,
    "docs/identity.md": (*WORKTREES, "shop: thrum init --quiet"),
    "docs/troubleshooting.md": AGENTS_AT_WORK,
    "docs/runtimes.md": AGENTS_AT_WORK,
    "docs/worktrees.md": ("shop: thrum init --quiet", 'shop: thrum config set worktrees.base_path "$(cd .. && pwd)"'),
    "docs/sync.md": (
        "shop: git clone -q --bare . ../shop.git",
        'shop: git remote add origin "$(cd .. && pwd)/shop.git"',
        "shop: git -C .. clone -q shop.git shop-laptop",
        "shop: thrum init --quiet",
        "shop: thrum quickstart leon --role developer --module all --quiet",
    ),
    "docs/files.md": (
        *AGENTS,
        'shop-auth: thrum send "Token refresh is in. Can you test it?" --to @nux',
        "shop-tests: thrum inbox",
    ),
}
"""What a page takes for granted. Every page begins in a repository `shop` of its own."""

NEEDS_TMUX = ("docs/worktrees.md",)
NOT_SEEN = ("invalid_url",)
"""Kinds of refusal that never leave the program."""

PYTHON = [block for page in pages() for block in blocks(page) if block.language == "python"]
BEFORE = "stored = None\n"
"""Names that an example has from the program around it."""
AUDIENCE = "agent/furiosa/"

_CALL = re.compile(r"(?:^|[\s(&|])thrum (?:--repo \S+ )?(?!is )([a-z][a-z-]+)(?: ([a-z][a-z-]+))?")
"""A command that is called; "thrum is …" is how an error begins."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage() as opened:
        yield opened


def _lacks_tool(step: Step) -> bool:
    return any(re.search(rf"(^|\| ){tool}\b", step.command) and not shutil.which(tool) for tool in SKIPPED_WITHOUT)


@pytest.mark.parametrize("page", [page for page in pages() if steps(page)], ids=name_of)
def test_every_command_of_a_page_does_what_the_page_shows(page: Path, stage: Stage) -> None:
    if name_of(page) in NEEDS_TMUX and shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    stage.prepare(*PREPARED.get(name_of(page), ()))
    for step in steps(page):
        if step.command not in NOT_RUN and not _lacks_tool(step):
            stage.play(step)


def test_every_command_is_documented() -> None:
    typed = "\n".join(text for page in pages() for text in code_of(page))
    missing = [" ".join(path) for path in COMMANDS if not re.search(rf"\bthrum {re.escape(' '.join(path))}\b", typed)]
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    called = [found.groups(default="") for text in code_of(page) for found in _CALL.finditer(text)]
    assert [words for words in called if words not in COMMANDS and words[:1] not in COMMANDS] == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [target for target in links_of(page) if not (page.parent / target).exists()] == []


def test_every_refusal_about_place_identity_names_and_daemon_is_explained() -> None:
    """The sections of the kinds' modules that the page has, too."""
    modules = ("errors.py", "terminal_errors.py")
    source = "\n".join((ROOT / "src/thrum/model" / name).read_text(encoding="utf-8") for name in modules)
    sections = re.split(r"^# -- (.+)$", source, flags=re.MULTILINE)
    named = dict(zip(sections[1::2], sections[2::2], strict=True))
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    for section in ("the place", "the daemon", "who am I", "names", "care", "worktrees", "terminals"):
        kinds = re.findall(r'\bkind="(\w+)"', named[section])
        missing = [kind for kind in kinds if f"`{kind}`" not in page and kind not in NOT_SEEN]
        assert kinds and missing == [], section


def test_the_first_screen_of_the_readme_names_make_demo_and_make_test_first() -> None:
    first = [step.command for step in steps(ROOT / "README.md")[:2]]
    assert first == ["make demo", "make test"]
    screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert "make test" in screen and any("thrum wait" in line for line in screen)


# -- Python


@pytest.mark.parametrize("example", PYTHON, ids=lambda block: block.place)
def test_a_python_example_hears_what_is_sent(example: Block, stage: Stage) -> None:
    stage.prepare(*AGENTS)
    program = stage.home / "example.py"
    program.write_text(BEFORE + example.text, encoding="utf-8")
    argv = (sys.executable, "-u", str(program), str(stage.shop / ".thrum" / "var" / "thrum.sock"), AUDIENCE)
    with contextlib.closing(Background(argv, stage.home / "shop-auth", stage.env, stream=True)) as listening:
        for number in range(round(SECONDS)):
            # A stream that begins "now" has no past: so one is sent until the program has begun to listen.
            stage.prepare(f"shop: thrum send 'hello {number}' --to @furiosa --quiet")
            with contextlib.suppress(queue.Empty):
                line = listening.take(1, seconds=1.0)
                break
        else:
            pytest.fail(f"{example.place}: it hears nothing")
    assert line and "leon" in line[0] and "hello" in line[0], line


# -- make


def _make(where: Path, *words: str) -> str:
    """What `make` says, without the environment of the make that may run these tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *words], cwd=where, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_make_demo_shows_the_main_job() -> None:
    # The environment that runs this test is installed: nothing is to be made anew.
    said = _make(ROOT, "-o", f"{sys.prefix}/.installed", "demo", f"VENV={sys.prefix}")
    assert "MESSAGES_RECEIVED" in said
    assert "✓ Demo done" in said


@pytest.mark.long
def test_a_fresh_clone_can_be_tried_at_once() -> None:
    """`make demo` and `make test` as the first two commands, with what git would hand over; needs the package index."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix="thrum-clone-") as made:
        clone = Path(made).resolve() / "thrum"
        for name in filter(None, names.decode().split("\0")):
            if (ROOT / name).is_file():
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, clone / name)
        assert "✓ Demo done" in _make(clone, "demo")
        assert "passed" in _make(clone, "test", "ARGS=tests/unit/model/test_ids.py tests/unit/cli/test_parser.py")
