"""Whether what runtimes are told to call can be found, and is called (cli.md 3.16, wake.md §6)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from thrum.model import files, limits
from thrum.model.notes import roots
from thrum.model.paths import Layout
from thrum.model.wire_types import TeamMember
from thrum.runtimes import hook_files, hooks, installer
from thrum.runtimes.settings_files import HOOKED, SettingsFile

_CALLING_FILES: Final = (
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".codex/hooks/session-start",
    ".cursorrules",
    ".gemini/settings.json",
    "opencode.json",
    ".augment/settings.json",
)
"""Where runtimes may be told to call thrum by other hands than its own."""
_FILE_BYTES_MAX: Final = limits.MIB
_FLAGS: Final = {"private": "", "project": " --project", "user": " --user"}

Found = tuple[Literal["ok", "warn", "fail"], str, str]
"""Status, detail and remedy."""


def check(layout: Layout, environ: Mapping[str, str], agents: Sequence[TeamMember]) -> Found:
    """One finding: what is called and gone, who lives and was never heard of by a hook. Blocks."""
    settings = [file for root in roots(layout) for file in installer.installed_files(root, environ)]
    settings = list({file.path: file for file in settings}.values())
    problems = [each for file in settings for each in _broken(file)]
    problems += silent(agents, settings)
    callers = [name for name in hook_callers(layout) if name not in {file.name for file in settings}]
    on_path = shutil.which("thrum", path=environ.get("PATH"))
    if on_path is None and (callers or not settings):
        detail = "thrum is not on PATH" + (f", and {', '.join(dict.fromkeys(callers))} call it" if callers else "")
        problems.append((detail, "put the directory of the command thrum on PATH"))
    if problems:
        details, remedies = zip(*problems, strict=True)
        return "warn", "; ".join(details), "; ".join(dict.fromkeys(remedies))
    named = dict.fromkeys([*(file.name for file in settings), *callers])
    if not named:
        return "ok", f"no runtime's hook calls thrum ({on_path})", ""
    return "ok", f"{', '.join(named)}: call {_programs(settings) or on_path}", ""


def silent(agents: Sequence[TeamMember], settings: Sequence[SettingsFile]) -> list[tuple[str, str]]:
    """Agents whose runtime lives and has called no hook in its session, each with what to do about it. Pure."""
    found: list[tuple[str, str]] = []
    for each in agents:
        if each.runtime not in HOOKED or not each.pid_live:
            continue
        if each.hooks_seen_at:
            found += _overdue(each)
            continue
        runtime = each.runtime
        has_hooks = any(
            file.runtime == runtime and (file.root is None or file.root.name == each.worktree) for file in settings
        )
        since = f" since its session began, {each.session_start}" if each.session_start else ""
        remedy = f"restart {runtime} in {each.worktree}"
        if not has_hooks:
            remedy = f"in {each.worktree}: thrum hook install {runtime}; then {remedy}"
        found.append((f"no hook of {runtime} has fired for @{each.agent_id}{since}", remedy))
    return found


def _overdue(member: TeamMember) -> list[tuple[str, str]]:
    """Of an agent whose hooks fire: the one that does not."""
    fired = {event: told.count for event, told in member.hooks_fired.items()}
    remedy = f"in {member.worktree}: thrum hook install {member.runtime}; then restart {member.runtime} there"
    return [
        (f"hook {event} of {member.runtime} has not fired for @{member.agent_id} since {member.hooks_seen_at}", remedy)
        for event in hooks.overdue(member.runtime, fired)
    ]


def _broken(file: SettingsFile) -> list[tuple[str, str]]:
    gone = [each for each in _called(file) if not os.access(each, os.X_OK)]
    remedy = f"thrum hook install {file.runtime}{_FLAGS[file.scope]}"
    return [(f"{file.name} calls {each}, which is gone", remedy) for each in gone]


def _programs(settings: Sequence[SettingsFile]) -> str:
    return ", ".join(dict.fromkeys(each for file in settings for each in _called(file)))


def _called(file: SettingsFile) -> list[str]:
    return list(dict.fromkeys(hook_files.program_of(each) for each in installer.commands_in(file)))


def hook_callers(layout: Layout) -> list[str]:
    """Files of runtimes that call thrum in any worktree, by whatever hand."""
    return [name for root in roots(layout) for name in _CALLING_FILES if _calls_thrum(root / name)]


def _calls_thrum(path: Path) -> bool:
    try:
        # Settings may be kept elsewhere, with links here. Nothing of what is read is shown.
        return b"thrum" in files.read_bytes(os.path.realpath(path), _FILE_BYTES_MAX)
    except OSError:
        return False
