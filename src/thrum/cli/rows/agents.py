"""Agents, their sessions, groups and notes."""

from __future__ import annotations

from thrum.cli.commands import (
    agents,
    context,
    groups,
    lifecycle,
    overview,
    prime,
    sessions,
    sync,
    wake,
    who_has,
)
from thrum.cli.rows.row import row

GROUP = "Agents"

ROWS = (
    row(
        "wake",
        wake.wake,
        GROUP,
        "show why an agent was, or was not, woken",
        "Its runtime's state, the ways to wake it, what it has not seen, and the last attempts.",
        use="look",
    ),
    row("prime", prime.prime, GROUP, "print a briefing for the start of a session; marks nothing as read", use="prime"),
    row("overview", overview.overview, GROUP, "show your agent, team, inbox, sync and daemon at a glance", use="look"),
    row("whoami", agents.whoami, GROUP, "show which agent you act as, and why", use="look"),
    row("team", agents.team, GROUP, "show what each active agent is working on", use="look"),
    row(
        "agent list",
        agents.list_agents,
        GROUP,
        "list all registered agents",
        takes="[--role R] [--module M]",
        use="look",
    ),
    row(
        "agent register",
        agents.register,
        GROUP,
        "register an agent without starting a session",
        "--role: what it is, e.g. implementer; --module: what it works on, e.g. auth. Both may come from THRUM_ROLE"
        " and THRUM_MODULE, or from the identity file.",
        "--role R --module M",
        use="unguarded",
    ),
    row("agent set-status", lifecycle.set_status, GROUP, "set your status: working, idle, blocked or stuck"),
    row("agent rename", lifecycle.rename, GROUP, "rename your agent; its messages go with it"),
    row("agent delete", lifecycle.delete, GROUP, "delete an agent and its inbox; messages it sent stay"),
    row(
        "agent cleanup",
        lifecycle.cleanup,
        GROUP,
        "delete orphaned agents",
        "An agent is orphaned if its process is gone and so is its identity file, worktree or branch, or if it was not"
        " seen for more than --threshold days. Without a terminal, nothing is deleted unless you pass --yes.",
    ),
    row(
        "who-has",
        who_has.who_has,
        GROUP,
        "show who is editing a file, according to git",
        "Exit status 1 if no editor was found but the answer is uncertain: git gave no answer, or knows no such file."
        " Uncommitted changes in other clones cannot be seen: their agents are counted in one line.",
        use="look",
    ),
    row("ping", who_has.ping, GROUP, "show whether an agent is active, and what it is working on", use="look"),
    row("session start", sessions.start, GROUP, "start a session; ends the one you have open"),
    row("session end", sessions.end, GROUP, "end your session"),
    row("session list", sessions.list_sessions, GROUP, "list sessions, newest first", use="look"),
    row(
        "session heartbeat",
        sessions.heartbeat,
        GROUP,
        "report that you are active, and the git state of your worktree",
        "Scopes and refs stay with the session until they are removed.",
    ),
    row("session set-intent", sessions.set_intent, GROUP, "say what you are working on"),
    row("session set-task", sessions.set_task, GROUP, "say which task you are working on"),
    row("group create", groups.create, GROUP, "create a group"),
    row("group delete", groups.delete, GROUP, "delete a group; messages to it stay"),
    row("group add", groups.add, GROUP, "add agents or roles to a group", takes="[--role R]"),
    row("group remove", groups.remove, GROUP, "remove agents or roles from a group", takes="[--role R]"),
    row("group list", groups.list_groups, GROUP, "list all groups", use="look"),
    row("group show", groups.show, GROUP, "show a group and its members", use="look"),
    row("group members", groups.members, GROUP, "list the members of a group", use="look"),
    row(
        "context save",
        context.save,
        GROUP,
        "save session notes: TEXT, a file, or stdin",
        "Replaces what was saved before.",
    ),
    row("context show", context.show, GROUP, "show project state, preamble and notes", use="look"),
    row("context clear", context.clear, GROUP, "remove session notes"),
    row("context sync", sync.context, GROUP, "copy your notes to the branch a-sync, for other machines"),
    row(
        "context preamble",
        context.preamble,
        GROUP,
        "show, reset or replace the standing instructions",
        look_without=("init", "file"),
    ),
)
