"""The daemon, sync, settings, backups."""

from __future__ import annotations

from thrum.cli.commands import (
    backup,
    config,
    daemon,
    daemon_list,
    hook,
    purge,
    sync,
    uninstall,
    verify,
)
from thrum.cli.rows.row import row

GROUP = "The daemon"

ROWS = (
    row(
        "hook",
        hook.hook,
        GROUP,
        "what agent runtimes call: prints nothing unless there is something to say",
        use="prime",
        listed=False,
        guessed=False,
        silent=True,
    ),
    row("sync status", sync.status, GROUP, "show the state of the sync with other clones", use="unguarded"),
    row("sync force", sync.force, GROUP, "sync now, and report the result"),
    row(
        "sync enable",
        sync.enable,
        GROUP,
        "turn on remote sync",
        "Asks first if anyone can read the remote, or if that is not known; without a terminal, pass --yes.",
    ),
    row("sync accept", sync.accept, GROUP, "trust another clone's daemon, or accept the remote as this project's"),
    row("sync disable", sync.disable, GROUP, "turn off remote sync: nothing is fetched or pushed"),
    row("daemon start", daemon.start, GROUP, "start the daemon; commands start it when they need it", use="look"),
    row("daemon stop", daemon.stop, GROUP, "stop the daemon", use="look"),
    row("daemon restart", daemon.restart, GROUP, "stop and start the daemon", use="look"),
    row("daemon status", daemon.status, GROUP, "show whether the daemon is running, and its identity", use="look"),
    row(
        "daemon list",
        daemon_list.list_daemons,
        GROUP,
        "list all daemons of this user, with memory and agents",
        use="unguarded",
    ),
    row("daemon logs", daemon.logs, GROUP, "print the daemon's log", use="look"),
    row(
        "purge",
        purge.purge,
        GROUP,
        "remove old messages and ended sessions of this clone",
        "Give --before or --all; without --yes this only prints a preview. Removes what agents of this clone wrote,"
        " here and, once they sync, in other clones. What others wrote stays, and so do agents, groups and open"
        " sessions. Git history keeps what was pushed.\nAfter a purge in another clone, thrum purge accept says what to"
        " do.",
        use="unguarded",
    ),
    row(
        "purge accept",
        purge.accept,
        GROUP,
        "explain what to do about another clone's purge; it is not executed here",
        listed=False,
    ),
    row("config show", config.show, GROUP, "show all settings and where each comes from", use="look"),
    row("config get", config.get, GROUP, "print one setting", use="look", completes=config.HELP),
    row("config set", config.set_, GROUP, "change a setting", use="unguarded", completes=config.HELP),
    row(
        "config unset", config.unset, GROUP, "restore the default of a setting", use="unguarded", completes=config.HELP
    ),
    row("config diff", config.diff, GROUP, "show settings that were changed outside thrum", use="unguarded"),
    row("config accept", config.accept, GROUP, "accept settings that were changed outside thrum", use="unguarded"),
    row(
        "backup",
        backup.backup,
        GROUP,
        "back up messages, agents, read marks and settings; the last backup becomes an archive",
        "Needs no daemon. Keeps 5 daily, 4 weekly and all monthly archives, unless backup.retention says otherwise.",
        use="unguarded",
    ),
    row("backup status", backup.status, GROUP, "show the last backup and the archives", use="unguarded"),
    row("backup config", backup.config, GROUP, "show where backups are stored, and how many are kept", use="unguarded"),
    row(
        "backup restore",
        backup.restore,
        GROUP,
        "restore a backup; the current state is archived first",
        "A running daemon continues with the restored data. What was purged and pushed stays purged.",
        use="unguarded",
        guessed=False,
    ),
    row(
        "verify",
        verify.verify,
        GROUP,
        "check that journals, database, branch and identity files agree",
        "Exit status 1 if they don't. Changes nothing without --repair.",
        use="unguarded",
    ),
    row(
        "doctor",
        verify.doctor,
        GROUP,
        "check that this machine and this repository are fit for thrum",
        "Exit status 1 if a check fails. Needs no daemon.",
        use="unguarded",
    ),
    row(
        "uninstall",
        uninstall.uninstall,
        GROUP,
        "undo init, printing each step; asks first",
        "Stops the daemon. Without --keep-messages, the branch a-sync and its messages are deleted too; what was pushed"
        " stays at the remote. Without a terminal, pass --yes.",
        use="unguarded",
    ),
)
