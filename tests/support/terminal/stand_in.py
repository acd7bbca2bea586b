"""A stand-in for a runtime in a pane: draws a recorded screen, reads keys raw, draws what is typed, logs what is
submitted.

`python stand_in.py SCREEN.json LOG [LAG]`: the screen is a row of `tests/data/screens`; LOG gets a JSON line for each
key and each line that Enter submitted, and `{"ready": true}` first; LAG are the seconds that it takes before it draws.
Only the standard library.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import termios
import textwrap
import time
import tty
from pathlib import Path

PASTE_BEGINS, PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
SGR = re.compile(r"\x1b\[[0-9;:]*m")


def main() -> None:
    screen = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    log = Path(sys.argv[2])
    lag = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        _say(("\x1b[?1049h" if screen["alternate_on"] else "") + "\x1b[?2004h" + f"\x1b]2;{screen['title']}\x07")
        _draw(screen, "")
        _log(log, {"ready": True})
        _serve(screen, log, lag)
    finally:
        _say("\x1b[?2004l\x1b[?1049l\x1b[?25h")
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _serve(screen: dict, log: Path, lag: float) -> None:
    draft = ""
    pending = b""
    while True:
        pending += os.read(0, 65536)
        while select.select([0], [], [], 0)[0]:
            pending += os.read(0, 65536)
        pending = pending.replace(PASTE_BEGINS, b"").replace(PASTE_ENDS, b"")
        try:
            keys, pending = pending.decode(), b""
        except UnicodeDecodeError:
            continue
        for key in keys:
            if key == "\r":
                _log(log, {"submitted": draft})
                draft = ""
            elif key == "\x7f":
                draft = draft[:-1]
            elif key == "\x04":
                return
            else:
                draft += key
            _log(log, {"key": key})
        time.sleep(lag)
        _draw(screen, draft)


def _draw(screen: dict, draft: str) -> None:
    lines, cursor = list(screen["lines"]), list(screen["cursor"])
    if draft:
        lines, cursor = {"claude": _claude, "codex": _codex, "gemini": _gemini}[screen["runtime"]](screen, draft)
    out = "\x1b[?25l\x1b[0m\x1b[2J"
    for row, line in enumerate(lines):
        out += f"\x1b[{row + 1};1H{line}"
    out += f"\x1b[{cursor[1] + 1};{min(cursor[0], screen['size'][0] - 1) + 1}H"
    _say(out + ("\x1b[?25h" if screen["cursor_visible"] else ""))


def _claude(screen: dict, draft: str) -> tuple[list[str], list[int]]:
    return _grown(screen, r"❯\xa0", draft, "\x1b[39m❯\xa0", "\x1b[0m\x1b[39m\x1b[49m", "\x1b[7m ")


def _codex(screen: dict, draft: str) -> tuple[list[str], list[int]]:
    return _grown(screen, "› ", draft, "\x1b[0;1m›\x1b[0m ", "\x1b[0m")


def _gemini(screen: dict, draft: str) -> tuple[list[str], list[int]]:
    lines, cursor = _grown(screen, " > ", draft, " \x1b[38;5;183m> \x1b[38;5;231m", "\x1b[39m")
    return lines, [0, cursor[1]]


def _grown(screen: dict, sign: str, draft: str, head: str, tail: str, block: str = "") -> tuple[list[str], list[int]]:
    """The screen with a draft in its prompt, which grows upward into blank rows or the history."""
    plain = [SGR.sub("", line) for line in screen["lines"]]
    row = max(at for at, text in enumerate(plain) if re.match(sign, text))
    margin = 3 if sign == " > " else 2
    rows = textwrap.wrap(draft, screen["size"][0] - margin - 2, drop_whitespace=False) or [""]
    drawn = [f"{head}{rows[0]}", *(" " * margin + each for each in rows[1:])]
    drawn = [f"{each}{block if each is drawn[-1] else ''}{tail}" for each in drawn]
    extra = len(rows) - 1
    lines = screen["lines"][extra:row] + drawn + screen["lines"][row + 1 :]
    return lines, [margin + len(rows[-1]), row]


def _say(text: str) -> None:
    os.write(1, text.encode())


def _log(log: Path, entry: dict) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
