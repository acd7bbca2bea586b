"""Several clones of one project, each with a daemon of its own, and the bare repository that they push to."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from tests.support.daemon.repo import Repo, wait_until
from tests.support.git.repository import git_output


class Clones:
    """`remote` is bare; every clone in `repos` has it as `origin`."""

    def __init__(self, count: int) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="thrum-remote-")).resolve()
        self.network = self.top / "network"
        """What is there while the remote can be reached."""
        self.network.mkdir()
        self.remote = self.network / "remote.git"
        first = Repo()
        self.repos: list[Repo] = [first]
        first.git("clone", "-q", "--bare", str(first.main), str(self.remote))
        first.git("remote", "add", "origin", str(self.remote))
        self.repos += [Repo(clone_of=self.remote) for _ in range(count - 1)]

    def git(self, *words: str) -> str:
        """In the remote."""
        return git_output(self.remote, *words)

    def tree(self) -> str:
        """The files of the remote's branch, with the ids of their bytes."""
        return self.git("ls-tree", "-r", "a-sync")

    def trees(self) -> list[str]:
        """The same of the remote and of every clone."""
        return [self.tree(), *(repo.git("ls-tree", "-r", "a-sync") for repo in self.repos)]

    def settle(self, repos: Sequence[Repo] = ()) -> None:
        """Rounds until nobody has anything that another one has not."""
        repos = repos or self.repos

        def agreed() -> bool:
            for repo in repos:
                repo.thrum("sync", "force", "--wait")
            return len({self.tree(), *(repo.git("ls-tree", "-r", "a-sync") for repo in repos)}) == 1

        wait_until(agreed, "all clones agree")

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.top)
            for repo in self.repos:
                stack.callback(repo.close)


@contextlib.contextmanager
def open_clones(*names: Sequence[str]) -> Generator[Clones]:
    """A clone for each of these lists of agents, with thrum set up and synced. A clone's first agent is in `main`."""
    clones = Clones(len(names))
    try:
        for repo, agents in zip(clones.repos, names, strict=True):
            repo.thrum("init", "--sync")
            for index, name in enumerate(agents):
                repo.agent(name, at=None if index else repo.main, module=f"m_{name}")
        clones.settle()
        yield clones
    finally:
        clones.close()


HOSTS = ("alpha", "beta", "gamma")


@contextlib.contextmanager
def open_namesakes() -> Generator[Clones]:
    """Alpha and beta have an agent `sam` each, registered while neither could know of the other; gamma has `eye`."""
    clones = Clones(3)
    try:
        for repo, host in zip(clones.repos, HOSTS, strict=True):
            repo.env["THRUM_HOSTNAME"] = host
            repo.thrum("init", "--sync")
        clones.settle()
        apart = clones.network.rename(clones.top / "away")
        alpha, beta, gamma = clones.repos
        alpha.agent("sam", role="worker", module="first", at=alpha.main)
        beta.agent("sam", role="worker", module="second", at=beta.main)
        gamma.agent("eye", role="tester", module="all", at=gamma.main)
        apart.rename(clones.network)
        clones.settle()
        yield clones
    finally:
        clones.close()


def daemon_of(repo: Repo) -> str:
    """The id of a clone's daemon."""
    return json.loads(repo.settings.read_text())["identity"]["daemon_id"]


def shared(repo: Repo) -> dict[str, list[tuple[Any, ...]]]:
    """What of a projection must be the same in every clone: all that is not fed by facts of one machine."""
    projection = repo.projection()
    # Whom a clone takes for the holder of a name is its own to say; who registered it is not.
    own = ("agents", "holders", "lines_before", "hidden_agents")
    for table in ("client_keys", "daemon_identity", "session_items", "sync_state", *own):
        projection.pop(table, None)
    # `home` is empty for one's own, and follows from the origin.
    projection["registrations"] = sorted((row[0], *row[2:]) for row in projection["registrations"])
    projection["agent_aliases"] = sorted((*row[:2], *row[3:]) for row in projection["agent_aliases"])
    return projection
