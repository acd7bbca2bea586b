"""who-has and ping: what is printed of an answer, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from thrum.cli.commands.who_has import edits, path_wanted, presence, verdicts
from thrum.cli.render import RenderContext
from thrum.model import clock, wire_types
from thrum.model.events import Commit, FileChange
from thrum.model.methods.agents import ListContextResult, UnknownWork


def test_a_no_is_of_those_who_were_heard_and_names_in_one_line_the_agents_of_other_clones() -> None:
    names = ("qa", "ann", "bob", "cid")
    far = tuple(UnknownWork(name, "it is in another clone", elsewhere=True) for name in names)
    wanted = {"src/a.py": "a.py", "b.py": "b.py"}
    here = {path: f"No agents here are currently editing {name}" for path, name in wanted.items()}
    for unknown, line in (
        (far[:1], "1 agent in another clone: unknown (@qa)"),
        (far[:3], "3 agents in other clones: unknown (@qa, @ann, @bob)"),
        (far, "4 agents in other clones: unknown (@qa, @ann, @bob, …)"),
    ):
        assert verdicts(ListContextResult(contexts=(), unknown=unknown), wanted) == (here, [line])
    sure = wire_types.WorkContext(session_id="s", agent_id="qa", changed_files=("src/a.py", "b.py"))
    found = ListContextResult(contexts=(sure,), unknown=far[:2])
    assert verdicts(found, wanted) == ({}, ["1 agent in another clone: unknown (@ann)"]), "after a sure answer too"
    broken = UnknownWork("max", "git: no")
    assert verdicts(ListContextResult(contexts=(), unknown=(broken, far[0])), {"b.py": "b.py"}) == (
        {},
        ["Not known whether @max is editing b.py: git: no", "1 agent in another clone: unknown (@qa)"],
    )


def test_lines_leave_out_what_is_not_known() -> None:
    context = wire_types.WorkContext(
        session_id="ses_1",
        agent_id="nux",
        unmerged_commits=(Commit("a" * 40, "One"),),
        uncommitted_files=("new.py", "old\n.py"),
        changed_files=("new.py", "c.py"),
        file_changes=(FileChange("new.py", "", 0, 0, "renamed"),),
    )
    assert [text for _, text in edits([context])] == [
        "@nux is editing new.py (+0 -0, uncommitted)",
        "@nux is editing old\\x0a.py (uncommitted)",
        "@nux is editing c.py (1 commit ahead)",
    ]


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("token.py", "token.py"),
        ("auth/token.py", "auth/token.py"),
        ("./token.py", "src/token.py"),
        ("../README.md", "README.md"),
        ("..", "**"),
        ("../..", ""),
        ("../../x", ""),
        ("/etc/passwd", ""),
        ("/", ""),
        ("src", "src/"),
        ("gone/", "gone/"),
        ("./", "src/"),
        (".", "src/"),
        ("src//auth", "src/auth"),
    ],
)
def test_a_file_is_taken_from_where_one_stands_only_when_it_says_so(tmp_path: Path, file: str, wanted: str) -> None:
    root = tmp_path.resolve() / "repo"
    (root / "src").mkdir(parents=True)
    assert path_wanted(file, str(root / "src"), root) == wanted


def test_a_path_in_another_worktree_means_the_same_file_here(tmp_path: Path) -> None:
    root, other, inner = (tmp_path.resolve() / name for name in ("repo", "other", "repo/w/inner"))
    for each in (root, other, inner):
        (each / "src").mkdir(parents=True)
    others = (root, other, inner)
    assert path_wanted("../other/src/auth.py", str(root), root, others) == "src/auth.py"
    assert path_wanted(str(inner / "src/auth.py"), str(root), root, others) == "src/auth.py"
    assert path_wanted(str(inner / "src"), str(other), other, others) == "src/"
    assert path_wanted(str(other), str(root), root, others) == path_wanted(".", str(root), root, others) == "**"
    assert path_wanted("../neither/src/auth.py", str(root), root, others) == ""


def test_ping_says_what_the_agent_says_of_itself_and_that_its_worktree_is_gone() -> None:
    at = "2026-02-03T12:00:00.000Z"
    rendering = RenderContext(clock.parse_ms(at))
    known = wire_types.AgentInfo(
        agent_id="nux", kind="agent", role="tester", module="m", display="", registered_at=at, worktree_missing=True
    )
    context = wire_types.WorkContext(session_id="ses_1", agent_id="nux")
    said = presence("nux", known, (context,), rendering, "stuck")
    assert said == "@nux: active, last heartbeat just now; its worktree is gone (thrum agent cleanup)\nStatus:   stuck"
    assert "its worktree is gone" in presence("nux", known, (), rendering)
