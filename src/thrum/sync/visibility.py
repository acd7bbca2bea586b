"""Who can read a remote, asked before the first push, and the user's confirmation of it (cli.md 3.13).

A server is asked as a stranger would ask: by a git without password, key, helper, or any of the user's settings. Only a
clear refusal counts as private. If the answer is unclear, others may read it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final, Literal, cast

from thrum.git.runner import Finished, GitRunner
from thrum.model.clock import SystemClock, format_ms
from thrum.model.errors import StoreFailed
from thrum.model.files import atomic_write
from thrum.model.paths import Layout
from thrum.sync.ports import RemoteInfo

Readers = Literal["private", "public", "unknown"]

Ask = Callable[[RemoteInfo], Readers]
"""`who_can_read`, bound to the process group that is to end with it."""

BELIEVED_SECONDS: Final = 300.0
"""So long a server that gave no or the wrong answer is not asked again: that takes time, in every round."""
_SECONDS_MAX: Final = 20.0
_WEB: Final = ("http", "https")
_SSH: Final = ("ssh", "git+ssh", "ssh+git")
_REFUSED: Final = (
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "authentication failed",
    "returned error: 401",
    "returned error: 403",
)
"""A server that wants to know who asks."""
_ABSENT: Final = ("not found", "returned error: 404", "returned error: 410")
_KEPT: Final = re.compile(r"PATH|(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|GIT_SSL_CAINFO", re.IGNORECASE)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/@]*@)?(.*)", re.DOTALL)
_HOST_PATH: Final = re.compile(r"(?:[^/@:]+@)?(\[[^\]]+\]|[^/:]+):(?!:)/?(.+)", re.DOTALL)


def who_can_read(info: RemoteInfo, environ: Mapping[str, str], runner: GitRunner) -> Readers:
    """Whether anyone can read a remote; up to 20 s. Blocks; `unknown` if the runner is stopped.

    A directory on this machine is private. Of an address for ssh the same path is asked by https: only a server that
    gives it away, or wants a password for it, has answered.
    """
    if info.path:
        return "private"
    scheme, rest = _parts(info.url)
    if scheme in _WEB:
        return _judged(_ask(info.url, environ, runner), absent="private")
    if scheme in _SSH:
        return _judged(_ask(f"https://{rest}", environ, runner), absent="unknown")
    if scheme == "git":
        return "public" if _ask(info.url, environ, runner).status == 0 else "unknown"
    return "unknown"


def _parts(url: str) -> tuple[str, str]:
    """A URL's scheme, and its host and path without user and, for ssh, without port; `host:path` is ssh."""
    if found := _SCHEME.fullmatch(url):
        scheme, rest = found[1].lower(), found[2]
        host, slash, path = rest.partition("/")
        return scheme, (re.sub(r":\d*$", "", host) if scheme in _SSH else host) + slash + path
    found = _HOST_PATH.fullmatch(url)
    return ("ssh", f"{found[1]}/{found[2]}") if found else ("", url)


def _ask(url: str, environ: Mapping[str, str], runner: GitRunner) -> Finished:
    """`git ls-remote` without credentials."""
    bare = {name: value for name, value in environ.items() if _KEPT.fullmatch(name)}
    bare |= {
        "HOME": os.devnull,
        "XDG_CONFIG_HOME": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ASKPASS": "true",
        "GIT_CEILING_DIRECTORIES": "/",
    }
    words = ["-c", "credential.helper=", "-c", "protocol.allow=never"]
    words += ["-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={_SECONDS_MAX:.0f}"]
    for scheme in (*_WEB, "git"):
        words += ["-c", f"protocol.{scheme}.allow=always"]
    return runner.run(
        [*words, "ls-remote", "--", url], bare, cwd="/", silent_seconds_max=_SECONDS_MAX, seconds_max=_SECONDS_MAX
    )


def _judged(answer: Finished, *, absent: Readers) -> Readers:
    if answer.status == 0:
        return "public"
    said = answer.err.lower()
    if answer.ended:
        return "unknown"
    if any(sign in said for sign in _REFUSED):
        return "private"
    return absent if any(sign in said for sign in _ABSENT) else "unknown"


class Visibility:
    """Who can read the remotes of one daemon, as far as was asked, and what the user has said of it. Blocks."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[str, tuple[Readers, float]] = {}
        """By URL, and until when that is believed."""

    def may_push(self, remotes: Sequence[RemoteInfo], ask: Ask) -> bool:
        """Whether none of these can be read by others, or the user has confirmed it."""
        return bool(remotes) and not self.unconfirmed(remotes, ask)

    def unconfirmed(self, remotes: Sequence[RemoteInfo], ask: Ask) -> list[tuple[RemoteInfo, Readers]]:
        """Those that others may read, unless the user has confirmed it."""
        asked = [info for info in remotes if not is_confirmed(self._layout, info.url)]
        return [(info, self._readers(info, ask)) for info in asked if self._readers(info, ask) != "private"]

    def forget(self, *, private: bool) -> None:
        """Ask again next time; only with `private` also about those that others cannot read."""
        self._known = {url: known for url, known in self._known.items() if known[0] == "private" and not private}

    def _readers(self, info: RemoteInfo, ask: Ask) -> Readers:
        now = time.monotonic()
        readers, until = self._known.get(info.url, ("unknown", now))
        if now >= until:
            readers = ask(info)
            self._known[info.url] = readers, inf if readers == "private" else time.monotonic() + BELIEVED_SECONDS
        return readers


# -- what the user has said


def is_confirmed(layout: Layout, url: str) -> bool:
    """Whether the user has confirmed that others may read at this URL (without credentials)."""
    return url in _confirmed(layout)


def confirm(layout: Layout, url: str) -> None:
    """Remember the confirmation. Raises StoreFailed."""
    path = layout.thrum_sync_dir / "remotes.json"
    known = _confirmed(layout) | {url: format_ms(SystemClock().now_ms())}
    try:
        atomic_write(path, json.dumps({"confirmed": known}, indent=2, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error


def _confirmed(layout: Layout) -> dict[str, str]:
    """URLs, and when each was confirmed. A file that says nothing confirms nothing."""
    try:
        kept: Any = json.loads((layout.thrum_sync_dir / "remotes.json").read_bytes())
        urls: Any = kept["confirmed"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return cast("dict[str, str]", urls) if isinstance(urls, dict) else {}
