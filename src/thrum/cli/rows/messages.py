"""Messages."""

from __future__ import annotations

from thrum.cli.commands import (
    ask,
    inbox,
    log,
    messages,
    send,
    wait,
)
from thrum.cli.rows.row import row

GROUP = "Messages"

ROWS = (
    row(
        "send",
        send.send,
        GROUP,
        "send a message",
        "Without --to the message is information for the team: it goes to everyone's inbox and wakes no one. Without"
        " TEXT, a file or a command's pipe on stdin is the text; - waits for any stdin.",
    ),
    row("reply", send.reply, GROUP, "reply to a message's author and to the agents it named individually"),
    row(
        "wait",
        wait.wait,
        GROUP,
        "wait until a message arrives",
        "Exit status 0: received, 1: timeout, 2: error. Printed messages count as seen but stay unread.",
        error_status=2,
    ),
    row(
        "ask",
        ask.ask,
        GROUP,
        "send a message to an agent, and wait for its answer to it",
        "Exit status 0: answered, 1: timeout (how far the message came is said), 2: error. The answer counts as read.",
        error_status=2,
    ),
    row(
        "inbox",
        inbox.inbox,
        GROUP,
        "print your messages and mark them as read",
        "Without flags (--json does not count): unread messages, oldest first, each once, at most 20. With any flag:"
        " pages of 10, newest first, including read ones.\n● unread, ○ read, ↳ a reply.",
        look_with=("peek", "unread", "all"),
    ),
    row(
        "sent",
        messages.sent,
        GROUP,
        "list the messages you sent, and who has read them",
        "After each name: stored (on its way to another clone), delivered (in its inbox), offered (given to its"
        " runtime), seen (printed to it, or given to its model), read; gone: no agent has that name any more.",
        use="look",
    ),
    row("watch", wait.watch, GROUP, "print events as they happen, until interrupted"),
    row(
        "log",
        log.log,
        GROUP,
        "print the conversation from the branch a-sync, oldest first; needs no daemon",
        use="unguarded",
    ),
    row("message get", messages.get, GROUP, "print one message in full", look_with=("peek",)),
    row("message edit", messages.edit, GROUP, "replace the body of a message you sent"),
    row("message delete", messages.delete, GROUP, "hide a message you sent, everywhere"),
    row("message read", messages.read, GROUP, "mark messages as read"),
)
