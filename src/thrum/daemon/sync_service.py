"""Combining store, git and settings to sync one running daemon, and answering the sync methods.

Nothing here decides what is merged (`sync.round`) or when (`sync.loop`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from thrum.admin import git_permissions, init
from thrum.daemon.sync_store import SyncStore
from thrum.model import events, limits
from thrum.model.clock import format_ms
from thrum.model.config import LiveConfig, sync_override, update_settings
from thrum.model.errors import ConfirmationRequired, InvalidParams, InvalidUrl, NotAvailable, ThrumError
from thrum.model.events import SPECS, MessageReceipt, UnknownEvent
from thrum.model.ids import repo_id_of_url
from thrum.model.methods.method import Empty
from thrum.model.methods.notes import ContextSyncParams, ContextSyncResult
from thrum.model.methods.sync import (
    SyncAcceptParams,
    SyncAcceptResult,
    SyncConfigureParams,
    SyncForceParams,
    SyncForceResult,
    SyncOrigin,
    SyncStatusResult,
)
from thrum.model.paths import Layout
from thrum.model.settings import LOCAL_ONLY, SYNC_DEBOUNCE, SYNC_INTERVAL, SYNC_REMOTE, set_value
from thrum.ops import daemon_acceptance, notes
from thrum.ops.context import Call, Context
from thrum.store.writer import Committed
from thrum.sync import branch, visibility
from thrum.sync.loop import Loop, Mode, Status, SyncRequest
from thrum.sync.ports import ForeignProject, RemoteInfo
from thrum.sync.repository import GitRepository
from thrum.sync.round import Outcome, RoundOrder, sync_round

log: Final = logging.getLogger("thrum.sync")

_ADDRESSES: Final = "addresses"
FAILPOINT: Final = "THRUM_FAILPOINT"
"""`sync:STEP`: the daemon is killed after that step of a round. For the tests of what a kill leaves behind."""


@dataclass(slots=True)
class Settings:
    """What the settings and the environment ask of sync, now."""

    layout: Layout
    live: LiveConfig
    environ: Mapping[str, str]
    local: bool
    """Started with `--local`."""
    remote: RemoteInfo | None = None
    """As it was at the last look."""
    addresses: str = ""
    """Where that fetches from and pushes to: URLs without credentials."""
    _looked_for: str = ""
    """The name that it was looked for under; `""`: not looked up yet."""

    def note_remote(self, repo: GitRepository) -> str:
        """Ask git for the remote: its addresses. Blocks."""
        found = repo.remote()
        urls = [info.url for info in (found, *repo.push_remotes()) if info is not None]
        addresses = " ".join(dict.fromkeys(urls))
        self.remote, self._looked_for, self.addresses = found, repo.remote_name, addresses
        return addresses

    def mode(self) -> Mode:
        """Whether to fetch and push, how often, and why not."""
        config = self.live.current()
        wish = sync_override(self.environ)
        local_only = config[LOCAL_ONLY] if wish is None else not wish
        reason = "sync is off: thrum sync enable" if wish is None else "THRUM_LOCAL is set"
        if self.local:
            local_only, reason = True, "the daemon was started with --local"
        if self.layout.common_dir is None:
            local_only, reason = True, "not a git repository"
        lacks_remote = not local_only and self.remote is None and self._looked_for == config[SYNC_REMOTE]
        if lacks_remote:
            local_only, reason = True, f"there is no remote {config[SYNC_REMOTE]}"
        return Mode(
            local_only=local_only,
            reason=reason if local_only else "",
            lacks_remote=lacks_remote,
            remote=config[SYNC_REMOTE],
            addresses=self.addresses if self._looked_for == config[SYNC_REMOTE] else "",
            interval_seconds=config[SYNC_INTERVAL],
            debounce_seconds=config[SYNC_DEBOUNCE],
        )


@dataclass(slots=True)
class SyncService:
    """The sync of one running daemon: its task, and the methods `sync.*` and `context.sync`."""

    ctx: Context
    journals: SyncStore
    settings: Settings
    publish: Callable[[Status], None]
    loop: Loop = field(init=False)
    _rounds: GitRepository = field(init=False)
    """One for each of those who look at git at the same time: rounds, peeks, methods."""
    _peeks: GitRepository = field(init=False)
    _methods: GitRepository = field(init=False)
    _opened: list[GitRepository] = field(default_factory=list[GitRepository])
    _one_method: trio.Lock = field(default_factory=trio.Lock)
    _one_question: trio.Lock = field(default_factory=trio.Lock)
    _visibility: visibility.Visibility = field(init=False)
    _foreign: frozenset[str] = frozenset()
    """The repository ids of a branch that was refused."""
    _head: str = ""
    _of: str = ""
    """The addresses that `pushed_seq` and the last sync are of."""

    def __post_init__(self) -> None:
        self._visibility = visibility.Visibility(self.settings.layout)
        self._rounds, self._peeks, self._methods = (self._git() for _ in range(3))
        self.loop = Loop(
            mode=self.settings.mode,
            run_round=self._round,
            peek=self._peek,
            tidy=self._tidy,
            interrupt=lambda: self._rounds.stop(),
            now_ms=self.ctx.clock.now_ms,
            on_status=self.publish,
        )
        kept = self.ctx.view.sync_state()
        self.loop.status.last_sync_at_ms = int(kept.get("last_sync_at_ms", "0"))
        self._of = kept.get(_ADDRESSES, "")

    async def serve(self) -> None:
        """Run rounds until cancelled."""
        if self.settings.layout.common_dir is None:
            self.loop.status.state = "local-only"
            await trio.sleep_forever()
        try:
            await self.loop.serve_sync()
        finally:
            for repo in self._opened:
                repo.stop()

    def on_commit(self, committed: Sequence[Committed]) -> None:
        """Facts are on disk: if any of them travels, a round is due."""
        if any(self._travels(entry.fact) for entry in committed):
            self.loop.note_change()

    def _travels(self, fact: events.AnyFact | UnknownEvent) -> bool:
        own = self.ctx.here.own
        if isinstance(fact, UnknownEvent) or fact.origin_daemon not in own:
            return False
        if isinstance(fact, MessageReceipt):
            row = self.ctx.view.message(fact.message_id)
            return row is not None and row.origin_daemon not in own
        return SPECS[type(fact)].shared

    def _git(self, known: GitRepository | None = None) -> GitRepository:
        """Git's side, with the remote that the settings name now; `known` if that still is the one."""
        layout, remote = self.settings.layout, self.settings.live.current()[SYNC_REMOTE]
        if known is not None:
            if known.remote_name == remote:
                return known
            known.close_packs()
        common_dir = layout.common_dir or layout.thrum_sync_dir
        self._opened.append(GitRepository(layout, common_dir, self.settings.environ, remote))
        return self._opened[-1]

    # -- in a worker thread

    def _round(self, request: SyncRequest, outcome: Outcome, is_stopping: Callable[[], bool]) -> None:
        repo = self._rounds = self._git(self._rounds)
        repo.resume()
        self.journals.release_due_facts()
        if not repo.tip():
            branch.ensure_branch(self.settings.layout, self.settings.environ, remote=repo.remote_name)
        addresses = self.settings.note_remote(repo)
        push = request.push and not self.settings.mode().local_only
        if push and not self._visibility.may_push(repo.push_remotes(), repo.who_can_read):
            push, outcome.unconfirmed = False, True
        online = not self.settings.mode().local_only  # that may have taken its time
        # What is known of the branch there is of the remote before.
        fetch = online and (self._is_another_remote(addresses) or request.fetch)
        order = RoundOrder(fetch, push and online, self._who(), self.ctx.clock.now_ms() // 1000)
        steps = sync_round(repo, self.journals, order, outcome)
        try:
            for step in steps:
                if self.settings.environ.get(FAILPOINT) == f"sync:{step}":
                    os.kill(os.getpid(), signal.SIGKILL)
                if is_stopping() or (online and self.settings.mode().local_only):
                    return
        except ForeignProject as refused:
            self._foreign = refused.repo_ids
            raise
        finally:
            steps.close()
            repo.close_packs()
            self._head = repo.tip()
        if online:
            self.journals.remember({"last_sync_at_ms": str(self.ctx.clock.now_ms())})

    def _is_another_remote(self, addresses: str) -> bool:
        """Whether git was set to another one since the last round; then nothing is known of it."""
        if addresses == self._of:
            return False
        self.journals.remember({_ADDRESSES: addresses, "pushed_seq": "0", "last_sync_at_ms": "0"})
        self._of, self.loop.status.last_sync_at_ms = addresses, 0
        return True

    def _peek(self) -> str | None:
        repo = self._peeks = self._git(self._peeks)
        mode = self.settings.mode()
        if not mode.local_only or mode.lacks_remote:
            self.settings.note_remote(repo)
        return repo.tip() if self.settings.mode().local_only else repo.peek()

    def _tidy(self) -> None:
        if self._rounds.needs_maintenance():
            self._rounds.maintain()

    def _who(self) -> str:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = str(os.getuid())
        return f"{name}@{self.ctx.here.hostname}"

    async def _look(self) -> tuple[RemoteInfo, ...]:
        """See what git is set to now, and where is pushed to."""

        def look() -> tuple[RemoteInfo, ...]:
            repo = self._methods = self._git(self._methods)
            self._head = repo.tip()
            self.settings.note_remote(repo)
            return repo.push_remotes()

        async with self._one_method:
            return await trio.to_thread.run_sync(look)

    # -- methods

    async def status(self, _call: Call, _params: Empty) -> SyncStatusResult:
        """What is true of the sync now."""
        if self.settings.layout.common_dir is not None:
            await self._look()
        return msgspec.structs.replace(self._status(), exposed=await trio.to_thread.run_sync(self._exposed))

    def _exposed(self) -> tuple[str, ...]:
        try:
            return tuple(str(each) for each in git_permissions.exposures(self.settings.layout, self.settings.environ))
        except OSError as error:
            return (f"not known who can read the messages: {error}",)

    def _status(self) -> SyncStatusResult:
        mode, status, remote = self.settings.mode(), self.loop.status, self.settings.remote
        return SyncStatusResult(
            running=status.state != "stopped",
            last_sync_at=self.last_sync_at,
            last_error="" if mode.local_only or self._is_new_remote else status.last_error,
            remedy="" if mode.local_only or self._is_new_remote else status.remedy,
            sync_state=self.state,
            local_only=mode.local_only,
            local_only_reason=mode.reason,
            pending=self._pending(mode),
            remote=remote.name if remote else "",
            remote_url=remote.url if remote else "",
            head=self._head,
            skipped=tuple(sorted(status.skipped)),
            read_only=self.ctx.view.foreign_format(),
            origins=self._origins(),
        )

    def _origins(self) -> tuple[SyncOrigin, ...]:
        """Looks at the number of every fact: reported on request, not published."""
        view = self.ctx.view
        found = [
            SyncOrigin(
                daemon_id=row.daemon_id,
                hostname=row.hostname,
                hidden=row.hidden,
                not_yours=row.not_yours,
                waiting=row.strange,
                was=tuple(sorted(view.keyless_ids_of(row.daemon_id) - view.succeeded_by(row.daemon_id))),
            )
            for row in view.trusted_of()
        ]
        return tuple(each for each in found if each.hidden or each.not_yours or each.waiting or each.was)

    async def accept(self, call: Call, params: SyncAcceptParams) -> SyncAcceptResult:
        """Take another daemon, or the branch that was refused, for what a person says that it is."""
        log.warning("accepted by %s: %s", call.caller.agent_id or "an unknown caller", params)
        said = await daemon_acceptance.accept(self.ctx, params, self._foreign)
        self._foreign = frozenset()
        self.loop.poke()
        return said

    @property
    def _is_new_remote(self) -> bool:
        """Whether no round has met the remote that git is set to."""
        return self.settings.remote is not None and self.settings.addresses != self._of

    @property
    def last_sync_at(self) -> str:
        """When a round with the remote last ended well; `""`: never."""
        ms = 0 if self._is_new_remote else self.loop.status.last_sync_at_ms
        return format_ms(ms) if ms else ""

    @property
    def state(self) -> str:
        """`sync_state` of rpc.md."""
        state = self.loop.status.state
        if self.settings.mode().local_only and state != "stopped":
            return "local-only"
        known = state in ("stopped", "syncing") or not self._is_new_remote
        return state if known and state != "local-only" else "idle"

    def _pending(self, mode: Mode) -> int:
        view = self.ctx.view
        if self._is_new_remote and not mode.local_only:
            return view.unpushed(0)
        kept = view.sync_state()
        return view.unpushed(int(kept.get("committed_seq" if mode.local_only else "pushed_seq", "0")))

    async def force(self, _call: Call, params: SyncForceParams) -> SyncForceResult:
        """A round now. Local only: it commits, and says so."""
        if not 0 <= params.wait_ms <= limits.sync_wait_max_ms:
            raise InvalidParams(f"wait_ms must be 0 to {limits.sync_wait_max_ms}", remedy="wait again", field="wait_ms")
        report = None
        if self.settings.layout.common_dir is not None:
            await self._look()  # the round that follows is one with the remote as it is now
            self._visibility.forget(private=False)
            report = await self.loop.force(params.wait_ms / 1000)
        now = self._status()
        waited = params.wait_ms > 0
        late = waited and report is None and self.settings.layout.common_dir is not None
        return SyncForceResult(
            triggered=True,
            last_sync_at=now.last_sync_at,
            sync_state=now.sync_state,
            local_only=now.local_only,
            local_only_reason=now.local_only_reason,
            result=(report.result if report else "error" if late else "nothing_to_do") if waited else None,
            received=(report.received if report else 0) if waited else None,
            sent=(report.sent if report else 0) if waited else None,
            late=late,
            last_error="no sync round ended in that time" if late else now.last_error if waited else "",
            remedy="thrum sync status" if late else now.remedy if waited else "",
        )

    async def compare(self) -> str:
        """A round with the remote before a name is taken, so that it is known who has it elsewhere. Why that is not
        known, as far as it matters: `""` also where nothing is synced.
        """
        if self.settings.layout.common_dir is None or self.settings.mode().local_only:
            return ""
        await self._look()
        if self.settings.mode().local_only:
            return ""
        report = await self.loop.force(limits.compare_names_seconds)
        if report is None:
            return f"no answer within {limits.compare_names_seconds:g} s"
        return self.loop.status.last_error if report.result == "error" else ""

    async def configure(self, _call: Call, params: SyncConfigureParams) -> SyncStatusResult:
        """Turn remote sync on or off, at once. Raises ConfirmationRequired when others may read the remote."""
        layout = self.settings.layout
        if layout.common_dir is None:
            raise NotAvailable("there is nothing to sync with outside a git repository", remedy="git init")
        remotes = await self._look()
        if params.enabled:
            async with self._one_question:
                self._visibility.forget(private=True)
                await trio.to_thread.run_sync(self._confirm, remotes, params.confirm_public)

        def write() -> None:
            update_settings(layout, lambda raw: set_value(raw, "daemon.local_only", not params.enabled))
            init.remember_choice(layout, not params.enabled)

        await trio.to_thread.run_sync(write)
        if not params.enabled and self.settings.mode().local_only:
            self._rounds.cut()  # a round under way must not push any more
        self.loop.poke()
        return self._status()

    async def repo_ids(self) -> set[str]:
        """The repository ids that clones know this one by: of the remotes as git has them now, and of its own path."""
        root = self.settings.layout.main_root
        found = {repo_id_of_url(str(root), root)}
        with contextlib.suppress(ThrumError):  # a round says what is wrong with git
            for info in await self._look() if self.settings.layout.common_dir is not None else ():
                with contextlib.suppress(InvalidUrl):
                    found.add(repo_id_of_url(info.url, root))
        return found

    def _confirm(self, remotes: Sequence[RemoteInfo], confirmed: bool) -> None:
        asked = self._visibility.unconfirmed(remotes, self._methods.who_can_read)
        if asked and not confirmed:
            who = {"public": "can be read by anyone", "unknown": "does not say who can read it"}
            named = [f"{info.name} ({info.url}) {who[readers]}" for info, readers in asked]
            raise ConfirmationRequired(
                f"the remote {' and '.join(named)}: what agents write to each other would be readable there",
                remedy="to push anyway: thrum sync enable --yes",
                readers="public" if any(readers == "public" for _, readers in asked) else "unknown",
                url=" ".join(info.url for info, _ in asked),
            )
        for info, _ in asked:
            visibility.confirm(self.settings.layout, info.url)

    async def sync_context(self, call: Call, params: ContextSyncParams) -> ContextSyncResult:
        """Put an agent's notes on the branch, if there are any, and sync."""
        name = params.agent_name
        published = await notes.publish(self.ctx, call, name)
        report = await self.loop.force(limits.sync_wait_max_ms / 2000)
        now = self._status()
        pushed = not now.local_only and report is not None and report.result != "error" and not now.last_error
        where = "" if pushed else " locally"
        what = f"Context synced{where} for {name}" if published else f"{name} has no notes; the rest is synced{where}"
        message = f"{what}."
        if not pushed:
            off = "no remote" if self.settings.remote is None else "sync is off"
            why = off if now.local_only else f"not pushed yet: {now.last_error or 'the round is still running'}"
            message = f"{what} ({why})."
        return ContextSyncResult(agent_name=name, synced=published, pushed=pushed, commit=self._head, message=message)
