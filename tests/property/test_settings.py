"""What `config set` refuses, the daemon's reading of the file refuses, in the same words; and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thrum.model import settings
from thrum.model.config import LiveConfig, change, load_config
from thrum.model.errors import BadConfigValue, ConfigInvalid
from thrum.model.paths import Layout

_TEXTS = ["auto", "strict", "info", "0s", "15s", "1.5h", "３０s", "9" * 400 + "d", "", " x", "-x", "~/w", "/w", "a\n"]
_NUMBERS = [0, -1, 1, 8, 65_535, 65_536, 2**53, 0.5, -0.0, 1e300]
_OTHERS: list[Any] = [True, [], [""], ["a"], [1], {}, {"a": ["b"]}, {"": []}]
NEAR = st.sampled_from([*_TEXTS, *_NUMBERS, *_OTHERS])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | NEAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.sampled_from(sorted(settings.SETTINGS)), JSON)
@example("sync.interval", "0s")
@example("sync.interval", "9" * 400 + "d")
@example("sync.debounce", "３０s")
@example("daemon.max_message_body_bytes", 99_999_999)
@example("backup.retention.daily", 10**12)
def test_set_refuses_a_value_exactly_if_the_daemon_does_and_says_the_same(key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        state_dir, common_dir = Path(directory, ".thrum"), Path(directory, ".git")
        (common_dir / "thrum-sync").mkdir(parents=True)
        state_dir.mkdir()
        layout = Layout(Path(directory), state_dir, Path(directory), common_dir)
        layout.config_file.write_text("{}")
        live = LiveConfig(layout.config_file)
        by_hand = common_dir / "thrum-sync" / "by-hand.json"
        raw: dict[str, Any] = {}
        settings.set_value(raw, key, value)
        by_hand.write_text(json.dumps(raw, indent=1))
        try:
            change(layout, key, value)
        except BadConfigValue as refusal:
            with pytest.raises(ConfigInvalid) as refused:
                load_config(by_hand)
            name = f"thrum-sync/{by_hand.name}"
            line = key.count(".") + 2  # each object begins a line
            assert refused.value.message == f"{name} is not valid: {refusal.message} at line {line}"
            assert layout.config_file.read_text() == "{}", "a refused change changes nothing"
        else:
            row = settings.SETTINGS[key]
            assert load_config(by_hand)[row] == live.current()[row] == load_config(layout.config_file)[row]


@pytest.mark.parametrize("key", sorted(settings.SETTINGS))
@pytest.mark.parametrize("text", ["NaN", "1e999", "9" * 400, '"\\ud800"', '["\\ud800"]', '{"\\ud800": []}'])
def test_what_is_no_json_for_others_is_refused_by_both(tmp_path: Path, key: str, text: str) -> None:
    row = settings.SETTINGS[key]
    assert not row.rule.fits(json.loads(text))
    *groups, last = key.split(".")
    file = tmp_path / "config.json"
    file.write_text("".join(f'{{"{group}":' for group in groups) + f'{{"{last}":{text}}}' + "}" * len(groups))
    with pytest.raises(ConfigInvalid, match=r"at line 1$"):
        load_config(file)


@given(st.lists(st.tuples(st.sampled_from([*sorted(settings.SETTINGS), "sync", "backup.retention", "later.x"]), JSON)))
def test_what_flaws_are_left_out_of_is_read_and_has_all_the_rest(pairs: list[tuple[str, Any]]) -> None:
    raw: dict[str, Any] = {}
    for key, value in pairs:
        try:
            settings.set_value(raw, key, value)
        except ConfigInvalid:
            continue  # it lies in what is no object
    before = json.loads(json.dumps(raw))
    found = settings.flaws(raw)
    left_out = settings.leave_out_flaws(raw)
    assert settings.flaws(raw) == [] and bool(left_out) is bool(found)
    for flaw, said in zip(found, left_out, strict=False):
        assert said.startswith(f"{'.'.join(map(str, flaw.path))} ") and said.endswith(f"({flaw.message})")
    flawed = {".".join(map(str, flaw.path)) for flaw in found}
    for key in {*settings.SETTINGS, "later.x"} - flawed:
        if not any(key.startswith(f"{group}.") for group in flawed):
            assert settings.lookup(raw, key) == settings.lookup(before, key)
