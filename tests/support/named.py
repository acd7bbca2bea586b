"""Methods by name, for tests that call many of them, or some that no program knows."""

from __future__ import annotations

from typing import Any

from thrum.model.methods.method import AnyMethod, Empty, Method
from thrum.model.methods.table import METHODS


def named(name: str) -> AnyMethod:
    """The constant of that name; of an unknown method one whose result is what the JSON says."""
    return METHODS.get(name) or Method(name=name, params=Empty, result=Any)
