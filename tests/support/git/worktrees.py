"""A real git repository with worktrees beside it, below a directory of the test."""

from __future__ import annotations

from pathlib import Path

from tests.support.git.repository import commit, git, make_repository, write_files
from thrum.model.paths import Layout


class Worktrees:
    """`main` at `base/repo` with one commit on the branch main; a worktree on a branch of its name for each name."""

    def __init__(self, base: Path, *names: str) -> None:
        self.base = base.resolve()
        self.main = self.base / "repo"
        make_repository(self.main, {"README.md": "a project\n", "src/auth/token.py": "one\ntwo\nthree\n"})
        for name in names:
            self.add(name)

    def __getitem__(self, name: str) -> Path:
        return self.base / f"w-{name}"

    @property
    def layout(self) -> Layout:
        state = self.main / ".thrum"
        return Layout(root=self.main, state_dir=state, main_root=self.main, common_dir=self.main / ".git")

    def git(self, *words: str, at: Path | None = None) -> str:
        return git(at or self.main, *words)

    def add(self, name: str) -> Path:
        self.git("worktree", "add", "-q", str(self[name]), "-b", name)
        return self[name]

    def write(self, at: Path, files: dict[str, str]) -> None:
        write_files(at, files)

    def commit(self, at: Path, files: dict[str, str], message: str) -> str:
        """The id of a commit of these files alone."""
        return commit(at, files, message)

    def index(self, at: Path) -> Path:
        return Path(self.git("rev-parse", "--path-format=absolute", "--git-path", "index", at=at))

    def standing_of_index(self, at: Path) -> tuple[bytes, int, list[str]]:
        """Its bytes, when it was written, and what lies beside it."""
        index = self.index(at)
        return index.read_bytes(), index.stat().st_mtime_ns, sorted(path.name for path in index.parent.iterdir())

    def break_index(self, at: Path) -> None:
        self.index(at).write_bytes(b"no index")
