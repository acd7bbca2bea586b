#!/usr/bin/env python3
# ruff: noqa: PTH123
"""A stand-in for Gemini CLI 0.61.0: its hooks, its title, its queue of typed-ahead lines, its dialog, before a model.

What it does was measured with the real one (docs/runtimes.md). Standard library alone: it is copied to the PATH.
"""

import json
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
import urllib.request
import uuid

HOME, PROJECT = os.environ["HOME"], os.getcwd()
RULE = "\u2500"
READY, WORKING, ASKING = "\u25c7  Ready", "\u2726  Working\u2026", "\u270b  Action Required"


def settings():
    found = []
    for path in (os.path.join(HOME, ".gemini/settings.json"), os.path.join(PROJECT, ".gemini/settings.json")):
        try:
            with open(path) as file:
                found.append(json.load(file))
        except (OSError, ValueError):
            pass
    return found


class Gemini:
    def __init__(self):
        self.session = str(uuid.uuid4())
        self.contents, self.shown, self.queue = [], [], []
        self.draft, self.dialog, self.answer = "", "", None
        self.abort, self.turn, self.tool, self.title = False, None, None, READY
        self.lock = threading.Lock()
        self.yolo = "--yolo" in sys.argv
        self.wake_r, self.wake_w = os.pipe()

    # -- hooks

    def fire(self, event, **more):
        payload = json.dumps(
            {
                "session_id": self.session,
                "transcript_path": "",
                "cwd": PROJECT,
                "hook_event_name": event,
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                **more,
            }
        ).encode()
        contexts, reason = [], ""
        for each in settings():
            for group in each.get("hooks", {}).get(event, []):
                for hook in group["hooks"]:
                    done = subprocess.run(
                        ["bash", "-c", hook["command"]],
                        input=payload,
                        capture_output=True,
                        timeout=hook.get("timeout", 60000) / 1000,
                        env={**os.environ, "GEMINI_PROJECT_DIR": PROJECT},
                        check=False,
                    )
                    if done.returncode == 2:
                        reason = reason or done.stderr.decode()
                    text = done.stdout.decode().strip()
                    try:
                        said = json.loads(text) if text.startswith("{") else {}
                    except ValueError:
                        said = {}
                    if said.get("decision") in ("deny", "block"):
                        reason = reason or said.get("reason", "")
                    context = said.get("hookSpecificOutput", {}).get("additionalContext", "")
                    if context:
                        contexts.append(f"<hook_context>{context}</hook_context>")
        return contexts, reason

    # -- a turn

    def ask_model(self):
        body = json.dumps(
            {"contents": self.contents, "tools": [{"functionDeclarations": [{"name": "run_shell_command"}]}]}
        ).encode()
        url = os.environ["GOOGLE_GEMINI_BASE_URL"] + "/v1beta/models/gemini-2.5-flash:generateContent"
        box = {}

        def go():
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=600) as answer:
                    box["parts"] = json.load(answer)["candidates"][0]["content"]["parts"]
            except OSError as error:
                box["parts"] = [{"text": f"API error: {error}"}]

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.abort:
                return None
        return box["parts"]

    def user(self, *texts):
        self.contents.append({"role": "user", "parts": [{"text": text} for text in texts]})

    def say(self, text):
        self.shown.append(text)
        self.draw()

    def run_turn(self, prompt):
        self.abort = False
        self.set_title(WORKING)
        if self.send(prompt, again=False) is None:
            self.say("\u2139 Request cancelled.")
        self.set_title(READY)
        os.write(self.wake_w, b"t")

    def send(self, prompt, again):
        """One prompt until the model calls no tool any more. None: its person broke it off."""
        contexts, _ = self.fire("BeforeAgent", prompt=prompt)
        self.user(prompt, *contexts)
        after_tool = False
        while True:
            parts = self.ask_model()
            if parts is None:
                return None
            self.contents.append({"role": "model", "parts": parts})
            calls = [part["functionCall"] for part in parts if "functionCall" in part]
            for part in parts:
                if "text" in part:
                    self.say("\u2726 " + part["text"])
            if not calls:
                # Once a tool was called the real one tells no more that a hook has prolonged this turn.
                _, reason = self.fire("AfterAgent", prompt=prompt, stop_hook_active=again and not after_tool)
                if reason and not self.abort:
                    self.say("Agent execution blocked: " + reason)
                    return self.send(reason, again=True)
                return True
            after_tool = True
            responses = []
            for call in calls:
                out = self.run_tool(call)
                if out is None:
                    cancelled = {"error": "[Operation Cancelled] User denied execution."}
                    self.contents.append(
                        {"role": "user", "parts": [{"functionResponse": {"name": call["name"], "response": cancelled}}]}
                    )
                    return None
                responses.append({"functionResponse": {"name": call["name"], "response": {"output": out}}})
            self.contents.append({"role": "user", "parts": responses})

    def run_tool(self, call):
        command = call["args"]["command"]
        if not self.yolo and not command.startswith("thrum ") and not self.permitted(command):
            return None
        self.tool = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GEMINI_CLI": "1"},
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
        self.fire("AfterTool", tool_name=call["name"], tool_input=call["args"])
        return box["out"].decode(errors="replace") or "(empty)"

    def permitted(self, command):
        self.answer, self.dialog = None, command
        self.set_title(ASKING)
        details = {"type": "exec", "title": "Confirm Shell Command", "command": command}
        message = f"Tool run_shell_command requires execution: {command}"
        self.fire("Notification", notification_type="ToolPermission", message=message, details=details)
        while self.answer is None and not self.abort:
            time.sleep(0.02)
        self.dialog = ""
        self.set_title(WORKING)
        return bool(self.answer) and not self.abort

    def begin(self, prompt):
        self.shown.append("> " + prompt)
        self.turn = threading.Thread(target=self.run_turn, args=(prompt,), daemon=True)
        self.turn.start()

    @property
    def busy(self):
        return self.turn is not None and self.turn.is_alive()

    # -- the screen: no alternate one

    def set_title(self, title):
        self.title = title
        os.write(1, f"\033]0;{title} ({os.path.basename(PROJECT)})\007".encode())
        self.draw()

    def draw(self):
        width, height = os.get_terminal_size(1)
        if self.dialog:
            foot = ["? Shell " + self.dialog, "", "Allow execution?", "\u25cf 1. Allow once", "  2. No (esc)"]
        else:
            typed = self.draft or "\033[38;5;248m  Type your message or @path/to/file\033[39m"
            foot = ["esc to cancel" if self.title == WORKING else "", RULE * width]
            foot += [" > " + typed.lstrip(), RULE * width, "no sandbox   gemini-2.5-flash"]
        body = [line[:width] for text in self.shown for line in text.splitlines()][-(height - len(foot)) :]
        rows = body + foot + [""] * (height - len(foot) - len(body))
        with self.lock:
            os.write(1, ("\033[?25l\033[H" + "\r\n".join(row + "\033[0m\033[K" for row in rows)).encode())

    # -- the person

    def keys(self, data):
        text = data.decode(errors="replace").replace("\033[200~", "").replace("\033[201~", "")
        for key in text:
            if self.dialog:
                self.answer = True if key in "\r1" else False if key in "2\033" else self.answer
                self.abort = self.abort or key == "\033"
            elif key == "\033":
                self.abort = self.busy
            elif key == "\x03":
                return False
            elif key in "\x7f\b":
                self.draft = self.draft[:-1]
            elif key in "\r\n":
                line, self.draft = self.draft.strip(), ""
                if line in ("/quit", "/exit"):
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
            self.begin(self.queue.pop(0))

    def main(self):
        before = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            contexts, _ = self.fire("SessionStart", source="startup")
            if contexts:
                self.user(*contexts)
            self.set_title(READY)
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
            self.fire("SessionEnd", reason="exit")
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            os.write(1, b"\033[?25h\r\n")


def main():
    if sys.argv[1:] == ["--version"]:
        print("0.61.0 (stand-in)")
        return
    signal.signal(signal.SIGHUP, lambda *_: os._exit(129))
    Gemini().main()
    os._exit(0)


if __name__ == "__main__":
    main()
