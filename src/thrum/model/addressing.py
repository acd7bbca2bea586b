"""Who a message reaches: `@name`, `@role`, `@group`, `@everyone`, `user:name` -> recipients. No I/O.

Names, roles and groups may not clash, so a name is never ambiguous (identity.md §2). Recipients are resolved once, when
a message is sent; agents that register later are not added. Source: events.md §8 "Snapshot", cli.md 3.3 and 3.4.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from thrum.model import ids, limits
from thrum.model.errors import InvalidParams, NoRecipients, UnknownRecipient
from thrum.model.events import Pair

EVERYONE = "everyone"
BROADCAST = Pair("broadcast", EVERYONE)
READS_NOTHING = ("system", "monitor:")


class Member(NamedTuple):
    """One entry of a group: type `agent` or `role`; value `*` with type role means everyone."""

    type: str
    value: str


class Directory(Protocol):
    """Who is registered in this repository, live ones only."""

    def is_agent(self, agent_id: str) -> bool:
        """Whether an agent or user with exactly this id is registered."""
        ...

    def current_id(self, agent_id: str) -> str:
        """The new id of an agent that was renamed and whose old id is free; empty for any other."""
        ...

    def is_role_here(self, word: str) -> bool:
        """Whether the word is the role of an agent of this daemon, and the id of none."""
        ...

    def with_role(self, role: str) -> Sequence[str]:
        """Ids of the agents that have the role, on every daemon of the repository."""
        ...

    def group(self, name: str) -> Sequence[Member] | None:
        """Members of a group, or None if no such group can be addressed."""
        ...

    def everyone(self) -> Sequence[str]:
        """Ids of all agents and users, without peer proxies."""
        ...

    def words(self) -> Iterable[str]:
        """Every word that can be addressed: for suggestions."""
        ...


class Audience(NamedTuple):
    """What one call addressed. `recipients` is sorted and free of duplicates; the rest keeps the sender's order."""

    recipients: tuple[str, ...]
    audiences: tuple[Pair, ...]
    quiet: bool = False

    @property
    def refs(self) -> tuple[Pair, ...]:
        """The refs that thrum sets: one `mention` per agent, role or user; `group`; `broadcast`."""
        return tuple(_ref(pair) for pair in self.audiences)

    @property
    def scopes(self) -> tuple[Pair, ...]:
        """The scopes that thrum sets: `group` and `broadcast`."""
        return tuple(pair for pair in self.audiences if pair.type in ("group", "broadcast"))


def _ref(pair: Pair) -> Pair:
    if pair.type in ("group", "broadcast"):
        return pair
    return Pair("mention", f"user:{pair.value}" if pair.type == "user" else pair.value)


def address_of(pair: Pair) -> str:
    """`@bob`, `@tester`, `@everyone`, `user:leon`, `sf:bob` for an audience."""
    match pair.type:
        case "broadcast":
            return "@everyone"
        case "user":
            return f"user:{pair.value.removeprefix('user:')}"
        case "agent" if ":" not in pair.value:
            return "@" + pair.value
        case "role" | "group":
            return "@" + pair.value
        case _:
            return pair.value


def resolve(addresses: Sequence[str], sender: str, directory: Directory) -> Audience:
    """The audience of explicit addresses: all or nothing.

    UnknownRecipient names every bad one, with close spellings; NoRecipients when a role or group has no member but the
    sender (a broadcast may be empty).
    """
    audiences: dict[Pair, None] = {}
    unknown: list[str] = []
    for address in addresses:
        pair = _classify(address, directory)
        if pair is None:
            unknown.append(address)
        else:
            audiences[pair] = None
    if unknown:
        raise _unknown(unknown, directory)
    recipients: set[str] = set()
    for pair in audiences:
        members = _members(pair, sender, directory)
        if not members and pair != BROADCAST:
            raise NoRecipients(f"nobody but you is @{pair.value}")
        recipients.update(members)
    return _audience(recipients, audiences)


def resolve_reply(
    author: str, audiences: Sequence[Pair], is_post: bool, sender: str, directory: Directory, *, everybody: bool = False
) -> Audience:
    """The audience of an answer: the parent's author and whom it named one by one, as they are today, without the
    sender; with `everybody` also its roles and groups, and everyone.

    A post to the team (`is_post`) is answered to its author; with `everybody`, or if it is the sender's own, to the
    team again. Who has left is left out. NoRecipients if no one is left.
    """
    author = _today(author, directory)
    audiences = [Pair("agent", _today(pair.value, directory)) if pair.type == "agent" else pair for pair in audiences]
    if is_post and (author == sender or everybody):
        return to_team(sender, directory)
    wide = [pair for pair in audiences if pair.type not in ("agent", "user")]
    if not everybody:
        audiences = [pair for pair in audiences if pair not in wide]
    pairs: dict[Pair, None] = {}
    if author != sender:
        pairs[_by_name(author)] = None
    pairs.update((pair, None) for pair in audiences if pair != Pair("agent", sender))
    kept: dict[Pair, None] = {}
    recipients: set[str] = set()
    for pair in pairs:
        members = [member for member in _members(pair, sender, directory) if directory.is_agent(member)]
        if members or pair == BROADCAST:
            kept[pair] = None
            recipients.update(members)
    recipients.discard(sender)
    if not kept and wide and not everybody:
        words = ", ".join("@" + pair.value for pair in wide)
        raise NoRecipients(f"that message names only {words}", remedy="repeat with --all to reply to all of them")
    if not kept:
        raise NoRecipients(
            "no one is left in that conversation",
            remedy='to send to someone else: thrum send "TEXT" --to @NAME; names: thrum team --all',
        )
    return _audience(recipients, kept)


def to_team(sender: str, directory: Directory) -> Audience:
    """Information for everyone: in every inbox, waking no one (cli.md 3.3)."""
    recipients = {member for member in directory.everyone() if member != sender}
    return Audience(tuple(sorted(recipients)), (), quiet=True)


def _audience(recipients: Iterable[str], audiences: Iterable[Pair]) -> Audience:
    sorted_recipients = tuple(sorted(recipients))
    if len(sorted_recipients) > limits.recipients_max:
        raise InvalidParams(
            f"{len(sorted_recipients)} recipients, the limit is {limits.recipients_max}", remedy="address fewer agents"
        )
    return Audience(sorted_recipients, tuple(audiences))


def _classify(address: str, directory: Directory) -> Pair | None:
    word = address.removeprefix("@")
    if word == EVERYONE:
        return BROADCAST
    if not word or len(word) > limits.id_chars_max:
        return None
    if directory.is_agent(word):
        # No other machine takes a word away that agents here are addressed by.
        return Pair("role", word) if directory.is_role_here(word) else _by_name(word)
    canonical = ids.parse_agent_id(word).canonical
    if canonical != word and directory.is_agent(canonical):
        return Pair("agent", canonical)
    if directory.group(word) is not None:
        return Pair("group", word)
    if directory.with_role(word):
        return Pair("role", word)
    current_id = directory.current_id(word)
    return _by_name(current_id) if current_id else None


def _today(agent_id: str, directory: Directory) -> str:
    """What an agent that was renamed is called now."""
    return agent_id if directory.is_agent(agent_id) else directory.current_id(agent_id) or agent_id


def _by_name(actor: str) -> Pair:
    return Pair("user", actor.removeprefix("user:")) if actor.startswith("user:") else Pair("agent", actor)


def _members(pair: Pair, sender: str, directory: Directory) -> Sequence[str]:
    """Ids that an audience stands for today. A role or group never reaches the sender, unless the group names it."""
    match pair.type:
        case "agent":
            return (pair.value,)
        case "user":
            return (f"user:{pair.value}",)
        case "role":
            return [member for member in directory.with_role(pair.value) if member != sender]
        case "group":
            return _group_members(pair.value, sender, directory)
        case "broadcast":
            return [member for member in directory.everyone() if member != sender]
        case _:
            return ()


def _group_members(name: str, sender: str, directory: Directory) -> Sequence[str]:
    members: set[str] = set()
    for member in directory.group(name) or ():
        if member.type == "agent":
            if directory.is_agent(member.value):
                members.add(member.value)
        elif member.value == "*":
            members.update(other for other in directory.everyone() if other != sender)
        else:
            members.update(other for other in directory.with_role(member.value) if other != sender)
    return sorted(members)


def _unknown(unknown: Sequence[str], directory: Directory) -> UnknownRecipient:
    shown = ["@" + word.removeprefix("@") for word in unknown]
    suggestions = suggest(unknown[0].removeprefix("@"), directory.words()) if len(unknown) == 1 else []
    apart = [each for word in unknown for each in word.replace(",", " ").split()]
    if len(apart) > len(unknown):
        remedy = f"one --to for each: {' '.join('--to @' + each.removeprefix('@') for each in apart)}"
    elif suggestions:
        remedy = f"did you mean {' or '.join('@' + word for word in suggestions)}? Names: thrum team --all"
    elif any(word.removeprefix("@") in ("all", "broadcast", "team") for word in unknown):
        remedy = "to wake everyone: --to @everyone; to tell the team without waking anyone: leave out --to"
    else:
        remedy = "names: thrum team --all"
    return UnknownRecipient(
        f"unknown recipient{'s' if len(shown) > 1 else ''}: {', '.join(shown)}",
        remedy=remedy,
        recipients=list(unknown),
        suggestions=suggestions or None,
    )


_APART = 0.15
"""A spelling that is so much farther from a word than the closest one is another word."""


def suggest(word: str, known: Iterable[str], least: float = 0.5) -> list[str]:
    """Up to three close spellings, the closest first, and none that is much farther off than that; upper and lower case
    are alike. `least`: how close, up to 1.
    """
    by_spelling: dict[str, list[str]] = {}
    for each in sorted(known):
        by_spelling.setdefault(each.casefold(), []).append(each)
    folded = word.casefold()
    close = difflib.get_close_matches(folded, by_spelling, n=limits.suggestions_max, cutoff=least)
    if close:  # with @reviewer_max around, @developer is not a likely intention
        best = difflib.SequenceMatcher(None, close[0], folded).ratio()
        close = difflib.get_close_matches(folded, close, cutoff=max(least, best - _APART))
    return [each for spelling in close for each in by_spelling[spelling]][: limits.suggestions_max]
