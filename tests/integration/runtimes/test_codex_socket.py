"""The client of Codex' control socket before servers that are none, that are not ours, or that break every rule."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from thrum.model.attempt_ids import new_token
from thrum.model.wake_types import Failed
from thrum.runtimes.codex import socket as codex_socket
from thrum.runtimes.codex.server import CodexServer
from thrum.runtimes.codex.socket import ServerGone, control_socket, serve_connection

SECONDS = 60
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Talk = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def server(home: Path, talk: Talk) -> AsyncIterator[Path]:
    """A server at the end of the link, each of whose connections `talk` serves."""
    path = home / "s"
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen()
    (home / "app-server-control").mkdir()
    (home / "app-server-control/app-server-control.sock").symlink_to(path)

    async def meet(stream: trio.SocketStream) -> None:
        try:
            await talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, meet, [trio.SocketListener(listener)])
        yield home
        nursery.cancel_scope.cancel()


async def _handshake(stream: trio.SocketStream) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some(4096)
    key = next(line.split(b":")[1].strip() for line in head.split(b"\r\n") if b"-key:" in line.lower())
    accepts = base64.b64encode(hashlib.sha1(key + GUID).digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accepts
        + b"\r\n\r\n"
    )


def _frame(data: bytes, head: int = 0x81) -> bytes:
    size = len(data)
    return bytes([head, size] if size < 126 else [head, 126]) + (b"" if size < 126 else struct.pack(">H", size)) + data


async def _drop(stream: trio.SocketStream) -> None:
    while await stream.receive_some(65536):
        pass


async def _garbage(stream: trio.SocketStream) -> None:
    await stream.send_all(os.urandom(4096))
    await _drop(stream)


async def _closes(stream: trio.SocketStream) -> None:
    await stream.receive_some(10)


async def _no_websocket(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    await _drop(stream)


async def _never_ends(stream: trio.SocketStream) -> None:
    await _handshake(stream)
    await stream.send_all(bytes([0x01, 127]) + struct.pack(">Q", 1 << 40))
    while True:
        await stream.send_all(b"x" * 65536)


async def _bad_frames(stream: trio.SocketStream) -> None:
    await _handshake(stream)
    await stream.send_all(b"\xff\xff\xff")
    await _drop(stream)


async def _bytes_frames(stream: trio.SocketStream) -> None:
    await _handshake(stream)
    await stream.send_all(_frame(b"\0\1", 0x82))
    await _drop(stream)


async def _refuses(stream: trio.SocketStream) -> None:
    await _handshake(stream)
    await stream.send_all(_frame(json.dumps({"id": 1, "error": {"message": "too\nold"}}).encode()))
    await _drop(stream)


@pytest.mark.parametrize("talk", [_garbage, _closes, _no_websocket, _never_ends, _bad_frames, _bytes_frames, _refuses])
async def test_a_server_that_breaks_the_rules_is_left(tmp_path: Path, talk: Talk) -> None:
    async def use(connection: Any) -> None:
        raise AssertionError("never introduced")

    async with server(tmp_path, talk):
        with trio.fail_after(SECONDS), pytest.raises(ServerGone):
            await serve_connection(str(tmp_path), lambda method, params: None, use)


async def test_a_silent_server_is_left_after_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codex_socket, "CONNECT_SECONDS", 0.1)
    async with server(tmp_path, _drop):
        with trio.fail_after(SECONDS), pytest.raises(ServerGone, match="does not answer"):
            await serve_connection(str(tmp_path), lambda method, params: None, _unused)


async def _unused(connection: Any) -> None:
    raise AssertionError("never introduced")


def test_no_server_and_a_link_into_nowhere_are_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ServerGone, match="no app-server"):
        control_socket(str(tmp_path))
    (tmp_path / "app-server-control").mkdir()
    (tmp_path / "app-server-control/app-server-control.sock").symlink_to(tmp_path / "gone")
    with pytest.raises(ServerGone, match="no app-server"):
        control_socket(str(tmp_path))


def test_another_users_socket_is_not_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app-server-control").mkdir()
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        (tmp_path / "app-server-control/app-server-control.sock").symlink_to(path)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(ServerGone, match="another user"):
            control_socket(str(tmp_path))


class _Scripted:
    """A server that answers calls from a table, and pushes what it is told to."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "initialize": {},
            "thread/loaded/list": {"data": ["t1"]},
            "thread/read": {"thread": {"id": "t1", "cwd": "/", "status": {"type": "idle"}}},
            "hooks/list": {"data": []},
        } | {name.replace("_", "/"): value for name, value in answers.items()}
        self.calls: list[dict[str, Any]] = []
        self.stream: trio.SocketStream | None = None

    async def talk(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        await _handshake(stream)
        data = b""
        while chunk := await stream.receive_some(65536):
            data += chunk
            while (found := _unmasked(data)) is not None:
                text, data = found
                call = json.loads(text)
                self.calls.append(call)
                if "id" not in call:
                    continue
                answer = self.answers.get(call["method"], {"error": {"message": "unknown"}})
                if answer is None:
                    continue  # it never answers that
                if answer == "dies":
                    return
                body = answer if "error" in answer else {"result": answer}
                await stream.send_all(_frame(json.dumps({"id": call["id"], **body}).encode()))

    async def push(self, method: str, **params: Any) -> None:
        assert self.stream is not None
        await self.stream.send_all(_frame(json.dumps({"method": method, "params": params}).encode()))


def _unmasked(data: bytes) -> tuple[bytes, bytes] | None:
    if len(data) < 2:
        return None
    size, at = data[1] & 127, 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, at = int.from_bytes(data[2:10], "big"), 10
    if len(data) < at + 4 + size:
        return None
    mask, body = data[at : at + 4], data[at + 4 : at + 4 + size]
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(body)), data[at + 4 + size :]


@asynccontextmanager
async def connected(home: Path, scripted: _Scripted) -> AsyncIterator[CodexServer]:
    async with server(home, scripted.talk), trio.open_nursery() as nursery:
        found = CodexServer(str(home), lambda thread: None)
        nursery.start_soon(found.serve)
        await _until(lambda: "t1" in found.threads)
        yield found
        nursery.cancel_scope.cancel()


async def _until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(SECONDS):
        while True:
            if condition():
                return
            await trio.sleep(0.01)


async def test_a_push_changes_the_state_and_what_is_unknown_is_passed_over(tmp_path: Path) -> None:
    scripted = _Scripted()
    async with connected(tmp_path, scripted) as found:
        await scripted.push("something/new", a=1)
        await scripted.push("thread/status/changed", threadId="t1", status={"type": "active", "activeFlags": []})
        await _until(lambda: found.threads["t1"].state == "working")
        await scripted.push("thread/status/changed", threadId="t1", status={"type": "active", "activeFlags": ["x"]})
        await _until(lambda: found.threads["t1"].state == "dialog")
        scripted.answers["thread/read"] = {"thread": {"id": "t1", "cwd": "/", "status": {"type": "notLoaded"}}}
        await scripted.push("thread/status/changed", threadId="t1", status={"type": "notLoaded"})
        await _until(lambda: "t1" not in found.threads)


async def test_threads_that_no_person_sees_are_passed_over(tmp_path: Path) -> None:
    scripted = _Scripted()
    async with connected(tmp_path, scripted) as found:
        for name, more in (("t2", {"ephemeral": True}), ("t3", {"parentThreadId": "t1"}), ("t4", {})):
            thread = {"id": name, "cwd": "/", "status": {"type": "idle"}, **more}
            await scripted.push("thread/started", thread=thread)
        await _until(lambda: "t4" in found.threads)
        assert set(found.threads) == {"t1", "t4"}


async def test_a_server_that_dies_after_it_was_told_may_have_said_it_and_one_that_refuses_has_not(
    tmp_path: Path,
) -> None:
    scripted = _Scripted(turn_start="dies")
    async with connected(tmp_path, scripted) as found:
        assert await found.say("t1", f"hi {new_token()}") == "offered"
    scripted.answers["thread/read"] = "dies"
    other = tmp_path / "b"
    other.mkdir()
    scripted = _Scripted()
    async with connected(other, scripted) as found:
        scripted.answers["thread/read"] = "dies"
        assert isinstance(await found.say("t1", f"hi {new_token()}"), Failed)


async def test_a_server_that_comes_back_is_found_again(tmp_path: Path) -> None:
    scripted = _Scripted()
    async with connected(tmp_path, scripted) as found:
        assert scripted.stream is not None
        await scripted.stream.aclose()
        await _until(lambda: not found.is_connected)
        await _until(lambda: "t1" in found.threads)


async def test_a_text_that_is_in_no_turn_once_that_is_over_was_thrown_away(tmp_path: Path) -> None:
    scripted = _Scripted(
        thread_read={"thread": {"id": "t1", "cwd": "/", "status": {"type": "active", "activeFlags": []}}},
        thread_turns_list={"data": [{"id": "u1", "status": "inProgress"}]},
        thread_items_list={"data": []},
        turn_steer={"turnId": "u1"},
    )
    token = new_token()
    async with connected(tmp_path, scripted) as found:
        assert await found.say("t1", f"hi {token}") == "offered"
        steer = next(call for call in scripted.calls if call["method"] == "turn/steer")
        assert steer["params"]["expectedTurnId"] == "u1"
        assert not found.is_lost(token)
        scripted.answers["thread/turns/list"] = {"data": [{"id": "u1", "status": "interrupted"}]}
        await scripted.push("thread/status/changed", threadId="t1", status={"type": "idle"})
        await _until(lambda: found.is_lost(token))
        assert found.lost_of("t1") == token


@pytest.mark.parametrize("turns", [[], [{"id": "u9", "status": "interrupted"}]], ids=["unlisted", "as interrupted"])
async def test_a_turn_that_has_not_begun_yet_is_not_over_however_it_is_listed(tmp_path: Path, turns: list[Any]) -> None:
    scripted = _Scripted(
        turn_start={"turn": {"id": "u9"}}, thread_turns_list={"data": turns}, thread_items_list={"data": []}
    )
    token = new_token()
    async with connected(tmp_path, scripted) as found:
        assert await found.say("t1", f"hi {token}") == "offered"
        await scripted.push("thread/status/changed", threadId="t1", status={"type": "idle"})
        await scripted.push("thread/started", thread={"id": "t5", "cwd": "/", "status": {"type": "idle"}})
        await _until(lambda: any(call.get("params", {}).get("threadId") == "t5" for call in scripted.calls))
        assert not found.is_lost(token)
