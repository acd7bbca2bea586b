"""What people mean by a word that is not a command: commands by what they do, not by their spelling. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        "read": "message read",
        "show": "message get",
        "get": "message get",
        "edit": "message edit",
        "search": "inbox --search",
        "find": "inbox --search",
        "messages": "inbox",
        "mail": "inbox",
        "check": "inbox",
        "list": "agent list",
        "ls": "agent list",
        "agents": "agent list",
        "who": "team",
        "register": "quickstart",
        "join": "quickstart",
        "login": "quickstart",
        "start": "daemon start",
        "stop": "daemon stop",
        "restart": "daemon restart",
        "logs": "daemon logs",
        "broadcast": "send --to @everyone",
        "tell": "send",
        "answer": "reply",
        "listen": "wait",
        "save": "context save",
        "notes": "context show",
        "load": "context show",
        "settings": "config show",
        "set": "config set",
        "push": "sync force",
        "pull": "sync force",
        "history": "log",
        "briefing": "prime",
        "remove": "uninstall",
        "unread": "inbox",
        "notify": "send",
        "ack": "message read",
        "restore": "backup restore",
        "intent": "session set-intent",
        "task": "session set-task",
    },
    "message": {
        "list": "inbox",
        "ls": "inbox",
        "search": "inbox --search",
        "send": "send",
        "reply": "reply",
        "show": "message get",
        "view": "message get",
        "remove": "message delete",
        "rm": "message delete",
    },
    "agent": {
        "ls": "agent list",
        "create": "quickstart",
        "add": "quickstart",
        "new": "quickstart",
        "show": "ping",
        "info": "ping",
        "status": "team",
        "remove": "agent delete",
        "rm": "agent delete",
        "stop": "agent end",
    },
    "session": {"stop": "session end", "ls": "session list", "show": "whoami"},
    "daemon": {
        "run": "daemon start",
        "up": "daemon start",
        "kill": "daemon stop",
        "down": "daemon stop",
        "info": "daemon status",
        "ls": "daemon list",
        "ps": "daemon list",
        "tail": "daemon logs -f",
    },
    "group": {
        "ls": "group list",
        "new": "group create",
        "rm": "group delete",
        "join": "group add",
        "leave": "group remove",
    },
    "context": {"read": "context show", "get": "context show", "list": "context show", "write": "context save"},
    "config": {"list": "config show", "ls": "config show", "edit": "config set", "reset": "config unset"},
    "sync": {
        "now": "sync force",
        "push": "sync force",
        "pull": "sync force",
        "run": "sync force",
        "on": "sync enable",
        "off": "sync disable",
    },
    "backup": {"create": "backup", "run": "backup", "now": "backup", "list": "backup status", "ls": "backup status"},
}
"""By the group that the word stands behind, `""` for none."""

OF_SEVERAL: Final[Mapping[tuple[str, str], str]] = {("group", "rm"): "group remove"}
"""What a word means that has more than one behind it: `group rm core nux` takes a member out."""

_WAKES: Final = (
    'each --to wakes, with --urgent at once; a message to the team wakes no one: thrum send "TEXT" --to AGENT'
)
INSTEAD_OF_FLAGS: Final[Mapping[tuple[str, str], str]] = {
    ("reply", "--to"): 'to send to other recipients: thrum send "TEXT" --to @NAME --thread MSG_ID',
    **{("send", flag): _WAKES for flag in ("--priority", "--important", "--high")},
    ("inbox", "--last"): "the newest message printed to you: thrum message get last",
    ("sync enable", "--remote"): "thrum config set sync.remote NAME, then thrum sync enable",
    ("watch", "--timeout"): "to wait for a message: thrum wait --timeout 10m",
}
"""What a flag that a command does not have would do, by command and flag."""


def likely_commands(group: str, word: str, paths: Iterable[tuple[str, ...]], words: int = 0) -> list[str]:
    """The commands that a word may mean: by the table, else those of that name in a group. `words`: how many follow."""
    if words > 1 and (known := OF_SEVERAL.get((group, word))):
        return [known]
    if known := MEANINGS.get(group, {}).get(word):
        return [known]
    return [] if group else sorted({" ".join(path) for path in paths if len(path) == 2 and path[1] == word})


def filled(instead: str, flag: str, value: str, tokens: Sequence[str]) -> str:
    """One of `INSTEAD_OF_FLAGS` with what was typed: the flag's value as NAME, the first word as MSG_ID."""
    at = tokens.index(flag) + 1 if flag in tokens else len(tokens)
    value = value or next(iter(tokens[at : at + 1]), "")
    if _PLAIN.fullmatch(value):
        instead = instead.replace("@NAME", f"@{value.removeprefix('@')}").replace("NAME", value)
    return instead.replace("MSG_ID", tokens[0]) if tokens and _PLAIN.fullmatch(tokens[0]) else instead


_PLAIN: Final = re.compile(r"@?[A-Za-z0-9_]+(?:[.:-][A-Za-z0-9_]+)*", re.ASCII)
"""A word that needs no quotes."""
