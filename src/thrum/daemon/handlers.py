"""Which operation answers which method.

Methods that need more than the operations' context are added in `build.DaemonParts.handlers`, with those of
`maintenance.Care.handlers`; `cli.run` is added in `app`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from thrum.model.methods.admin import PURGE_EXECUTE
from thrum.model.methods.agents import (
    AGENT_CLEANUP,
    AGENT_DELETE,
    AGENT_LIST,
    AGENT_LIST_CONTEXT,
    AGENT_SET_STATUS,
    AGENT_WHOAMI,
)
from thrum.model.methods.groups import (
    GROUP_CREATE,
    GROUP_DELETE,
    GROUP_INFO,
    GROUP_LIST,
    GROUP_MEMBER_ADD,
    GROUP_MEMBER_REMOVE,
    GROUP_MEMBERS,
)
from thrum.model.methods.messages import (
    MESSAGE_DELETE,
    MESSAGE_EDIT,
    MESSAGE_LIST,
    MESSAGE_MARK_READ,
)
from thrum.model.methods.method import AnyMethod
from thrum.model.methods.notes import (
    CONTEXT_CLEAR,
    CONTEXT_PREAMBLE_SAVE,
    CONTEXT_PREAMBLE_SHOW,
    CONTEXT_SAVE,
    CONTEXT_SHOW,
)
from thrum.model.methods.sessions import (
    SESSION_END,
    SESSION_HEARTBEAT,
    SESSION_LIST,
    SESSION_SET_INTENT,
    SESSION_SET_TASK,
    SESSION_START,
)
from thrum.model.methods.settings import CONFIG_ACCEPT, CONFIG_DIFF, CONFIG_GET, CONFIG_SET, CONFIG_SHOW, CONFIG_UNSET
from thrum.model.methods.users import USER_IDENTIFY
from thrum.ops import (
    agents,
    groups,
    lifecycle,
    messages,
    notes,
    purge,
    reading,
    sessions,
    settings,
    team,
    users,
    work,
)
from thrum.ops.context import Operation, operation

OPERATIONS: Final[Mapping[AnyMethod, Operation]] = dict(
    (
        operation(AGENT_WHOAMI, agents.whoami),
        operation(AGENT_LIST, team.list_agents),
        operation(AGENT_LIST_CONTEXT, work.list_contexts),
        operation(AGENT_SET_STATUS, lifecycle.set_status),
        operation(AGENT_DELETE, lifecycle.delete),
        operation(AGENT_CLEANUP, lifecycle.cleanup),
        operation(SESSION_START, sessions.start),
        operation(SESSION_SET_INTENT, sessions.set_intent),
        operation(SESSION_SET_TASK, work.set_task),
        operation(SESSION_HEARTBEAT, work.heartbeat),
        operation(SESSION_END, work.end),
        operation(SESSION_LIST, work.list_sessions),
        operation(MESSAGE_LIST, reading.list_messages),
        operation(MESSAGE_EDIT, messages.edit),
        operation(MESSAGE_DELETE, messages.delete),
        operation(MESSAGE_MARK_READ, messages.mark_read),
        operation(USER_IDENTIFY, users.identify),
        operation(GROUP_CREATE, groups.create),
        operation(GROUP_DELETE, groups.delete),
        operation(GROUP_MEMBER_ADD, groups.add_member),
        operation(GROUP_MEMBER_REMOVE, groups.remove_member),
        operation(GROUP_LIST, groups.list_groups),
        operation(GROUP_INFO, groups.info),
        operation(GROUP_MEMBERS, groups.members),
        operation(CONTEXT_SHOW, notes.show),
        operation(CONTEXT_SAVE, notes.save),
        operation(CONTEXT_CLEAR, notes.clear),
        operation(CONTEXT_PREAMBLE_SHOW, notes.show_preamble),
        operation(CONTEXT_PREAMBLE_SAVE, notes.save_preamble),
        operation(PURGE_EXECUTE, purge.execute),
        operation(CONFIG_SHOW, settings.show),
        operation(CONFIG_GET, settings.get),
        operation(CONFIG_SET, settings.change),
        operation(CONFIG_UNSET, settings.unset),
        operation(CONFIG_DIFF, settings.diff),
        operation(CONFIG_ACCEPT, settings.accept),
    )
)
