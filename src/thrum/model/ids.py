"""Ids and names: ULID families, repository ids, agent ids, file stems, and what a name may be (identity.md §1, §2).

Everything here is pure text. Cheap to import: hashing and Unicode tables are loaded when first needed.
"""

from __future__ import annotations

import os
import posixpath
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from thrum.model.errors import (
    InvalidName,
    InvalidUrl,
    ModuleMissing,
    NameEqualsRole,
    ReservedName,
    RoleMissing,
    ThrumError,
)
from thrum.model.limits import display_chars_max, module_chars_max, name_chars_max, role_chars_max, user_name_chars_max

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32."""

RESERVED = frozenset({"daemon", "system", "thrum", "all", "broadcast", "everyone"})
STEM_BYTES_MAX = 100

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_NAME = re.compile(r"[a-z0-9_]+")
_WORD = re.compile(r"[a-z0-9_-]+")
_HASH10 = re.compile(r"[0-9A-HJKMNP-TV-Z]{10}|[0-9a-hjkmnp-tv-z]{10}")
_USER = re.compile(r"[a-z0-9_-]{1,32}")
_PEER = re.compile(r"[a-z0-9_-]{1,64}")

# -- ULIDs

_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_VALUES = {char: value for value, char in enumerate(ALPHABET)}
_MS_MAX = (1 << 48) - 1
_RANDOM_MAX = (1 << 80) - 1
_TO_BASE_32 = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")


class Ulids:
    """A source of ULIDs, strictly rising whatever the clock says, from any thread."""

    __slots__ = ("_lock", "_ms", "_random", "_randomness", "_time_text")

    def __init__(self, randomness: Callable[[int], bytes] = os.urandom) -> None:
        """`randomness(n)` gives n random bytes; a test hands in its own."""
        self._randomness = randomness
        self._lock = threading.Lock()
        self._ms = -1
        self._random = 0
        self._time_text = ""

    def at(self, ms: int) -> str:
        """The next ULID, 26 upper-case characters, of `ms` milliseconds since 1970.

        If the clock stands still or went back, the last time is kept and the random part counted up.
        """
        with self._lock:
            if ms > self._ms:
                self._start(ms)
            elif self._random < _RANDOM_MAX:
                self._random += 1
            else:
                self._start(self._ms + 1)
            text, bits = self._time_text, self._random
        pairs = _PAIRS
        return (
            text
            + pairs[bits >> 70]
            + pairs[bits >> 60 & 1023]
            + pairs[bits >> 50 & 1023]
            + pairs[bits >> 40 & 1023]
            + pairs[bits >> 30 & 1023]
            + pairs[bits >> 20 & 1023]
            + pairs[bits >> 10 & 1023]
            + pairs[bits & 1023]
        )

    def _start(self, ms: int) -> None:
        if ms > _MS_MAX:
            raise ValueError(f"time out of range for a ULID: {ms}")
        self._random = int.from_bytes(self._randomness(10), "big")
        self._ms = ms
        self._time_text = "".join(_PAIRS[ms >> shift & 1023] for shift in (40, 30, 20, 10, 0))


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` is `prefix` (`msg` or `msg_`), an underscore and a ULID."""
    head, underscore, ulid = text.rpartition("_")
    return underscore == "_" and head == prefix.removesuffix("_") and _ULID.fullmatch(ulid) is not None


def ulid_of(bits: int) -> str:
    """The 26 characters of 128 bits."""
    pairs = _PAIRS
    return "".join([pairs[bits >> shift & 1023] for shift in (120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0)])


def ulid_bits(text: str) -> int | None:
    """The 128 bits of a ULID or a prefixed id; None if it is neither."""
    ulid = text.rpartition("_")[2]
    return int(ulid.translate(_TO_BASE_32), 32) if _ULID.fullmatch(ulid) else None


def ulid_ms(text: str) -> int | None:
    """Milliseconds since 1970 inside a ULID or a prefixed id; None if it is neither."""
    ulid = text.rpartition("_")[2]
    if _ULID.fullmatch(ulid) is None:
        return None
    ms = 0
    for char in ulid[:10]:
        ms = ms << 5 | _VALUES[char]
    return ms


# -- derived ids


def crockford_sha256(text: str, chars: int) -> str:
    """First characters of Crockford base 32 of SHA-256 of the UTF-8 text, most significant bits first, upper case."""
    import hashlib

    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest(), "big")
    return "".join(ALPHABET[number >> (251 - 5 * i) & 31] for i in range(chars))


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCP = re.compile(r"(?:[^@/]*@)?(\[[^\]/]*\]|[^:/]*):(.*)", re.DOTALL)
_PORT_DROPPED = re.compile(r":(?:22|80|443)?$")
_SLASHES = re.compile(r"/+")


def normalise_url(url: str, root: str) -> str:
    """The one spelling of a remote's URL: `https://host/path` (identity.md §1).

    `root` is the repository's root, against which a local path is taken. Raises InvalidUrl for an empty URL, or one
    without host or without path after the colon.
    """
    url = url.strip()
    if not url:
        raise InvalidUrl("the URL is empty")
    if match := _SCHEME.fullmatch(url):
        authority, path = _split(match[2])
        path = _decoded(path)
        if match[1].lower() == "file":
            return "https://" + _local_path(path, root)
        host = _decoded(_PORT_DROPPED.sub("", authority.rpartition("@")[2]))
    elif match := _SCP.fullmatch(url):
        host, path = match[1], match[2]
        if not path:
            raise InvalidUrl("the URL has no path after the colon")
    else:
        return "https://" + _local_path(url, root)
    if not host:
        raise InvalidUrl("the URL has no host")
    return f"https://{host}{_trimmed('/' + path)}".lower()


def _split(rest: str) -> tuple[str, str]:
    """Authority and path of what follows `scheme://`; query and fragment are dropped."""
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    return authority, slash + path


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text, errors="surrogateescape")


def _trimmed(path: str) -> str:
    return _SLASHES.sub("/", path).rstrip("/").removesuffix(".git").rstrip("/")


def _local_path(path: str, root: str) -> str:
    # normpath keeps two leading slashes, as POSIX has it; for us they are one.
    return _trimmed(posixpath.normpath(posixpath.join("/", root, path)))


def without_credentials(url: str) -> str:
    """A remote's URL as it may be stored and shown: no password, no token (identity.md §1).

    Over HTTP user, query and fragment may be tokens and go; over SSH the user stays, being part of the address.
    """
    url = url.strip()
    match = _SCHEME.fullmatch(url)
    if match is None:
        user, at, rest = url.partition("@")
        return url if not at or "/" in user or ":" not in user else f"{user.partition(':')[0]}@{rest}"
    authority, path = _split(match[2])
    user, at, host = authority.rpartition("@")
    kept = f"{user.partition(':')[0]}@" if at and match[1].lower() in ("ssh", "git+ssh", "ssh+git") else ""
    return f"{match[1]}://{kept}{host}{path}"


def short_daemon_id(daemon_id: str) -> str:
    """The end of a daemon's id, for people: `d_…XYZABC`."""
    return "d_…" + daemon_id[-6:] if len(daemon_id) > 8 else daemon_id


SHORT_MESSAGE_ID = 6
"""Characters that are printed. Of 100,000 messages one in 10,000 shares them with another, and is refused by them."""
MESSAGE_ID_END_MIN = 4
"""The fewest characters that are taken for the end of a message's id."""


def short_message_id(message_id: str) -> str:
    """The end of a message's id, for hints: commands take it in its place (cli.md §3.4)."""
    return message_id[-SHORT_MESSAGE_ID:]


def host_names(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What other daemons are called, by their ids: each by the host that it says it runs on, with the end of its id
    where another one claims the same, as any can. `told`: daemons and hosts, the last one of each counts.
    """
    hosts = {daemon_id: host for daemon_id, host in told if daemon_id and host}
    counts = Counter(hosts.values())
    return {
        daemon_id: host if counts[host] == 1 else f"{host} {short_daemon_id(daemon_id)}"
        for daemon_id, host in hosts.items()
    }


def repo_id_of_url(url: str, root: str | os.PathLike[str]) -> str:
    """`r_` + 12 characters, the same for every spelling of one remote. Raises InvalidUrl."""
    return "r_" + crockford_sha256(normalise_url(url, os.fspath(root)), 12)


def agent_id_of(repo_id: str, role: str, module: str) -> str:
    """The id of an unnamed agent: the same for the same repository, role and module, forever."""
    return f"{role}_{crockford_sha256(f'{repo_id}|{role}|{module}', 10)}"


# -- reading ids

Kind = Literal["named", "unnamed", "legacy", "proxy", "user", "monitor", "system", "invalid"]


@dataclass(frozen=True, slots=True)
class ParsedAgent:
    """What an actor id says by its syntax alone. A registered agent's record decides before it (identity.md §1)."""

    kind: Kind
    canonical: str
    """The id in its one spelling: hashes in upper case, the old form as `role_HASH`."""
    stem: str
    role: str = ""
    hash: str = ""
    user: str = ""
    peer: str = ""

    @property
    def is_local_agent(self) -> bool:
        """Whether an agent of this repository can have this id."""
        return self.kind in ("named", "unnamed", "legacy")


def parse_agent_id(text: str) -> ParsedAgent:
    """Kind, parts, canonical form and file stem of an actor id; kind `invalid` for anything else."""
    if ":" in text:
        return _parse_prefixed(text)
    role, underscore, tail = text.rpartition("_")
    if underscore and 0 < len(role) <= role_chars_max and _HASH10.fullmatch(tail) and _WORD.fullmatch(role):
        canonical = f"{role}_{tail.upper()}"
        return ParsedAgent("unnamed", canonical, canonical, role=role, hash=tail.upper())
    if text == "system":
        return ParsedAgent("system", text, text)
    if len(text) <= name_chars_max and _NAME.fullmatch(text) and text not in RESERVED:
        return ParsedAgent("named", text, text)
    return _invalid(text)


def _parse_prefixed(text: str) -> ParsedAgent:
    prefix, _, rest = text.partition(":")
    if prefix == "agent":
        role, _, tail = rest.partition(":")
        if 0 < len(role) <= role_chars_max and _WORD.fullmatch(role) and _HASH10.fullmatch(tail):
            canonical = f"{role}_{tail.upper()}"
            return ParsedAgent("legacy", canonical, canonical, role=role, hash=tail.upper())
    elif prefix == "user":
        if _USER.fullmatch(rest):
            return ParsedAgent("user", text, _cut(f"user.{rest}", text), user=rest)
    elif prefix == "monitor":
        if _PEER.fullmatch(rest):
            return ParsedAgent("monitor", text, _cut(f"monitor.{rest}", text))
    elif _PEER.fullmatch(prefix) and prefix not in RESERVED and ":" not in rest:
        inner = parse_agent_id(rest)
        if inner.is_local_agent:
            canonical = f"{prefix}:{inner.canonical}"
            return ParsedAgent("proxy", canonical, _cut(f"{prefix}.{inner.canonical}", canonical), peer=prefix)
    return _invalid(text)


def _invalid(text: str) -> ParsedAgent:
    return ParsedAgent("invalid", text, _foreign_stem(text))


_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def file_stem(actor_id: str) -> str:
    """The file name, without suffix, of an actor's journal and identity file (events.md §6).

    Two actors never share a stem, save the old and the new form of one unnamed agent; no stem is hidden, empty or leads
    out of its directory. A lower-case name that looks like an unnamed id keeps its case: names are their own stems.
    """
    if len(actor_id) <= STEM_BYTES_MAX and _NAME.fullmatch(actor_id):
        return actor_id
    return parse_agent_id(actor_id).stem


JOURNAL_NAME_PATTERN = (
    r"(?=[^/]{1,100}\.jsonl\Z)(?!\.)"
    r"(?:(?:[0-9A-Za-z_.-]|%[0-9A-F]{2})+|%|(?=[^/]{100}\.)(?:[0-9A-Za-z_.-]|%[0-9A-F]{2})*%[0-9A-F]?-[0-9a-f]{16})\.jsonl"
)
"""Every name of a journal that `file_stem` can give, and nothing else: for files that come from elsewhere."""


def _foreign_stem(text: str) -> str:
    """The stem of an id of no known kind, as it may come from elsewhere."""
    if not text:
        return "%"
    encoded = text.encode("utf-8", "surrogatepass")
    stem = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in encoded)
    # A dot stands for the colon of a known kind; elsewhere it must not look like one, nor hide the file.
    if stem.startswith(".") or ("." in stem and _prefixed_stem(stem)):
        stem = stem.replace(".", "%2E")
    return _cut(stem, text)


def _prefixed_stem(stem: str) -> bool:
    return parse_agent_id(stem.replace(".", ":", 1)).kind != "invalid"


def _cut(stem: str, actor_id: str) -> str:
    if len(stem) <= STEM_BYTES_MAX:
        return stem
    import hashlib

    digest = hashlib.sha256(actor_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{stem[:83]}-{digest[:16]}"


def mention(agent_id: str, record_name: str | None) -> str:
    """How people see an actor: `@name`; without a record `@role` for unnamed agents, else `@id`."""
    if record_name:
        return "@" + record_name
    parsed = parse_agent_id(agent_id)
    return "@" + (parsed.role if parsed.kind in ("unnamed", "legacy") else parsed.canonical)


# -- what names may be


def check_agent_name(
    name: str, role: str = "", other_roles: Collection[str] | Mapping[str, str] = (), groups: Collection[str] = ()
) -> None:
    """Refuse a name that no agent may have; the first failing check is reported (identity.md §2).

    `other_roles` are the roles of the *other* agents; as a mapping it also names who has each. Raises InvalidName,
    ReservedName or NameEqualsRole, with `cause` and, for a bad spelling, `suggestion` in the details.
    """
    what = "agent name"
    _check_spelling(what, name, name_chars_max, _NAME, "only a-z, 0-9 and _", InvalidName)
    if name in RESERVED:
        raise ReservedName(f'{what} "{name}" is reserved', cause="reserved")
    remedy = f"choose another name, e.g. {name[:59]}_main"
    if name == role:
        other = "developer" if name != "developer" else "coordinator"
        remedy = f"another word for what it does, e.g. --role {other}; or another name, e.g. {name[:59]}_main"
        raise NameEqualsRole(f'{what} "{name}" cannot be the same as its role', remedy=remedy, cause="own_role")
    if name in other_roles:
        holder = f" of @{other_roles[name]}" if isinstance(other_roles, Mapping) else ""
        message = f'{what} "{name}" conflicts with existing role{holder}'
        raise NameEqualsRole(message, remedy=remedy, cause="other_role")
    if name in groups:
        raise NameEqualsRole(f'{what} "{name}" conflicts with existing group', remedy=remedy, cause="group")


def check_role(role: str, other_names: Collection[str] = (), groups: Collection[str] = ()) -> None:
    """Refuse a role that no agent may have. Raises RoleMissing when empty, else as `check_agent_name`."""
    _check_spelling("role", role, role_chars_max, _WORD, "only a-z, 0-9, _ and -", RoleMissing)
    if role in RESERVED:
        raise ReservedName(f'role "{role}" is reserved', remedy="choose another role", cause="reserved")
    for taken, cause in ((other_names, "agent_name"), (groups, "group")):
        if role in taken:
            message = f'role "{role}" conflicts with existing {cause.replace("_", " ")}'
            raise NameEqualsRole(message, remedy="choose another role", cause=cause)


def check_group_name(name: str, agents: Collection[str] = (), roles: Collection[str] = ()) -> None:
    """Refuse a name that no group may have: an agent, a role, a reserved word. Raises as `check_agent_name`."""
    what = "group name"
    _check_spelling(what, name, name_chars_max, _NAME, "only a-z, 0-9 and _", InvalidName)
    if name in RESERVED:
        raise ReservedName(f'{what} "{name}" is reserved', cause="reserved")
    for taken, cause in ((agents, "agent_name"), (roles, "other_role")):
        if name in taken:
            word = "agent name" if cause == "agent_name" else "role"
            message = f'{what} "{name}" conflicts with existing {word}'
            raise NameEqualsRole(message, remedy=f"choose another name, e.g. {name[:58]}_group", cause=cause)


def check_module(module: str) -> None:
    """Refuse what is no module. Raises ModuleMissing when empty, InvalidName else."""
    _check_spelling("module", module, module_chars_max, _WORD, "only a-z, 0-9, _ and -", ModuleMissing)


def check_display(display: str) -> None:
    """Refuse a display text that is too long or holds control characters. Raises InvalidName."""
    if len(display) > display_chars_max:
        message = f"display name is too long: {display_chars_max} characters at most"
        raise InvalidName(message, remedy="shorten it", cause="too_long")
    if any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in display):
        message = "display name has invalid characters: no control characters"
        raise InvalidName(message, remedy="leave them out", cause="characters")


def _check_spelling(
    what: str, text: str, chars_max: int, pattern: re.Pattern[str], allowed: str, empty: type[ThrumError]
) -> None:
    if not text:
        if empty is InvalidName:
            raise InvalidName(f"{what} cannot be empty", cause="empty")
        message = f"{what} not specified: set THRUM_{what.upper()}, use --{what} flag, or create identity file"
        raise empty(message, cause="empty")
    if len(text) > chars_max:
        message = f"{what} is too long: {chars_max} characters at most"
        raise InvalidName(message, remedy="shorten it", cause="too_long")
    if pattern.fullmatch(text) is None:
        suggestion = suggest_name(text)
        message = f'{what} "{_printable(text)}" has invalid characters: {allowed}'
        raise InvalidName(message, remedy=suggestion and f"use {suggestion}", cause="characters", suggestion=suggestion)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _folded(text: str) -> str:
    """Lower case, letters with marks as their ASCII letters, whatever else is not ASCII dropped."""
    import unicodedata

    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


def suggest_name(text: str) -> str | None:
    """A valid name near `text`, or None. Never applied silently (identity.md §2)."""
    name = re.sub(r"[^a-z0-9]+", "_", _folded(text)).strip("_")[:name_chars_max].strip("_")
    return name if name and name not in RESERVED else None


def default_display(role: str, module: str) -> str:
    """`Implementer (auth)`: what people see without a display text."""
    return role[:1].upper() + role[1:] + (f" ({module})" if module else "")


def check_user_name(name: str) -> None:
    """Refuse a name that no user may have. Raises InvalidName or ReservedName, as `check_agent_name`."""
    what = "user name"
    _check_spelling(what, name, user_name_chars_max, _WORD, "only a-z, 0-9, _ and -", InvalidName)
    if name in RESERVED:
        raise ReservedName(f'{what} "{name}" is reserved', cause="reserved")


def user_id(git_user_name: str) -> str:
    """`user:` + slug of a git user name; `user:user` when nothing is left (identity.md §14)."""
    words = re.sub(r"[\s_-]+", "-", _folded(git_user_name))
    slug = re.sub(r"[^a-z0-9-]", "", words).strip("-")[:32].strip("-")
    return f"user:{slug or 'user'}"
