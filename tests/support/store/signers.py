"""Daemons with keys, for tests: what each of them writes is signed, and the same for the same number."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec

from tests.support.here import START_MS
from tests.support.store.factmaker import Maker
from thrum.identity.signing import Signer
from thrum.model import events, signatures
from thrum.model.events import AnyFact, UnknownEvent
from thrum.store.api import Decision

PROJECT = "r_7K2Q1X9M3P0B"


class Daemon(Maker):
    """Makes facts as a `Maker` does, of its own origin and with ids that fit; `line` is what it writes of one."""

    def __init__(self, number: int = 1, ms: int = START_MS) -> None:
        super().__init__(ms)
        self.signer = signer_of(number)
        self.daemon_id = daemon_id_of(number)
        dice = hashlib.sha256(b"dice %d" % number).digest()
        self._ulids = signatures.CertifiedUlids(self.daemon_id, lambda n: dice[:n])

    def __call__(self, cls: type[Any], *, ms: int | None = None, step: int = 1, **fields: Any) -> Any:
        fields.setdefault("origin_daemon", self.daemon_id)
        made = signatures.MADE.get(cls.__struct_config__.tag)
        if made is None:
            return super().__call__(cls, ms=ms, step=step, **fields)
        name, prefix = made
        fact = super().__call__(cls, ms=ms, step=step, **{name: "", **fields})
        if getattr(fact, name):
            return fact
        return msgspec.structs.replace(fact, **{name: prefix + fact.event_id.removeprefix("evt_")})

    def message(self, author: str = "furiosa", *to: str, text: str = "hi", reply: str = "", **fields: Any) -> Any:
        return super().message(author, *to, text=text, reply=reply, **{"message_id": "", **fields})

    def introduction(self, *repo_ids: str) -> Any:
        """It says of what project it is; all of these tests are of one."""
        return self(events.DaemonKeyed, repo_ids=repo_ids or (PROJECT,))

    def introduce(self, _view: object, stamp: Any) -> Decision[None]:
        """The decision by which a store's own daemon does."""
        return Decision((stamp.make(events.DaemonKeyed, repo_ids=(PROJECT,)),), lambda _view, _seqs: None)

    def line(self, fact: AnyFact | UnknownEvent | bytes) -> bytes:
        """The signed line of a fact, or of a line without signature."""
        if isinstance(fact, bytes):
            return self.signer.sign(fact)
        return self.signer.sign(fact.raw if isinstance(fact, UnknownEvent) else events.encode(fact))


@functools.cache
def daemon_id_of(number: int) -> str:
    """Its id."""
    return signatures.daemon_id_of(START_MS - 86_400_000 + number, signer_of(number).public_key)


@functools.cache
def signer_of(number: int) -> Signer:
    """The key of daemon number so and so."""
    return Signer(hashlib.sha256(b"daemon %d" % number).digest())
