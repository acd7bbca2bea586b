"""The table of all commands: the words of each, its handler, what it does in an agent's name, and its help.

Its rows lie in `rows`, a module for each heading of the help.
"""

from __future__ import annotations

from thrum.cli.parser import Command
from thrum.cli.rows import about, agents, daemon, messages, start, worktrees

_FAMILIES = (start, messages, agents, worktrees, daemon, about)

HELP_GROUPS = {family.GROUP: "" for family in _FAMILIES}
"""Headings of the root help, in order."""

GROUPS = {
    "agent": "agents of this repository",
    "session": "work periods of agents",
    "message": "one message",
    "worktree": "git worktrees with thrum set up in them",
    "tmux": "terminals with an agent each",
    "daemon": "the process that serves a repository",
    "group": "named sets of recipients",
    "context": "notes that an agent keeps between sessions",
    "config": "settings of this repository",
    "hook": "what agent runtimes call, and where they are told to",
    "runtime": "agent programs that thrum knows",
    "setup": "worktrees and files of the project",
    "sync": "exchange messages with other clones through git",
    "purge": "remove old messages",
    "backup": "snapshots of messages, agents and settings",
}

ALL = tuple(command for family in _FAMILIES for command in family.ROWS)
COMMANDS: dict[tuple[str, ...], Command] = {command.path: command for command in ALL}
ALIASES = {
    ("agent", "whoami"): ("whoami",),
    ("status",): ("overview",),
    ("context", "load"): ("context", "show"),
    ("worktree", "setup"): ("worktree", "create"),
    ("tmux", "quickstart"): ("tmux", "create"),
    ("tmux", "list"): ("tmux", "status"),
    **{("agent", word): ("session", word) for word in ("start", "end", "heartbeat", "set-intent", "set-task")},
}
COMMANDS.update({alias: COMMANDS[path] for alias, path in ALIASES.items()})
