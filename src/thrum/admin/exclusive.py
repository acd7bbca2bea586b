"""Being the only process that may touch the journals while no daemon runs, and knowing which daemon owns them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, cast

from thrum.admin.init import bootstrap_identity
from thrum.admin.leftovers import remove_leftovers
from thrum.model import config, files, settings
from thrum.model.clock import SystemClock
from thrum.model.errors import DaemonLocked
from thrum.model.log import open_log
from thrum.model.paths import Layout
from thrum.store.recovery import open_blocking
from thrum.sync import branch
from thrum.version import VERSION

_PATIENCE_SECONDS = 2.0


class Owner(NamedTuple):
    """Whose journals these are. `own`: the daemon's id, its previous ones and `""`; an id of `""`: no daemon's yet."""

    daemon_id: str
    own: frozenset[str]


def owner_of(layout: Layout) -> Owner:
    """As `config.json` says; nothing is written. Raises ConfigInvalid."""
    block: Any = config.read_raw(layout.config_file).get("identity")
    block = cast("dict[str, Any]", block) if isinstance(block, dict) else {}
    daemon_id = block.get("daemon_id")
    previous: Any = block.get("previous_ids")
    found = [daemon_id, *(cast("list[Any]", previous) if isinstance(previous, list) else [])]
    return Owner(
        daemon_id if isinstance(daemon_id, str) else "", frozenset({"", *(id for id in found if isinstance(id, str))})
    )


@contextlib.contextmanager
def hold_lock(layout: Layout) -> Generator[None]:
    """Hold the daemon's lock. Raises DaemonLocked if a daemon has it that is starting, is stopping or does not
    answer."""
    files.ensure_private_dir(layout.thrum_sync_dir)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (descriptor := files.try_lock(layout.lock_file)) is None:
        if time.monotonic() > deadline:
            message = f"a daemon of {layout.main_root} is starting, is stopping or does not answer"
            raise DaemonLocked(message, remedy="repeat the command, or: thrum daemon restart")
        time.sleep(0.01)
    try:
        files.note_holder(descriptor)
        files.ensure_private_dir(layout.var_dir)
        with open_log(layout.log_file):  # the store tells there what it finds, as under a daemon
            yield
    finally:
        os.close(descriptor)


def open_store_once(layout: Layout, hostname: str, environ: Mapping[str, str]) -> None:
    """What a start of the daemon does to branch, journals and projection: fix, catch up, rebuild. The caller
    `held` it.
    """
    remote = config.load_config(layout.config_file)[settings.SYNC_REMOTE]
    branch.ensure_branch(layout, environ, remote=remote)
    clock = SystemClock()
    remove_leftovers(layout, clock.now_ms())
    identity = bootstrap_identity(layout, hostname, environ, clock).identity
    open_blocking(layout, identity.told, identity.own_origins, wall=clock, program=VERSION, boot_id="").close()
