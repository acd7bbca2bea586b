"""A small stand-in for the daemon: the real publisher and the RPC methods that a subscriber needs, over a list
of facts.

In-process (`open_bus_daemon`) or as a program: `python -m tests.support.daemon.bus_daemon REPO EPOCH`. Its facts lie in
a file, so it can be killed and started again; with another epoch they get new numbers, as after a rebuild.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import trio

from tests.support.trusted import trust_here
from thrum.bus.publisher import Publisher
from thrum.bus.socket import open_xpub_socket
from thrum.bus.topics import TOPICS, About, hint_of, topics_of
from thrum.model import clock, events, ids, limits
from thrum.model.errors import StaleCursor, ThrumError, UnknownMethod
from thrum.model.events import Pair
from thrum.model.methods.agents import WhoamiResult
from thrum.model.methods.daemon import PROTOCOL, BusInfo, EventsSince, EventsSinceParams
from thrum.model.methods.messages import MarkReadParams, MarkReadResult, MessageListParams, MessageListResult
from thrum.model.methods.method import Empty
from thrum.model.methods.table import METHODS
from thrum.model.wire_types import Hint, Message


class Request(msgspec.Struct):
    method: str
    id: int = 0
    params: msgspec.Raw = msgspec.Raw(b"{}")


class BusDaemon:
    """Facts, numbers, and who has read what."""

    def __init__(self, repo: Path, epoch: str) -> None:
        self.var = repo / ".thrum" / "var"
        self.epoch = epoch
        self.calls: dict[str, int] = {}
        self.ulids = ids.Ulids()
        self.clock = clock.SystemClock()
        self._file = self.var / "facts.jsonl"
        self._epoch_file = self.var / "epoch"
        lines = self._file.read_bytes().splitlines() if self._file.exists() else []
        self.facts: list[Any] = [events.decode(line) for line in lines]
        if self._epoch_file.exists() and self._epoch_file.read_text() != epoch:
            self.facts.sort(key=events.order_of)
            self._file.write_bytes(b"".join(events.encode(fact) + b"\n" for fact in self.facts))
        self._epoch_file.write_text(epoch)
        self.publisher: Publisher | None = None
        self.endpoint = ""

    def about(self, fact: Any) -> About | None:
        message_id = getattr(fact, "message_id", "")
        for other in self.facts:
            if isinstance(other, events.MessageCreated) and other.message_id == message_id:
                return About(other.agent_id, other.thread_id, other.recipients, other.audiences, other.quiet)
        return None

    def commit(self, *facts: Any) -> None:
        with self._file.open("ab") as file:
            file.write(b"".join(events.encode(fact) + b"\n" for fact in facts))
        for fact in facts:
            self.facts.append(fact)
            if self.publisher is not None:
                about = None if isinstance(fact, events.MessageCreated) else self.about(fact)
                self.publisher.publish(len(self.facts), fact, about)

    def message(self, to: tuple[str, ...], content: str, *, author: str = "alice", ms: int = 0) -> Any:
        ms = ms or self.clock.now_ms()
        ulid = self.ulids.at(ms)
        return events.MessageCreated(
            timestamp=clock.format_ms(ms),
            event_id=f"evt_{ulid}",
            v=1,
            message_id=f"msg_{ulid}",
            agent_id=author,
            body=events.Body("markdown", content),
            audiences=tuple(Pair("agent", name) for name in to),
            recipients=tuple(sorted(to)),
        )

    def read_by(self, agent_id: str) -> set[str]:
        return {
            fact.message_id
            for fact in self.facts
            if isinstance(fact, events.MessageReceipt) and fact.agent_id == agent_id
        }

    # -- methods

    def answer(self, method: str, raw: msgspec.Raw) -> Any:
        self.calls[method] = self.calls.get(method, 0) + 1
        handler = getattr(self, "do_" + method.replace(".", "_"), None)
        if handler is None:
            raise UnknownMethod(method)
        known = METHODS.get(method)
        return handler(msgspec.json.decode(raw, type=known.params if known is not None else Any))

    def do_bus_info(self, params: Empty) -> Any:
        return BusInfo(
            endpoint=self.endpoint,
            epoch=self.epoch,
            seq=len(self.facts),
            protocol=PROTOCOL,
            tick_seconds=limits.tick_seconds,
            preview_max=limits.preview_chars_max,
            topics=TOPICS,
        )

    def do_events_since(self, params: EventsSinceParams) -> Any:
        self._check(params.epoch)
        found: list[Hint] = []
        next_seq = params.after_seq
        for seq in range(params.after_seq + 1, len(self.facts) + 1):
            if len(found) == params.limit:
                break
            next_seq = seq
            fact = self.facts[seq - 1]
            about = None if isinstance(fact, events.MessageCreated) else self.about(fact)
            topics = topics_of(fact, about)
            if params.topics and not any(topic.startswith(params.topics) for topic in topics):
                continue
            hint = hint_of(self.epoch, seq, fact, about)
            if params.types and hint.type not in params.types:
                continue
            hint.topics = topics
            if params.full:
                hint.fact = msgspec.Raw(events.encode(fact))
            found.append(hint)
        return EventsSince(
            epoch=self.epoch,
            events=tuple(found),
            next_seq=next_seq,
            head_seq=len(self.facts),
            more=next_seq < len(self.facts),
        )

    def do_agent_whoami(self, params: Empty) -> Any:
        name = params.caller_agent_id or "bob"
        return WhoamiResult(agent_id=name, role="tester", module="bus", display=name, source="identity_file")

    def do_message_list(self, params: MessageListParams) -> Any:
        self._check(params.epoch)
        read = self.read_by(params.unread_for_agent)
        found: list[Message] = []
        assert params.after_seq is not None
        next_seq = params.after_seq
        for seq in range(params.after_seq + 1, len(self.facts) + 1):
            if len(found) == params.limit:
                break
            next_seq = seq
            fact = self.facts[seq - 1]
            if not isinstance(fact, events.MessageCreated) or params.unread_for_agent not in fact.recipients:
                continue
            if fact.message_id not in read:
                found.append(
                    Message(
                        message_id=fact.message_id,
                        seq=seq,
                        agent_id=fact.agent_id,
                        body=fact.body,
                        created_at=fact.timestamp,
                        deleted=False,
                        is_read=False,
                        quiet=fact.quiet,
                    )
                )
        more = next_seq < len(self.facts)
        return MessageListResult(messages=tuple(found), unread=0, next_seq=next_seq, epoch=self.epoch, more=more)

    def do_message_markRead(self, params: MarkReadParams) -> Any:
        new = [
            message_id for message_id in params.message_ids if message_id not in self.read_by(params.caller_agent_id)
        ]
        ms = self.clock.now_ms()
        self.commit(
            *(
                events.MessageReceipt(
                    timestamp=clock.format_ms(ms),
                    event_id=f"evt_{self.ulids.at(ms)}",
                    v=1,
                    message_id=message_id,
                    agent_id=params.caller_agent_id,
                    receipt_type="read",
                )
                for message_id in new
            )
        )
        return MarkReadResult(marked_count=len(new))

    def do_test_send(self, params: dict[str, Any]) -> Any:
        first, count = params["first"], params["count"]
        for number in range(first, first + count):
            self.commit(self.message(tuple(params["to"]), f"{number} {params.get('pad', '')}"))
        return {"seq": len(self.facts)}

    def do_test_end(self, params: dict[str, Any]) -> Any:
        self.commit(self.message(tuple(params["to"]), "end"))

    def do_test_send_old(self, params: dict[str, Any]) -> Any:
        """A fact that sorts before all others: after a rebuild every number has moved."""
        self.commit(self.message(tuple(params["to"]), "old", ms=1_000_000_000_000))

    def do_test_calls(self, params: Any) -> Any:
        return self.calls

    def _check(self, epoch: str) -> None:
        if epoch and epoch != self.epoch:
            raise StaleCursor("the database was rebuilt since that cursor", epoch=self.epoch)

    # -- the wire

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        rest = b""
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    await stream.send_all(self._reply(line))

    def _reply(self, line: bytes) -> bytes:
        request = msgspec.json.decode(line, type=Request)
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request.id}
        try:
            reply["result"] = self.answer(request.method, request.params)
        except ThrumError as error:
            data = {"kind": error.kind, "remedy": error.remedy, "details": error.details}
            reply["error"] = {"code": error.code, "message": error.message, "data": data}
        return msgspec.json.encode(reply) + b"\n"


@contextlib.asynccontextmanager
async def open_bus_daemon(repo: Path, epoch: str = "one") -> AsyncGenerator[BusDaemon]:
    """Serve `repo` (see `make_repo`) until left."""
    daemon = BusDaemon(repo, epoch)
    path = daemon.var / "thrum.sock"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with open_xpub_socket(daemon.var / "bus.sock") as outlet:
        daemon.endpoint = outlet.endpoint
        daemon.publisher = Publisher(outlet, epoch=epoch, head_seq=len(daemon.facts), wall_clock=daemon.clock)
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await listener.bind(str(path))
        listener.listen(100)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.publisher.serve_bus)
            serve = functools.partial(trio.serve_listeners, daemon.serve_connection, [trio.SocketListener(listener)])
            await nursery.start(serve)
            yield daemon
            nursery.cancel_scope.cancel()


def make_repo(directory: Path) -> Path:
    """A directory that `paths.find_layout` takes for a repository of thrum."""
    var = directory / ".thrum" / "var"
    var.mkdir(parents=True)
    var.chmod(0o700)
    (directory / ".thrum" / "config.json").write_text("{}")
    trust_here(directory)
    return directory


async def main(repo: Path, epoch: str) -> None:
    async with open_bus_daemon(repo, epoch):
        os.write(1, b"ready\n")
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repo", type=Path)
    parser.add_argument("epoch")
    options = parser.parse_args()
    trio.run(main, options.repo, options.epoch)
