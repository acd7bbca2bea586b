"""Session notes and preambles of agents (`context.*`)."""

from __future__ import annotations

from typing import Final

import msgspec

from thrum.model.methods.method import Access, Method, Mutating, Params


class ContextShowParams(Params, kw_only=True):
    agent_name: str
    include_preamble: bool = True
    repo_path: str = ""


class ContextShowResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_name: str
    content: str
    has_context: bool
    size: int = 0
    updated_at: str = ""
    preamble: str = ""
    has_preamble: bool
    preamble_size: int = 0


CONTEXT_SHOW: Final = Method(
    name="context.show", params=ContextShowParams, result=ContextShowResult, access=Access.ANONYMOUS
)


class ContextSaveParams(Mutating, kw_only=True):
    agent_name: str
    content: str
    repo_path: str = ""


class ContextSaveResult(msgspec.Struct, kw_only=True):
    agent_name: str
    path: str
    size: int
    message: str


CONTEXT_SAVE: Final = Method(name="context.save", params=ContextSaveParams, result=ContextSaveResult)
CONTEXT_PREAMBLE_SAVE: Final = Method(name="context.preamble.save", params=ContextSaveParams, result=ContextSaveResult)


class ContextClearParams(Mutating, kw_only=True):
    agent_name: str
    repo_path: str = ""


class ContextClearResult(msgspec.Struct, kw_only=True):
    agent_name: str
    cleared: bool
    message: str


CONTEXT_CLEAR: Final = Method(name="context.clear", params=ContextClearParams, result=ContextClearResult)


class PreambleShowParams(Params, kw_only=True):
    agent_name: str
    repo_path: str = ""


class PreambleShowResult(msgspec.Struct, kw_only=True):
    agent_name: str
    content: str
    has_preamble: bool


CONTEXT_PREAMBLE_SHOW: Final = Method(
    name="context.preamble.show", params=PreambleShowParams, result=PreambleShowResult, access=Access.ANONYMOUS
)


class ContextSyncParams(Mutating, kw_only=True):
    agent_name: str


class ContextSyncResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`synced`: whether there are notes, which are on the branch now. A round is run in any case."""

    agent_name: str
    synced: bool
    pushed: bool
    commit: str = ""
    message: str


CONTEXT_SYNC: Final = Method(name="context.sync", params=ContextSyncParams, result=ContextSyncResult, long_poll=True)
