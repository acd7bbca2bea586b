"""`thrum setup`: the redirect of a worktree that git made without thrum (cli.md 3.17, identity.md §3)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cli.terminal import Terminal
from tests.support.git.repository import git, make_repository
from tests.support.trusted import trust_here
from thrum.admin.init import InitOptions, initialise
from thrum.cli.session import NeedsOwnProcess
from thrum.model.paths import find_layout


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository `app` with thrum, and the worktree `wt` without."""
    top = Path(os.path.realpath(tmp_path))
    make_repository(top / "app")
    git(top / "app", "worktree", "add", "-q", "../wt")
    initialise(top / "app", InitOptions(hostname="here", environ=os.environ))
    return top


def desk(root: Path) -> Terminal:
    return Terminal(root, None, env=dict(os.environ))


@pytest.mark.spec("ID-14")
async def test_a_worktree_is_redirected_to_the_main_one(top: Path) -> None:
    here = desk(top / "wt")
    state = top / "app" / ".thrum"
    assert await here.says("setup") == f"✓ Worktree set up: .thrum/redirect → {state}\n"
    assert (top / "wt" / ".thrum" / "redirect").read_text() == f"{state}\n"
    assert find_layout(top / "wt").state_dir == state
    assert (top / "wt" / ".thrum" / "identities").stat().st_mode & 0o777 == 0o700
    assert await here.json("setup") == {
        "worktree_path": str(top / "wt"),
        "redirect": str(state),
        "identities_dir": str(top / "wt" / ".thrum" / "identities"),
    }


@pytest.mark.spec("ID-13")
@pytest.mark.parametrize("target", ["", "relative", "/nowhere", "SELF", "CHAIN"])
async def test_a_bad_redirect_is_fixed(top: Path, target: str) -> None:
    own = top / "wt" / ".thrum"
    (own / "identities").mkdir(parents=True)
    (own / "identities" / "kept.json").write_text("{}")
    other = top / "other" / ".thrum"
    other.mkdir(parents=True)
    (other / "redirect").write_text(str(top / "app" / ".thrum"))
    trust_here(top / "wt", top / "app" / ".thrum")
    (own / "redirect").write_text({"SELF": str(own), "CHAIN": str(other)}.get(target, target))
    assert (await desk(top / "wt").refused("whoami"))["kind"] == "bad_redirect"
    await desk(top / "wt").says("setup", "--main-repo", "../app")
    assert find_layout(top / "wt").state_dir == top / "app" / ".thrum"
    assert (own / "identities" / "kept.json").exists()


async def test_a_redirect_that_is_a_link_is_replaced_not_followed(top: Path) -> None:
    own = top / "wt" / ".thrum"
    own.mkdir()
    (top / "precious").write_text("precious")
    (own / "redirect").symlink_to(top / "precious")
    await desk(top / "wt").says("setup")
    assert (top / "precious").read_text() == "precious"
    assert not (own / "redirect").is_symlink()


async def test_what_is_no_worktree_of_that_repository_is_refused_and_untouched(top: Path) -> None:
    git(top, "clone", "-q", str(top / "app"), "clone")
    make_repository(top / "bare-of-thrum")
    git(top / "bare-of-thrum", "worktree", "add", "-q", "../lost")
    (top / "plain").mkdir()
    for place, words, kind in (
        ("app", (), "not_a_worktree"),
        ("clone", ("--main-repo", "../app"), "not_a_worktree"),
        ("lost", (), "not_initialized"),
        ("lost", ("--main-repo", "../app"), "not_a_worktree"),
        ("plain", ("--main-repo", "../app"), "not_a_repository"),
        ("wt", ("--main-repo", "../nowhere"), "not_a_repository"),
    ):
        assert (await desk(top / place).refused("setup", *words))["kind"] == kind, (place, words)
        assert place == "app" or not (top / place / ".thrum").exists()
    assert not (top / "app" / ".thrum" / "redirect").exists()


async def test_data_of_its_own_is_never_hidden(top: Path) -> None:
    own = top / "wt" / ".thrum"
    own.mkdir()
    (own / "config.json").write_text("{}")
    trust_here(top / "wt")
    error = await desk(top / "wt").refused("setup")
    assert error["kind"] == "bad_redirect" and "data of its own" in error["message"]
    assert not (own / "redirect").exists()


async def test_a_linked_state_directory_is_not_written_into(top: Path) -> None:
    (top / "wt" / ".thrum").symlink_to(top / "app" / ".thrum")
    error = await desk(top / "wt").refused("setup")
    assert error["kind"] == "bad_redirect" and "is a link" in error["message"]
    assert not (top / "app" / ".thrum" / "redirect").exists()


async def test_it_needs_the_users_own_process(top: Path) -> None:
    inside = Terminal(top / "wt", None, local=False)
    with pytest.raises(NeedsOwnProcess):
        await inside.status("setup")
