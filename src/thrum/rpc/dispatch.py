"""From a method's name and its parameters to the handler's answer: one way for every transport (rpc.md §1 to §3).

The dispatcher is given its handlers and the authenticator; it knows neither operations nor sockets. What holds
for every call lives here: who may call, the shape of parameters, the client key, the bounds in time and number, what a
stopping daemon still answers, and the errors that a caller sees.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import trio

from thrum.model import files, limits
from thrum.model.errors import (
    Busy,
    InternalError,
    InvalidParams,
    ShuttingDown,
    ThrumError,
    TimedOut,
    UnknownMethod,
    WrongTransport,
)
from thrum.model.methods.daemon import CLI_RUN
from thrum.model.methods.method import Access, AnyMethod, ClientKey, Method, P, Params, R
from thrum.rpc._peercred import Peer

if TYPE_CHECKING:
    from thrum.identity.caller import Caller

log = logging.getLogger("thrum.rpc")

_CLIENT_KEY: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{limits.client_key_chars_max}}}", re.ASCII)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*?)`(?: - at `(.*)`)?", re.DOTALL)
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(.*?)`(?: - at `(.*)`)?", re.DOTALL)
_NOT_TOLD: Final = frozenset({"client_key", "caller_agent_id"})
_NEVER: Final = frozenset({"acting_as", "disclose"})

Hook = Callable[[], object]
"""What is to be done once an answer's fate is known. An awaitable result is awaited."""


class PeerConnection:
    """The other end, as long as it lasts. One per connection; commands that run in the daemon use their launcher's.

    `transport`: U Unix socket, W WebSocket, P peer link, I the daemon's own tasks.
    """

    __slots__ = ("alive", "evidence", "peer", "registered", "transport", "user_id")

    def __init__(self, peer: Peer, transport: str = "U") -> None:
        self.peer = peer
        self.transport = transport
        self.alive = True
        """False once the connection ended: no answer will arrive any more."""
        self.registered: set[str] = set()
        """Ids that `agent.register` gave out here; the operation adds them (identity.md §11, `bootstrap`)."""
        self.user_id: str | None = None
        """Who registered here over a WebSocket; the operation `user.register` sets it (identity.md §14)."""
        self.evidence: Any = None
        """The authenticator may keep here what stays true of the peer."""


class Deliveries:
    """What waits for one answer's fate. The transport of the answer calls `settle`, once."""

    __slots__ = ("_hooks",)

    def __init__(self) -> None:
        self._hooks: list[tuple[Hook, Hook | None]] = []

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def add(self, ok: Hook, lost: Hook | None) -> None:
        self._hooks.append((ok, lost))

    async def settle(self, delivered: bool) -> None:
        """Run the hooks for this fate, in order, to the end. A hook that fails is logged: it has no caller."""
        hooks, self._hooks = self._hooks, []
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limits.request_seconds_max):
            for ok, lost in hooks:
                hook = ok if delivered else lost
                if hook is None:
                    continue
                try:
                    result = hook()
                    if inspect.isawaitable(result):
                        await result
                except ShuttingDown:
                    log.debug("not done after an answer: the daemon stops")
                except Exception:
                    log.exception("what was to follow an answer failed")


class Call(msgspec.Struct, frozen=True, gc=False):
    """What a handler knows of its call, besides the parameters."""

    method: AnyMethod
    caller: Caller
    key: ClientKey | None
    connection: PeerConnection
    deliveries: Deliveries

    def when_delivered(self, ok: Hook, lost: Hook | None = None) -> None:
        """`ok` runs after the answer was handed to the other side, `lost` if it could not be: exactly one of them.

        Also when the handler fails or is cancelled after this (`lost`). Both run outside of the call, plain or async;
        they have 10 s.
        """
        self.deliveries.add(ok, lost)


Handler = Callable[[Call, Any], Awaitable[Any]]
"""`(call, params struct of the method) -> result struct of the method`, or a ThrumError."""

Handlers = Mapping[AnyMethod, Handler]
"""Who answers which method."""


def row(method: Method[P, R], handler: Callable[[Call, P], Awaitable[R]]) -> tuple[AnyMethod, Handler]:
    """A row of a handler table: the type checker compares the handler with the method's parameters and result."""
    return method, handler


Identify = Callable[[PeerConnection, AnyMethod, Params], "Caller"]
"""`(connection, method, params) -> caller` for this very request; raises the refusal (identity.md §11)."""


class Answer(NamedTuple):
    """A result, encoded, what waits for its delivery, and what is to be said of the caller beside it."""

    result: bytes
    deliveries: Deliveries
    warnings: tuple[str, ...] = ()


class Drain:
    """The way from serving to stopped: one-way. Waits end at once, other calls within `seconds` (rpc.md §1)."""

    def __init__(self) -> None:
        self._begun = trio.Event()
        self._polls: set[trio.CancelScope] = set()
        self.seconds = limits.drain_seconds

    @property
    def begun(self) -> bool:
        return self._begun.is_set()

    async def wait_begun(self) -> None:
        await self._begun.wait()

    def begin(self, seconds: float = limits.drain_seconds) -> None:
        """Stop taking requests; end the waits. The first call counts."""
        if self._begun.is_set():
            return
        self.seconds = max(0.0, seconds)
        self._begun.set()
        for scope in self._polls:
            scope.cancel()

    def refuse(self) -> ShuttingDown:
        return ShuttingDown("the daemon is stopping", retry_after_ms=limits.retry_after_ms)

    @contextmanager
    def poll(self) -> Generator[None]:
        """Around a wait. Raises ShuttingDown if the daemon stops or is stopping, Busy if too many wait."""
        if self._begun.is_set():
            raise self.refuse()
        if len(self._polls) >= limits.long_polls_max:
            raise Busy("too many calls are waiting", retry_after_ms=limits.retry_after_ms, limit=limits.long_polls_max)
        with trio.CancelScope() as scope:
            self._polls.add(scope)
            try:
                yield
            finally:
                self._polls.discard(scope)
        if scope.cancelled_caught:
            raise self.refuse()


class _Route:
    """One method, ready to be called."""

    __slots__ = ("_defaults", "decoder", "handler", "hidden", "is_mutating", "is_poll", "method", "seconds")

    def __init__(self, method: AnyMethod, handler: Handler, request_seconds: float) -> None:
        self.method = method
        self.handler = handler
        params: type[Params] = method.params
        self.decoder = msgspec.json.Decoder(params)
        self.is_mutating = method.mutating
        self.is_poll = method.long_poll
        self.hidden = method.access is Access.INTERNAL
        # A wait ends by itself within the hour; this is for one that does not.
        self.seconds = limits.long_poll_seconds_max + request_seconds if method.long_poll else request_seconds
        fields = msgspec.structs.fields(method.params)
        self._defaults = {field.name: _default(field) for field in fields if field.name not in _NOT_TOLD}

    def content(self, params: Any) -> dict[str, Any]:
        """What a call says, without its key and its claim. Two calls that mean the same say the same: what is at its
        default is absent, also if it was spelled out, and so a parameter that a newer program adds changes nothing.
        """
        values = {name: getattr(params, name) for name in self._defaults}
        return {name: value for name, value in values.items() if value != self._defaults[name]}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    factory: Any = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


class Dispatcher:
    """Every call of every transport goes through `dispatch`.

    A method without handler is unknown. `request_seconds`: what a normal request may take.
    """

    def __init__(
        self,
        handlers: Handlers,
        identify: Identify,
        *,
        request_seconds: float = limits.request_seconds_max,
    ) -> None:
        self.drain = Drain()
        self._identify = identify
        self._encode = msgspec.json.Encoder().encode
        self._encode_sorted = msgspec.json.Encoder(order="sorted").encode
        self._routes = {method.name: _Route(method, handler, request_seconds) for method, handler in handlers.items()}

    def method(self, name: str) -> AnyMethod | None:
        """The method of that name, if there is a handler for it."""
        route = self._routes.get(name)
        return None if route is None else route.method

    async def dispatch(self, connection: PeerConnection, name: str, params: bytes | msgspec.Raw) -> Answer:
        """Execute one call. `params`: the JSON text of the parameter object.

        The handler is started without a checkpoint before it. The receiver of the answer must `settle` its deliveries;
        if this raises, they are settled as lost. Raises only ThrumErrors (an unexpected exception is logged and comes
        as InternalError) and what cancels the task.
        """
        deliveries = Deliveries()
        try:
            route = self._route(name, connection.transport)
            decoded = self.decode(route, params)
            call = self._call(route, connection, decoded, deliveries)
            result = await self._run(route, call, decoded)
            return Answer(self._encode(result), deliveries, call.caller.warnings)
        except ThrumError as error:
            await self._lost(deliveries)
            if (busy := files.shortage(error)) is not None:
                raise busy from error
            raise
        except Exception as error:
            await self._lost(deliveries)
            raise internal_error(name, error) from error
        except BaseException:
            await self._lost(deliveries)
            raise

    @staticmethod
    async def _lost(deliveries: Deliveries) -> None:
        if deliveries:
            await deliveries.settle(False)

    def _route(self, name: str, transport: str) -> _Route:
        route = self._routes.get(name)
        if route is None or (route.hidden and transport != "I"):
            raise UnknownMethod(f"unknown method: {name}")
        if transport not in route.method.transports and transport != "I":
            raise WrongTransport(f"{name} can't be called over this transport")
        return route

    def decode(self, route: _Route, params: bytes | msgspec.Raw) -> Params:
        try:
            return route.decoder.decode(params)
        except msgspec.ValidationError as error:
            raise invalid_params(route.method.name, error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidParams(f"{route.method.name}: the parameters are not JSON: {error}") from None

    def _call(self, route: _Route, connection: PeerConnection, params: Any, deliveries: Deliveries) -> Call:
        caller = self._identify(connection, route.method, params)
        key: ClientKey | None = None
        if route.is_mutating and params.client_key:
            key = self._key(route, caller.agent_id or "", params)
        return Call(route.method, caller, key, connection, deliveries)

    def _key(self, route: _Route, actor: str, params: Any) -> ClientKey:
        key: str = params.client_key
        if _CLIENT_KEY.fullmatch(key) is None:
            message = (
                f"{route.method.name}: not a client_key: 1 to {limits.client_key_chars_max} of A-Z a-z 0-9 . _ : -"
            )
            raise InvalidParams(message, field="client_key")
        text = route.method.name.encode() + b"\n" + self._encode_sorted(route.content(params))
        return ClientKey(actor, key, hashlib.sha256(text).hexdigest()[:16])

    async def _run(self, route: _Route, call: Call, params: Params) -> Any:
        if not route.is_poll:
            return await _within(route.seconds, route, call, params)
        if route.method is CLI_RUN:  # bound by its inner calls, not as one (rpc.md §6)
            return await route.handler(call, params)
        with self.drain.poll():
            return await _within(route.seconds, route, call, params)


async def _within(seconds: float, route: _Route, call: Call, params: Params) -> Any:
    with trio.CancelScope(deadline=trio.current_time() + seconds):
        return await route.handler(call, params)
    raise TimedOut(f"{route.method.name} took longer than {seconds:g} s", limit=seconds)


def internal_error(name: str, error: Exception) -> ThrumError:
    """What a caller is told of an unexpected error; the log has the rest under the same number."""
    if (busy := files.shortage(error)) is not None:
        log.warning("%s: %s", name, busy.message)
        return busy
    number = secrets.token_hex(4)
    log.error("internal error %s in %s", number, name, exc_info=error)
    return InternalError(f"internal error {number} in {name}")


def invalid_params(method: str, error: msgspec.ValidationError) -> InvalidParams:
    """The refusal of parameters that don't fit, naming the field."""
    text = str(error)
    if found := _UNKNOWN_FIELD.fullmatch(text):
        field = _path(found[2], found[1])
        remedy = "send as yourself" if found[1] in _NEVER else "thrum daemon restart, if the field is a newer program's"
        return InvalidParams(f"{method}: unknown field: {field}", remedy=remedy, field=field)
    if found := _MISSING_FIELD.fullmatch(text):
        field = _path(found[2], found[1])
        return InvalidParams(f"{method}: missing field: {field}", field=field)
    reason, _, path = text.partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    where = f"{field}: " if field else ""
    return InvalidParams(f"{method}: {where}{reason[:1].lower()}{reason[1:]}", field=field or None)


def _path(parent: str | None, field: str) -> str:
    parent = (parent or "$").removeprefix("$").removeprefix(".")
    return f"{parent}.{field}" if parent else field
