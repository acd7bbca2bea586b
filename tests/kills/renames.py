"""A rename that is killed: the agent has one name, one file, its notes and its mail, each once."""

from __future__ import annotations

import random

import trio

from tests.kills.acts import OnARepository, send
from tests.kills.harness import Say, Told
from tests.kills.life import Life, check_sound, creates_of, live
from thrum.identity.files import list_identities
from thrum.model.notes import DEFAULT_PREAMBLE, notes_path, preamble_path, save_notes, save_preamble
from thrum.ops.relocation import Moves

_NOTES = "remember the milk"
_NAMES = ("ann", "cid", "dot")
_TEXTS = ("new", "old", "newer")


class Rename(OnARepository):
    """An agent goes on under another name, and back, while somebody sends to it."""

    name = "rename"

    def make(self) -> None:
        super().make()

        async def fill(life: Life) -> None:
            for name in ("ann", "bob"):
                await life.register(name)
            ann = life.as_agent("ann")
            await life.as_agent("bob")("group.create", name="crew")
            await life.as_agent("bob")("group.member.add", group="crew", member_type="agent", member_value="ann")
            root = life.parts.ctx.here.layout.root.parent / "w-ann"
            save_notes(root, "ann", _NOTES)
            save_preamble(root, "ann", DEFAULT_PREAMBLE.format(name="ann", role="worker", module="ann"))
            for text in _TEXTS:
                sent = await life.as_agent("bob")("message.send", content=text, to=["@ann"])
                if text == "old":
                    await ann("message.markRead", message_ids=[sent.message_id])

        live(self.root, fill)

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        before = chance.randint(0, 2)

        async def work(life: Life) -> None:
            await Moves(life.parts.ctx, trio.current_time).follow()
            name = called(life)
            new = chance.choice([each for each in _NAMES if each != name])

            async def rename() -> None:
                for _ in range(before):
                    await trio.lowlevel.checkpoint()
                say("?rename", name, new)
                await life.as_agent(name)("agent.rename", name=new)
                say("!rename", new)

            say("arm")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rename)
                for number in range(3):
                    nursery.start_soon(send, life, say, f"{link} {number}", "bob", "crew")

        live(self.root, work)

    def start(self) -> None:
        async def follow(life: Life) -> None:
            await Moves(life.parts.ctx, trio.current_time).follow()

        live(self.root, follow)

    def check(self, told: Told, chance: random.Random) -> str:
        name = ""

        async def look(life: Life) -> None:
            nonlocal name
            await Moves(life.parts.ctx, trio.current_time).follow()
            name = called(life)
            answered, *begun = since_answered(told)
            assert name in (answered, *begun), f"{name} was answered to be {answered}; begun: {begun}"
            root = self.work / "w-ann"
            files = [listed.path.name for listed in list_identities(root / ".thrum/identities")]
            assert files == [f"{name}.json"], f"{name} has the files {files}"
            for of, text in ((notes_path, _NOTES), (preamble_path, f"# @{name}, worker of ann")):
                there = [each for each in _NAMES if of(root, each).exists()]
                assert there == [name], f"{name} has the notes of {there}"
                assert text in of(root, name).read_text(), of(root, name).read_text()
            creates = creates_of(life.parts.ctx.here.layout)
            inbox = await life.as_agent(name)("message.list", for_agent=name, page_size=100)
            texts = sorted(each.body.content for each in inbox.messages)
            assert texts == sorted(creates), f"{name} has {texts} of {sorted(creates)}"
            assert {each.body.content for each in inbox.messages if each.is_read} == {"old"}
            for _, text, _ in told.of("!"):
                assert text in texts, f"answered and lost: {text}"

        live(self.root, look)
        check_sound(self.layout, chance)
        return "renamed" if name != "ann" else "not"


def since_answered(told: Told) -> list[str]:
    """The name of the last answer, and those that were asked for since."""
    names = ["ann"]
    for word, *rest in told.lines:
        if word == "!rename":
            names = [str(rest[-1])]
        elif word == "?rename":
            names.append(str(rest[-1]))
    return names


def called(life: Life) -> str:
    """What the agent is called that began as ann."""
    [name] = [row.agent_id for row in life.parts.ctx.view.agents() if row.live and row.agent_id != "bob"]
    return name
