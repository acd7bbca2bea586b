#!/usr/bin/env python3
# ruff: noqa: PTH123
"""A stand-in for Cursor's agent: its hooks and their answers as its documentation has them. The real one was not tried.

Standard library alone: it is copied to the PATH.
"""

import json
import os
import select
import signal
import subprocess
import termios
import threading
import tty
import urllib.request
import uuid

HOME, PROJECT = os.environ["HOME"], os.getcwd()
READY, WORKING = "Plan, search, build anything", "ctrl+c to stop"


class Cursor:
    def __init__(self):
        self.session = str(uuid.uuid4())
        self.messages, self.shown, self.queue = [], [], []
        self.draft, self.status, self.abort, self.turn = "", READY, False, None
        self.follow_ups = 0
        self.lock = threading.Lock()
        self.wake_r, self.wake_w = os.pipe()

    def fire(self, event, **more):
        """Run an event's hooks; what they answered, as one object."""
        common = {"conversation_id": self.session, "generation_id": str(uuid.uuid4()), "hook_event_name": event}
        payload = json.dumps({**common, "workspace_roots": [PROJECT], "cursor_version": "0", **more}).encode()
        said = {}
        for path in (os.path.join(HOME, ".cursor/hooks.json"), os.path.join(PROJECT, ".cursor/hooks.json")):
            try:
                with open(path) as file:
                    hooks = json.load(file)["hooks"].get(event, [])
            except (OSError, ValueError, KeyError):
                continue
            for hook in hooks:
                done = subprocess.run(
                    ["sh", "-c", hook["command"]], input=payload, capture_output=True, timeout=60, check=False
                )
                try:
                    said.update(json.loads(done.stdout or b"{}"))
                except ValueError:
                    pass
        return said

    def ask_model(self):
        tools = [{"type": "function", "function": {"name": "Shell"}}]
        body = json.dumps({"model": "fake", "messages": self.messages, "tools": tools}).encode()
        box = {}

        def go():
            url = os.environ["FAKE_CHAT_URL"] + "/chat/completions"
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=600) as answer:
                    box["message"] = json.load(answer)["choices"][0]["message"]
            except OSError as error:
                box["message"] = {"content": f"API error: {error}"}

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:
                return None
        return box["message"]

    def run_turn(self, prompt):
        self.abort, self.status = False, WORKING
        self.draw()
        self.fire("beforeSubmitPrompt", prompt=prompt, attachments=[])
        self.messages.append({"role": "user", "content": prompt})
        status = "completed"
        while True:
            message = self.ask_model()
            if message is None:
                status = "aborted"
                break
            self.messages.append({"role": "assistant", "content": message.get("content") or ""})
            if message.get("content"):
                self.shown.append(message["content"])
            calls = message.get("tool_calls") or []
            if not calls:
                break
            for call in calls:
                out = self.run_tool(json.loads(call["function"]["arguments"])["command"])
                self.messages.append({"role": "tool", "content": out or "(no output)"})
            if self.abort:
                status = "aborted"
                break
        said = self.fire("stop", status=status, loop_count=self.follow_ups)
        follow = said.get("followup_message", "") if status == "completed" and self.follow_ups < 5 else ""
        if follow:
            self.follow_ups += 1
            self.shown.append(follow)
            return self.run_turn(follow)
        self.follow_ups = 0
        self.status = READY
        self.draw()
        os.write(self.wake_w, b"t")

    def run_tool(self, command):
        """What it printed; it ends with the turn that its person ends."""
        child = subprocess.Popen(
            ["bash", "-c", command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )
        box = {}
        thread = threading.Thread(target=lambda: box.update(out=child.communicate()[0]), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:
                os.killpg(child.pid, signal.SIGKILL)
                thread.join()
                return "interrupted"
        self.fire("afterShellExecution", command=command, output=box["out"])
        return box["out"]

    @property
    def busy(self):
        return self.turn is not None and self.turn.is_alive()

    def draw(self):
        width, height = os.get_terminal_size(1)
        foot = [f" \u2192 {self.draft or self.status}", "" if self.status == READY else WORKING]
        body = [line[:width] for text in self.shown for line in text.splitlines()][-(height - len(foot)) :]
        rows = body + foot + [""] * (height - len(foot) - len(body))
        with self.lock:
            os.write(1, ("\033[H" + "\r\n".join(row + "\033[K" for row in rows)).encode())

    def keys(self, data):
        for key in data.decode(errors="replace").replace("\033[200~", "").replace("\033[201~", ""):
            if key == "\033":
                self.abort = self.busy
            elif key == "\x03":
                return False
            elif key in "\r\n":
                line, self.draft = self.draft.strip(), ""
                if line == "/exit":
                    return False
                if line:
                    self.queue.append(line)
            elif key.isprintable():
                self.draft += key
        self.take_queue()
        self.draw()
        return True

    def take_queue(self):
        if self.queue and not self.busy:
            self.shown.append("> " + self.queue[0])
            self.turn = threading.Thread(target=self.run_turn, args=(self.queue.pop(0),), daemon=True)
            self.turn.start()

    def main(self):
        before = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            said = self.fire("sessionStart", session_id=self.session, is_background_agent=False)
            if context := said.get("additional_context"):
                self.messages.append({"role": "user", "content": context})
            self.draw()
            while True:
                ready, _, _ = select.select([0, self.wake_r], [], [])
                if self.wake_r in ready:
                    os.read(self.wake_r, 4096)
                    if self.turn is not None:
                        self.turn.join()
                    self.take_queue()
                if 0 in ready:
                    data = os.read(0, 65536)
                    if not data or not self.keys(data):
                        return
        finally:
            self.fire("sessionEnd", session_id=self.session, reason="user_close")
            termios.tcsetattr(0, termios.TCSADRAIN, before)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, lambda *_: os._exit(129))
    Cursor().main()
    os._exit(0)
