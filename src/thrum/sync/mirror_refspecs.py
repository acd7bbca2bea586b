"""The user's refspecs that make a plain `git fetch` write into thrum's refs, as in a mirror. Reported, not changed.

Git forces the branch back to what the remote has, which costs thrum a round, and the fetch fails if thrum moves the
branch meanwhile; with `--prune` it deletes what the remote does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from thrum.git.refs import OWN_REFS, REF, seen_ref
from thrum.git.runner import configured
from thrum.model.errors import in_shell


class Meeting(NamedTuple):
    """A remote whose fetch moves thrum's refs, by which refspec, and what keeps it off them."""

    remote: str
    refspec: str
    remedy: str

    def __str__(self) -> str:
        return f"git fetch {self.remote} moves a-sync, too ({self.refspec})"


def meetings(common_dir: Path, environ: Mapping[str, str]) -> list[Meeting]:
    """The remotes whose configured fetch moves thrum's refs. Blocks."""
    refspecs: dict[str, list[str]] = {}
    for key, value in configured(common_dir, r"^remote\..*\.fetch$", environ):
        refspecs.setdefault(key.removeprefix("remote.").removesuffix(".fetch"), []).append(value)
    found: list[Meeting] = []
    for remote, specs in refspecs.items():
        ours = {REF: f"^{REF}", seen_ref(remote): f"^{OWN_REFS}/*"}
        met = {ref: spec for ref in ours if (spec := writer(ref, specs))}
        if met:
            words = [f"git config --add remote.{remote}.fetch {in_shell(ours[ref])}" for ref in met]
            found.append(Meeting(remote, next(iter(met.values())), " && ".join(words)))
    return found


def writer(ref: str, refspecs: Iterable[str]) -> str:
    """The refspec by which a fetch writes to a ref; `""`: none does, or another one excepts it. By git's rules."""
    specs = list(refspecs)
    for spec in specs:
        source, _, target = spec.removeprefix("+").partition(":")
        if not target or spec.startswith("^"):
            continue
        middle = _matched(target, ref)
        if middle is None:
            continue
        origin = source.replace("*", middle, 1)
        if not any(each.startswith("^") and _matched(each[1:], origin) is not None for each in specs):
            return spec
    return ""


def _matched(pattern: str, ref: str) -> str | None:
    """What the star of a pattern matches, `""` for a name without one; None: it does not match."""
    before, star, after = pattern.partition("*")
    if not star:
        return "" if pattern == ref else None
    fits = len(ref) >= len(before) + len(after) and ref.startswith(before) and ref.endswith(after)
    return ref[len(before) : len(ref) - len(after)] if fits else None
