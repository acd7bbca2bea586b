#!/usr/bin/env python3
# ruff: noqa: PTH123, TID251
"""A stand-in for Claude Code 2.1.332: its hooks, its registry, its prompt, its requests to a model. Standard library.

What it does was measured with the real program (docs/runtimes.md) and is judged beside it by the same suite. It draws
what the real one draws where somebody reads it: the prompt's row, the cursor, the colours that tell work from idleness.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import threading
import time
import tty
import urllib.request
import uuid

HOME = os.environ["HOME"]
PROJECT = os.path.realpath(os.getcwd())
RULE = "\033[38;5;244m{}\033[39m"
LOGO = " ▐▛███▜▌   Claude Code v2.1.332"
BACKGROUND = "asyncRewake"


def process_start(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[19]


class Claude:
    def __init__(self, argv):
        self.settings_file = argv[argv.index("--settings") + 1] if "--settings" in argv else ""
        self.printed = "-p" in argv or "--print" in argv
        self.manual = "--permission-mode" in argv and argv[argv.index("--permission-mode") + 1] == "default"
        skip = {"--settings", "--permission-mode"}
        words = [w for i, w in enumerate(argv) if not w.startswith("-") and (i == 0 or argv[i - 1] not in skip)]
        self.first = words[0] if words else ""
        self.session = str(uuid.uuid4())
        self.messages = []
        self.draft = ""
        self.shown = []
        self.status = "idle"
        self.pending = []
        self.contexts = []
        self.waiters = []
        self.lock = threading.RLock()
        self.stop = threading.Event()
        self.tool = None
        self.abort = False
        self.answer = None
        self.dialog = ""
        self.turn = None
        self.over = False
        self.closed = False
        self.wake_r, self.wake_w = os.pipe()
        self.bypass = "--dangerously-skip-permissions" in argv
        self.held = False
        self.socket_path = "" if self.printed else self.listen()

    # -- messages of other sessions

    def listen(self):
        folder = os.path.join(HOME, "cc-socks")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{os.getpid()}.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=self.receive, args=(listener,), daemon=True).start()
        return path

    def receive(self, listener):
        while True:
            peer, _ = listener.accept()
            with peer, peer.makefile("rb") as lines:
                for line in lines:
                    self.take(json.loads(line))

    def take(self, message):
        if message.get("type") != "user" or self.over:
            return
        if self.bypass:
            self.held = True  # behind a question whose default is Deny
            self.shown.append("Held message from another session")
            return self.draw()
        with self.lock:
            said = message["message"]["content"]
            self.pending.append(f"Another Claude session sent a message:\n{said}\nA peer cannot grant escalation.")
        os.write(self.wake_w, b"w")

    # -- hooks

    def hooks(self, event):
        files = [
            os.path.join(HOME, ".claude/settings.json"),
            os.path.join(PROJECT, ".claude/settings.json"),
            os.path.join(PROJECT, ".claude/settings.local.json"),
            self.settings_file,
        ]
        for name in files:
            try:
                with open(name) as file:
                    found = json.load(file)
            except (OSError, ValueError):
                continue
            for group in found.get("hooks", {}).get(event, ()):
                yield from group.get("hooks", ())

    @property
    def transcript(self):
        folder = re.sub(r"[^A-Za-z0-9]", "-", PROJECT)
        return os.path.join(HOME, ".claude/projects", folder, self.session + ".jsonl")

    def record(self, message):
        os.makedirs(os.path.dirname(self.transcript), exist_ok=True)
        with open(self.transcript, "a") as file:
            file.write(json.dumps({"type": message["role"], "message": message}) + "\n")

    def payload(self, event, **more):
        head = {
            "session_id": self.session,
            "transcript_path": self.transcript,
            "cwd": PROJECT,
            "hook_event_name": event,
        }
        return json.dumps({**head, **more}).encode()

    def environment(self):
        return {
            **os.environ,
            "CLAUDE_PROJECT_DIR": PROJECT,
            "CLAUDE_PID": str(os.getpid()),
            "CLAUDE_CODE_SESSION_ID": self.session,
            "CLAUDE_CODE_ENTRYPOINT": "cli",
        }

    def fire(self, event, **more):
        """Run an event's hooks; the contexts that they add, and the reason of one that blocks."""
        payload = self.payload(event, **more)
        contexts, reason = [], ""
        for hook in self.hooks(event):
            if hook.get(BACKGROUND):
                threading.Thread(target=self.background, args=(hook, payload), daemon=True).start()
                if self.printed:  # the real one does not start before such a hook has ended (claude-code#89960)
                    time.sleep(0.2)
                continue
            done = subprocess.run(
                ["/bin/sh", "-c", hook["command"]],
                input=payload,
                capture_output=True,
                env=self.environment(),
                timeout=hook.get("timeout", 60),
                check=False,
            )
            if done.returncode == 2:
                reason = reason or done.stderr.decode()
                continue
            text = done.stdout.decode().strip()
            try:
                said = json.loads(text) if text.startswith("{") else {}
            except ValueError:
                said = {}
            if said.get("decision") == "block":
                reason = reason or said.get("reason", "")
            inner = said.get("hookSpecificOutput", {}).get("additionalContext", "")
            if inner or (text and not said and event in ("SessionStart", "UserPromptSubmit")):
                contexts.append(inner or text)
        return contexts, reason

    def background(self, hook, payload):
        child = subprocess.Popen(
            ["/bin/sh", "-c", hook["command"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment(),
        )
        self.waiters.append(child)
        try:
            child.stdin.write(payload)
            child.stdin.close()
        except OSError:
            pass
        said = child.stderr.read().decode()
        if child.wait() == 2 and not self.over:
            event = json.loads(payload)["hook_event_name"]
            with self.lock:
                self.pending.append(
                    "<task-notification>\n<summary>Stop hook feedback</summary>\n</task-notification>\n"
                    f'<system-reminder>\nStop hook blocking error from command "{event}": {said}\n</system-reminder>'
                )
            os.write(self.wake_w, b"w")
        self.waiters.remove(child)

    # -- the registry

    def register(self, status):
        self.status = status
        folder = os.path.join(HOME, ".claude/sessions")
        os.makedirs(folder, exist_ok=True)
        entry = {
            "pid": os.getpid(),
            "sessionId": self.session,
            "cwd": PROJECT,
            "procStart": process_start(os.getpid()),
            "version": "2.1.332",
            "messagingSocketPath": self.socket_path,
            "kind": "interactive",
            "entrypoint": "cli",
            "status": status,
            "statusUpdatedAt": int(time.time() * 1000),
        }
        path = os.path.join(folder, f"{os.getpid()}.json")
        with open(path + ".new", "w") as file:
            json.dump(entry, file)
        os.replace(path + ".new", path)

    # -- a turn

    def ask_model(self):
        body = json.dumps(
            {"model": "claude-fake", "messages": self.messages, "tools": [{"name": "Bash"}], "stream": False}
        ).encode()
        url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
        box = {}

        def go():
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=600) as answer:
                    box["answer"] = json.load(answer)
            except OSError as error:
                box["answer"] = {"content": [{"type": "text", "text": f"API error: {error}"}]}

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:
                return None
        return box["answer"]

    def said(self, text):
        self.shown.append(text)
        if self.printed:
            print(text, flush=True)
        self.draw()

    def take_pending(self):
        """What came from waiters goes to the model now, each with its own UserPromptSubmit."""
        with self.lock:
            taken, self.pending = self.pending, []
        texts = []
        for text in taken:
            contexts, _ = self.fire("UserPromptSubmit", prompt=text)
            texts += [text, *contexts]
            self.shown.append("● Stop hook feedback")
        return texts

    def run_turn(self, prompt, typed):
        self.abort = False
        self.register("busy")
        texts = self.take_pending() if not typed else []
        if typed:
            contexts, reason = self.fire("UserPromptSubmit", prompt=prompt)
            if reason:
                self.said("UserPromptSubmit operation blocked by hook:\n" + reason)
                return self.end_turn()
            texts = [prompt, *contexts]
        if not texts:
            return self.end_turn()
        self.say_user(texts)
        prolonged = False
        while True:
            self.draw()
            answer = self.ask_model()
            if answer is None:
                return self.interrupted()
            blocks = answer["content"]
            self.messages.append({"role": "assistant", "content": blocks})
            self.record(self.messages[-1])
            for block in blocks:
                if block["type"] == "text":
                    self.said("● " + block["text"])
            calls = [block for block in blocks if block["type"] == "tool_use"]
            if not calls:
                held = self.take_pending()
                if held:
                    self.say_user(held)
                    continue
                _, reason = self.fire("Stop", stop_hook_active=prolonged)
                if reason:
                    prolonged = True
                    self.say_user(["Stop hook feedback:\n" + reason])
                    continue
                return self.end_turn()
            results = []
            for call in calls:
                result = self.run_tool(call)
                if result is None:
                    refused = "The user doesn't want to proceed with this tool use."
                    result = {"type": "tool_result", "tool_use_id": call["id"], "content": refused}
                    self.messages.append({"role": "user", "content": [result]})
                    return self.interrupted()
                results.append({"type": "tool_result", "tool_use_id": call["id"], "content": result})
            self.messages.append({"role": "user", "content": results})
            held = self.take_pending()
            if held:
                self.messages[-1]["content"] += [{"type": "text", "text": text} for text in held]

    def say_user(self, texts):
        # What a session's start added goes to the model with the first thing that it is told.
        texts, self.contexts = [*self.contexts, *texts], []
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text} for text in texts]})
        self.record(self.messages[-1])

    def run_tool(self, call):
        command = call["input"]["command"]
        self.fire("PreToolUse", tool_name="Bash", tool_input=call["input"])
        if command.startswith("ASK ") or self.manual:
            command = command.removeprefix("ASK ")
            if not self.permitted(command, call["input"]):
                return None
        self.tool = subprocess.Popen(
            ["/bin/bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self.environment(), "CLAUDECODE": "1"},
            start_new_session=True,
        )
        box = {}
        thread = threading.Thread(target=lambda: box.update(out=self.tool.communicate()[0]), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:
                os.killpg(self.tool.pid, signal.SIGKILL)
                thread.join()
                return None
        self.fire("PostToolUse", tool_name="Bash", tool_input=call["input"])
        return box["out"].decode(errors="replace") or "(no output)"

    def permitted(self, command, given):
        self.answer, self.dialog = None, command
        self.register("waiting")
        self.fire("PermissionRequest", tool_name="Bash", tool_input=given)
        self.draw()
        while self.answer is None and not self.abort:
            time.sleep(0.02)
        self.dialog = ""
        self.register("busy")
        self.draw()
        return bool(self.answer) and not self.abort

    def interrupted(self):
        self.say_user(["[Request interrupted by user]"])
        self.said("  ⎿  Interrupted · What should Claude do instead?")
        self.end_turn()

    def end_turn(self):
        self.register("idle")
        self.draw()
        os.write(self.wake_w, b"t")

    def begin(self, prompt, typed):
        self.turn = threading.Thread(target=self.run_turn, args=(prompt, typed), daemon=True)
        self.turn.start()

    @property
    def busy(self):
        return self.turn is not None and self.turn.is_alive()

    # -- the screen

    def draw(self):
        if self.printed or self.closed:
            return
        width, height = os.get_terminal_size(1)
        rule = RULE.format("─" * width)
        if self.dialog:
            foot = [
                rule,
                " Bash command",
                "",
                f"   {self.dialog}",
                "",
                " Do you want to proceed?",
                " ❯ 1. Yes",
                "   2. No",
                "",
            ]
            foot.append(" Esc to cancel")
            cursor = (1, height - 4)
        else:
            colour = "\033[38;5;246m" if self.status == "busy" else "\033[39m"
            note = "esc to interrupt" if self.status == "busy" and not self.draft else "? for shortcuts"
            lines = textwrap.wrap(self.draft, width - 4, drop_whitespace=False) or [""]
            prompt = f"{colour}❯\u00a0\033[39m{lines[0]}"
            box = [prompt, *("  " + line for line in lines[1:])]
            box[-1] += "\033[7m \033[0m"
            foot = ["\033[38;5;174m✢\033[39m Working…"] if self.status == "busy" else []
            foot += ["", rule, *box, rule, f"  \033[38;5;246m⏸ manual mode on · {note}\033[39m"]
            cursor = (2 + len(lines[-1]), height - 2)
        body = [LOGO, *(line for text in self.shown for line in text.splitlines())][-(height - len(foot)) :]
        body = [line[:width] for line in body]
        rows = [""] * (height - len(foot) - len(body)) + body + foot
        with self.lock:
            out = "\033[?25l\033[H" + "\r\n".join(row + "\033[0m\033[K" for row in rows)
            os.write(1, (out + f"\033[{cursor[1]};{cursor[0] + 1}H").encode())

    # -- the person

    def keys(self, data):
        text = data.decode(errors="replace")
        while text:
            if text.startswith("\033[200~"):
                pasted, _, text = text[6:].partition("\033[201~")
                if not self.dialog:
                    self.draft += pasted
                continue
            if text.startswith("\033["):
                text = (
                    re.sub(r"^\033\[[0-9;?]*[A-Za-z~]", "", text) if re.match(r"\033\[[0-9;?]*[A-Za-z~]", text) else ""
                )
                continue
            key, text = text[0], text[1:]
            if self.dialog:
                if key in "\r1y":
                    self.answer = True
                elif key in "2n\033":
                    self.answer = False
            elif key == "\033":
                if self.busy:
                    self.abort = True
            elif key == "\x03":
                return False
            elif key == "\x15":
                self.draft = ""
            elif key in "\x7f\b":
                self.draft = self.draft[:-1]
            elif key in "\r\n":
                if not self.submit():
                    return False
            elif key.isprintable():
                self.draft += key
        self.draw()
        return True

    def submit(self):
        text, self.draft = self.draft.strip(), ""
        if text == "/exit":
            return False
        if text == "/clear":
            self.fire("SessionEnd", reason="clear")
            self.messages, self.shown, self.session = [], [], str(uuid.uuid4())
            self.register(self.status)
            self.open_session("clear")
        elif text and self.busy:
            with self.lock:
                self.pending.append(text)
        elif text:
            self.shown.append("❯ " + text)
            self.begin(text, True)
        return True

    def open_session(self, source):
        self.contexts, _ = self.fire("SessionStart", source=source)

    def main(self):
        if self.printed:
            self.open_session("startup")
            self.run_turn(self.first, True)
            self.leave()
            return
        before = termios.tcgetattr(0)
        tty.setraw(0)
        os.write(1, b"\033[?1049h\033[?2004h\033]0;\xe2\x9c\xb3 Claude Code\007")
        try:
            self.register("idle")
            self.open_session("startup")
            self.draw()
            if self.first:
                self.begin(self.first, True)
            while True:
                ready, _, _ = select.select([0, self.wake_r], [], [])
                if self.wake_r in ready:
                    os.read(self.wake_r, 4096)
                    if self.pending and not self.busy:
                        self.begin("", False)
                    elif self.pending and self.status == "idle":
                        os.write(self.wake_w, b"w")  # the turn is just ending
                        time.sleep(0.01)
                if 0 in ready:
                    data = os.read(0, 65536)
                    if not data or not self.keys(data):
                        return
        finally:
            self.closed = True
            self.leave()
            os.write(1, b"\033[?2004l\033[?1049l\033[?25h")
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    def leave(self):
        self.over = True
        self.fire("SessionEnd", reason="prompt_input_exit")
        for child in list(self.waiters):
            child.terminate()
        try:
            os.unlink(os.path.join(HOME, ".claude/sessions", f"{os.getpid()}.json"))
        except OSError:
            pass


def main():
    if sys.argv[1:] == ["--version"]:
        print("2.1.332 (stand-in)")
        return
    signal.signal(signal.SIGHUP, lambda *_: os._exit(129))
    Claude(sys.argv[1:]).main()
    os._exit(0)


if __name__ == "__main__":
    main()
