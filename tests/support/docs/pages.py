"""The documentation as a program reads it: pages, their blocks, the commands in them, and what they say comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_PROMPT = re.compile(r"^(?:([\w.-]+) )?\$ (.+)$")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def pages() -> list[Path]:
    """README and everything under docs/."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass
class Step:
    """One command of a block. `where`: the directory its prompt names. `shown`: the output beside it, None if a block
    of bare commands tells none."""

    place: str
    where: str
    command: str
    shown: list[str] | None

    @property
    def in_background(self) -> bool:
        return self.command.endswith(" &")


@dataclass
class Block:
    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block, in order."""
    text = page.read_text(encoding="utf-8")
    found = _FENCE.finditer(text)
    return [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


def steps(page: Path) -> list[Step]:
    """The commands of all `sh` and `console` blocks, in the order in which a reader would type them."""
    return [step for block in blocks(page) for step in _steps_of(block)]


def _steps_of(block: Block) -> list[Step]:
    match block.language:
        case "sh":
            return list(_bare_steps(block))
        case "console":
            return _console_steps(block)
        case _:
            return []


def _bare_steps(block: Block) -> Iterator[Step]:
    """A command a line; `\\` at the end goes on, and what follows two blanks and `#` is a remark."""
    for number, line in enumerate(block.text.replace("\\\n", "").splitlines(), start=block.line + 1):
        command = re.sub(r"(^|\s\s+)#\s.*$", "", line).strip()
        if command:
            yield Step(f"{name_of(block.page)}:{number}", "", command, None)


def _console_steps(block: Block) -> list[Step]:
    """`DIRECTORY $ command`, then its output."""
    found: list[Step] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
        prompt = _PROMPT.match(line)
        if prompt:
            found.append(Step(f"{name_of(block.page)}:{number}", prompt[1] or "", prompt[2], []))
        else:
            assert found, f"{name_of(block.page)}:{number}: output before any command"
            shown = found[-1].shown
            assert shown is not None
            shown.append(line)
    return found


def code_of(page: Path) -> Iterator[str]:
    """Everything a reader could type: code spans, and blocks without the output that they show."""
    text = page.read_text(encoding="utf-8")
    yield from _SPAN.findall(_FENCE.sub("", text))
    for block in blocks(page):
        if block.language in ("sh", "console"):
            yield from (step.command for step in _steps_of(block))
        elif block.language == "text":
            yield from block.text.splitlines()


def links_of(page: Path) -> list[str]:
    """Targets of links into the project."""
    return [target for target in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]


# -- comparing


END = re.compile(
    r"(?:(?<=thrum reply )|(?<=message read )|(?<=message get )|(?<=message delete )|(?<=1 message: ))"
    r"[0-9A-HJKMNP-TV-Z]{6}\b"
)
"""The end of a message's id, in the place of the id."""
_SAME = (
    (END, "END"),
    (re.compile(r"\b(msg|thr|ses|evt|grp|d|r)_[0-9A-HJKMNP-TV-Z]{26}\b"), r"\1_ID"),
    (re.compile(r"\bses_[0-9A-HJKMNP-TV-Z]{8}\.\.\."), "ses_ID..."),
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\.\d+\b"), "CURSOR"),
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "ULID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\dZ"), "CLOCK"),
    (re.compile(r"\bjust now\b|\b\d+[smhd] ago\b"), "AGE"),
    (re.compile(r"\((active|pid|up) [\w.]+"), r"(\1 N"),
    (re.compile(r"(, up) [\w.]+"), r"\1 N"),
    (re.compile(r"\b(pid=|\"pid\":)\d+"), r"\1N"),
    (re.compile(r"\b[0-9a-f]{7}\b(?= )"), "COMMIT"),
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{16}\b"), "HEX"),
    (re.compile(r"Python 3[\w.+]*"), "Python V"),
    (re.compile(r"thrum \d+\.\d+\.\d+ \(build \w+"), "thrum V (build B"),
)


def alike(line: str) -> str:
    """A line without what differs from run to run: ids, times, pids."""
    for pattern, replacement in _SAME:
        line = pattern.sub(replacement, line)
    return line.rstrip()


def matches(shown: str, printed: str) -> bool:
    """Whether a line came out as it is shown; `…` in it stands for anything."""
    pattern = ".*".join(re.escape(part) for part in alike(shown).split("…"))
    return re.fullmatch(pattern, alike(printed)) is not None


def pair_up(shown: list[str], printed: list[str]) -> list[tuple[str, str]] | None:
    """Each line shown with the one that came out, or None if they differ. A line `…` stands for any lines."""
    if "…" not in shown:
        same = len(shown) == len(printed) and all(map(matches, shown, printed))
        return list(zip(shown, printed, strict=True)) if same else None
    at = shown.index("…")
    after = len(shown) - at - 1
    if at + after > len(printed):
        return None
    head = pair_up(shown[:at], printed[:at])
    tail = pair_up(shown[at + 1 :], printed[len(printed) - after :]) if after else []
    return None if head is None or tail is None else head + tail
