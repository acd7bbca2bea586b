"""What `init --runtime R` and `init --skills` write beside thrum's own files (cli.md 3.1, 3.20)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thrum.admin.init import InitFile
from thrum.cli.commands.hooks import own_program
from thrum.model.errors import in_shell
from thrum.model.paths import layout_of
from thrum.runtimes import installer, skills
from thrum.runtimes.presets import FALLBACK
from thrum.runtimes.settings_files import HOOKED, scopes_of, settings_file

if TYPE_CHECKING:
    from thrum.admin.init import InitOptions, InitResult


def write(result: InitResult, options: InitOptions, *, only_skills: bool) -> list[InitFile]:
    """Write them, or in a dry run say what would be written; the same refusals come from both. Blocks.

    Raises StateTracked, ConfigInvalid, FileUnreadable, NotAvailable, Busy, StoreFailed.
    """
    if only_skills:
        return [_skill(result, options)]
    return [_hooks(result, options)] if options.runtime in HOOKED else []


def _hooks(result: InitResult, options: InitOptions) -> InitFile:
    runtime, root = options.runtime, Path(result.repo_path)
    scope = scopes_of(runtime)[0]
    file = settings_file(runtime, scope, root if scope != "user" else None, options.environ)
    layout = layout_of(root, Path(result.thrum_dir))
    program = own_program(options.environ)
    is_asked = scope == "user"  # init asks nothing
    done = installer.install(file, program, options.environ, layout, dry_run=options.dry_run or is_asked)
    if is_asked and done.change != "unchanged":
        why = f"it is your own, for all repositories: thrum hook install {runtime}"
        return InitFile(path=file.name, action="skip", runtime=runtime, skipped=True, skip_reason=why)
    return _told(done, f"thrum hook uninstall {runtime}")


def _skill(result: InitResult, options: InitOptions) -> InitFile:
    root = Path(result.repo_path)
    file = skills.skill_file(result.runtime or FALLBACK, root)
    layout = layout_of(root, Path(result.thrum_dir))
    done = skills.install(file, options.environ, layout, force=options.force, dry_run=options.dry_run)
    if done is None:
        why = "another file is there: --force replaces it"
        return InitFile(path=file.name, action="skip", runtime=file.runtime, skipped=True, skip_reason=why)
    return _told(done, f"rm {in_shell(file.name)}", template="skill")


def _told(done: installer.Installed, undo: str, template: str = "hooks") -> InitFile:
    action = "noop" if done.change == "unchanged" else "merge" if done.was_there else "create"
    if template == "skill" and action == "merge":
        action = "overwrite"
    return InitFile(path=done.file.name, action=action, undo=undo, runtime=done.file.runtime, template=template)
