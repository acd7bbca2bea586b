"""What git prints, taken apart; and which path is meant by a file."""

from __future__ import annotations

import pytest

from thrum.git._status_output import Change, LoggedCommit, parse_log, parse_numstat, parse_status, pathspecs
from thrum.model.search import path_matches

IDS = b"100644 100644 100644 " + b"a" * 40 + b" " + b"b" * 40


def test_status_tells_each_path_once_with_what_happened_to_it() -> None:
    output = b"\0".join(
        [
            b"1 .M N... " + IDS + b" src/a file.py",
            b"1 A. N... " + IDS + b" staged.py",
            b"1 .A N... " + IDS + b" intended.py",
            b"1 .D N... " + IDS + b" gone.py",
            b"1 D. N... " + IDS + b" untracked-again.py",
            b"2 RM N... " + IDS + b" R087 new name.py",
            b"old name.py",
            b"2 C. N... " + IDS + b" C100 copy.py",
            b"origin.py",
            b"u UU N... 100644 " + IDS + b" " + b"c" * 40 + b" both.py",
            b"u DU N... 100644 " + IDS + b" " + b"c" * 40 + b" theirs.py",
            b"? untracked-again.py",
            b"? new\nline.py",
            b"! ignored.py",
            b"",
        ]
    )
    # An unmerged entry has one mode and one id more than IDS.
    assert parse_status(output) == [
        Change(b"src/a file.py", "modified"),
        Change(b"staged.py", "added"),
        Change(b"intended.py", "added"),
        Change(b"gone.py", "deleted"),
        Change(b"untracked-again.py", "modified"),
        Change(b"new name.py", "renamed", b"old name.py"),
        Change(b"copy.py", "added"),
        Change(b"both.py", "modified"),
        Change(b"theirs.py", "modified"),
        Change(b"new\nline.py", "added", untracked=True),
    ]
    assert parse_status(b"") == []


def test_numstat_counts_lines_of_text_and_takes_a_renamed_file_by_its_new_name() -> None:
    output = b"42\t10\tsrc/auth/token.py\x00" + b"-\t-\tlogo.png\x00" + b"1\t2\t\x00old\x00new\tname\x00"
    assert parse_numstat(output) == {b"src/auth/token.py": (42, 10), b"logo.png": (0, 0), b"new\tname": (1, 2)}
    assert parse_numstat(b"") == {}


def test_a_log_tells_commits_with_and_without_files() -> None:
    first, second, third = b"a" * 40, b"b" * 64, b"c" * 40
    output = (
        b"\x01" + first + b"\0Fix \xff it\0\nsrc/a.py\0\nodd\0"
        b"\x01" + second + b"\0empty\0"
        b"\x01" + third + b"\0\0\nlast.py\0"
    )
    assert parse_log(output) == [
        LoggedCommit("a" * 40, "Fix � it", (b"src/a.py", b"\nodd")),
        LoggedCommit("b" * 64, "empty", ()),
        LoggedCommit("c" * 40, "", (b"last.py",)),
    ]
    assert parse_log(b"") == []


@pytest.mark.parametrize(
    ("path", "wanted", "expected"),
    [
        ("src/auth/token.py", "token.py", True),
        ("src/auth/token.py", "auth/token.py", True),
        ("src/auth/token.py", "src/auth/token.py", True),
        ("token.py", "token.py", True),
        ("src/auth/mytoken.py", "token.py", False),
        ("src/auth/token.py", "src/auth", False),
        ("src/auth/token.py", "src/auth/", True),
        ("src/authors.py", "src/auth/", False),
        ("a/src/auth/token.py", "src/auth/", False),
        ("src/auth/token.py", "*.py", True),
        ("src/auth/token.py", "src/*.py", False),
        ("src/auth/token.py", "src/**/*.py", True),
        ("src/token.py", "src/**/*.py", True),
        ("src/auth/token.py", "auth/tok?n.*", True),
        ("src/auth/deep/token.py", "src/*/", True),
        ("mysrc/auth/token.py", "src/**", False),
        ("app/[id].tsx", "app/[id].*", True),
        ("app/i.tsx", "app/[id].*", False),
        ("src/a.pyc", "*.py", False),
    ],
)
def test_a_file_is_a_path_the_end_of_one_a_directory_or_a_pattern(path: str, wanted: str, expected: bool) -> None:
    assert path_matches(path, wanted) is expected


def test_brackets_mean_themselves_and_stars_are_a_pattern() -> None:
    assert pathspecs(["a[1]*?.py"]) == [rb":(top,glob)**/a\[1]*?.py"]
    assert pathspecs(["src/[x]/", "src/*/"]) == [b":(top,literal)src/[x]/", b":(top,glob)**/src/*/**"]
    assert pathspecs([]) == []
