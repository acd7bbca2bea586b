"""The one opener of what thrum has: links and pipes are tested where they would harm, in `test_trust`."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from thrum.model import files, limits, log


def test_a_file_of_gigabytes_that_a_small_branch_brings_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * 8)
    assert files.read_bytes(path) == b"x" * 8
    os.truncate(path, limits.read_bytes_max + 1)
    with pytest.raises(OSError, match="larger than") as refused:
        files.read_bytes(path)
    assert refused.value.errno == errno.EFBIG


def test_a_log_of_gigabytes_is_given_up_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    path.write_bytes(b"{}\n")
    os.close(log.open_to_append(path))
    assert path.read_bytes() == b"{}\n"
    os.truncate(path, 1 << 40)
    os.close(log.open_to_append(path))
    assert path.read_bytes() == b""


def test_with_one_descriptor_left_files_are_short() -> None:
    """A look at a place takes several at once."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    try:
        assert files.is_short()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert not files.is_short()


def test_what_looks_at_the_last_name_alone_refuses_a_link_there_and_follows_one_before_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"1")
    (tmp_path / "way").symlink_to("there")
    (tmp_path / "link").symlink_to("there/file")
    beyond = tmp_path / "way" / "file"
    os.close(files.open_nofollow(beyond, os.O_RDONLY))
    with pytest.raises(OSError) as refused:
        files.open_nofollow(tmp_path / "link", os.O_RDONLY)
    assert refused.value.errno == errno.ELOOP
    os.close(files.open_following(tmp_path / "link", os.O_RDONLY))
    for path in (beyond, tmp_path / "link"):
        with pytest.raises(FileExistsError):
            files.create_file(path)
    assert files.inode_of(beyond) == files.inode_of(tmp_path / "there" / "file") != files.inode_of(tmp_path / "link")
    assert files.inode_of(tmp_path / "none") is None
