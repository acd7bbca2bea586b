#!/usr/bin/env python3
# ruff: noqa: PTH123, TID251
"""A stand-in for Codex 0.171.0: terminals that one app-server serves, its control socket, its hooks, its queue.

What it does was measured with the real program (docs/runtimes.md) and is judged beside it by the same suite. It draws
what the real one draws where somebody reads it: the prompt's row, the cursor, the title, dialogs. Standard library.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import tomllib
import tty
import urllib.request
import uuid

CODEX_HOME = os.environ.get("CODEX_HOME") or os.path.join(os.environ["HOME"], ".codex")
CONTROL = os.path.join(CODEX_HOME, "app-server-control", "app-server-control.sock")
QUEUE = os.path.join(CODEX_HOME, "queue-standin")
HOOKS = os.path.join(CODEX_HOME, "hooks.json")
VERSION = "0.171.0"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def uuid7():
    value = (int(time.time() * 1000) << 80) | (7 << 76) | (2 << 62) | int.from_bytes(os.urandom(7), "big")
    return str(uuid.UUID(int=value))


def config():
    try:
        with open(os.path.join(CODEX_HOME, "config.toml"), "rb") as file:
            return tomllib.load(file)
    except OSError:
        return {}


def snake(event):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event).lower()


def all_hooks():
    """Every hook with its key, its digest, and whether the user trusts it."""
    try:
        with open(HOOKS) as file:
            found = json.load(file).get("hooks", {})
    except (OSError, ValueError):
        return []
    state = config().get("hooks", {}).get("state", {})
    listed = []
    for event, groups in found.items():
        for number, group in enumerate(groups):
            for position, hook in enumerate(group.get("hooks", ())):
                key = f"{HOOKS}:{snake(event)}:{number}:{position}"
                digest = (
                    "sha256:" + hashlib.sha256(json.dumps([event, group.get("matcher"), hook]).encode()).hexdigest()
                )
                known = state.get(key, {}).get("trusted_hash")
                trust = "trusted" if known == digest else "modified" if known else "untrusted"
                listed.append(
                    {
                        "key": key,
                        "eventName": event[0].lower() + event[1:],
                        "handlerType": "command",
                        "command": hook["command"],
                        "timeoutSec": hook.get("timeout", 60),
                        "sourcePath": HOOKS,
                        "source": "user",
                        "enabled": True,
                        "isManaged": False,
                        "currentHash": digest,
                        "trustStatus": trust,
                        "displayOrder": len(listed),
                    }
                )
    return listed


# -- WebSocket, both ends


class Peer:
    """One end of a connection: messages are JSON objects."""

    def __init__(self, sock, masked):
        self.sock = sock
        self.masked = masked
        self.lock = threading.Lock()
        self.buffer = b""

    def send(self, message):
        data = json.dumps(message).encode()
        bit = 0x80 if self.masked else 0
        size = len(data)
        if size < 126:
            head = bytes([0x81, bit | size])
        elif size < 65536:
            head = bytes([0x81, bit | 126]) + struct.pack(">H", size)
        else:
            head = bytes([0x81, bit | 127]) + struct.pack(">Q", size)
        if self.masked:
            mask = os.urandom(4)
            data = mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        with self.lock, contextlib.suppress(OSError):
            self.sock.sendall(head + data)

    def take(self, size):
        while len(self.buffer) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def receive(self):
        """The next message. Raises EOFError, OSError."""
        text = b""
        while True:
            first, second = self.take(2)
            size = second & 127
            if size == 126:
                (size,) = struct.unpack(">H", self.take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.take(8))
            mask = self.take(4) if second & 0x80 else b""
            data = self.take(size)
            if mask:
                data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
            if first & 15 == 8:
                raise EOFError
            if first & 15 in (0, 1):
                text += data
                if first & 0x80:
                    return json.loads(text)

    def header(self):
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head


def accept(sock):
    peer = Peer(sock, masked=False)
    key = re.search(rb"(?i)sec-websocket-key:\s*(\S+)", peer.header())[1]
    answer = base64.b64encode(hashlib.sha1(key + GUID).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n"
    )
    return peer


def connect(sock):
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    peer = Peer(sock, masked=True)
    peer.header()
    return peer


# -- the server


class Refused(Exception):
    pass


class Thread:
    """One conversation."""

    def __init__(self, server, cwd, source):
        self.server = server
        self.id = uuid7()
        self.cwd = cwd
        self.source = source
        self.begun = False
        self.flags = []
        self.turns = []
        self.steers = []
        self.input = []
        self.lines = []
        self.abort = False
        self.approval = None
        self.asks = None
        self.waits = False
        self.subscribers = []
        self.lock = threading.RLock()

    @property
    def turn(self):
        return self.turns[-1] if self.turns and self.turns[-1]["status"] == "inProgress" else None

    @property
    def status(self):
        return {"type": "active", "activeFlags": self.flags} if self.turn else {"type": "idle"}

    def told(self):
        return {
            "id": self.id,
            "sessionId": self.id,
            "cwd": self.cwd,
            "status": self.status,
            "ephemeral": False,
            "parentThreadId": None,
            "createdAt": int(time.time()),
            "updatedAt": int(time.time()),
            "source": "vscode",
            "threadSource": "user",
            "turns": [],
        }

    def note_status(self):
        self.server.tell("thread/status/changed", {"threadId": self.id, "status": self.status})
        self.draw()

    def draw(self):
        shown = {"threadId": self.id, "lines": self.lines, "working": bool(self.turn), "asks": self.asks}
        for peer in list(self.subscribers):
            peer.send({"method": "standin/draw", "params": shown})

    def show(self, text):
        self.lines += ["", *text.splitlines()]
        self.draw()

    # a turn

    def start(self, text, client_id):
        with self.lock:
            if self.turn:
                self.steers.append((text, client_id))
                return self.turn["id"]
            self.abort = self.waits = False
            turn = {"id": uuid7(), "status": "inProgress", "items": []}
            self.turns.append(turn)
        self.note_status()
        threading.Thread(target=self.run, args=(turn, text, client_id), daemon=True).start()
        return turn["id"]

    def steer(self, text, client_id, expected):
        with self.lock:
            if not self.turn:
                raise Refused("no active turn to steer")
            if self.turn["id"] != expected:
                raise Refused(f"expected active turn id `{expected}` but found `{self.turn['id']}`")
            self.steers.append((text, client_id))
            return expected

    def interrupt(self):
        self.abort = True
        self.approval = False

    def payload(self, event, **more):
        path = os.path.join(CODEX_HOME, "sessions", f"rollout-{self.id}.jsonl")
        head = {"session_id": self.id, "transcript_path": path, "cwd": self.cwd, "hook_event_name": event}
        return json.dumps({**head, "model": "fake", "permission_mode": "default", **more}).encode()

    def fire(self, event, **more):
        """Run the trusted hooks of an event: what they add for the model, and the reason of one that blocks."""
        contexts, reason = [], ""
        for hook in all_hooks():
            if hook["eventName"] != event[0].lower() + event[1:] or hook["trustStatus"] != "trusted":
                continue
            done = subprocess.run(
                ["/bin/sh", "-c", hook["command"]],
                input=self.payload(event, **more),
                capture_output=True,
                cwd=self.cwd,
                timeout=hook["timeoutSec"],
                check=False,
            )
            text = done.stdout.decode().strip()
            try:
                said = json.loads(text) if text.startswith("{") else {}
            except ValueError:
                said = {}
            if said.get("decision") == "block":
                reason = reason or said.get("reason", "")
            inner = said.get("hookSpecificOutput", {}).get("additionalContext", "")
            if inner:
                contexts.append(inner)
        return contexts, reason

    def hear(self, turn, text, client_id):
        """A text goes to the model."""
        contexts, _ = self.fire("UserPromptSubmit", turn_id=turn["id"], prompt=text)
        turn["items"].append({"type": "userMessage", "id": uuid7(), "clientId": client_id, "content": [{"text": text}]})
        self.show("› " + text)
        self.add("user", text)
        for context in contexts:
            self.add("developer", context)

    def add(self, role, text):
        self.input.append({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]})

    def run(self, turn, text, client_id):
        if not self.begun:
            self.begun = True
            for context in self.fire("SessionStart", source=self.source)[0]:
                self.add("developer", context)
        self.hear(turn, text, client_id)
        stopped = False
        while True:
            answer = self.ask_model()
            if answer is None:
                return self.interrupted(turn)
            calls = [item for item in answer if item["type"] == "function_call"]
            for item in answer:
                self.input.append(item)
                if item["type"] == "message":
                    self.show("• " + item["content"][0]["text"])
            for call in calls:
                output = self.run_tool(turn, call)
                if output is None:
                    return self.interrupted(turn)
                self.input.append({"type": "function_call_output", "call_id": call["call_id"], "output": output})
            with self.lock:
                taken, self.steers = self.steers, []
                if not taken and not calls and stopped:
                    return self.end(turn, "completed")
            for each in taken:
                self.hear(turn, *each)
            if taken or calls:
                continue
            _, reason = self.fire("Stop", turn_id=turn["id"], stop_hook_active=stopped)
            stopped = True
            if reason:
                self.add("user", f"<hook_prompt>{reason}</hook_prompt>")
                continue
            with self.lock:
                if not self.steers:
                    return self.end(turn, "completed")
                taken, self.steers = self.steers, []
            for each in taken:
                self.hear(turn, *each)

    def end(self, turn, status):
        with self.lock:
            turn["status"] = status
            self.flags, self.asks = [], None
        self.note_status()

    def interrupted(self, turn):
        with self.lock:
            self.steers = []
            self.waits = True
        self.add("user", "<turn_aborted>\nThe user interrupted the previous turn on purpose.\n</turn_aborted>")
        self.lines += ["", "■ Conversation interrupted"]
        self.end(turn, "interrupted")

    def ask_model(self):
        found = config()
        url = found["model_providers"][found["model_provider"]]["base_url"] + "/responses"
        tools = [{"type": "function", "name": "exec_command"}]
        asked = {"model": "fake", "input": self.input, "tools": tools, "stream": True, "prompt_cache_key": self.id}
        body = json.dumps(asked).encode()
        box = {}

        def go():
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=600
                ) as answer:
                    for line in answer:
                        if line.startswith(b"data: ") and b"response.completed" in line:
                            box["output"] = json.loads(line[6:])["response"]["output"]
            except OSError:
                pass
            box.setdefault("output", [])

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:
                return None
        return box["output"]

    def run_tool(self, turn, call):
        given = json.loads(call["arguments"])
        command = given["cmd"]
        if given.get("sandbox_permissions") == "require_escalated" and not self.permitted(turn, command):
            return None
        child = subprocess.Popen(
            ["/bin/bash", "-c", command],
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CODEX_THREAD_ID": self.id},
            start_new_session=True,
        )
        box = {}
        thread = threading.Thread(target=lambda: box.update(out=child.communicate()[0]), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:  # the real one leaves it running in the background
                os.killpg(child.pid, signal.SIGKILL)
                thread.join()
                return None
        self.fire("PostToolUse", turn_id=turn["id"], tool_name="Bash", tool_input={"command": command})
        return box["out"].decode(errors="replace")

    def permitted(self, turn, command):
        self.approval, self.asks, self.flags = None, command, ["waitingOnApproval"]
        self.note_status()
        self.fire("PermissionRequest", turn_id=turn["id"], tool_name="Bash", tool_input={"command": command})
        while self.approval is None:
            time.sleep(0.02)
        self.asks, self.flags = None, []
        self.note_status()
        if not self.approval:
            self.abort = True
        return self.approval


class Server:
    """All threads of one process."""

    def __init__(self):
        self.threads = {}
        self.peers = []
        threading.Thread(target=self.take_queue, daemon=True).start()

    def tell(self, method, params):
        for peer in list(self.peers):
            peer.send({"method": method, "params": params, "emittedAtMs": int(time.time() * 1000)})

    def take_queue(self):
        while True:
            time.sleep(0.1)
            for thread in list(self.threads.values()):
                folder = os.path.join(QUEUE, thread.id)
                if thread.turn or thread.waits or not os.path.isdir(folder):
                    continue
                for name in sorted(os.listdir(folder))[:1]:
                    path = os.path.join(folder, name)
                    with open(path) as file:
                        text = file.read()
                    os.unlink(path)
                    thread.start(text, None)

    def serve(self, peer):
        self.peers.append(peer)
        try:
            while True:
                message = peer.receive()
                if "id" not in message:
                    continue
                try:
                    result = self.answer(peer, message["method"], message.get("params") or {})
                except Refused as error:
                    peer.send({"id": message["id"], "error": {"code": -32600, "message": str(error)}})
                else:
                    peer.send({"id": message["id"], "result": result})
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self.peers.remove(peer)
            for thread in self.threads.values():
                if peer in thread.subscribers:
                    thread.subscribers.remove(peer)

    def answer(self, peer, method, params):
        if method == "initialize":
            return {"userAgent": f"standin/{VERSION}", "codexHome": CODEX_HOME}
        if method == "hooks/list":
            return {"data": [{"cwd": "", "hooks": all_hooks(), "warnings": [], "errors": []}]}
        if method == "thread/loaded/list":
            return {"data": list(self.threads), "nextCursor": None}
        if method == "thread/start":
            thread = Thread(self, params["cwd"], params.get("sessionStartSource", "startup"))
            self.threads[thread.id] = thread
            thread.subscribers.append(peer)
            self.tell("thread/started", {"thread": thread.told()})
            return {"thread": thread.told()}
        thread = self.threads.get(params.get("threadId", ""))
        if thread is None:
            raise Refused(f"thread not found: {params.get('threadId')}")
        if method == "thread/read":
            return {"thread": thread.told()}
        if method == "thread/turns/list":
            turns = [{**turn, "itemsView": "summary"} for turn in reversed(thread.turns)]
            return {"data": turns[: params.get("limit") or 20], "nextCursor": None}
        if method == "thread/items/list":
            turns = [turn for turn in thread.turns if params.get("turnId") in (None, turn["id"])]
            items = [{"turnId": turn["id"], "item": item} for turn in turns for item in reversed(turn["items"])]
            return {"data": items, "nextCursor": None}
        if method in ("turn/start", "turn/steer"):
            text = "\n".join(each["text"] for each in params["input"])
            client_id = params.get("clientUserMessageId")
            if method == "turn/start":
                return {"turn": {"id": thread.start(text, client_id), "status": "inProgress", "items": []}}
            return {"turnId": thread.steer(text, client_id, params["expectedTurnId"])}
        if method == "turn/interrupt":
            thread.interrupt()
            return {}
        if method == "standin/approve":
            thread.approval = params["yes"]
            return {}
        raise Refused(f"unknown method {method}")


def serve_socket():
    """The shared server of this CODEX_HOME; its socket lies elsewhere, behind a link."""
    server = Server()
    path = os.path.join(CODEX_HOME, f"s{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    os.makedirs(os.path.dirname(CONTROL), exist_ok=True)
    os.symlink(path, CONTROL + ".new")
    os.replace(CONTROL + ".new", CONTROL)

    def meet(sock):
        try:
            peer = accept(sock)
        except (EOFError, OSError, TypeError):
            return sock.close()
        server.serve(peer)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=meet, args=(sock,), daemon=True).start()


def serve_pipes():
    """JSON lines on stdin and stdout."""
    server = Server()
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            print(json.dumps({"id": message["id"], "result": server.answer(None, message["method"], {})}), flush=True)


# -- the terminal


class Terminal:
    """What a person sees: a client of the server."""

    def __init__(self, embedded):
        self.peer = self.embed() if embedded else self.attach()
        self.cwd = os.path.realpath(os.getcwd())
        self.thread = ""
        self.draft = ""
        self.shown = {"lines": [], "working": False, "asks": None}
        self.review = any(hook["trustStatus"] != "trusted" for hook in all_hooks())
        self.where = False
        self.number = 0
        self.answers = {}
        self.lock = threading.RLock()

    def embed(self):
        ours, theirs = socket.socketpair()
        server = Server()
        threading.Thread(target=lambda: server.serve(accept(theirs)), daemon=True).start()
        return connect(ours)

    def attach(self):
        for attempt in range(200):
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(os.path.realpath(CONTROL))
                return connect(sock)
            except OSError:
                sock.close()
            if attempt == 0:
                argv = [sys.executable, os.path.abspath(sys.argv[0]), "app-server", "--listen", "unix://"]
                null = subprocess.DEVNULL
                subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)
            time.sleep(0.05)
        raise SystemExit("no app-server")

    def call(self, method, **params):
        """Send; the answer is awaited only by who asks for it."""
        with self.lock:
            self.number += 1
            number = self.number
        self.peer.send({"id": number, "method": method, "params": params})
        return number

    def read(self):
        try:
            while True:
                message = self.peer.receive()
                if message.get("method") == "standin/draw" and message["params"]["threadId"] == self.thread:
                    self.shown = message["params"]
                    self.draw()
                elif "thread" in (message.get("result") or {}):
                    self.thread = message["result"]["thread"]["id"]
                    self.shown = {"lines": [], "working": False, "asks": None}
                    self.draw()
        except (EOFError, OSError):
            os._exit(1)

    def begin(self, source):
        self.call("thread/start", cwd=self.cwd, sessionStartSource=source)

    def draw(self):
        width, height = os.get_terminal_size(1)
        name = os.path.basename(self.cwd)
        cursor = None
        if self.review:
            foot = ["  Hooks need review", "", "› 1. Review hooks", "  2. Trust all and continue"]
            foot += ["  3. Continue without trusting (hooks won't run)", "", "  enter confirm · esc skip"]
        elif self.where:
            foot = ["  Where should the new conversation run?", "", "› 1. Use current Git worktree"]
            foot += ["  2. Create new Git worktree", "", "  enter select · esc back"]
        elif self.shown["asks"]:
            foot = ["  Would you like to run the following command?", "", f"  $ {self.shown['asks']}", ""]
            foot += ["› 1. Yes, proceed (y)", "  2. No, and tell Codex what to do differently (esc)", ""]
            foot += ["  Press enter to confirm or esc to cancel"]
        else:
            foot = ["• Working (0s • esc to interrupt)", ""] if self.shown["working"] else []
            text = self.draft or "\033[2mAsk Codex to do anything\033[0m"
            status = f"  fake default · {self.cwd}"[:width] if self.thread else ""
            foot += ["", f"\033[1m›\033[0m {text}", "", status, "  ? for shortcuts"]
            cursor = (2 + len(self.draft), height - 3)
        working = self.shown["working"]
        title = f"[ ! ] Action Required | {name}" if self.shown["asks"] else f"⠼ {name}" if working else name
        head = [f"  >_ OpenAI Codex (v{VERSION})", f"     {self.cwd}", ""]
        body = [line[:width] for line in (head + self.shown["lines"])][-(height - len(foot)) :]
        rows = [""] * (height - len(foot) - len(body)) + body + foot
        out = f"\033]0;{title}\007\033[?25l\033[H" + "\r\n".join(row + "\033[0m\033[K" for row in rows)
        if cursor:
            out += f"\033[{cursor[1]};{cursor[0] + 1}H\033[?25h"
        with self.lock:
            os.write(1, out.encode())

    def keys(self, data):
        text = data.decode(errors="replace")
        while text:
            if text.startswith("\033[200~"):
                pasted, _, text = text[6:].partition("\033[201~")
                self.draft += pasted
                continue
            if found := re.match(r"\033\[[0-9;?]*[A-Za-z~]", text):
                text = text[found.end() :]
                continue
            key, text = text[0], text[1:]
            if not self.key(key):
                return False
        self.draw()
        return True

    def key(self, key):
        if self.review:
            self.review = key not in "\033\r23"
            if not self.review:
                self.begin("startup")
        elif self.where:
            self.where = False
            if key == "\r":
                self.begin("clear")
        elif self.shown["asks"]:
            if key in "\ry":
                self.call("standin/approve", threadId=self.thread, yes=True)
            elif key in "\033n":
                self.call("turn/interrupt", threadId=self.thread)
        elif key == "\033":
            if self.shown["working"]:
                self.call("turn/interrupt", threadId=self.thread)
        elif key == "\x03":
            return False
        elif key == "\x15":
            self.draft = ""
        elif key in "\x7f\b":
            self.draft = self.draft[:-1]
        elif key in "\r\n":
            return self.submit()
        elif key.isprintable():
            self.draft += key
        return True

    def submit(self):
        text, self.draft = self.draft.strip(), ""
        if text in ("/exit", "/quit"):
            return False
        if text == "/new":
            self.where = True
        elif text == "/clear":
            self.begin("clear")
        elif text and self.thread:
            self.call("turn/start", threadId=self.thread, input=[{"type": "text", "text": text}])
        return True

    def main(self):
        before = termios.tcgetattr(0)
        tty.setraw(0)
        os.write(1, b"\033[?1049h\033[?2004h")
        threading.Thread(target=self.read, daemon=True).start()
        try:
            self.draw()
            if not self.review:
                self.begin("startup")
            while True:
                select.select([0], [], [])
                data = os.read(0, 65536)
                if not data or not self.keys(data):
                    return
        finally:
            with self.lock:
                os.write(1, b"\033[?2004l\033[?1049l\033[?25h")
                termios.tcsetattr(0, termios.TCSADRAIN, before)


def put_into_queue(argv):
    thread, text = argv[argv.index("--thread") + 1], argv[argv.index("--message") + 1]
    folder = os.path.join(QUEUE, thread)
    os.makedirs(folder, exist_ok=True)
    name = uuid7()
    with open(os.path.join(QUEUE, name), "w") as file:
        file.write(text)
    os.rename(os.path.join(QUEUE, name), os.path.join(folder, name))
    print(f"Queued message {name} for thread {thread}.")


def main():
    argv = sys.argv[1:]
    if argv == ["--version"]:
        print(f"codex-cli {VERSION} (stand-in)")
    elif argv[:1] == ["queue"]:
        put_into_queue(argv)
    elif argv == ["app-server"]:
        serve_pipes()
    elif argv[:1] == ["app-server"]:
        serve_socket()
    else:
        signal.signal(signal.SIGHUP, lambda *_: os._exit(129))
        Terminal("--no-daemon" in argv).main()
        os._exit(0)


if __name__ == "__main__":
    main()
