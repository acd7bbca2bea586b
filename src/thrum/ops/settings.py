"""`config.*`: settings of the repository, over RPC. Source: rpc.md §5, cli.md 3.19.

The command line does the same on the file itself when no daemon runs, and shows its own environment.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import trio

from thrum.identity.evidence import check_person
from thrum.model import config, config_acceptance, settings
from thrum.model.errors import ConfigInvalid
from thrum.model.log import LOGGER
from thrum.model.methods.method import Access, Empty
from thrum.model.methods.settings import (
    ConfigChangesResult,
    ConfigKeyParams,
    ConfigSetParams,
    ConfigShowResult,
    ConfigValueResult,
)
from thrum.model.wire_types import SettingValue
from thrum.ops.context import Call, Context, evidence_of


async def show(ctx: Context, _call: Call, _params: Empty) -> ConfigShowResult:
    """Every known setting with its source. Raises ConfigInvalid."""
    layout = ctx.here.layout
    raw = await trio.to_thread.run_sync(config.read_raw, layout.config_file)
    values = {
        key: SettingValue(settings.setting_text(found.value), found.source)
        for key, found in settings.all_settings(raw, {}).items()
    }
    primary = values["runtime.primary"]
    return ConfigShowResult(
        config_file=str(layout.config_copy),
        runtime={"primary": primary.value, "source": primary.source},
        daemon={
            "local_only": values["daemon.local_only"],
            "ws_port": values["daemon.ws_port"],
            "status": "running",
            "pid": os.getpid(),
            "socket": str(layout.socket_path),
        },
        values=values,
    )


async def get(ctx: Context, _call: Call, params: ConfigKeyParams) -> ConfigValueResult:
    """One setting. Raises BadConfigKey, ConfigInvalid."""
    raw = await trio.to_thread.run_sync(config.read_raw, ctx.here.layout.config_file)
    found = settings.setting_value(raw, params.key)
    return ConfigValueResult(key=params.key, value=found.value, source=found.source)


async def change(ctx: Context, _call: Call, params: ConfigSetParams) -> ConfigValueResult:
    """Set one setting. Raises BadConfigKey, BadConfigValue, ConfigInvalid, StoreFailed."""
    layout = ctx.here.layout
    write = partial(config.change, layout, params.key, params.value)
    return await _changed(ctx, params.key, write)


async def unset(ctx: Context, _call: Call, params: ConfigKeyParams) -> ConfigValueResult:
    """Let the default count again. Raises BadConfigKey, ConfigInvalid, StoreFailed."""
    layout = ctx.here.layout
    write = partial(config.unset, layout, params.key)
    return await _changed(ctx, params.key, write)


async def diff(ctx: Context, _call: Call, _params: Empty) -> ConfigChangesResult:
    """What was changed outside thrum. Raises ConfigInvalid when the file can't be read."""
    found = await trio.to_thread.run_sync(config_acceptance.look, ctx.here.layout)
    if found.problem:
        raise ConfigInvalid(found.problem)
    return ConfigChangesResult(changed=found.changed)


async def accept(ctx: Context, call: Call, _params: Empty) -> ConfigChangesResult:
    """Let it count. Raises ConfigInvalid, StateTracked, StoreFailed; NotAPerson for an agent where a key is guarded."""
    layout = ctx.here.layout
    found = await trio.to_thread.run_sync(config_acceptance.look, layout)
    if config_acceptance.protects(found.changed):
        check_person(evidence_of(call), ctx.registry(), Access.NOT_AN_AGENT, "config.accept")
    changed = await trio.to_thread.run_sync(config_acceptance.accept, layout, found.changed)
    keys = [each.key for each in changed]
    if "daemon.log_level" in keys:
        counts = await trio.to_thread.run_sync(config.load_config, layout.config_file)
        LOGGER.setLevel(counts[settings.LOG_LEVEL].upper())
    if keys:
        LOGGER.warning("settings accepted", extra={"fields": {"keys": keys}})
    return ConfigChangesResult(changed=changed)


async def _changed(ctx: Context, key: str, write: partial[settings.Value]) -> ConfigValueResult:
    setting = settings.find(key)
    raw = await trio.to_thread.run_sync(config.read_raw, ctx.here.layout.config_file)
    before: Any = settings.setting_value(raw, key).value
    after = await trio.to_thread.run_sync(write)
    if key == "daemon.log_level":
        LOGGER.setLevel(str(after.value).upper())
    if before != after.value:
        LOGGER.info("setting changed", extra={"fields": {"key": key, "value": after.value}})
    return ConfigValueResult(
        key=key,
        value=after.value,
        source=after.source,
        restart_needed=setting.restart and before != after.value,
    )
