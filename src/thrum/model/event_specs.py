"""What is true of every fact of a type: one row each, from which all lists of types follow.

Each property is stated here once; code that needs a list of types selects those that have it. What a type *does* is
defined where it is done: `events` has its fields, `store.projection.core` its way into the tables. Names alone, no
classes: the command line and SQL use them too. `docs/architecture.md`, "To add a fact", is the way through.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

EVENTS_FILE: Final = "events.jsonl"
LOCAL_FILE: Final = "local.jsonl"
MESSAGES_DIR: Final = "messages"

Entity = Literal["message", "session", "group", "agent", "purge", "daemon", "journal"]
Audience = Literal["recipients", "author", "group", "team", "agent_id", "of"]


class EventSpec(msgspec.Struct, frozen=True):
    """The row of a type. What a row leaves out is a no."""

    journal: str
    """The file it lies in; `messages` for that of its actor (events.md §1)."""
    entity: Entity
    """What it is about. A message, session or group that is not there yet it waits for (events.md §7.4)."""
    actor: str
    """The field that says who did it; `""` is the daemon. It decides the file, and the scope of a client key."""
    audiences: tuple[Audience, ...]
    """Who hears of it on the bus beside `all/`, agents first; the name of a field is the agent that it holds."""
    word: str
    """What a commit calls it, in the singular; `""` for what never comes into one."""
    begins: str = ""
    """How the id of the entity begins that this fact makes; the id is in the field `{entity}_id`."""
    cleanup: str = ""
    """The field with the agent whose cleanup takes it out of effect."""
    purge: Literal["", "message", "session", "itself"] = ""
    """With what a purge takes it out of effect, or by its own time; without, no purge does."""
    coalesces: bool = False
    """Whether its line may go once a later one of its type says all that it says."""
    copied: bool = False
    """Whether it travels although it lies in the local journal: as a copy, in the journal of its `agent_id`."""
    ahead: Literal["", "who", "rights", "sweep"] = ""
    """What a rebuild has to learn from it before it can judge other facts: who others are to this machine, who may
    speak for whom, what is out of effect."""
    presence: Literal["", "place", "life"] = ""
    """What the daemon looks at again after it: where agents are, or only whom to watch and whose session may end."""

    @property
    def shared(self) -> bool:
        """Whether it lies on the branch; else in the local journal."""
        return self.journal != LOCAL_FILE

    @property
    def sweepable(self) -> bool:
        """Whether a cleanup or purge may take its line out of effect."""
        return bool(self.cleanup or self.purge)

    @property
    def travels(self) -> bool:
        """Whether it may come from the branch."""
        return self.shared or self.copied


EVENT_SPECS: Final[dict[str, EventSpec]] = {
    # type: journal, entity, actor, audiences, word
    "message.create": EventSpec(
        MESSAGES_DIR, "message", "agent_id", ("recipients",), "message", begins="msg_", purge="message"
    ),
    "message.edit": EventSpec(MESSAGES_DIR, "message", "agent_id", ("recipients",), "edit", purge="message"),
    "message.delete": EventSpec(MESSAGES_DIR, "message", "agent_id", ("recipients",), "deletion", purge="message"),
    "message.receipt": EventSpec(
        LOCAL_FILE, "message", "agent_id", ("author",), "receipt", purge="message", copied=True
    ),
    "agent.register": EventSpec(
        EVENTS_FILE,
        "agent",
        "agent_id",
        ("team",),
        "registration",
        cleanup="agent_id",
        ahead="rights",
        presence="place",
    ),
    "agent.alias": EventSpec(EVENTS_FILE, "agent", "agent_id", ("agent_id", "of", "team"), "rename"),
    "agent.session.start": EventSpec(
        EVENTS_FILE,
        "session",
        "agent_id",
        ("agent_id", "team"),
        "session start",
        begins="ses_",
        cleanup="agent_id",
        purge="session",
        presence="life",
    ),
    "agent.session.end": EventSpec(EVENTS_FILE, "session", "agent_id", ("agent_id", "team"), "session end"),
    "agent.cleanup": EventSpec(EVENTS_FILE, "agent", "by", ("team",), "cleanup", ahead="sweep", presence="place"),
    "agent.update": EventSpec(
        MESSAGES_DIR, "session", "agent_id", ("team",), "update", cleanup="agent_id", purge="session", coalesces=True
    ),
    "agent.context": EventSpec(MESSAGES_DIR, "agent", "agent_id", (), "note", cleanup="agent_id"),
    "group.create": EventSpec(EVENTS_FILE, "group", "created_by", ("group",), "group", begins="grp_"),
    "group.update": EventSpec(EVENTS_FILE, "group", "updated_by", ("group",), "group change"),
    "group.delete": EventSpec(EVENTS_FILE, "group", "deleted_by", ("group",), "group deletion"),
    "group.member.add": EventSpec(EVENTS_FILE, "group", "added_by", ("group",), "group member", cleanup="member_value"),
    "group.member.remove": EventSpec(EVENTS_FILE, "group", "removed_by", ("group",), "group member removal"),
    "purge.executed": EventSpec(EVENTS_FILE, "purge", "by", (), "purge", ahead="sweep"),
    "journal.format": EventSpec(EVENTS_FILE, "journal", "", (), "journal format"),
    "daemon.key": EventSpec(EVENTS_FILE, "daemon", "", (), "daemon key", ahead="who"),
    "daemon.succession": EventSpec(EVENTS_FILE, "daemon", "", (), "daemon succession", ahead="rights"),
    "agent.place": EventSpec(
        LOCAL_FILE, "agent", "agent_id", (), "", cleanup="agent_id", coalesces=True, presence="place"
    ),
    "agent.exit": EventSpec(
        LOCAL_FILE, "agent", "agent_id", ("team",), "", cleanup="agent_id", coalesces=True, presence="life"
    ),
    "agent.seen": EventSpec(LOCAL_FILE, "session", "agent_id", (), "", cleanup="agent_id", coalesces=True),
    "agent.status": EventSpec(LOCAL_FILE, "agent", "by", ("team",), "", cleanup="agent_id", coalesces=True),
    "wake.attempt": EventSpec(LOCAL_FILE, "agent", "agent_id", ("agent_id",), "", purge="itself"),
    "session.items": EventSpec(LOCAL_FILE, "session", "", (), "", purge="session", coalesces=True),
    "agent.hide": EventSpec(LOCAL_FILE, "daemon", "agent_id", (), "", ahead="who"),
    "accept": EventSpec(LOCAL_FILE, "daemon", "", (), "", ahead="who"),
}
"""By the name on disk, in the order in which a commit counts them."""

LATER_LOCAL_TYPES: Final = frozenset(
    {
        "subscription.add",
        "subscription.remove",
        "queue.submit",
        "queue.state",
        "monitor.set",
        "monitor.state",
        "monitor.remove",
        "bridge.map",
    }
)
"""Types of the local journal that only newer programs write (events.md §5): such a fact never comes from the branch."""


def quoted(types: Iterable[str]) -> str:
    """Names of types as SQL has them behind `IN`: `('message.edit', 'message.delete')`."""
    return "(" + ", ".join(f"'{name}'" for name in types) + ")"
