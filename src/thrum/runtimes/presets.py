"""The agent runtimes that thrum knows, and the user's own (cli.md 3.20). Pure but for `set_default`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from thrum.identity.guard_modes import OwnRuntimes
from thrum.model import files
from thrum.model.errors import ConfigInvalid, StoreFailed, in_shell
from thrum.runtimes import _json_edit as json_edit
from thrum.runtimes._json_edit import NotJson

FALLBACK: Final = "claude"
"""Where neither flag, identity, setting nor file names a runtime."""


class Runtime(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`Runtime` of cli.md §4. `command`: empty where there is no program; the two paths: empty where there is none."""

    name: str
    display_name: str
    command: str
    mcp_supported: bool
    hooks_supported: bool
    has_session_start_hook: bool | None = None
    instructions_file: str
    mcp_config_path: str
    setup_notes: str


class RuntimeList(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`RuntimeList` of cli.md §4."""

    presets: tuple[Runtime, ...]
    default_runtime: str = ""


class RuntimeDefault(msgspec.Struct, kw_only=True):
    """`RuntimeDefault` of cli.md §4."""

    default_runtime: str


def _preset(
    name: str, display: str, command: str, instructions: str, mcp: str = "", notes: str = "", *, hooks: bool = False
) -> Runtime:
    return Runtime(
        name=name,
        display_name=display,
        command=command,
        mcp_supported=bool(mcp),
        hooks_supported=hooks,
        has_session_start_hook=hooks or None,
        instructions_file=instructions,
        mcp_config_path=mcp,
        setup_notes=notes or ("thrum hook install " + name if hooks else ""),
    )


_CODEX_NOTES: Final = "thrum hook install codex asks, for its only file of hooks is your own; it marks them as trusted"
BUILT_IN: Final[Mapping[str, Runtime]] = {
    each.name: each
    for each in (
        _preset("claude", "Claude Code", "claude", "CLAUDE.md", ".claude/settings.local.json", hooks=True),
        _preset("codex", "Codex", "codex", "AGENTS.md", "~/.codex/config.toml", _CODEX_NOTES, hooks=True),
        _preset("cursor", "Cursor", "agent", ".cursorrules", ".cursor/mcp.json", hooks=True),
        _preset("gemini", "Gemini CLI", "gemini", ".gemini/instructions.md", ".gemini/settings.json", hooks=True),
        _preset("opencode", "OpenCode", "opencode", "AGENTS.md", "opencode.json", hooks=True),
        _preset("auggie", "Auggie", "auggie", "CLAUDE.md"),
        _preset("amp", "Amp", "amp", "CLAUDE.md"),
        _preset("kiro-cli", "Kiro CLI", "kiro-cli chat", "AGENTS.md"),
        _preset("shell", "Shell", "bash", "", notes="no agent: nothing is typed into it"),
        _preset("cli-only", "Command line only", "", "", notes="anything that can run thrum send and thrum wait"),
    )
}
"""By name, in the order of cli.md 3.20."""


def presets(own: Mapping[str, Any]) -> Mapping[str, Runtime]:
    """Every runtime by name. `own`: what `~/.thrum/runtimes.json` has; what is malformed in it is passed over.

    A runtime of the user's own that has a known name changes that one, field by field.
    """
    found = dict(BUILT_IN)
    custom = own.get("custom_runtimes")
    for name, fields in cast("dict[str, Any]", custom).items() if isinstance(custom, dict) else ():
        if isinstance(fields, dict) and name:
            found[name] = _own(name, cast("dict[str, Any]", fields), found.get(name))
    return found


def _own(name: str, fields: Mapping[str, Any], known: Runtime | None) -> Runtime:
    base = known or _preset(name, name, "", "", notes="your own: ~/.thrum/runtimes.json")
    kinds = {key: str if isinstance(getattr(base, key), str) else bool for key in Runtime.__struct_fields__}
    right = {key: value for key, value in fields.items() if key in kinds and isinstance(value, kinds[key])}
    return msgspec.structs.replace(base, **{**right, "name": name})


def default_of(own: Mapping[str, Any]) -> str:
    """The user's default runtime; empty where none is set."""
    found = own.get("default_runtime")
    return found if isinstance(found, str) else ""


def set_default(file: Path, name: str) -> None:
    """Set the user's default runtime in the file that `identity.guard_modes.runtimes_file` names; the rest of it stays.

    Raises ConfigInvalid for a file that is no JSON object, StoreFailed.
    """
    try:
        files.ensure_private_dir(file.parent)
        try:
            text = files.read_bytes(file).decode()
        except FileNotFoundError:
            text = ""
        changed = with_default(text, name)
        if changed != text:
            files.atomic_write(file, changed.encode())
    except (NotJson, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{file}: {error}", remedy=f"fix it: {in_shell(str(file))}") from error
    except OSError as error:
        raise StoreFailed(f"could not write {file}: {(error.strerror or str(error)).lower()}") from error


def with_default(text: str, name: str) -> str:
    """The file's text with another default. Raises NotJson."""
    root = json_edit.parse(text if text.strip() else (text := "{}\n"))
    if root.kind != "object":
        raise NotJson("line 1: no object")
    node = root.get("default_runtime")
    if node is None:
        return json_edit.set_member(text, root, "default_runtime", name)
    return text[: node.start] + json.dumps(name) + text[node.end :]


def read_own(own: OwnRuntimes) -> tuple[Mapping[str, Runtime], str]:
    """The runtimes by name, and the user's default, as their file has them now."""
    value = own.now()
    return presets(value), default_of(value)
