"""What Codex' app-server tells, and the trust of hooks in its config.toml. Pure."""

from __future__ import annotations

import tomllib

import pytest

from thrum.model.wake_types import Reachable
from thrum.runtimes import hook_files
from thrum.runtimes.codex.server import created_ms, proves, state_of
from thrum.runtimes.codex.trust import NotEditable, keys_of, with_trust, without_trust
from thrum.runtimes.doors.codex import home_of, program_argv

PATH = "/home/a b/.codex/hooks.json"
KEY = f"{PATH}:stop:0:0"
HASH = "sha256:aa"


def test_a_threads_status_is_a_state_and_not_loaded_is_none() -> None:
    assert state_of({"type": "idle"}) == "idle"
    assert state_of({"type": "systemError"}) == "idle"
    assert state_of({"type": "active", "activeFlags": []}) == "working"
    assert state_of({"type": "active", "activeFlags": ["waitingOnApproval"]}) == "dialog"
    assert state_of({"type": "active", "activeFlags": ["waitingOnUserInput"]}) == "dialog"
    assert state_of({"type": "notLoaded"}) is None
    assert state_of({"type": "somethingNew"}) == "unknown"


def test_a_threads_id_tells_when_it_began_and_another_id_tells_nothing() -> None:
    assert created_ms("01a2317a-bdb9-7880-992d-8b75ca07928e") == 0x01A2317ABDB9
    assert created_ms("0cb1c2f6-2c19-4a35-8c3f-6f7fd64ad7d1") == created_ms("no uuid") == 0


def _listed(**changed: object) -> dict[str, object]:
    hook = {
        "eventName": "userPromptSubmit",
        "enabled": True,
        "trustStatus": "trusted",
        "command": hook_files.command("/bin/thrum", "codex", "UserPromptSubmit"),
        **changed,
    }
    return {"data": [{"hooks": [hook]}]}


def test_only_thrums_own_trusted_hook_of_a_prompt_proves_a_wake() -> None:
    assert proves(_listed())
    for changed in (
        {"eventName": "stop"},
        {"enabled": False},
        {"trustStatus": "untrusted"},
        {"trustStatus": "modified"},
        {"command": "echo"},
    ):
        assert not proves(_listed(**changed))
    assert not proves({}) and not proves({"data": [1, {"hooks": "x"}]})


def test_codex_home_is_where_its_variables_say() -> None:
    assert home_of({"HOME": "/h"}) == "/h/.codex"
    assert home_of({"HOME": "/h", "CODEX_HOME": "/c"}) == "/c"
    assert home_of({"HOME": "/h", "CODEX_HOME": "c"}) == home_of({}) == ""


def test_a_terminals_program_is_called_again_by_its_interpreter_and_script() -> None:
    assert program_argv(("node", "/x/codex"), "/usr/bin/node") == ("/usr/bin/node", "/x/codex")
    assert program_argv(("/x/codex", "--model"), "/x/codex") == ("/x/codex",)
    assert program_argv(("node", "codex.js"), "") == ()


def test_the_keys_are_those_of_thrums_hooks_alone() -> None:
    others = '{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "echo"}]}]}}'
    keys = keys_of(hook_files.installed(others, "codex", "/bin/thrum"), PATH)
    assert f"{PATH}:stop:1:0" in keys and f"{PATH}:user_prompt_submit:0:0" in keys
    assert KEY not in keys and len(keys) == 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model = 1",
        "model = 1\n\n[tui]\nx = 2\n",
        '[hooks.state."/other:stop:0:0"]\ntrusted_hash = "sha256:00"\n',
        '[ hooks . state . "/other:stop:0:0" ] # mine\ntrusted_hash = "sha256:00"\n\n[z]\na = 1\n',
        "[hooks.state]\n\n[z]\n",
    ],
)
def test_trust_is_added_and_taken_away_and_all_else_stays(text: str) -> None:
    trusted = with_trust(text, {KEY: HASH})
    state = tomllib.loads(trusted)["hooks"]["state"]
    assert state[KEY] == {"trusted_hash": HASH}
    assert with_trust(trusted, {KEY: HASH}) == trusted
    back = without_trust(trusted, [KEY])
    assert back in (text, text + "\n"), "only the line end that was missing stays"


def test_a_hash_that_changed_is_replaced_in_its_place() -> None:
    text = f'[hooks.state."{KEY}"]\nenabled = true\ntrusted_hash = "sha256:00" # old\n\n[z]\na = 1\n'
    assert with_trust(text, {KEY: HASH}) == (
        f'[hooks.state."{KEY}"]\nenabled = true\ntrusted_hash = "{HASH}"\n\n[z]\na = 1\n'
    )
    bare = f"[hooks.state.'{KEY}']\n[z]\n"
    assert tomllib.loads(with_trust(bare, {KEY: HASH}))["hooks"]["state"][KEY] == {"trusted_hash": HASH}


@pytest.mark.parametrize(
    "text", ["hooks = {}\n", "[hooks]\nstate = {}\n", "no toml", "[hooks]\nstate.x.trusted_hash = 1\n"]
)
def test_a_form_that_lines_cannot_be_added_to_is_refused_or_right(text: str) -> None:
    try:
        new = with_trust(text, {KEY: HASH})
    except NotEditable:
        return
    assert tomllib.loads(new)["hooks"]["state"][KEY]["trusted_hash"] == HASH


def test_a_text_in_another_string_that_looks_like_a_table_is_not_cut() -> None:
    text = f'x = """\n[hooks.state."{KEY}"]\n"""\n'
    with pytest.raises(NotEditable):
        without_trust(text, [KEY])


def test_an_agent_without_a_thread_has_no_door() -> None:
    from thrum.runtimes.doors.codex import QueueDoor, ServerDoor

    bob = Reachable("bob", "idle", 0.0, (1, "x"), "codex")
    assert not ServerDoor(lambda thread: None).state(bob).open
    assert not QueueDoor(lambda thread: False, lambda agent: None).state(bob).open
