"""Calls from within the daemon: the same dispatcher, checks, bounds, encodings and errors as over the socket.

Commands that run in the daemon for a launcher call this way, with their launcher's connection as evidence.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from thrum.model.errors import AnswerTooLarge
from thrum.model.methods.method import Method, P, R
from thrum.rpc.client import decode_result, encode_params
from thrum.rpc.dispatch import Deliveries, Dispatcher, PeerConnection
from thrum.rpc.jsonrpc import check_answer_size


class DirectClient:
    """`call` as a client's. What waits for an answer's delivery runs at `delivered`, or is lost with the client."""

    def __init__(self, dispatcher: Dispatcher, connection: PeerConnection) -> None:
        self._dispatcher = dispatcher
        self._connection = connection
        self._waiting: list[Deliveries] = []
        self.warnings: list[str] = []

    async def call(self, method: Method[P, R], params: P | None = None) -> R:
        """The result of `method`. Raises the ThrumErrors of the call."""
        answer = await self._dispatcher.dispatch(self._connection, method.name, encode_params(params))
        try:
            check_answer_size(answer.result)
        except AnswerTooLarge:
            await answer.deliveries.settle(False)
            raise
        if answer.deliveries:
            self._waiting.append(answer.deliveries)
        self.warnings += answer.warnings
        return decode_result(method, answer.result)

    async def delivered(self) -> None:
        """The answers so far have reached the user: do what waited for that, and return when it is done."""
        await self._settle(True)

    async def aclose(self) -> None:
        """Answers that were not delivered by now are lost."""
        await self._settle(False)

    async def _settle(self, delivered: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for deliveries in waiting:
            await deliveries.settle(delivered)


@asynccontextmanager
async def open_direct(dispatcher: Dispatcher, connection: PeerConnection) -> AsyncGenerator[DirectClient]:
    """A client inside the daemon, in the name of the process at the other end of `connection`."""
    client = DirectClient(dispatcher, connection)
    try:
        yield client
    finally:
        await client.aclose()
