"""Classifying git's messages when a remote does not do what it was asked, as one of five failures. Pure.

Git has one exit status for all of them, so its messages decide; they are in English (`git.runner.git_environ`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from thrum.git.refs import BRANCH
from thrum.git.runner import Finished
from thrum.model.ids import without_credentials
from thrum.sync.ports import RemoteFailed, RemoteTrouble

_REASON_CHARS: Final = 300
_SECRET_CHARS_MIN: Final = 4

_SIGNS: Final[tuple[tuple[RemoteTrouble, tuple[str, ...]], ...]] = (
    (
        "credentials",
        (
            "authentication failed",
            "could not read username",
            "could not read password",
            "terminal prompts disabled",
            "invalid username or",
            "invalid credentials",
            "access denied, authentication",
            "http basic: access denied",
            "returned error: 401",
            "returned error: 407",
            "permission denied (",
            "host key verification failed",
            "no supported authentication methods",
            "too many authentication failures",
        ),
    ),
    (
        "refused",
        (
            "[remote rejected]",
            "returned error: 403",
            "write access to repository not granted",
            "you are not allowed",
            "insufficient permission",
            "unpacker error",
            "remote unpack failed",
            "not enabled",
            "read-only",
        ),
    ),
    (
        "offline",
        (
            "could not resolve",
            "couldn't resolve",
            "name or service not known",
            "temporary failure in name resolution",
            "nodename nor servname",
            "failed to connect",
            "couldn't connect",
            "unable to connect",
            "unable to look up",
            "connection refused",
            "connection timed out",
            "operation timed out",
            "timed out",
            "operation too slow",
            "network is unreachable",
            "network is down",
            "no route to host",
            "host is down",
            "connection reset",
            "connection closed",
            "broken pipe",
            "empty reply from server",
            "recv failure",
            "send failure",
            "returned error: 502",
            "returned error: 503",
            "returned error: 504",
        ),
    ),
    (
        "missing",
        (
            "not found",
            "returned error: 404",
            "returned error: 410",
            "does not appear to be a git repository",
            "does not exist",
            "no such repository",
            "not exported",
            "no such file or directory",
            "could not find repository",
            "not a git repository",
        ),
    ),
    ("offline", ("hung up unexpectedly", "early eof", "unexpected disconnect")),
)
_DENIED: Final = re.compile(r"permission (to \S+ )?denied")
_PROGRESS: Final = re.compile(
    r"(remote: )?(enumerating|counting|compressing|receiving|resolving|unpacking|writing|checking|updating|expanding"
    r"|delta compression|total|filtering|to |from |done\b|everything up-to-date)",
    re.IGNORECASE,
)
_EMPTY_TALK: Final = (
    "could not read from remote repository",
    "please make sure you have the correct access rights",
    "and the repository exists",
    "warning: permanently added",
    "failed to push some refs",
    "the remote end hung up",
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_NO_DISK: Final = ("no space left on device", "disk quota exceeded", "read-only file system")


def remote_failed(finished: Finished, remote: str, verb: str, secrets: Iterable[str] = ()) -> RemoteFailed:
    """The failure of a `fetch` or `push` (`verb`). `secrets`: texts that must not show."""
    text = finished.err + "\n" + finished.out
    remedy = f"git {verb} {remote} {BRANCH}"
    if finished.ended == "stopped":
        return RemoteFailed("failed", f"{verb} was stopped", remedy)
    if finished.ended == "stalled":
        return RemoteFailed("offline", f"{remote} did not answer in time", remedy)
    trouble = trouble_of(text)
    if trouble == "missing":
        if verb == "push" and "not exported" in text:
            trouble = "refused"  # `git daemon` says so of a repository that it serves for reading
        else:
            remedy = f"git ls-remote {remote}"
    if trouble == "refused" and verb == "push":  # to push again is to hear it again
        remedy = f"let {remote} accept refs/heads/{BRANCH}, or: thrum config set sync.remote NAME"
    return RemoteFailed(trouble, reason_of(text, secrets), remedy)


def trouble_of(text: str) -> RemoteTrouble:
    folded = text.lower()
    for trouble, signs in _SIGNS:
        if any(sign in folded for sign in signs):
            return trouble
    return "refused" if _DENIED.search(folded) else "failed"


def disk_full(text: str) -> bool:
    """Whether it is this machine's disk that git complains of."""
    return any(
        sign in line
        for line in text.lower().splitlines()
        if not line.startswith("remote:") and "remote unpack" not in line
        for sign in _NO_DISK
    )


def reason_of(text: str, secrets: Iterable[str] = ()) -> str:
    """The line of git's that says most, without credentials and control characters."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    lines = [line for line in lines if line and not _PROGRESS.match(line)]
    telling = [line for line in lines if not any(talk in line.lower() for talk in _EMPTY_TALK)]
    rejected = [line.split("\t")[-1] for line in telling if line.startswith("!")]
    heard = [line for line in telling if line.lower().startswith(("remote: error", "error: ", "fatal: ", "ssh: "))]
    said = [line for line in telling if line.startswith("remote: ") and len(line) > len("remote: ")]
    best = rejected[:1] + said[:1] if rejected else heard[:1] or said[:1] or telling[:1] or lines[:1]
    reason = ": ".join(line.removeprefix("fatal: ").removeprefix("remote: ").removeprefix("error: ") for line in best)
    return clean(reason, secrets) or "git gave no reason"


def clean(text: str, secrets: Iterable[str] = ()) -> str:
    """One line that may be shown and logged."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _URL.sub(lambda match: without_credentials(match[0]), text)
    text = "".join(char if char.isprintable() else " " for char in text)
    text = " ".join(text.split())
    return text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 1] + "…"


def secrets_in(url: str) -> set[str]:
    """What of a URL must not show: passwords, users that are tokens, queries."""
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://([^/]*)@", url)
    found: set[str] = set()
    if match:
        user, _, password = match[1].partition(":")
        found = {password} if url.lower().startswith(("ssh", "git+ssh")) else {user, password}
    elif "://" not in url and "@" in url:
        found = {url.partition("@")[0].partition(":")[2]}
    _, mark, query = url.partition("?")
    if mark and "://" in url:
        found |= {part.partition("=")[2] for part in query.split("&")}
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= _SECRET_CHARS_MIN}
