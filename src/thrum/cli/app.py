"""The command line: the table of all commands, and how one is carried out.

`run` is the same in the daemon, for a launcher, and in the user's own process, which `main` begins and ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, cast

import trio

from thrum.cli import (
    agents,
    backup,
    care,
    daemon,
    daemons,
    demo,
    groups,
    helping,
    history,
    inbox,
    init,
    lifecycle,
    messages,
    misc,
    notes,
    overview,
    prime,
    purge,
    sandbox,
    sending,
    sessions,
    settings,
    setup,
    sync,
    uninstall,
    waiting,
    whohas,
)
from thrum.cli.arriving import name_that_ended
from thrum.cli.body import decoded
from thrum.cli.run import Answer, Run, error_document, error_text, json_line, unexpected
from thrum.cli.terminal import NeedsOwnProcess, OutputLost, OwnTerminal, Session
from thrum.cli.text import clean
from thrum.cli.words import Command, Globals, Handler, find, split, wants_json
from thrum.errors import BadEncoding, IdentityNotFound, ThrumError, UsageError
from thrum.files import shortage

START, TALK, PEOPLE, CARE, ABOUT = "Set up", "Messages", "Who is there", "The daemon", "About"
HELP_GROUPS = {START: "", TALK: "", PEOPLE: "", CARE: "", ABOUT: ""}
"""Headings of the root help, in order."""

GROUPS = {
    "agent": "agents of this repository",
    "session": "work periods of agents",
    "message": "one message",
    "daemon": "the process that serves a repository",
    "group": "named audiences",
    "context": "what an agent writes down between sessions",
    "config": "settings of this repository",
    "sync": "messages to and from other clones, by git",
    "purge": "what is old goes",
    "backup": "snapshots of messages, agents and settings",
}


def _command(name: str, handler: Handler, group: str, summary: str, notes: str = "", takes: str = "") -> Command:
    return Command(tuple(name.split()), handler, summary, group, notes, takes)


_ALL = (
    _command("init", init.init, START, "set the repository up", "Run again, it adds what is missing."),
    _command(
        "quickstart",
        agents.quickstart,
        START,
        "register an agent, start its session, set its intent",
        "--role: what it is, e.g. implementer; --module: what it works on, e.g. auth. Both may come from THRUM_ROLE"
        " and THRUM_MODULE, or from the identity file.",
        "--role R --module M",
    ),
    _command("setup", setup.setup, START, "set up a worktree that git made without thrum"),
    _command("demo", demo.demo, START, "show the main job in a throw-away repository"),
    _command(
        "send",
        sending.send,
        TALK,
        "send a message",
        "Without --to it is information for the team: in everyone's inbox, and it wakes nobody. Where no text is given,"
        " a file or a command's pipe on stdin is it; - waits for any stdin.",
    ),
    _command("reply", sending.reply, TALK, "answer a message: its author, and those it named one by one"),
    _command(
        "wait",
        waiting.wait,
        TALK,
        "block until a message comes",
        "Status 0: received, 1: timeout, 2: an error. What is printed counts as seen and stays unread.",
    ),
    _command(
        "inbox",
        inbox.inbox,
        TALK,
        "print messages for me, and mark them read",
        "Without flags (--json is none): what is unread, oldest first, each once, at most 20. With any: pages of 10,"
        " newest first, read ones too.\n● unread, ○ read, ↳ a reply.",
    ),
    _command(
        "sent",
        messages.sent,
        TALK,
        "list what I wrote, and who has read it",
        "Behind a name: stored (on its way to another clone), delivered (in its inbox), seen (printed to it), read;"
        " gone: nobody has that name any more.",
    ),
    _command("watch", waiting.watch, TALK, "print every event as it happens, until interrupted"),
    _command(
        "log",
        history.log,
        TALK,
        "print the conversation as the branch a-sync has it, oldest first; needs no daemon",
    ),
    _command("message get", messages.get, TALK, "print one message in full"),
    _command("message edit", messages.edit, TALK, "replace the body of a message of mine"),
    _command("message delete", messages.delete, TALK, "hide a message of mine everywhere"),
    _command("message read", messages.read, TALK, "mark messages as read"),
    _command("prime", prime.prime, PEOPLE, "brief me at the start of a session; marks nothing read"),
    _command("overview", overview.overview, PEOPLE, "show me, team, inbox, sync and daemon at a glance"),
    _command("whoami", agents.whoami, PEOPLE, "say who would act, and why"),
    _command("team", agents.team, PEOPLE, "show what each active agent does"),
    _command("agent list", agents.list_agents, PEOPLE, "list all registered agents", takes="[--role R] [--module M]"),
    _command(
        "agent register",
        agents.register,
        PEOPLE,
        "register an agent without starting a session",
        "--role: what it is, e.g. implementer; --module: what it works on, e.g. auth. Both may come from THRUM_ROLE"
        " and THRUM_MODULE, or from the identity file.",
        "--role R --module M",
    ),
    _command("agent set-status", lifecycle.set_status, PEOPLE, "say how it goes: working, idle, blocked or stuck"),
    _command("agent rename", lifecycle.rename, PEOPLE, "give your agent another name; its mail goes with it"),
    _command("agent delete", lifecycle.delete, PEOPLE, "delete an agent and its mail; what it said stays"),
    _command(
        "agent cleanup",
        lifecycle.cleanup,
        PEOPLE,
        "delete orphaned agents",
        "Orphaned are agents whose process is gone and whose identity file, worktree or branch is gone, or that were"
        " not seen for more than --threshold days. Without a terminal nothing is deleted unless --yes says so.",
    ),
    _command(
        "who-has",
        whohas.who_has,
        PEOPLE,
        "tell who is editing a file, as git says now",
        "Status 1 where nobody was seen and it is not known: git gave no answer, or knows no such file. What agents of"
        " other clones have not committed cannot be seen: they are counted in one line.",
    ),
    _command("ping", whohas.ping, PEOPLE, "tell whether an agent is there, and what it works on"),
    _command("session start", sessions.start, PEOPLE, "start a session; an open one of mine is ended"),
    _command("session end", sessions.end, PEOPLE, "end my session"),
    _command("session list", sessions.list_sessions, PEOPLE, "list sessions, newest first"),
    _command(
        "session heartbeat",
        sessions.heartbeat,
        PEOPLE,
        "say that I am there, and what git says of my worktree",
        "Scopes and refs stay on the session until they are removed.",
    ),
    _command("session set-intent", sessions.set_intent, PEOPLE, "say what I work on"),
    _command("session set-task", sessions.set_task, PEOPLE, "say which task I am at"),
    _command("group create", groups.create, PEOPLE, "make a named audience"),
    _command("group delete", groups.delete, PEOPLE, "delete a group; messages to it stay"),
    _command("group add", groups.add, PEOPLE, "add agents or roles to a group", takes="[--role R]"),
    _command("group remove", groups.remove, PEOPLE, "take agents or roles out of a group", takes="[--role R]"),
    _command("group list", groups.list_groups, PEOPLE, "list all groups"),
    _command("group show", groups.show, PEOPLE, "show one group with its members"),
    _command("group members", groups.members, PEOPLE, "list who is in a group"),
    _command(
        "context save",
        notes.save,
        PEOPLE,
        "save session notes: TEXT, a file, or stdin",
        "They replace what was saved.",
    ),
    _command("context show", notes.show, PEOPLE, "show project state, preamble and notes"),
    _command("context clear", notes.clear, PEOPLE, "remove session notes"),
    _command("context sync", sync.context, PEOPLE, "put my notes on the branch, for other machines"),
    _command("context preamble", notes.preamble, PEOPLE, "show, reset or replace the standing instructions"),
    _command("sync status", sync.status, CARE, "show the state of the exchange with other clones"),
    _command("sync force", sync.force, CARE, "exchange now, and say how it went"),
    _command(
        "sync enable",
        sync.enable,
        CARE,
        "turn remote sync on",
        "If anybody can read the remote, or it does not say, it asks first; off a terminal say --yes.",
    ),
    _command("sync accept", sync.accept, CARE, "trust another clone's daemon, or the remote as this project's"),
    _command("sync disable", sync.disable, CARE, "turn remote sync off: nothing is fetched or pushed"),
    _command("daemon start", daemon.start, CARE, "start the daemon; commands also do when they need it"),
    _command("daemon stop", daemon.stop, CARE, "stop the daemon"),
    _command("daemon restart", daemon.restart, CARE, "stop the daemon and start it"),
    _command("daemon status", daemon.status, CARE, "tell whether the daemon runs, and who it is"),
    _command("daemon list", daemons.list_daemons, CARE, "list every daemon of this user, with its memory and agents"),
    _command("daemon logs", daemon.logs, CARE, "print the daemon's log"),
    _command(
        "purge",
        purge.purge,
        CARE,
        "remove old messages and ended sessions of this clone",
        "One of --before and --all; without --yes only a preview. What agents of this clone wrote goes, here and, once"
        " they sync, in other clones; what others wrote stays. Agents, groups and open sessions stay too. Git history"
        " keeps what was pushed.\nAfter a purge in another clone: thrum purge accept says what to do.",
    ),
    _command(
        "purge accept", purge.accept, CARE, "say what to do about another clone's purge: it is not carried out here"
    ),
    _command("config show", settings.show, CARE, "show all settings, and where each comes from"),
    _command("config get", settings.get, CARE, "print one setting"),
    _command("config set", settings.set_, CARE, "change a setting"),
    _command("config unset", settings.unset, CARE, "let the default count again"),
    _command("config diff", settings.diff, CARE, "show what was changed in the settings outside thrum"),
    _command("config accept", settings.accept, CARE, "let changes made outside thrum count"),
    _command(
        "backup",
        backup.backup,
        CARE,
        "copy messages, agents, read marks and settings; the last backup becomes an archive",
        "Needs no daemon. Kept are 5 daily, 4 weekly and all monthly archives, as backup.retention says.",
    ),
    _command("backup status", backup.status, CARE, "show the last backup, and the archives"),
    _command("backup config", backup.config, CARE, "show where backups lie, and how many are kept"),
    _command(
        "backup restore",
        backup.restore,
        CARE,
        "go back to a backup; what is there now goes to an archive first",
        "A running daemon goes on with it. What was purged and pushed stays purged.",
    ),
    _command(
        "verify",
        care.verify,
        CARE,
        "hold journals, database, branch and identity files against each other",
        "Status 1 when something does not agree. Changes nothing without --repair.",
    ),
    _command(
        "doctor",
        care.doctor,
        CARE,
        "look whether this machine and this repository are fit for thrum",
        "Status 1 when something is not. Needs no daemon.",
    ),
    _command(
        "uninstall",
        uninstall.uninstall,
        CARE,
        "undo init, a line for each step; asks",
        "Stops the daemon. Without --keep-messages the branch a-sync and its messages go too; what was pushed stays at"
        " the remote. Off a terminal say --yes.",
    ),
    _command("version", misc.version, ABOUT, "print the version"),
    _command("help", misc.help, ABOUT, "print the help of a command"),
    _command("completion", misc.completion, ABOUT, "print a completion script: bash, zsh or fish"),
)
COMMANDS: dict[tuple[str, ...], Command] = {command.path: command for command in _ALL}
ALIASES = {
    ("agent", "whoami"): ("whoami",),
    ("status",): ("overview",),
    ("context", "load"): ("context", "show"),
    **{("agent", word): ("session", word) for word in ("start", "end", "heartbeat", "set-intent", "set-task")},
}
COMMANDS.update({alias: COMMANDS[path] for alias, path in ALIASES.items()})

UNLISTED = {("purge", "accept")}
"""Commands that the list of all leaves out; the help of the command above names them."""

ERROR_STATUS: dict[tuple[str, ...], int] = {("wait",): 2}
"""Where every error has one status (cli.md §1.4)."""


_NOT_REFUSALS = (NeedsOwnProcess, BrokenPipeError, OutputLost)
"""What ends the run without a word of the command's."""


async def run(argv: Sequence[str], session: Session) -> int:
    """Carry out one command line and give its exit status. Raises NeedsOwnProcess before any output."""
    nothing = Run(session, Globals(json=wants_json(argv)), COMMANDS[("help",)])
    try:
        _check_encoding(argv)
        line = split(argv)
        if line.flags.version:
            return await _carry_out(Run(session, line.flags, COMMANDS[("version",)]), ())
        command, path, rest = find(line.tokens, COMMANDS, GROUPS)
        if command is None or line.flags.help:
            return await Run(session, line.flags, COMMANDS[("help",)]).finish(help_answer(path, session.terminal.width))
    except (UsageError, BadEncoding) as error:
        return await nothing.fail(error, error.status)
    return await _carry_out(Run(session, line.flags, command, tuple(argv)), rest)


def _check_encoding(argv: Sequence[str]) -> None:
    """Raise BadEncoding for what the shell handed over beyond UTF-8: it arrives as halves of characters."""
    for number, word in enumerate(argv, start=1):
        if not word.isascii():
            decoded(word.encode("utf-8", "surrogateescape"), f"argument {number}")


async def _carry_out(run: Run, tokens: Sequence[str]) -> int:
    """From the words to the exit status. The daemon is let go at the end, whatever happened."""
    try:
        try:
            bound = run.command.bind(tokens)
            run.begin(bound.arguments)
            answer = await run.command.handler(*bound.args, **bound.kwargs, run=run)
            return await run.finish(answer) if isinstance(answer, Answer) else answer
        except _NOT_REFUSALS:
            raise
        except Exception as error:
            refusal = _refusal(error, run.command.name)
            if isinstance(refusal, IdentityNotFound):
                refusal = await name_that_ended(run, refusal)
            return await run.fail(refusal, ERROR_STATUS.get(run.command.path, refusal.status))
    finally:
        await run.disconnect()


def _refusal(error: Exception, command: str) -> ThrumError:
    """What an error says to the user; of a group, its first one."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    if isinstance(error, _NOT_REFUSALS):
        raise error
    if (busy := shortage(error)) is not None:
        return busy
    return error if isinstance(error, ThrumError) else unexpected(error, command)


@functools.lru_cache(maxsize=256)
def help_answer(path: tuple[str, ...], width: int) -> Answer:
    """Help of a command, of a group, or of everything. Raises UsageError for what is neither."""
    command, _, rest = find(path, COMMANDS, GROUPS)
    if rest:
        raise UsageError(f'unknown command "{" ".join(path)}"', remedy="thrum help")
    if command is not None:
        aliases = [" ".join(alias) for alias, real in ALIASES.items() if real == command.path]
        text = helping.command_help(command, aliases, width)
    elif path:
        text = helping.group_help(path[0], GROUPS[path[0]], COMMANDS.values(), width)
    else:
        text = helping.root_help((each for each in _ALL if each.path not in UNLISTED), HELP_GROUPS, width)
    return Answer({"command": " ".join(command.path if command else path), "help": text + "\n"}, data=text)


# -- the user's own process

INTERRUPTED = 130


def main(argv: Sequence[str], client_key: str = "") -> NoReturn:
    """Carry out a command line here, and end the process.

    `client_key`: the key under which a daemon was asked to run this very command before, else empty.
    """
    from thrum.cli.local import connector, own_links, own_witness

    env = dict(os.environ)
    session = Session(
        terminal=OwnTerminal(env),
        env=env,
        cwd=_cwd(),
        local=True,
        connect=connector(env),
        key=client_key or secrets.token_hex(16),
        handed_over=bool(client_key),
        links=functools.partial(own_links, env),
        witness=functools.partial(own_witness, env),
    )
    _end(_status(argv, session))


def _status(argv: Sequence[str], session: Session) -> int:
    try:
        return trio.run(run, argv, session)
    except PermissionError:
        # Not the command's own: those are refusals by now. The event loop could not begin.
        if not sandbox.forbids_sockets():
            raise
        return _refuse_in_sandbox(argv, session)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return INTERRUPTED
    except BrokenPipeError:
        # End as any program whose reader has had enough: silently, and seen as such by the shell.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return 1
    except OutputLost as error:
        with contextlib.suppress(OSError):
            os.write(2, f"Error: cannot write the output: {error}\n".encode())
        return 1


def _refuse_in_sandbox(argv: Sequence[str], session: Session) -> int:
    path, words = None, ()
    with contextlib.suppress(ThrumError):
        line = split(argv)
        words = find(line.tokens, COMMANDS, GROUPS)[1]
        path = Run(session, line.flags, COMMANDS[("help",)]).places().socket_link
    error = sandbox.refusal(path, session.env)
    with contextlib.suppress(OSError):
        if wants_json(argv):
            os.write(1, json_line(error_document(error)))
        else:
            os.write(2, clean(f"{error_text(error)}\n").encode())
    return ERROR_STATUS.get(words, error.status)


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.environ.get("PWD", "/")


def _end(status: int) -> NoReturn:
    """Everything was written with system calls; nothing is left in Python's buffers that could fail at the end."""
    sys.stdout = sys.stderr = None  # pyright: ignore[reportAttributeAccessIssue]
    os._exit(status)
