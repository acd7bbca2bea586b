"""A daemon in the test's own process, and agents that have each a real worktree."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.daemon.in_process import Agent, Daemon, open_daemon
from tests.support.git.worktrees import Worktrees


@dataclass
class Team:
    trees: Worktrees
    daemon: Daemon
    agents: dict[str, Agent] = field(default_factory=dict[str, Agent])

    async def add(self, name: str) -> Agent:
        """An agent, registered in a new worktree of its name, in which git does not see thrum's files."""
        self.agents[name] = await self.daemon.registered(name, root=str(self.trees.add(name)))
        (self.trees.main / ".git/info/exclude").write_text(".thrum/\n")
        return self.agents[name]


@asynccontextmanager
async def open_team(base: Path, *names: str) -> AsyncGenerator[Team]:
    trees = Worktrees(base)
    async with open_daemon(trees.base) as daemon:
        team = Team(trees, daemon)
        for name in names:
            await team.add(name)
        yield team
