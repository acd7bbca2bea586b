"""Setting up: the repository, hooks, runtimes."""

from __future__ import annotations

from thrum.cli.commands import (
    agents,
    demo,
    hooks,
    init,
    run,
    runtimes,
    setup,
)
from thrum.cli.rows.row import row

GROUP = "Set up"

ROWS = (
    row("init", init.init, GROUP, "set up the repository", "Running it again adds what is missing.", use="unguarded"),
    row(
        "run",
        run.run_agent,
        GROUP,
        "start an agent's runtime here, set up so that messages reach its model",
        "Registers the agent, in a repository without thrum after init, and hands its runtime thrum's hooks for this"
        " run alone. In a terminal of its own. --role and --module: of a new agent; else the runtime's name and NAME.",
        "[--role R] [--module M]",
        use="unguarded",
    ),
    row(
        "quickstart",
        agents.quickstart,
        GROUP,
        "register an agent, start its session, set its intent",
        "--role: what it is, e.g. implementer; --module: what it works on, e.g. auth. Both may come from THRUM_ROLE"
        " and THRUM_MODULE, or from the identity file.",
        "--role R --module M",
        use="unguarded",
    ),
    row("setup", setup.setup, GROUP, "set up a worktree that git made without thrum", use="unguarded"),
    row(
        "setup claude-md",
        setup.claude_md,
        GROUP,
        "print a block about thrum for CLAUDE.md or AGENTS.md, or write it there",
        "What else is in the file stays.",
        use="unguarded",
    ),
    row("demo", demo.demo, GROUP, "demonstrate messaging in a throw-away repository", use="unguarded"),
    row(
        "hook install",
        hooks.install,
        GROUP,
        "install thrum's hooks for an agent runtime: messages reach its model without polling",
        "Private and hidden from git, unless you say otherwise; what else is in the file stays. codex has only a file"
        " of yours, for all repositories: asks first.",
        use="unguarded",
    ),
    row(
        "hook uninstall",
        hooks.uninstall,
        GROUP,
        "remove thrum's hooks; the file becomes what it was before",
        use="unguarded",
    ),
    row(
        "hook status",
        hooks.status,
        GROUP,
        "show which runtimes call thrum, and when their hooks fired",
        "FIRED: for each agent with a session, when hooks fired first in its session, and when each last did.",
        use="unguarded",
    ),
    row("runtime list", runtimes.list_runtimes, GROUP, "list the runtimes that thrum knows", use="unguarded"),
    row("runtime show", runtimes.show, GROUP, "show what thrum knows of a runtime", use="unguarded"),
    row(
        "runtime set-default",
        runtimes.set_default_runtime,
        GROUP,
        "set the runtime that is used where none is named",
        use="unguarded",
    ),
)
