"""`hook install|uninstall|status`, `runtime …`, and what `doctor` and `uninstall` make of the hooks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.callers import Desks
from tests.support.daemon.repo import THRUM, Repo

LOCAL = ".claude/settings.local.json"


@pytest.fixture
def repo() -> Iterator[Repo]:
    made = Repo()
    try:
        home = made.top / "home"
        home.mkdir()
        shutil.copy(Path(made.env["HOME"], ".gitconfig"), home)
        made.env["HOME"] = str(home)
        made.thrum("init")
        yield made
    finally:
        made.close()


def test_hooks_are_installed_seen_and_removed(repo: Repo) -> None:
    assert repo.thrum("hook", "install", "claude").split("\n")[:2] == [
        f"✓ Hooks of claude installed: {LOCAL}",
        "  Hidden from git by a line in .git/info/exclude",
    ]
    commands = [
        each["command"]
        for groups in json.loads((repo.main / LOCAL).read_text())["hooks"].values()
        for group in groups
        for each in group["hooks"]
    ]
    assert commands and all(each.startswith(f"[ -x {THRUM.resolve()} ] || exit 0; exec ") for each in commands)
    assert repo.git("status", "--short") == ""
    assert repo.thrum("hook", "install", "claude") == f"Hooks of claude are installed already: {LOCAL}\n"
    again = repo.json("hook", "install", "claude")
    assert again == {"runtime": "claude", "scope": "private", "file": str(repo.main / LOCAL), "changed": False}

    told = {each["runtime"]: each for each in repo.json("hook", "status")["hooks"]}
    assert list(told) == ["claude", "codex", "gemini", "cursor", "opencode"]
    assert told["claude"]["files"] == [{"scope": "private", "file": LOCAL, "program_found": True}]
    assert told["claude"]["fired"] == told["codex"]["files"] == []
    assert f"claude    {LOCAL}  " in repo.thrum("hook", "status")

    assert repo.thrum("hook", "uninstall", "claude") == (
        f"✓ Hooks of claude removed: {LOCAL}; the file is as it was before\n"
    )
    assert not (repo.main / ".claude").exists()
    assert repo.json("hook", "uninstall", "claude") == {"runtime": "claude", "removed": []}


def test_the_users_own_file_is_asked_for_where_there_is_no_other(repo: Repo) -> None:
    file = Path(repo.env["HOME"], ".codex/hooks.json")
    assert repo.run("hook", "install", "codex", "--json").kind == "confirmation_required"
    assert not file.exists()
    assert "✓ Hooks of codex installed: ~/.codex/hooks.json" in repo.thrum("hook", "install", "codex", "--yes")
    assert "UserPromptSubmit" in json.loads(file.read_text())["hooks"]
    assert repo.json("hook", "install", "codex")["changed"] is False, "what is there is not asked for"
    removed = repo.json("hook", "uninstall", "codex", at=repo.top)  # it needs no repository
    assert removed["removed"] == [{"scope": "user", "file": str(file), "restored": True}]
    assert not file.parent.exists()


def test_a_worktree_has_hooks_of_its_own_and_where_others_are_is_said(repo: Repo) -> None:
    bob = repo.worktree("bob")
    repo.thrum("setup", at=bob)
    repo.thrum("hook", "install", "claude", at=bob)
    repo.thrum("hook", "install", "claude", "--user")
    assert (bob / LOCAL).exists() and not (repo.main / LOCAL).exists()
    assert "~/.claude/settings.json has some: thrum hook uninstall claude --user" in repo.thrum(
        "hook", "uninstall", "claude"
    )
    assert (bob / LOCAL).exists()


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        (("install", "clude"), "runtime_not_found", "did you mean claude?"),
        (("install", "amp"), "not_available", "claude, codex, gemini, cursor, opencode"),
        (("install", "codex", "--project"), "not_available", "thrum hook install codex"),
        (("install", "claude", "--user", "--project"), "usage", "thrum help hook install"),
        (("uninstall",), "usage", "thrum help hook uninstall"),
    ],
)
def test_what_cannot_be_installed_is_refused_with_a_fix(
    repo: Repo, words: tuple[str, ...], kind: str, remedy: str
) -> None:
    done = repo.run("hook", *words, "--json")
    assert done.kind == kind
    assert remedy in done.json["error"]["remedy"]
    assert not (repo.main / ".claude").exists()


def test_uninstall_takes_the_hooks_out_too(repo: Repo) -> None:
    bob = repo.worktree("bob")
    repo.thrum("setup", at=bob)
    (repo.main / ".claude").mkdir()
    (repo.main / LOCAL).write_text('{"model": "opus"}')
    repo.thrum("hook", "install", "claude")
    repo.thrum("hook", "install", "gemini", at=bob)
    repo.thrum("hook", "install", "codex", "--yes")
    done = repo.json("uninstall", "--yes")
    assert {f"hooks of claude in {repo.main / LOCAL}", f"hooks of gemini in {bob}/.gemini/settings.json"} <= {
        *done["removed"]
    }
    assert "~/.codex/hooks.json: for all your repositories; thrum hook uninstall codex --user" in done["kept"]
    assert (repo.main / LOCAL).read_text() == '{"model": "opus"}'
    assert not (bob / ".gemini").exists()
    assert "settings" not in (repo.main / ".git/info/exclude").read_text()


def hooks_check(repo: Repo) -> dict[str, str]:
    done = repo.run("doctor", "--json", env={"PATH": f"{THRUM.parent}:{repo.env['PATH']}"})
    return next(each for each in done.json["checks"] if each["name"] == "hooks")


def test_doctor_names_hooks_that_are_silent_and_programs_that_are_gone(repo: Repo, desk: Desks) -> None:
    assert hooks_check(repo)["detail"].startswith("no runtime's hook calls thrum")
    repo.thrum("daemon", "start")
    claude = desk(repo.main, "claude")
    assert claude.thrum("quickstart", "furiosa", "--role", "builder", "--module", "core")["status"] == 0
    found = hooks_check(repo)
    assert found["status"] == "warn"
    assert found["detail"].startswith("no hook of claude has fired for @furiosa since its session began, ")
    assert found["remedy"] == "in main: thrum hook install claude; then restart claude in main"
    repo.thrum("hook", "install", "claude")
    assert hooks_check(repo)["remedy"] == "restart claude in main"
    assert repo.json("hook", "status")["hooks"][0]["fired"] == [{"agent_id": "furiosa"}]

    call = json.dumps({"session_id": "s1", "cwd": str(repo.main)})
    hook = f"printf %s '{call}' | {THRUM} hook claude UserPromptSubmit"
    assert claude.order(run=["sh", "-c", hook], env={})["status"] == 0
    found = hooks_check(repo)
    assert (found["status"], found["detail"]) == ("ok", f"{LOCAL}: call {THRUM.resolve()}")
    fired = repo.json("hook", "status")["hooks"][0]["fired"]
    assert [each["agent_id"] for each in fired] == ["furiosa"] and fired[0]["at"].endswith("Z")
    assert "@furiosa just now" in repo.thrum("hook", "status")

    settings = repo.main / LOCAL
    settings.write_text(settings.read_text().replace(str(THRUM.resolve()), "/gone/thrum"))
    found = hooks_check(repo)
    assert found["detail"] == f"{LOCAL} calls /gone/thrum, which is gone"
    assert found["remedy"] == "thrum hook install claude"
    assert "(its thrum is gone)" in repo.thrum("hook", "status")


def test_runtimes_are_listed_shown_and_one_is_the_default(repo: Repo) -> None:
    listed = repo.json("runtime", "list", at=repo.top)
    assert [each["name"] for each in listed["presets"]][:3] == ["claude", "codex", "cursor"]
    assert "default_runtime" not in listed
    file = Path(repo.env["HOME"], ".thrum/runtimes.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        '{\n  "custom_runtimes": {"mine": {"command": "mytool --yolo", "instructions_file": "MINE.md"}}\n}\n'
    )
    assert repo.thrum("runtime", "set-default", "mine") == "✓ Default runtime set to: mine\n"
    assert json.loads(file.read_text())["custom_runtimes"]["mine"]["command"] == "mytool --yolo"
    listed = repo.json("runtime", "list")
    assert (listed["presets"][-1]["name"], listed["default_runtime"]) == ("mine", "mine")
    assert "mine (default)" in repo.thrum("runtime", "list")
    shown = repo.json("runtime", "show", "mine")
    assert shown == {
        "name": "mine",
        "display_name": "mine",
        "command": "mytool --yolo",
        "mcp_supported": False,
        "hooks_supported": False,
        "instructions_file": "MINE.md",
        "mcp_config_path": "",
        "setup_notes": "your own: ~/.thrum/runtimes.json",
    }
    assert "Command:      mytool --yolo" in repo.thrum("runtime", "show", "mine")
    assert repo.json("runtime", "set-default", "codex") == {"default_runtime": "codex"}
    refused = repo.run("runtime", "show", "clude", "--json")
    assert (refused.kind, refused.json["error"]["remedy"]) == ("runtime_not_found", "did you mean claude?")
    file.write_text("{")
    assert repo.run("runtime", "set-default", "codex", "--json").kind == "config_invalid"
    assert file.read_text() == "{"
    assert "warning: not read: runtimes.json" in repo.run("runtime", "list").err


def test_init_writes_the_hooks_of_a_runtime_or_refuses_before_it_makes_anything(repo: Repo) -> None:
    repo.thrum("uninstall", "--yes")
    settings = repo.main / LOCAL
    settings.parent.mkdir()
    settings.write_text("{")
    assert repo.run("init", "--runtime", "claude", "--json").kind == "config_invalid"
    assert not (repo.main / ".thrum").exists()
    settings.write_text("{}")
    line = f"{LOCAL}       undo: thrum hook uninstall claude"
    assert f"  change  {line}" in repo.thrum("init", "--runtime", "claude", "--dry-run")
    assert settings.read_text() == "{}"
    assert f"  changed  {line}" in repo.thrum("init", "--runtime", "claude")
    assert "UserPromptSubmit" in settings.read_text()
    again = [each for each in repo.json("init", "--runtime", "claude")["files"] if each.get("template") == "hooks"]
    assert again == [
        {
            "path": LOCAL,
            "action": "noop",
            "undo": "thrum hook uninstall claude",
            "runtime": "claude",
            "template": "hooks",
        }
    ]
    asked = repo.json("init", "--runtime", "codex")["files"][-1]
    assert (asked["action"], asked["path"]) == ("skip", "~/.codex/hooks.json")
    assert asked["skip_reason"].endswith("thrum hook install codex")
    assert not Path(repo.env["HOME"], ".codex").exists()
    repo.thrum("uninstall", "--yes")
    assert settings.read_text() == "{}"


def test_init_writes_the_skill_and_keeps_another_one(repo: Repo) -> None:
    skill = repo.main / ".claude/skills/thrum/SKILL.md"
    assert "created  .claude/skills/thrum/SKILL.md" in repo.thrum("init", "--skills")
    assert skill.read_text().startswith("---\nname: thrum\n")
    assert repo.git("status", "--short") == ""
    assert "SKILL.md" not in repo.thrum("init", "--skills")
    skill.write_text("mine")
    assert "another file is there: --force replaces it" in repo.thrum("init", "--skills")
    assert skill.read_text() == "mine"
    assert "rewritten  .claude/skills/thrum/SKILL.md" in repo.thrum("init", "--skills", "--force")
    assert skill.read_text() != "mine"
    repo.thrum("init", "--skills", "--runtime", "codex")
    assert (repo.main / ".agents/skills/thrum/SKILL.md").exists()
    repo.thrum("hook", "install", "claude")
    repo.thrum("uninstall", "--yes")
    assert skill.read_text() == "mine"
    assert not (repo.main / ".agents").exists() and not (repo.main / LOCAL).exists()


def test_all_that_was_made_for_a_runtime_goes_with_thrum(repo: Repo) -> None:
    repo.thrum("init", "--runtime", "claude")
    repo.thrum("init", "--skills")
    repo.thrum("uninstall", "--yes")
    assert not (repo.main / ".claude").exists()
    assert ".claude" not in (repo.main / ".git/info/exclude").read_text()


def test_the_block_for_a_projects_instructions(repo: Repo) -> None:
    printed = repo.json("setup", "claude-md")
    assert printed["action"] == "printed"
    assert printed["content"] == repo.thrum("setup", "claude-md")
    (repo.main / "CLAUDE.md").write_text("# Mine\n")
    assert repo.thrum("setup", "claude-md", "--apply") == "✓ Appended to CLAUDE.md\n"
    assert (repo.main / "CLAUDE.md").read_text() == f"# Mine\n\n{printed['content']}"
    refused = repo.run("setup", "claude-md", "--apply", "--json")
    assert refused.kind == "block_exists"
    assert refused.json["error"]["remedy"] == "thrum setup claude-md --apply --json --force"
    assert repo.thrum("setup", "claude-md", "--apply", "--force") == "✓ Replaced the block in CLAUDE.md\n"
    made = repo.json("setup", "claude-md", "--apply", "--runtime", "codex")
    assert made == {"path": str(repo.main / "AGENTS.md"), "action": "created"}
    (repo.main / "AGENTS.md").unlink()
    (repo.main / "AGENTS.md").symlink_to("CLAUDE.md")
    assert repo.run("setup", "claude-md", "--apply", "--runtime", "codex", "--json").kind == "file_unreadable"
    assert repo.run("setup", "claude-md", "--runtime", "gemini", "--json").kind == "not_available"
    kept = repo.json("uninstall", "--yes")["kept"]
    assert f"{repo.main}/CLAUDE.md: the block between the markers may be removed" in kept
