"""Settings of the repository (`config.*`)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Params
from thrum.model.settings import is_guarded
from thrum.model.wire_types import SettingChange, SettingValue


def _of_setting(params: ConfigKeyParams | ConfigSetParams) -> Access:
    return Access.NOT_AN_AGENT if is_guarded(params.key) else Access.OPERATOR


class ConfigKeyParams(Params, kw_only=True):
    key: str


class ConfigSetParams(Params, kw_only=True):
    key: str
    value: Any


class ConfigValueResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    key: str
    value: Any
    source: str
    restart_needed: bool = False


CONFIG_GET: Final = Method(
    name="config.get", params=ConfigKeyParams, result=ConfigValueResult, access=Access.ANONYMOUS, transports="U"
)
CONFIG_SET: Final = Method(
    name="config.set",
    params=ConfigSetParams,
    result=ConfigValueResult,
    access=Access.OPERATOR,
    transports="U",
    level_of=_of_setting,
)
CONFIG_UNSET: Final = Method(
    name="config.unset",
    params=ConfigKeyParams,
    result=ConfigValueResult,
    access=Access.OPERATOR,
    transports="U",
    level_of=_of_setting,
)


class ConfigChangesResult(msgspec.Struct, kw_only=True):
    """What was changed in the settings outside thrum."""

    changed: tuple[SettingChange, ...] = ()


CONFIG_DIFF: Final = Method(
    name="config.diff", params=Empty, result=ConfigChangesResult, access=Access.ANONYMOUS, transports="U"
)
# Class Na where a key of it is guarded (rpc.md §3): the operation asks, it knows the keys.
CONFIG_ACCEPT: Final = Method(
    name="config.accept", params=Empty, result=ConfigChangesResult, access=Access.OPERATOR, transports="U"
)


class ConfigShowResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`V` of cli.md: `{value, source}`."""

    config_file: str
    runtime: dict[str, Any]
    daemon: dict[str, Any]
    identity: dict[str, str] = {}
    overrides: tuple[dict[str, str], ...] = ()
    values: dict[str, SettingValue]


CONFIG_SHOW: Final = Method(
    name="config.show", params=Empty, result=ConfigShowResult, access=Access.ANONYMOUS, transports="U"
)
