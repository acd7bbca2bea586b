"""What a runtime's hook says, and what it may be answered. Pure: payload in, `HookEvent` out; words in, `Answer` out.

Each program has its own names for the same few moments of a session. What is not one of those is `other`: nothing is
done for it. A payload of any shape is taken: what it lacks is empty. Source: wake.md §3, measured with the programs
that `docs/runtimes.md` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

Kind = Literal["session_start", "prompt", "tool_done", "turn_end", "dialog", "session_end", "wait", "other"]
"""`dialog`: the program asks the person for permission. `wait`: no event of the program, but thrum's own waiter that it
runs in the background."""

WAIT: Final = "wait"
"""The event that `thrum hook claude wait` stands for."""

_KINDS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "claude": {
        "SessionStart": "session_start",
        "UserPromptSubmit": "prompt",
        "PostToolUse": "tool_done",
        "PostToolUseFailure": "tool_done",
        "Stop": "turn_end",
        "StopFailure": "turn_end",
        "PermissionRequest": "dialog",
        "Notification": "dialog",
        "SessionEnd": "session_end",
        WAIT: "wait",
    },
    "codex": {
        "SessionStart": "session_start",
        "UserPromptSubmit": "prompt",
        "PostToolUse": "tool_done",
        "Stop": "turn_end",
        "PermissionRequest": "dialog",
        "SessionEnd": "session_end",
    },
    "gemini": {
        "SessionStart": "session_start",
        "BeforeAgent": "prompt",
        "AfterTool": "tool_done",
        "AfterAgent": "turn_end",
        "Notification": "dialog",
        "SessionEnd": "session_end",
    },
    "opencode": {
        "session.start": "session_start",
        "model.request": "prompt",
        "tool.done": "tool_done",
        "session.idle": "turn_end",
        "permission.asked": "dialog",
        "permission.replied": "tool_done",
        "session.end": "session_end",
        WAIT: "wait",
    },
    "cursor": {
        "sessionStart": "session_start",
        "beforeSubmitPrompt": "prompt",
        "afterShellExecution": "tool_done",
        "stop": "turn_end",
        "sessionEnd": "session_end",
    },
}

_ASKING: Final = ("permission_prompt", "ToolPermission")

HOOKED: Final = tuple(_KINDS)
"""The runtimes that can call a hook."""

ASKS_CHARS_MAX: Final = 200
_FOLLOW_UPS_MAX: Final = 5
"""Of a `stop` of Cursor's, by its documentation; not tried."""


class HookEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One moment in a runtime's session, in words that are the same for all of them."""

    kind: Kind
    runtime: str
    event: str
    """The program's own name of it."""
    session: str = ""
    """The runtime's id of the conversation."""
    cwd: str = ""
    """Where the agent is now; not where its session started."""
    prompt: str = ""
    """What goes to the model: of kind `prompt` alone. A wake's token in it is the proof."""
    transcript: str = ""
    """The path of the program's record of the conversation."""
    source: str = ""
    """Of a session start: startup, resume, clear or compact."""
    asks: str = ""
    """Of a dialog: what is asked, cut to `ASKS_CHARS_MAX` characters."""
    subagent: bool = False
    """Whether a sub-agent is at work: it is told nothing and proves nothing."""
    again: bool = False
    """Of a turn's end: whether it may not be prolonged, as a hook did that already, or it was broken off."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a hook's process does in the end. The default says nothing and hinders nothing."""

    stdout: str = ""
    stderr: str = ""
    exit_status: int = 0


SILENCE: Final = Answer()


def read(runtime: str, event: str, payload: Mapping[str, Any]) -> HookEvent:
    """What happened. An unknown runtime or event, and a payload without what is looked for, give `other`."""
    kind: Kind = _KINDS.get(runtime, {}).get(event, "other")
    if event == "Notification" and _text(payload, "notification_type") not in _ASKING:
        kind = "other"  # Claude says by the same event that it has been idle for a while
    return HookEvent(
        kind=kind,
        runtime=runtime,
        event=event,
        session=_first(payload, "session_id", "sessionID", "conversation_id", "thread_id"),
        cwd=_text(payload, "cwd"),
        prompt=_first(payload, "prompt", "text") if kind == "prompt" else "",
        transcript=_text(payload, "transcript_path"),
        source=_text(payload, "source") if kind == "session_start" else "",
        asks=_asks(payload) if kind == "dialog" else "",
        subagent=bool(_first(payload, "agent_id", "parent_session_id", "parentID")),
        again=_is_over(payload),
    )


_OFTEN: Final = 3
"""So many turns without the other end of a turn are no accident: Escape ends one without a hook."""


def overdue(runtime: str, fired: Mapping[str, int]) -> list[str]:
    """The events of a runtime that should have fired, by how often each of them did. Pure.

    A turn begins with a prompt and ends: where one of both fires turn after turn, the other one is not called. Nothing
    is said of a runtime no hook of which fired: that one may have begun before its hooks were installed.
    """
    kinds = _KINDS.get(runtime, {})
    count = {kind: sum(fired.get(event, 0) for event in kinds if kinds[event] == kind) for kind in kinds.values()}
    if runtime == "claude" and count["prompt"] >= _OFTEN and not count["wait"]:
        return [WAIT]
    pairs: tuple[tuple[Kind, Kind], ...] = (("prompt", "turn_end"), ("turn_end", "prompt"))
    for often, never in pairs:
        if count.get(often, 0) >= _OFTEN and not count.get(never, 0):
            return [next(event for event in kinds if kinds[event] == never)]
    return []


def context(event: HookEvent, text: str) -> Answer:
    """Give the model text beside what happens: at a session's start, with a prompt, after a tool.

    Silence where the program has no such place for it, and where there is nothing to say.
    """
    if not text or event.kind not in ("session_start", "prompt", "tool_done"):
        return SILENCE
    if event.runtime in ("claude", "codex", "gemini"):
        return _json(hookSpecificOutput={"hookEventName": event.event, "additionalContext": text})
    if event.runtime == "opencode":
        return _json(context=text)
    if event.runtime == "cursor" and event.kind == "session_start":
        return _json(additional_context=text)
    return SILENCE


def go_on(event: HookEvent, text: str) -> Answer:
    """At a turn's end: have the model go on with this text. Silence where that cannot be, and the second time."""
    if not text or event.kind != "turn_end" or event.again:
        return SILENCE
    match event.runtime:
        case "claude" | "codex":
            return _json(decision="block", reason=text)
        case "gemini":
            return _json(decision="deny", reason=text)
        case "cursor":
            return _json(followup_message=text)
        case _:
            return SILENCE


def woken(event: HookEvent, text: str) -> Answer:
    """The end of a waiter that got mail: the program starts a turn with it, or hands it over in the running one."""
    if event.kind != "wait" or not text:
        return SILENCE
    return Answer(stdout=text) if event.runtime == "opencode" else Answer(stderr=text, exit_status=2)


def _is_over(payload: Mapping[str, Any]) -> bool:
    """Whether a turn's end is to stay one. Cursor follows up 5 times in a row, and tells of what its person ended."""
    count = payload.get("loop_count")
    is_last = isinstance(count, int) and count >= _FOLLOW_UPS_MAX
    return payload.get("stop_hook_active") is True or is_last or _text(payload, "status") in ("aborted", "error")


def _asks(payload: Mapping[str, Any]) -> str:
    """What a dialog is about, on one line: the tool and what it would do."""
    tool = _first(payload, "tool_name", "toolName", "title")
    given = payload.get("tool_input", payload.get("details"))
    if isinstance(given, dict):
        inner = cast("dict[str, Any]", given)
        said = _first(inner, "command", "file_path", "path", "url", "description")
    else:
        said = given if isinstance(given, str) else ""
    text = " ".join(f"{tool}: {said}".split()) if tool and said else " ".join((tool or said).split())
    return (text or " ".join(_text(payload, "message").split()))[:ASKS_CHARS_MAX]


def _json(**fields: Any) -> Answer:
    return Answer(stdout=msgspec.json.encode(fields).decode() + "\n")


def _first(payload: Mapping[str, Any], *names: str) -> str:
    return next((text for name in names if (text := _text(payload, name))), "")


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    return value if isinstance(value, str) else ""
