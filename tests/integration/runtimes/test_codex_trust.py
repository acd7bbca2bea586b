"""Trust of thrum's hooks in config.toml, on disk: taken back to the byte, and out of what others changed since."""

from __future__ import annotations

from pathlib import Path

import pytest

from thrum.model.errors import ConfigInvalid
from thrum.runtimes import hook_files
from thrum.runtimes.codex import trust
from thrum.runtimes.settings_files import SettingsFile

OWN = "model = 1  # mine\n\n[tui]\nx = 2\n"


@pytest.fixture
def hooks(tmp_path: Path) -> SettingsFile:
    path = tmp_path / ".codex/hooks.json"
    path.parent.mkdir()
    path.write_text(hook_files.installed("", "codex", "/bin/thrum"))
    return SettingsFile("codex", "user", path, "~/.codex/hooks.json")


def _trusted(hooks: SettingsFile, environ: dict[str, str]) -> Path:
    file = trust.config_file(hooks)
    digests = dict.fromkeys(trust.keys_of(hooks.path.read_text(), str(hooks.path)), "sha256:aa")
    assert trust._write(file, digests, environ)
    assert not trust._write(file, digests, environ), "the second time nothing changes"
    return file.path


@pytest.mark.parametrize("before", [None, "", OWN, OWN.rstrip()])
def test_it_is_taken_back_to_the_byte(tmp_path: Path, hooks: SettingsFile, before: str | None) -> None:
    environ, path = {"HOME": str(tmp_path)}, hooks.path.parent / "config.toml"
    if before is not None:
        path.write_text(before)
    assert _trusted(hooks, environ).read_text().count("trusted_hash") == 6
    assert trust.untrust(hooks, environ)
    assert (path.read_text() if path.exists() else None) == before
    assert not trust.untrust(hooks, environ)


def test_what_others_wrote_since_stays(tmp_path: Path, hooks: SettingsFile) -> None:
    environ, path = {"HOME": str(tmp_path)}, hooks.path.parent / "config.toml"
    path.write_text(OWN)
    _trusted(hooks, environ)
    path.write_text(path.read_text() + "\n[projects.'/x']\ntrust_level = 'trusted'\n")
    assert trust.untrust(hooks, environ)
    assert path.read_text() == OWN + "\n[projects.'/x']\ntrust_level = 'trusted'\n"


def test_a_file_without_thrums_trust_hinders_nothing_whatever_is_in_it(tmp_path: Path, hooks: SettingsFile) -> None:
    environ, path = {"HOME": str(tmp_path)}, hooks.path.parent / "config.toml"
    path.write_text("no toml")
    assert not trust.untrust(hooks, environ)
    assert path.read_text() == "no toml"
    with pytest.raises(ConfigInvalid):
        trust._write(trust.config_file(hooks), {"k": "sha256:aa"}, environ)
    assert path.read_text() == "no toml"
