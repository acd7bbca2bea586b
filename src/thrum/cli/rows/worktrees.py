"""Worktrees and terminals."""

from __future__ import annotations

from thrum.cli.commands import (
    snapshot,
    tmux,
    worktree,
)
from thrum.cli.rows.row import row

GROUP = "Worktrees and terminals"

ROWS = (
    row(
        "worktree create",
        worktree.create,
        GROUP,
        "make a git worktree with thrum set up in it, and if you like an agent and its tmux session",
        "A worktree or branch that is there already is used. With --name, --role and --module the agent is registered;"
        " its runtime is not started yet. Your git hooks are not run.",
        takes="[--role R] [--module M]",
        use="unguarded",
    ),
    row("worktree list", worktree.list_worktrees, GROUP, "list worktrees and their agents", use="look"),
    row(
        "worktree teardown",
        worktree.teardown,
        GROUP,
        "remove a worktree, its tmux session and its agent",
        "Refuses what would lose uncommitted files, commits on no branch, or with --delete-branch unmerged ones; with"
        " --force it says what went. The branch stays without --delete-branch.",
    ),
    row(
        "tmux start",
        tmux.start,
        GROUP,
        "a session here, with the agent's runtime started in it, shown in this terminal",
        use="unguarded",
    ),
    row(
        "tmux create",
        tmux.create,
        GROUP,
        "make a tmux session with an agent registered in it; its runtime is not started yet",
        "An agent that is new needs --role and --module.",
        takes="[--role R] [--module M]",
        use="unguarded",
    ),
    row(
        "tmux launch",
        tmux.launch,
        GROUP,
        "start the agent's runtime in its session; one that is gone is made again",
        use="unguarded",
    ),
    row("tmux connect", tmux.connect, GROUP, "show a session in this terminal", use="unguarded"),
    row(
        "tmux status",
        tmux.status,
        GROUP,
        "list the sessions of this repository",
        "alive, idle (silent for two minutes), blocked (it asks something), stale (nothing runs in it), dead (it is"
        " gone).",
        use="look",
    ),
    row("tmux kill", tmux.kill, GROUP, "end a session and what runs in it"),
    row(
        "tmux send",
        tmux.send,
        GROUP,
        "type a text and Enter into a session, whatever it shows, also an open question",
        "To reach an agent, send it a message.",
    ),
    row("tmux capture", tmux.capture, GROUP, "print what a session shows", use="look"),
    row(
        "tmux restart",
        tmux.restart,
        GROUP,
        "keep the end of the conversation, and start the runtime again in a new session",
        "Refuses while the agent is at work; --force does it all the same.",
    ),
    row(
        "tmux snapshot",
        snapshot.snapshot,
        GROUP,
        "keep the end of your conversation for after a restart",
        "restore prints it; check says by its exit status whether there is one (0) or not (1).",
    ),
)
