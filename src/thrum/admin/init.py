"""Setting a repository up: what `thrum init` does (cli.md 3.1, identity.md §3). No daemon runs meanwhile.

First everything is checked, then it is created; the marks that make a directory a root come last. So a refused or
failed `init` leaves no partial state behind, and the next one adds what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from thrum.admin import git_permissions
from thrum.admin._foreign_state import is_foreign, keep, move_away, quarantined
from thrum.admin._ignore_rule import IGNORE_RULE, add_ignore_rule, is_ignored
from thrum.admin.worktree_setup import check_writable, kept_state
from thrum.identity.daemon_id import Bootstrapped, DaemonIdentity, bootstrap
from thrum.model import config, files, ids, settings, trust
from thrum.model.broken_git import check_git_above
from thrum.model.clock import Clock, SystemClock
from thrum.model.dot_git import find_git, main_worktree
from thrum.model.errors import NotARepository, StateTracked, StoreFailed, UsageError, in_shell
from thrum.model.files import atomic_write, ensure_private_dir
from thrum.model.guards import Refusal, refusal_error
from thrum.model.methods.agents import RegisterResult
from thrum.model.notes import FIRST_PROJECT_STATE
from thrum.model.paths import (
    Layout,
    check_leads,
    check_rightful,
    counts,
    find_layout,
    is_tracked,
    keep_of,
    layout_of,
    link_state,
    tracked_in,
)
from thrum.sync import branch
from thrum.sync.mirror_refspecs import meetings

_CHOICES = {True: b"local only\n", False: b"on\n"}


@dataclass(frozen=True, slots=True)
class InitOptions:
    """The words of `thrum init`."""

    hostname: str
    """Recorded as this daemon's: `THRUM_HOSTNAME`, else the system's."""
    environ: Mapping[str, str]
    """For git processes."""
    force: bool = False
    """Outside a git repository too."""
    dry_run: bool = False
    sync: bool = False
    """Turn synchronising on: `daemon.local_only` becomes false."""
    gitignore: bool = False
    """The ignore rule goes to `.gitignore`, which is tracked, instead of `.git/info/exclude`."""
    runtime: str = ""
    worktrees_root: str = ""
    keep_modes: bool = False
    """Leave the mode of the git directory, though others can read messages through it (`admin.git_permissions`)."""
    keep: bool = False
    """Let a `.thrum` that lies there count as it is: a repository that was moved before there were marks."""


class InitFile(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One thing that `init` touches. `path` is relative to the repository where it lies in it."""

    path: str
    action: Literal["create", "overwrite", "merge", "noop", "skip"]
    undo: str = ""
    runtime: str = ""
    template: str = ""
    skipped: bool = False
    skip_reason: str = ""


class InitResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`Init` of cli.md §4. In a dry run an id that is not yet made is empty."""

    repo_path: str
    thrum_dir: str
    repo_id: str
    daemon_id: str
    already_initialized: bool
    dry_run: bool
    runtime: str = ""
    detected: bool
    files: list[InitFile]
    redirect: str = ""
    register: RegisterResult | None = None
    """Filled by the command line when it ends with a quickstart."""
    sync_recalled: bool = False
    """Synchronising is on in new settings because it was on in this clone before."""
    notes: list[str] = []
    """Where git's own commands and thrum's branch meet, and how to keep them apart."""
    moved: list[str] = []
    """What lay in the place of a `.thrum` and is none of thrum's making, by the name that it has now."""
    tracked: list[str] = []
    """What git tracks at or below `.thrum`: nothing is written there."""


@dataclass(frozen=True, slots=True)
class _Site:
    """What there is, before anything is touched."""

    layout: Layout
    linked: bool
    """The root's state lies elsewhere: it gets a redirect."""
    ignore_file: Path | None
    found: tuple[Path, ...] = ()
    """What lies in the place of a `.thrum` and does not count: it is moved away, unread."""


def initialise(start: Path, options: InitOptions, clock: Clock | None = None) -> InitResult:
    """Set up the repository that `start` lies in; what is there already stays as it is.

    Messages, daemon id and foreign settings are never touched. Raises NotARepository, UnsafeRepository, NotAvailable,
    BadRedirect, ConfigInvalid, StoreFailed (nowhere to write), UsageError (a bad `worktrees_root`).
    """
    site = _survey(start, options)
    layout = site.layout
    _check_worktrees_root(options.worktrees_root, layout)
    read = config.load_config(layout.config_file)
    listed, already = _plan(site, options)
    sync_recalled = not options.sync and not already and recalled_choice(layout) is False
    clock = clock or SystemClock()
    now_ms = clock.now_ms()
    door = git_permissions.find_access_path(layout, options.environ)
    identity = None if options.dry_run else _execute(site, options, clock, now_ms)
    failed = "" if options.dry_run or door is None else git_permissions.close(layout, door, keep=options.keep_modes)
    if told := git_permissions.planned(layout, door, keep=options.keep_modes, failed=failed):
        skipped = told.action == "skip"
        listed.append(InitFile(**msgspec.structs.asdict(told), skipped=skipped))
    known = _block(read.raw, "identity")
    return InitResult(
        repo_path=str(layout.root),
        thrum_dir=str(layout.state_dir),
        repo_id=identity.repo_id if identity else str(known.get("repo_id", "")),
        daemon_id=identity.daemon_id if identity else str(known.get("daemon_id", "")),
        already_initialized=already,
        dry_run=options.dry_run,
        runtime=options.runtime or read[settings.PRIMARY_RUNTIME],
        detected=False,
        files=listed,
        redirect=str(layout.state_dir) if site.linked else "",
        sync_recalled=sync_recalled,
        notes=_notes(layout, options.environ),
        moved=[str(at) for own in site.found if os.path.lexists(at := quarantined(own, now_ms)) or options.dry_run],
        tracked=tracked_in(layout.root),
    )


def _notes(layout: Layout, environ: Mapping[str, str]) -> list[str]:
    found = [] if layout.common_dir is None else meetings(layout.common_dir, environ)
    return [f"{met}; to keep them apart: {met.remedy}" for met in found]


def _block(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: Any = raw.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def remember_choice(layout: Layout, local_only: bool) -> None:
    """Keep in the git directory whether this clone syncs: `git clean -fdx` takes the settings. Raises StoreFailed."""
    if layout.common_dir is None:
        return
    path = _choice_file(layout)
    try:
        ensure_private_dir(path.parent)
        branch.write_if_other(path, _CHOICES[local_only], 0o600)
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error


def recalled_choice(layout: Layout) -> bool | None:
    """`daemon.local_only` as it was last decided in this clone; None if it never was."""
    try:
        kept = _choice_file(layout).read_bytes()
    except OSError:
        return None
    return next((local_only for local_only, text in _CHOICES.items() if text == kept), None)


def _choice_file(layout: Layout) -> Path:
    return layout.thrum_sync_dir / "sync-choice"


def bootstrap_identity(layout: Layout, hostname: str, environ: Mapping[str, str], clock: Clock) -> Bootstrapped:
    """This repository's daemon identity, made if there is none, and lines for the log (identity.md §13).

    What the settings say about sync is kept beside it.
    """
    chosen: Any = _block(config.read_raw(layout.config_file), "daemon").get("local_only")
    if isinstance(chosen, bool):
        with contextlib.suppress(StoreFailed):
            remember_choice(layout, chosen)
    ulids = ids.Ulids()
    now_ms = clock.now_ms()
    origin = "" if layout.common_dir is None else branch.origin_url(layout.common_dir, environ)
    before = config.read_raw(layout.config_file)
    done = bootstrap(layout, new_ulid=lambda: ulids.at(now_ms), now_ms=now_ms, hostname=hostname, origin_url=origin)
    known = config.read_raw(layout.config_file).get("identity")
    try:
        with files.locked(layout.config_lock):
            config.follow(layout, before, lambda raw: raw.update(identity=known))
    except OSError as error:
        name = error.filename or layout.config_copy
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
    return done


# -- looking


def _survey(start: Path, options: InitOptions) -> _Site:
    """Root, state directory and git of `start`, or the reason why there can be none."""
    if not start.is_dir():
        raise NotARepository(f"no such directory: {start}", remedy="correct the path")
    if not options.keep or os.path.lexists(start / ".thrum" / "redirect"):
        check_git_above(start)
    git = find_git(start)
    if git is None:
        if not options.force:
            raise refusal_error(Refusal("non_git_bootstrap", "not_a_git_repo"), caller_cwd=str(start))
        root = Path(os.path.realpath(start))
        if options.keep and not options.dry_run:
            keep(root, None)
        found = (root / ".thrum",) if is_foreign(root) else ()
        return _Site(layout_of(root, root / ".thrum"), linked=False, ignore_file=None, found=found)
    check_leads(git)
    if git.bare:
        raise NotARepository(
            f"not a git worktree: {git.root} is a bare repository",
            remedy="git worktree add PATH, then cd there and run: thrum init",
        )
    root, main = git.root, main_worktree(git) if git.linked else git.root
    if git.linked and main is not None and root == git.common_dir / "thrum-sync" / branch.BRANCH:
        root = main
    branch.verify_owner(root, git.common_dir, options.environ)
    check_rightful(root)
    if options.keep and not options.dry_run:
        keep(root, git.common_dir)
    found = tuple(at / ".thrum" for at in dict.fromkeys((root, main or root)) if is_foreign(at))
    state_dir = _state_dir(root, main, git.common_dir, found)
    layout = layout_of(root, state_dir)
    for directory in (root, layout.main_root, layout.thrum_sync_dir.parent):
        check_writable(directory)
    ignore_file = root / ".gitignore" if options.gitignore else git.common_dir / "info" / "exclude"
    linked = state_dir != root / ".thrum"
    for path in (state_dir / trust.MARK, *((root / ".thrum" / "redirect",) if linked else ())):
        if is_tracked(path):
            raise StateTracked(f"this branch tracks {path}: nothing is written there")
    return _Site(layout, linked=linked, ignore_file=ignore_file, found=found)


def _state_dir(root: Path, main: Path | None, common_dir: Path, found: tuple[Path, ...]) -> Path:
    """Where the state of `root` lies or shall lie. `main` is None in a worktree of a bare repository."""
    own = root / ".thrum"
    if own not in found and os.path.lexists(own / "redirect"):
        return find_layout(root).state_dir
    if root == main or (own not in found and files.is_file(own / "config.json")):
        return own
    if main is not None:
        redirected = main / ".thrum" not in found and os.path.lexists(main / ".thrum" / "redirect")
        return find_layout(main).state_dir if redirected else main / ".thrum"
    return kept_state(common_dir) or own


def _check_worktrees_root(text: str, layout: Layout) -> None:
    if not text:
        return
    if not os.path.isabs(text):
        raise UsageError(f"--worktrees-root must be an absolute path: {text}", remedy="give an absolute path")
    if Path(os.path.realpath(text)).is_relative_to(layout.main_root):
        raise UsageError(
            f"--worktrees-root must lie outside the repository: {text}", remedy=f"e.g. {layout.main_root}-worktrees"
        )


# -- planning


def _plan(site: _Site, options: InitOptions) -> tuple[list[InitFile], bool]:
    """What will be touched, in the order in which it is shown, and whether the repository was initialised before."""
    layout, ignore_file = site.layout, site.ignore_file
    found = branch.branch_state(layout, options.environ)
    state, sync_dir, folder = (
        _shown(layout, path) for path in (layout.state_dir, layout.thrum_sync_dir, layout.branch_dir)
    )
    already = layout.state_dir not in site.found and counts(layout.main_root)
    whole = already and files.is_file(_state_file(layout)) and files.is_directory(layout.var_dir)
    listed = [
        InitFile(
            path=f"{state}/",
            action="noop" if whole else "merge" if already else "create",
            undo=f"thrum daemon stop; rm -r {in_shell(state)}",
        )
    ]
    if layout.common_dir is not None:
        there = not found.worktree_made and (layout.branch_dir / "messages").is_dir()
        undo = f"git worktree remove -f -f {in_shell(folder)}; rm -r {in_shell(sync_dir)}"
        listed.append(InitFile(path=f"{folder}/", action="noop" if there else "create", undo=undo))
        there = found.branch == "there"
        undo = f"git branch -D {branch.BRANCH}"
        listed.append(InitFile(path=f"branch {branch.BRANCH}", action="noop" if there else "create", undo=undo))
    if ignore_file is not None:
        action = "noop" if is_ignored(ignore_file) else "merge" if ignore_file.exists() else "create"
        undo = f"remove the line {IGNORE_RULE}"
        listed.append(InitFile(path=_shown(layout, ignore_file), action=action, undo=undo))
    listed += _planned_settings(layout, options, already=already)
    if site.linked:
        own = layout.root / ".thrum"
        there = own not in site.found and os.path.lexists(own / "redirect") and layout.identities_dir.is_dir()
        listed.append(InitFile(path=".thrum/redirect", action="noop" if there else "create", undo="rm -r .thrum"))
        already = already and there
    return listed, already


def _planned_settings(layout: Layout, options: InitOptions, *, already: bool) -> list[InitFile]:
    """The settings that are changed: what the words say and the settings do not, yet."""
    raw = config.read_raw(layout.config_file)
    wanted: dict[str, Any] = {"daemon.local_only": False} if options.sync and already else {}
    wanted |= _worded(options)
    listed: list[InitFile] = []
    for key, value in wanted.items():
        known = settings.setting_value(raw, key)
        if known.value != value:
            was = f"set {key} {settings.setting_text(known.value)}" if known.source != "default" else f"unset {key}"
            text = f"setting {key} = {settings.setting_text(value)}"
            listed.append(InitFile(path=text, action="merge", undo=f"thrum config {was}"))
    return listed


def _worded(options: InitOptions) -> dict[str, Any]:
    """What the words of `init` set, by key."""
    root = os.path.realpath(options.worktrees_root) if options.worktrees_root else ""
    found = {"runtime.primary": options.runtime, "worktrees.base_path": root}
    return {key: value for key, value in found.items() if value}


def _shown(layout: Layout, path: Path) -> str:
    return str(path.relative_to(layout.root)) if path.is_relative_to(layout.root) else str(path)


def _state_file(layout: Layout) -> Path:
    return layout.state_dir / "context" / "project_state.md"


# -- doing


def _execute(site: _Site, options: InitOptions, clock: Clock, now_ms: int) -> DaemonIdentity:
    """Make what is missing; each step writes nothing if there is nothing to do."""
    layout = site.layout
    with _undone_on_failure(site):
        branch.ensure_branch(layout, options.environ)
        if site.ignore_file is not None and not is_ignored(site.ignore_file):
            add_ignore_rule(site.ignore_file)
        with _alone(layout):
            for own in site.found:
                if is_foreign(own.parent):
                    move_away(own, now_ms)
            _make_state_dir(layout)
        identity = bootstrap_identity(layout, options.hostname, options.environ, clock).identity
        _store_settings(layout, options)
        if site.linked:
            # Last of all: without its target it would be a bad redirect.
            link_state(layout.root, layout.state_dir)
    return identity


@contextlib.contextmanager
def _alone(layout: Layout) -> Generator[None]:
    """One at a time: what another one has begun is not yet marked, and would be taken for something found."""
    if layout.common_dir is None:
        yield
        return
    with files.locked(layout.thrum_sync_dir / "setup.lock"):
        yield


def _make_state_dir(layout: Layout) -> None:
    ensure_private_dir(layout.state_dir)
    trust.write_marks(layout.state_dir, keep_of(layout.main_root))
    ensure_private_dir(layout.var_dir)
    ensure_private_dir(layout.state_dir / "context")
    if files.status(_state_file(layout)) is None and not is_tracked(_state_file(layout)):
        atomic_write(_state_file(layout), FIRST_PROJECT_STATE.encode())
    ensure_private_dir(layout.state_dir / "identities")


def _store_settings(layout: Layout, options: InitOptions) -> None:
    recalled = recalled_choice(layout)

    def change(values: dict[str, Any]) -> None:
        if options.sync:
            settings.set_value(values, "daemon.local_only", False)
        elif "local_only" not in (values.get("daemon") or {}):
            settings.set_value(values, "daemon.local_only", recalled is not False)
        for key, value in _worded(options).items():
            settings.set_value(values, key, value)

    config.update_settings(layout, change)
    remember_choice(layout, config.load_config(layout.config_file)[settings.LOCAL_ONLY])


@contextlib.contextmanager
def _undone_on_failure(site: _Site) -> Generator[None]:
    """Take away state directories that this call began and could not finish; turn OSError into StoreFailed."""
    begun = [path for path in (site.layout.state_dir, site.layout.root / ".thrum") if not path.exists()]
    try:
        yield
    except BaseException as error:
        for path in begun:
            # With a config.json it is whole, maybe another init's.
            if not files.is_file(path / "config.json"):
                shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            name = error.filename or site.layout.state_dir
            raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error
        raise
