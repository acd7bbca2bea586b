"""All methods, by name. Importing this imports every family: the tests do, the daemon's parts import theirs."""

from __future__ import annotations

from typing import Final, cast

from thrum.model.methods import (
    admin,
    agents,
    daemon,
    groups,
    messages,
    notes,
    sessions,
    settings,
    sync,
    terminals,
    users,
    wake,
    worktrees,
)
from thrum.model.methods.method import AnyMethod, Method

_FAMILIES: Final = (
    daemon,
    agents,
    sessions,
    messages,
    users,
    groups,
    notes,
    sync,
    settings,
    admin,
    wake,
    worktrees,
    terminals,
)

METHODS: Final[dict[str, AnyMethod]] = {
    cast("AnyMethod", value).name: cast("AnyMethod", value)
    for family in _FAMILIES
    for value in vars(family).values()
    if isinstance(value, Method)
}
