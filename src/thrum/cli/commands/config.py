"""config show|get|set|unset|diff|accept: settings, and where each comes from. Source: cli.md §3.19.

Everything works on the file itself. A daemon that runs makes the changes, so that it knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import trio

from thrum.cli.confirm import confirm
from thrum.cli.connect import check_no_agent
from thrum.cli.parser import RUN, switch, word
from thrum.cli.run import Advice, Answer, Run
from thrum.cli.text import line, shorten
from thrum.cli.values import true
from thrum.model import config, config_acceptance, settings
from thrum.model.errors import ConfigInvalid, ThrumError
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.method import Empty, Method, P
from thrum.model.methods.settings import (
    CONFIG_ACCEPT,
    CONFIG_SET,
    CONFIG_UNSET,
    ConfigChangesResult,
    ConfigKeyParams,
    ConfigSetParams,
    ConfigShowResult,
    ConfigValueResult,
)
from thrum.model.wire_types import SettingChange, SettingValue

Key = Annotated[str, word("KEY", "e.g. daemon.log_level")]

SHOWN_VARIABLES = (
    "THRUM_NAME",
    "THRUM_ROLE",
    "THRUM_MODULE",
    "THRUM_DISPLAY",
    "THRUM_HOME",
    "THRUM_AGENT_ID",
    "THRUM_HOSTNAME",
    "THRUM_SOCKET",
    "THRUM_LOCAL",
    "THRUM_WS_PORT",
    "THRUM_NO_HINTS",
    "THRUM_NO_AUTOSTART",
)
"""Variables that change what thrum does (cli.md §1.10). A key is no business of a table."""

HELP = {key: row.help for key, row in settings.SETTINGS.items()}
"""Every key with what it is for."""

HEADINGS = {
    "daemon": "Daemon",
    "sync": "Sync",
    "runtime": "Runtimes",
    "worktrees": "Worktrees",
    "backup": "Backups",
    "restart": "Restart of agents",
    "peers": "Peers",
    "identity_guard": "Guards",
    "permission_supervisors": "Permissions",
    "project_name": "Project",
}
"""What the settings are about, by the first word of their keys; each begins a section of `config show`."""

NOT_BUILT = " (not built yet)"
"""Said of settings that nothing reads yet; they are shown only where somebody set them."""

RESTART = Advice(
    "config.restart-daemon",
    "takes effect when the daemon is restarted: thrum daemon restart",
    options=({"label": "restart the daemon", "cmd": "thrum daemon restart"},),
)


def overrides(run: Run) -> dict[str, Any]:
    """What this command's environment says instead of a setting, by key."""
    env = run.session.env
    found: dict[str, Any] = {}
    if env.get("THRUM_LOCAL"):
        found["daemon.local_only"] = true(env["THRUM_LOCAL"])
    if port := env.get("THRUM_WS_PORT", ""):
        found["daemon.ws_port"] = settings.parse_value("daemon.ws_port", port)
    return found


async def _raw(run: Run) -> dict[str, Any]:
    """The settings that count; what was changed outside thrum is said beside them."""
    if notice := await trio.to_thread.run_sync(config_acceptance.notice, run.layout()):
        run.warnings.append(notice)
    return await trio.to_thread.run_sync(config.read_raw, run.layout().config_file)


# -- looks


async def show(*, run: Annotated[Run, RUN]) -> Answer:
    layout, env = run.layout(), run.session.env
    raw = await _raw(run)
    values = {
        key: SettingValue(settings.setting_text(found.value), found.source)
        for key, found in settings.all_settings(raw, overrides(run)).items()
    }
    primary = values["runtime.primary"]
    result = ConfigShowResult(
        config_file=str(layout.config_copy),
        runtime={"primary": primary.value, "source": primary.source},
        daemon={
            "local_only": values["daemon.local_only"],
            "ws_port": values["daemon.ws_port"],
            **await _daemon(run),
        },
        identity=_identity(run),
        overrides=tuple({"env_var": name, "value": env[name]} for name in SHOWN_VARIABLES if env.get(name)),
        values=values,
    )
    return Answer(result, data=_text(result, run.session.terminal.width), warnings=_unknown(raw))


def _unknown(raw: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"unknown setting {line(key)} in config.json: it is ignored" for key in settings.unknown(raw))


async def _daemon(run: Run) -> dict[str, Any]:
    """Whether it runs. One that does not answer as it should is reported by `daemon status`, not here."""
    from thrum.rpc.sockets import real_path

    try:
        if await run.client_if_running() is None:
            return {"status": "stopped"}
        health = await run.call(HEALTH, Empty())
    except ThrumError as error:
        run.debug(error.message)
        return {"status": "stopped"}
    return {"status": "running", "pid": health.pid, "socket": real_path(run.layout().socket_path)}


def _identity(run: Run) -> dict[str, str]:
    """Who would act here; settings are anybody's to look at."""
    try:
        chosen = run.identity()
    except ThrumError as error:
        run.debug(error.message)
        return {}
    root = run.layout().root
    file = str(chosen.file.relative_to(root)) if chosen.file else ""
    found = {"agent": chosen.agent_id, "role": chosen.role, "module": chosen.module, "file": file}
    return {key: value for key, value in found.items() if value}


def _text(result: ConfigShowResult, width: int) -> str:
    daemon, identity = result.daemon, result.identity
    running = f"running (pid {daemon['pid']})" if daemon["status"] == "running" else "not running"
    lines = [f"Config:    {line(result.config_file)}", f"Daemon:    {running}"]
    if identity:
        lines.append(f"Identity:  @{line(identity['agent'])}")
    lines += [f"Override:  {each['env_var']}={line(each['value'])}" for each in result.overrides]
    keys = max(map(len, result.values))
    shown = {key: line(each.value) or "-" for key, each in result.values.items()}
    cells = max(len("VALUE"), *map(len, shown.values()))
    if width:
        cells = max(len("VALUE"), min(cells, width - keys - len("config.json") - 4))
    lines += ["", f"{'KEY':<{keys}}  {'VALUE':<{cells}}  SOURCE"]
    section = ""
    for key, each in result.values.items():
        built = settings.SETTINGS[key].built
        if each.source == "default" and not built:
            continue
        if key.partition(".")[0] != section:
            section = key.partition(".")[0]
            lines += ["", HEADINGS.get(section, section)]
        lines.append(f"{key:<{keys}}  {shorten(shown[key], cells):<{cells}}  {each.source}{'' if built else NOT_BUILT}")
    return "\n".join(lines)


async def get(key: Key, /, *, run: Annotated[Run, RUN]) -> Answer:
    found = settings.setting_value(await _raw(run), key, overrides(run))
    result = ConfigValueResult(key=key, value=found.value, source=found.source)
    if run.flags.json:
        return Answer(result)
    # Bare, also when it is empty: a script reads it.
    await run.write(line(settings.setting_text(found.value)))
    return Answer(None)


# -- what was changed outside thrum


async def diff(*, run: Annotated[Run, RUN]) -> Answer:
    found = await trio.to_thread.run_sync(config_acceptance.look, run.layout())
    if found.problem:
        raise ConfigInvalid(found.problem, remedy="fix the file, or: thrum doctor --fix")
    result = ConfigChangesResult(changed=found.changed)
    return Answer(result, said="" if found else "Nothing was changed outside thrum.", data=_lines(found.changed))


async def accept(*, yes: Annotated[bool, switch("don't ask")] = False, run: Annotated[Run, RUN]) -> Answer:
    layout = run.layout()
    found = await trio.to_thread.run_sync(config_acceptance.look, layout)
    if not found:
        return Answer(ConfigChangesResult(), said="Nothing was changed outside thrum.")
    if not yes and not found.problem:
        await confirm(run, f"{_lines(found.changed)}\nAccept?", what="the change")
    if await run.client_if_running() is not None:
        result = await run.call(CONFIG_ACCEPT, Empty())
    else:
        if config_acceptance.protects(found.changed):
            await trio.to_thread.run_sync(check_no_agent, run.session.env, layout, "config.accept")
        result = ConfigChangesResult(
            changed=await trio.to_thread.run_sync(config_acceptance.accept, layout, found.changed)
        )
    return Answer(result, said="✓ Settings accepted", data=_lines(result.changed))


def _lines(changed: Sequence[SettingChange]) -> str:
    """`KEY  counts → file`."""
    return "\n".join(f"{line(each.key)}  {_value(each.counts)} → {_value(each.file)}" for each in changed)


def _value(value: Any) -> str:
    return "-" if value is None else line(settings.setting_text(value))


# -- changes


async def set_(
    key: Key,
    value: Annotated[str, word("VALUE", "JSON, or else text")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    meant = settings.parse_value(key, value)
    settings.check_value(key, meant)
    layout = run.layout()
    await _raw(run)
    result = await _change(
        run,
        key,
        CONFIG_SET,
        ConfigSetParams(key=key, value=meant),
        partial(config.change, layout, key, meant),
    )
    return _changed(run, result, f"✓ {key} = {line(settings.setting_text(result.value))}")


async def unset(key: Key, /, *, run: Annotated[Run, RUN]) -> Answer:
    settings.find(key)
    layout = run.layout()
    await _raw(run)
    result = await _change(
        run,
        key,
        CONFIG_UNSET,
        ConfigKeyParams(key=key),
        partial(config.unset, layout, key),
    )
    return _changed(run, result, f"✓ {key} unset")


async def _change(
    run: Run, key: str, method: Method[P, ConfigValueResult], params: P, write: partial[settings.Value]
) -> ConfigValueResult:
    """Let the daemon do it, or do it here when none runs."""
    if await run.client_if_running() is not None:
        return await run.call(method, params)
    if settings.is_guarded(key):
        await trio.to_thread.run_sync(check_no_agent, run.session.env, run.layout(), f"{method.name} {key}")
    after = await trio.to_thread.run_sync(write)
    return ConfigValueResult(key=key, value=after.value, source=after.source)


def _changed(run: Run, result: ConfigValueResult, said: str) -> Answer:
    if not settings.SETTINGS[result.key].built:
        return Answer(result, said=said, warnings=(f"nothing reads {result.key} yet: what uses it is not built",))
    forced = overrides(run)
    warnings = ()
    if result.key in forced:
        warnings = (f"the environment overrides {result.key} here: {settings.setting_text(forced[result.key])}",)
    return Answer(result, said=said, hint=RESTART if result.restart_needed else None, warnings=warnings)
