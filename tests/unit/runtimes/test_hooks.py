"""What hooks of the real programs say, in one set of words, and what they are answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from thrum.runtimes import hooks
from thrum.runtimes.hooks import HookEvent


def _claude(**more: Any) -> dict[str, Any]:
    return {
        "session_id": "5e55",
        "transcript_path": "/h/t.jsonl",
        "cwd": "/repo/sub",
        "permission_mode": "auto",
        **more,
    }


@pytest.mark.parametrize(
    ("runtime", "event", "payload", "kind"),
    [
        ("claude", "SessionStart", _claude(source="startup"), "session_start"),
        ("claude", "UserPromptSubmit", _claude(prompt="hi"), "prompt"),
        ("claude", "PostToolUseFailure", _claude(tool_name="Bash"), "tool_done"),
        ("claude", "Stop", _claude(stop_hook_active=False), "turn_end"),
        ("claude", "Notification", _claude(notification_type="permission_prompt"), "dialog"),
        ("claude", "Notification", _claude(notification_type="idle_prompt"), "other"),
        ("claude", "PermissionRequest", _claude(tool_name="Bash"), "dialog"),
        ("claude", "wait", _claude(hook_event_name="Stop"), "wait"),
        ("claude", "Setup", _claude(), "other"),
        ("codex", "UserPromptSubmit", {"session_id": "0199", "cwd": "/repo", "prompt": "hi"}, "prompt"),
        ("codex", "wait", {}, "other"),
        ("gemini", "BeforeAgent", {"session_id": "g", "prompt": "hi"}, "prompt"),
        ("gemini", "Notification", {"notification_type": "ToolPermission"}, "dialog"),
        ("gemini", "Notification", {"notification_type": "Other"}, "other"),
        ("opencode", "model.request", {"sessionID": "o", "text": "hi"}, "prompt"),
        ("cursor", "beforeSubmitPrompt", {"conversation_id": "c", "prompt": "hi"}, "prompt"),
        ("nosuch", "Stop", {}, "other"),
    ],
)
def test_the_moments_of_all_runtimes_have_the_same_words(
    runtime: str, event: str, payload: dict[str, Any], kind: str
) -> None:
    assert hooks.read(runtime, event, payload).kind == kind


def test_who_where_and_what_is_taken_from_the_payload() -> None:
    found = hooks.read("claude", "UserPromptSubmit", _claude(prompt="do it"))
    assert (found.session, found.cwd, found.transcript, found.prompt) == ("5e55", "/repo/sub", "/h/t.jsonl", "do it")
    assert not found.subagent


@pytest.mark.parametrize(
    ("runtime", "payload"),
    [("claude", {"agent_id": "a1"}), ("opencode", {"parentID": "ses_1"}), ("codex", {"parent_session_id": "0199"})],
)
def test_a_sub_agent_is_known_as_one(runtime: str, payload: dict[str, Any]) -> None:
    assert hooks.read(runtime, "Stop", payload).subagent


def test_a_dialog_says_what_it_asks_on_one_line() -> None:
    asked = {"tool_name": "Bash", "tool_input": {"command": "rm -rf build\n&& make", "description": "clean"}}
    assert hooks.read("claude", "PermissionRequest", asked).asks == "Bash: rm -rf build && make"
    assert hooks.read("claude", "PermissionRequest", {"tool_name": "Web"}).asks == "Web"
    late = {"notification_type": "permission_prompt", "message": "Claude needs your permission"}
    assert hooks.read("claude", "Notification", late).asks == "Claude needs your permission"
    long = {"tool_name": "Bash", "tool_input": {"command": "x" * 5000}}
    assert len(hooks.read("claude", "PermissionRequest", long).asks) == hooks.ASKS_CHARS_MAX


@pytest.mark.parametrize(
    "payload",
    [{}, {"session_id": 3, "prompt": None, "cwd": []}, {"tool_input": 5, "tool_name": {}}, {"agent_id": {"a": 1}}],
)
def test_a_payload_of_any_shape_is_taken(payload: dict[str, Any]) -> None:
    for runtime in hooks.HOOKED:
        for event in ("Stop", "UserPromptSubmit", "PermissionRequest", "Notification", "wait"):
            found = hooks.read(runtime, event, payload)
            assert found.session == found.prompt == found.cwd == ""


def test_a_prompt_is_kept_of_prompts_alone() -> None:
    assert hooks.read("claude", "Stop", _claude(prompt="wak_01")).prompt == ""


@pytest.mark.parametrize("runtime", ["claude", "codex"])
def test_context_rides_beside_a_start_a_prompt_and_a_tool(runtime: str) -> None:
    for event in ("SessionStart", "UserPromptSubmit", "PostToolUse"):
        answer = hooks.context(hooks.read(runtime, event, {}), "hello")
        said = json.loads(answer.stdout)
        assert said == {"hookSpecificOutput": {"hookEventName": event, "additionalContext": "hello"}}
        assert answer.exit_status == 0
        assert answer.stderr == ""
    assert hooks.context(hooks.read(runtime, "Stop", {}), "hello") == hooks.SILENCE


def test_cursor_takes_context_at_a_sessions_start_alone() -> None:
    answer = hooks.context(hooks.read("cursor", "sessionStart", {}), "hello")
    assert json.loads(answer.stdout) == {"additional_context": "hello"}
    assert hooks.context(hooks.read("cursor", "beforeSubmitPrompt", {}), "hello") == hooks.SILENCE


def test_a_turn_goes_on_once_and_not_again() -> None:
    assert json.loads(hooks.go_on(hooks.read("claude", "Stop", {}), "more").stdout) == {
        "decision": "block",
        "reason": "more",
    }
    assert json.loads(hooks.go_on(hooks.read("gemini", "AfterAgent", {}), "more").stdout)["decision"] == "deny"
    assert json.loads(hooks.go_on(hooks.read("cursor", "stop", {}), "more").stdout) == {"followup_message": "more"}
    assert hooks.go_on(hooks.read("claude", "Stop", {"stop_hook_active": True}), "more") == hooks.SILENCE
    assert hooks.go_on(hooks.read("opencode", "session.idle", {}), "more") == hooks.SILENCE


def test_a_waiter_that_got_mail_wakes_and_one_that_got_none_is_silent() -> None:
    event = hooks.read("claude", hooks.WAIT, {})
    assert hooks.woken(event, "mail") == hooks.Answer(stderr="mail", exit_status=2)
    assert hooks.woken(event, "") == hooks.SILENCE
    assert hooks.woken(hooks.read("claude", "Stop", {}), "mail") == hooks.SILENCE


def test_nothing_to_say_is_silence_everywhere() -> None:
    for runtime in hooks.HOOKED:
        for event in ("SessionStart", "UserPromptSubmit", "Stop", "AfterAgent", "session.idle", "nosuch"):
            found: HookEvent = hooks.read(runtime, event, {})
            assert hooks.context(found, "") == hooks.go_on(found, "") == hooks.SILENCE
    assert hooks.Answer(stdout="", stderr="", exit_status=0) == hooks.SILENCE


@pytest.mark.parametrize(
    ("runtime", "fired", "overdue"),
    [
        ("claude", {}, []),
        ("claude", {"SessionStart": 1, "UserPromptSubmit": 5, "Stop": 1, "wait": 2}, []),
        ("claude", {"UserPromptSubmit": 2, "wait": 1}, []),  # two turns that Escape ended
        ("claude", {"UserPromptSubmit": 3, "wait": 1}, ["Stop"]),
        ("claude", {"UserPromptSubmit": 3, "Stop": 3}, ["wait"]),
        ("claude", {"Stop": 3, "wait": 3}, ["UserPromptSubmit"]),
        ("codex", {"UserPromptSubmit": 3, "Stop": 2}, []),
        ("codex", {"UserPromptSubmit": 4, "PostToolUse": 4}, ["Stop"]),
        ("gemini", {"AfterAgent": 3}, ["BeforeAgent"]),
        ("nosuch", {"Stop": 9}, []),
    ],
)
def test_a_hook_that_never_fires_though_the_other_end_of_its_turns_does_is_named(
    runtime: str, fired: dict[str, int], overdue: list[str]
) -> None:
    assert hooks.overdue(runtime, fired) == overdue
