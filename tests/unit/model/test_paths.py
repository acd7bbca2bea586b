"""State without marks, and where the sockets of a repository lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.trusted import trust_here
from thrum.model.errors import DaemonStartFailed, NotARepository
from thrum.model.paths import Layout, find_layout
from thrum.rpc.sockets import prepare_socket_dir, private_dir_flaw, socket_paths


def initialise(root: Path) -> Path:
    state = root / ".thrum"
    (state / "identities").mkdir(parents=True)
    (state / "config.json").write_text("{}")
    return trust_here(root)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path.resolve()


@pytest.mark.spec("ID-11")
def test_a_thrum_directory_without_marks_is_no_repository(base: Path) -> None:
    (base / ".thrum" / "worktrees").mkdir(parents=True)
    (base / ".thrum" / "runtimes.json").write_text("{}")
    with pytest.raises(NotARepository, match="not a git repository"):
        find_layout(base)


def test_outside_git_the_journals_lie_beside_the_database(base: Path) -> None:
    state = initialise(base / "plain")
    layout = find_layout(base / "plain")
    assert layout.common_dir is None
    assert layout.local_journal == state / "var" / "local.jsonl"


@pytest.fixture
def short_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.path.realpath(tmp_path_factory.mktemp("s")))


def layout_at(root: Path) -> Layout:
    return Layout(root=root, state_dir=initialise(root), main_root=root, common_dir=None)


def test_sockets_lie_beside_the_state_when_the_path_fits(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    layout.var_dir.mkdir()
    layout.socket_path.symlink_to("/stale")
    sockets = socket_paths(layout, short_base)
    assert (sockets.rpc, sockets.private_dir) == (layout.socket_path, None)
    assert sockets.bus == layout.var_dir / "bus.sock"
    prepare_socket_dir(layout, sockets)
    assert not layout.socket_path.is_symlink()
    assert layout.var_dir.stat().st_mode & 0o777 == 0o700


def test_a_long_path_gets_a_short_private_directory_that_is_found_without_a_link(base: Path, short_base: Path) -> None:
    layout = layout_at(base / ("long" * 30))
    sockets = socket_paths(layout, short_base)
    assert sockets == socket_paths(layout, short_base)
    assert sockets.private_dir is not None and len(os.fsencode(sockets.rpc)) <= 107
    for _ in range(2):
        prepare_socket_dir(layout, sockets)
        assert not os.path.lexists(layout.socket_path)
        assert private_dir_flaw(sockets.private_dir) is None


def test_a_file_system_without_sockets_gets_the_short_directory_too(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    assert socket_paths(layout, short_base, short=True).private_dir is not None


def test_a_short_directory_that_others_may_enter_or_that_is_a_link_is_refused(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    sockets = socket_paths(layout, short_base, short=True)
    assert sockets.private_dir is not None
    sockets.private_dir.mkdir()
    sockets.private_dir.chmod(0o755)
    with pytest.raises(DaemonStartFailed, match="is open to other users"):
        prepare_socket_dir(layout, sockets)
    sockets.private_dir.rmdir()
    sockets.private_dir.symlink_to(base)
    with pytest.raises(DaemonStartFailed, match="is not a directory"):
        prepare_socket_dir(layout, sockets)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_short_directory_of_another_user_is_refused(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    sockets = socket_paths(layout, short_base, short=True)
    assert sockets.private_dir is not None
    sockets.private_dir.mkdir(mode=0o700)
    os.chown(sockets.private_dir, 12345, 12345)
    with pytest.raises(DaemonStartFailed, match="belongs to another user") as caught:
        prepare_socket_dir(layout, sockets)
    # A link of his, too; nobody but he and root can take either away.
    assert caught.value.remedy.startswith(f"as root: rm -r {sockets.private_dir}; or move the repository")
    sockets.private_dir.rmdir()
    sockets.private_dir.symlink_to(base)
    os.chown(sockets.private_dir, 12345, 12345, follow_symlinks=False)
    with pytest.raises(DaemonStartFailed, match="belongs to another user"):
        prepare_socket_dir(layout, sockets)
