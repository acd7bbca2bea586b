"""The table of all commands: the words of each, its handler, what it does in an agent's name, and its help."""

from __future__ import annotations

from collections.abc import Mapping

from thrum.cli.commands import (
    agents,
    backup,
    config,
    context,
    daemon,
    daemon_list,
    demo,
    groups,
    hook,
    hooks,
    inbox,
    init,
    lifecycle,
    log,
    messages,
    misc,
    overview,
    prime,
    purge,
    runtimes,
    send,
    sessions,
    setup,
    sync,
    uninstall,
    verify,
    wait,
    who_has,
)
from thrum.cli.parser import Command, Handler, Use

START, TALK, PEOPLE, CARE, ABOUT = "Set up", "Messages", "Agents", "The daemon", "About"
HELP_GROUPS = {START: "", TALK: "", PEOPLE: "", CARE: "", ABOUT: ""}
"""Headings of the root help, in order."""

GROUPS = {
    "agent": "agents of this repository",
    "session": "work periods of agents",
    "message": "one message",
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


def _command(
    name: str,
    handler: Handler,
    group: str,
    summary: str,
    notes: str = "",
    takes: str = "",
    *,
    completes: Mapping[str, str] | None = None,
    use: Use = "act",
    look_with: tuple[str, ...] = (),
    look_without: tuple[str, ...] = (),
    listed: bool = True,
    guessed: bool = True,
    error_status: int = 0,
) -> Command:
    return Command(
        tuple(name.split()),
        handler,
        summary,
        group,
        notes,
        takes,
        completes or {},
        use=use,
        look_with=look_with,
        look_without=look_without,
        listed=listed,
        guessed=guessed,
        error_status=error_status,
    )


ALL = (
    _command(
        "init", init.init, START, "set up the repository", "Running it again adds what is missing.", use="unguarded"
    ),
    _command(
        "quickstart",
        agents.quickstart,
        START,
        "register an agent, start its session, set its intent",
        "--role: what it is, e.g. implementer; --module: what it works on, e.g. auth. Both may come from THRUM_ROLE"
        " and THRUM_MODULE, or from the identity file.",
        "--role R --module M",
        use="unguarded",
    ),
    _command("setup", setup.setup, START, "set up a worktree that git made without thrum", use="unguarded"),
    _command(
        "setup claude-md",
        setup.claude_md,
        START,
        "print a block about thrum for CLAUDE.md or AGENTS.md, or write it there",
        "What else is in the file stays.",
        use="unguarded",
    ),
    _command("demo", demo.demo, START, "demonstrate messaging in a throw-away repository", use="unguarded"),
    _command(
        "send",
        send.send,
        TALK,
        "send a message",
        "Without --to the message is information for the team: it goes to everyone's inbox and wakes no one. Without"
        " TEXT, a file or a command's pipe on stdin is the text; - waits for any stdin.",
    ),
    _command("reply", send.reply, TALK, "reply to a message's author and to the agents it named individually"),
    _command(
        "wait",
        wait.wait,
        TALK,
        "wait until a message arrives",
        "Exit status 0: received, 1: timeout, 2: error. Printed messages count as seen but stay unread.",
        error_status=2,
    ),
    _command(
        "hook",
        hook.hook,
        CARE,
        "what agent runtimes call: prints nothing unless there is something to say",
        use="prime",
        listed=False,
        guessed=False,
    ),
    _command(
        "hook install",
        hooks.install,
        START,
        "install thrum's hooks for an agent runtime: messages reach its model without polling",
        "Private and hidden from git, unless you say otherwise; what else is in the file stays. codex has only a file"
        " of yours, for all repositories: asks first.",
        use="unguarded",
    ),
    _command(
        "hook uninstall",
        hooks.uninstall,
        START,
        "remove thrum's hooks; the file becomes what it was before",
        use="unguarded",
    ),
    _command(
        "hook status",
        hooks.status,
        START,
        "show which runtimes call thrum, and when their hooks fired",
        "FIRED: for each agent with a session, when hooks fired first in its runtime's session.",
        use="unguarded",
    ),
    _command("runtime list", runtimes.list_runtimes, START, "list the runtimes that thrum knows", use="unguarded"),
    _command("runtime show", runtimes.show, START, "show what thrum knows of a runtime", use="unguarded"),
    _command(
        "runtime set-default",
        runtimes.set_default_runtime,
        START,
        "set the runtime that is used where none is named",
        use="unguarded",
    ),
    _command(
        "inbox",
        inbox.inbox,
        TALK,
        "print your messages and mark them as read",
        "Without flags (--json does not count): unread messages, oldest first, each once, at most 20. With any flag:"
        " pages of 10, newest first, including read ones.\n● unread, ○ read, ↳ a reply.",
        look_with=("peek", "unread", "all"),
    ),
    _command(
        "sent",
        messages.sent,
        TALK,
        "list the messages you sent, and who has read them",
        "After each name: stored (on its way to another clone), delivered (in its inbox), offered (given to its"
        " runtime), seen (printed to it, or given to its model), read; gone: no agent has that name any more.",
        use="look",
    ),
    _command("watch", wait.watch, TALK, "print events as they happen, until interrupted"),
    _command(
        "log",
        log.log,
        TALK,
        "print the conversation from the branch a-sync, oldest first; needs no daemon",
        use="unguarded",
    ),
    _command("message get", messages.get, TALK, "print one message in full", look_with=("peek",)),
    _command("message edit", messages.edit, TALK, "replace the body of a message you sent"),
    _command("message delete", messages.delete, TALK, "hide a message you sent, everywhere"),
    _command("message read", messages.read, TALK, "mark messages as read"),
    _command(
        "prime", prime.prime, PEOPLE, "print a briefing for the start of a session; marks nothing as read", use="prime"
    ),
    _command(
        "overview", overview.overview, PEOPLE, "show your agent, team, inbox, sync and daemon at a glance", use="look"
    ),
    _command("whoami", agents.whoami, PEOPLE, "show which agent you act as, and why", use="look"),
    _command("team", agents.team, PEOPLE, "show what each active agent is working on", use="look"),
    _command(
        "agent list",
        agents.list_agents,
        PEOPLE,
        "list all registered agents",
        takes="[--role R] [--module M]",
        use="look",
    ),
    _command(
        "agent register",
        agents.register,
        PEOPLE,
        "register an agent without starting a session",
        "--role: what it is, e.g. implementer; --module: what it works on, e.g. auth. Both may come from THRUM_ROLE"
        " and THRUM_MODULE, or from the identity file.",
        "--role R --module M",
        use="unguarded",
    ),
    _command("agent set-status", lifecycle.set_status, PEOPLE, "set your status: working, idle, blocked or stuck"),
    _command("agent rename", lifecycle.rename, PEOPLE, "rename your agent; its messages go with it"),
    _command("agent delete", lifecycle.delete, PEOPLE, "delete an agent and its inbox; messages it sent stay"),
    _command(
        "agent cleanup",
        lifecycle.cleanup,
        PEOPLE,
        "delete orphaned agents",
        "An agent is orphaned if its process is gone and so is its identity file, worktree or branch, or if it was not"
        " seen for more than --threshold days. Without a terminal, nothing is deleted unless you pass --yes.",
    ),
    _command(
        "who-has",
        who_has.who_has,
        PEOPLE,
        "show who is editing a file, according to git",
        "Exit status 1 if no editor was found but the answer is uncertain: git gave no answer, or knows no such file."
        " Uncommitted changes in other clones cannot be seen: their agents are counted in one line.",
        use="look",
    ),
    _command("ping", who_has.ping, PEOPLE, "show whether an agent is active, and what it is working on", use="look"),
    _command("session start", sessions.start, PEOPLE, "start a session; ends the one you have open"),
    _command("session end", sessions.end, PEOPLE, "end your session"),
    _command("session list", sessions.list_sessions, PEOPLE, "list sessions, newest first", use="look"),
    _command(
        "session heartbeat",
        sessions.heartbeat,
        PEOPLE,
        "report that you are active, and the git state of your worktree",
        "Scopes and refs stay with the session until they are removed.",
    ),
    _command("session set-intent", sessions.set_intent, PEOPLE, "say what you are working on"),
    _command("session set-task", sessions.set_task, PEOPLE, "say which task you are working on"),
    _command("group create", groups.create, PEOPLE, "create a group"),
    _command("group delete", groups.delete, PEOPLE, "delete a group; messages to it stay"),
    _command("group add", groups.add, PEOPLE, "add agents or roles to a group", takes="[--role R]"),
    _command("group remove", groups.remove, PEOPLE, "remove agents or roles from a group", takes="[--role R]"),
    _command("group list", groups.list_groups, PEOPLE, "list all groups", use="look"),
    _command("group show", groups.show, PEOPLE, "show a group and its members", use="look"),
    _command("group members", groups.members, PEOPLE, "list the members of a group", use="look"),
    _command(
        "context save",
        context.save,
        PEOPLE,
        "save session notes: TEXT, a file, or stdin",
        "Replaces what was saved before.",
    ),
    _command("context show", context.show, PEOPLE, "show project state, preamble and notes", use="look"),
    _command("context clear", context.clear, PEOPLE, "remove session notes"),
    _command("context sync", sync.context, PEOPLE, "copy your notes to the branch a-sync, for other machines"),
    _command(
        "context preamble",
        context.preamble,
        PEOPLE,
        "show, reset or replace the standing instructions",
        look_without=("init", "file"),
    ),
    _command("sync status", sync.status, CARE, "show the state of the sync with other clones", use="unguarded"),
    _command("sync force", sync.force, CARE, "sync now, and report the result"),
    _command(
        "sync enable",
        sync.enable,
        CARE,
        "turn on remote sync",
        "Asks first if anyone can read the remote, or if that is not known; without a terminal, pass --yes.",
    ),
    _command("sync accept", sync.accept, CARE, "trust another clone's daemon, or accept the remote as this project's"),
    _command("sync disable", sync.disable, CARE, "turn off remote sync: nothing is fetched or pushed"),
    _command("daemon start", daemon.start, CARE, "start the daemon; commands start it when they need it", use="look"),
    _command("daemon stop", daemon.stop, CARE, "stop the daemon", use="look"),
    _command("daemon restart", daemon.restart, CARE, "stop and start the daemon", use="look"),
    _command("daemon status", daemon.status, CARE, "show whether the daemon is running, and its identity", use="look"),
    _command(
        "daemon list",
        daemon_list.list_daemons,
        CARE,
        "list all daemons of this user, with memory and agents",
        use="unguarded",
    ),
    _command("daemon logs", daemon.logs, CARE, "print the daemon's log", use="look"),
    _command(
        "purge",
        purge.purge,
        CARE,
        "remove old messages and ended sessions of this clone",
        "Give --before or --all; without --yes this only prints a preview. Removes what agents of this clone wrote,"
        " here and, once they sync, in other clones. What others wrote stays, and so do agents, groups and open"
        " sessions. Git history keeps what was pushed.\nAfter a purge in another clone, thrum purge accept says what to"
        " do.",
        use="unguarded",
    ),
    _command(
        "purge accept",
        purge.accept,
        CARE,
        "explain what to do about another clone's purge; it is not executed here",
        listed=False,
    ),
    _command("config show", config.show, CARE, "show all settings and where each comes from", use="look"),
    _command("config get", config.get, CARE, "print one setting", use="look", completes=config.HELP),
    _command("config set", config.set_, CARE, "change a setting", use="unguarded", completes=config.HELP),
    _command(
        "config unset", config.unset, CARE, "restore the default of a setting", use="unguarded", completes=config.HELP
    ),
    _command("config diff", config.diff, CARE, "show settings that were changed outside thrum", use="unguarded"),
    _command("config accept", config.accept, CARE, "accept settings that were changed outside thrum", use="unguarded"),
    _command(
        "backup",
        backup.backup,
        CARE,
        "back up messages, agents, read marks and settings; the last backup becomes an archive",
        "Needs no daemon. Keeps 5 daily, 4 weekly and all monthly archives, unless backup.retention says otherwise.",
        use="unguarded",
    ),
    _command("backup status", backup.status, CARE, "show the last backup and the archives", use="unguarded"),
    _command(
        "backup config", backup.config, CARE, "show where backups are stored, and how many are kept", use="unguarded"
    ),
    _command(
        "backup restore",
        backup.restore,
        CARE,
        "restore a backup; the current state is archived first",
        "A running daemon continues with the restored data. What was purged and pushed stays purged.",
        use="unguarded",
        guessed=False,
    ),
    _command(
        "verify",
        verify.verify,
        CARE,
        "check that journals, database, branch and identity files agree",
        "Exit status 1 if they don't. Changes nothing without --repair.",
        use="unguarded",
    ),
    _command(
        "doctor",
        verify.doctor,
        CARE,
        "check that this machine and this repository are fit for thrum",
        "Exit status 1 if a check fails. Needs no daemon.",
        use="unguarded",
    ),
    _command(
        "uninstall",
        uninstall.uninstall,
        CARE,
        "undo init, printing each step; asks first",
        "Stops the daemon. Without --keep-messages, the branch a-sync and its messages are deleted too; what was pushed"
        " stays at the remote. Without a terminal, pass --yes.",
        use="unguarded",
    ),
    _command("version", misc.version, ABOUT, "print the version", use="unguarded"),
    _command("help", misc.help, ABOUT, "print the help of a command", use="unguarded"),
    _command("completion", misc.completion, ABOUT, "print a completion script: bash, zsh or fish", use="unguarded"),
)
COMMANDS: dict[tuple[str, ...], Command] = {command.path: command for command in ALL}
ALIASES = {
    ("agent", "whoami"): ("whoami",),
    ("status",): ("overview",),
    ("context", "load"): ("context", "show"),
    **{("agent", word): ("session", word) for word in ("start", "end", "heartbeat", "set-intent", "set-task")},
}
COMMANDS.update({alias: COMMANDS[path] for alias, path in ALIASES.items()})
