"""What is killed: each act, with what must be true after a kill at any moment of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.kills.harness import Say, Told, fork_beside, remove
from tests.kills.life import HOST, Life, age, check_projection, check_sound, creates_of, facts_of, live, start_only
from tests.support.git.repository import git, make_repository
from tests.support.trusted import trust_here
from thrum.admin import backup, init, restore
from thrum.identity.daemon_key import load_key
from thrum.model import events, signatures, trust
from thrum.model.clock import SystemClock, format_ms
from thrum.model.events import Accepted, AgentRegistered, DaemonKeyed, DaemonSucceeded
from thrum.model.origins import line_hash
from thrum.model.paths import Layout, find_layout


def make_installation(root: Path, *, clone_of: Path | None = None, sync: bool = False) -> None:
    if clone_of is None:
        make_repository(root, {}, "--template=")
    else:
        git(root.parent, "clone", "-q", "--template=", str(clone_of), str(root))
    init.initialise(root, init.InitOptions(hostname=HOST, environ=os.environ, sync=sync))


def copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))


class OnARepository:
    """An act on `top/work/repo`, which each try begins with as it was made."""

    name = ""
    links = 4

    def __init__(self, top: Path) -> None:
        self.top = top / self.name
        self.work = self.top / "work"
        self.root = self.work / "repo"
        self.kept = self.top / "kept"

    @property
    def layout(self) -> Layout:
        return find_layout(self.root)

    def prepare(self) -> None:
        self.work.mkdir(parents=True)
        self.make()
        copy_tree(self.work, self.kept)

    def make(self) -> None:
        make_installation(self.root)

    def reset(self, chance: random.Random) -> None:
        remove(self.work)
        copy_tree(self.kept, self.work)

    def start(self) -> None:
        start_only(self.root)


async def send(life: Life, say: Say, text: str, author: str = "ann", to: str = "bob") -> None:
    say("?", "send", text)
    result = await life.as_agent(author)("message.send", content=text, to=[f"@{to}"])
    say("!", "send", text, result.message_id)


def check_sent(told: Told, life: Life) -> None:
    """What was answered is there, whatever else was begun is there once or not."""
    here = life.messages()
    creates = creates_of(life.parts.ctx.here.layout)
    for _, text, message_id in told.of("!"):
        assert here.get(message_id) == text, f"answered and lost: {text}"
    for _, text in told.of("?"):
        count = creates[text]
        assert count <= 1, f"there {count} times: {text}"
        assert list(here.values()).count(text) == count, text


class Purge(OnARepository):
    """A purge, beside senders, and the compaction after it."""

    name = "purge"
    compacts_only = False

    def make(self) -> None:
        super().make()
        cutoff = ""

        async def fill(life: Life) -> None:
            nonlocal cutoff
            for name in ("ann", "bob"):
                await life.register(name)
            for number in range(6):
                for author, to in (("ann", "bob"), ("bob", "ann")):
                    result = await life.as_agent(author)(
                        "message.send", content=f"old {author} {number}", to=[f"@{to}"]
                    )
                    if number % 2:
                        await life.as_agent(author)(
                            "message.edit", message_id=result.message_id, content=f"old {author} {number} fixed"
                        )
                    if number % 3 == 0:
                        await life.as_agent(to)("message.markRead", message_ids=[result.message_id])
            await trio.sleep(0.005)
            view = life.parts.ctx.view
            cutoff = view.latest_time() if hasattr(view, "latest_time") else now_text()
            await trio.sleep(0.005)
            for author, to in (("ann", "bob"), ("bob", "ann")):
                for number in range(3):
                    await life.as_agent(author)("message.send", content=f"young {author} {number}", to=[f"@{to}"])

        live(self.root, fill)
        (self.top / "cutoff").write_text(cutoff)

    @property
    def cutoff(self) -> str:
        return (self.top / "cutoff").read_text()

    async def purge(self, life: Life, say: Say) -> None:
        say("?purge")
        result = await life.as_agent("")("purge.execute", before=self.cutoff, dry_run=False, confirm=True)
        say("!purge", result.messages_deleted)

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        before = chance.randint(0, 3)

        async def work(life: Life) -> None:
            async def senders(author: str, to: str, count: int) -> None:
                for number in range(count):
                    await send(life, say, f"{author} meanwhile {link} {number}", author, to)

            if self.compacts_only:
                await self.purge(life, say)
            say("arm")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(senders, "ann", "bob", 4)
                nursery.start_soon(senders, "bob", "ann", before)
                if not self.compacts_only:
                    await self.purge(life, say)
                await life.parts.care.compactor.compact(whatever_is_tombstoned=True)

        live(self.root, work)

    def check(self, told: Told, chance: random.Random) -> str:
        outcome = ""

        async def look(life: Life) -> None:
            nonlocal outcome
            check_sent(told, life)
            texts = list(life.messages().values())
            watermarks = life.watermarks()
            purged = bool(watermarks)
            assert purged or not told.of("!purge"), "answered, and not purged"
            assert not purged or told.of("?purge")
            young = [text for text in texts if text.startswith("young")]
            old = [text for text in texts if text.startswith("old")]
            assert sorted(young) == sorted(f"young {who} {n}" for who in ("ann", "bob") for n in range(3))
            creates = [text for text in creates_of(self.layout) if text.startswith("old")]
            if purged:
                assert not old, f"purged, and still there: {old}"
                outcome = "purged" if creates else "purged and compacted"
            else:
                fixed = [f"old {who} {n}{' fixed' * (n % 2)}" for who in ("ann", "bob") for n in range(6)]
                assert sorted(old) == sorted(fixed)
                assert len(creates) == 12, creates
                outcome = "not purged"
            # The next ones complete.
            await self.purge(life, lambda *_: None)
            await life.parts.care.compactor.compact(whatever_is_tombstoned=True)
            assert not [text for text in life.messages().values() if text.startswith("old")]
            assert not [text for text in creates_of(self.layout) if text.startswith("old")]
            assert len(life.watermarks()) == 1
            await send(life, lambda *_: None, "goes on")
            assert "goes on" in life.messages().values()

        live(self.root, look)
        check_sound(self.layout, chance)
        return outcome


def now_text() -> str:
    return format_ms(SystemClock().now_ms())


class Compaction(Purge):
    """A compaction, beside senders; what it drops was purged before."""

    name = "compaction"
    compacts_only = True


class Edit(OnARepository):
    """Edits of four messages at once; two of them large."""

    name = "edit"

    def make(self) -> None:
        super().make()
        ids: list[str] = []

        async def fill(life: Life) -> None:
            for name in ("ann", "bob"):
                await life.register(name)
            for number in range(4):
                author, to = ("ann", "bob") if number % 2 else ("bob", "ann")
                result = await life.as_agent(author)("message.send", content=self.text(number, 0), to=[f"@{to}"])
                ids.append(result.message_id)

        live(self.root, fill)
        (self.top / "ids").write_text(json.dumps(ids))

    @property
    def ids(self) -> list[str]:
        return json.loads((self.top / "ids").read_text())

    @staticmethod
    def text(message: int, version: int) -> str:
        return f"{message} {version} " + ("x" * (20_000 * (message // 2) + version)) + " end"

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        counts = [chance.randint(1, 4) for _ in range(4)]

        async def work(life: Life) -> None:
            async def edit(number: int) -> None:
                client = life.as_agent("ann" if number % 2 else "bob")
                for version in range(10 * link + 1, 10 * link + counts[number] + 1):
                    say("?", number, version)
                    text = self.text(number, version)
                    await client("message.edit", message_id=self.ids[number], content=text)
                    say("!", number, version)

            say("arm")
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(edit, number)

        live(self.root, work)

    def check(self, told: Told, chance: random.Random) -> str:
        held = 0

        async def look(life: Life) -> None:
            nonlocal held
            here = life.messages()
            assert sorted(here) == sorted(self.ids)
            for number, message_id in enumerate(self.ids):
                begun = max((version for which, version in told.of("?") if which == number), default=0)
                answered = max((version for which, version in told.of("!") if which == number), default=0)
                found = next((v for v in range(begun + 1) if here[message_id] == self.text(number, v)), None)
                assert found is not None, f"no text that anybody gave it: {here[message_id][:40]!r}"
                assert found >= answered, f"edit {answered} of message {number} was answered, there is {found}"
                held += found
                result = await life.as_agent("ann" if number % 2 else "bob")(
                    "message.edit", message_id=message_id, content=f"{number} at last"
                )
                assert result.message_id == message_id
            assert sorted(life.messages().values()) == [f"{number} at last" for number in range(4)]

        live(self.root, look)
        facts_of(self.layout)
        check_sound(self.layout, chance)
        return "some edits" if held else "none"


class Restore(OnARepository):
    """`thrum backup restore` without a daemon."""

    name = "restore"
    links = 1

    def make(self) -> None:
        super().make()

        async def fill(life: Life) -> None:
            for name in ("ann", "bob"):
                await life.register(name)
            for number in range(3):
                await send(life, lambda *_: None, f"one {number}")

        async def more(life: Life) -> None:
            await life.register("eve")
            for author, to in (("ann", "bob"), ("eve", "ann")):
                await send(life, lambda *_: None, f"two {author}", author, to)

        live(self.root, fill)
        backup.create_here(self.layout, os.environ)
        live(self.root, more)

    def restore(self) -> None:
        restore.restore_here(self.layout, os.environ, HOST, "", "")

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        say("arm")
        self.restore()
        say("!restored")

    def check(self, told: Told, chance: random.Random) -> str:
        old = [f"one {number}" for number in range(3)]
        outcome = ""

        async def look(life: Life) -> None:
            nonlocal outcome
            texts = sorted(life.messages().values())
            archives = list((backup.shelf_of(self.layout).archives).glob("pre-restore-*.zip"))
            if texts == old:
                [archive] = archives
                with zipfile.ZipFile(archive) as packed:
                    assert b"two ann" in packed.read("messages/ann.jsonl")
                    assert b"two eve" in packed.read("messages/eve.jsonl")
                    assert packed.testzip() is None
                outcome = "restored"
            else:
                assert not told.of("!restored")
                assert texts == sorted([*old, "two ann", "two eve"]), texts
                outcome = "as before"
            await send(life, lambda *_: None, "goes on")

        live(self.root, look)
        check_sound(self.layout, chance)
        git(self.root, "fsck", "--strict", "--no-dangling")
        self.restore()
        assert sorted(creates_of(self.layout)) == old
        return outcome


class Rotation(OnARepository):
    """A start that gives the daemon another id, or its first, and says so; sometimes two processes at once."""

    name = "rotation"
    links = 1
    LEGACY = "d_nywz3tk0vqkh"
    CASES = ("legacy", "keyless", "lost key", "copy", "moved copy", "fresh")

    def make(self) -> None:
        super().make()
        provenance: list[list[Any]] = []

        async def fill(life: Life) -> None:
            nonlocal provenance
            for name in ("ann", "bob"):
                await life.register(name)
            for number in range(3):
                await send(life, lambda *_: None, f"one {number}")
            ids = {text: id for id, text in life.messages().items()}
            await life.as_agent("bob")("message.markRead", message_ids=[ids["one 0"]])
            await life.as_agent("ann")("message.edit", message_id=ids["one 2"], content="one 2, fixed")
            provenance = life.provenance()

        live(self.root, fill)
        (self.top / "standing.json").write_text(json.dumps(provenance))

    def reset(self, chance: random.Random) -> None:
        super().reset(chance)
        case = self.case(chance)
        layout = self.layout
        key = load_key(layout.daemon_key)
        assert key is not None
        if case == "fresh":
            remove(self.root)
            make_repository(self.root, {}, "--template=")
            (self.root / ".thrum").mkdir()
            (self.root / ".thrum/config.json").write_text("{}\n")
            trust_here(self.root)
        elif case == "legacy":
            unsign(layout, key.daemon_id, self.LEGACY)
            unmark(layout)
        elif case == "keyless":
            unsign(layout, key.daemon_id, key.daemon_id)
        elif case == "lost key":
            layout.daemon_key.unlink()
        elif case in ("copy", "moved copy"):
            copy_tree(self.work, self.top / "away")
            remove(self.root) if case == "moved copy" else self.root.rename(self.work / "original")
            (self.top / "away/repo").rename(self.root)
            remove(self.top / "away")
            if case == "copy":
                rename_state(layout, self.work / "original/.thrum")
        (self.top / "case.json").write_text(json.dumps([case, key.daemon_id]))

    @property
    def case_of_this(self) -> tuple[str, str]:
        """Which of `CASES`, and the id that there was."""
        case, first = json.loads((self.top / "case.json").read_text())
        return case, first

    def case(self, chance: random.Random) -> str:
        return chance.choice(self.CASES)

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        two, whole = chance.random() < 0.3, chance.random() < 0.5
        case = self.case_of_this[0]
        say("arm", f"{case}{', whole' * whole}")
        if two:
            fork_beside(self.bootstrap)
        start_only(self.root) if whole else self.bootstrap()
        say("!rotated", self.bootstrap())

    def bootstrap(self) -> str:
        return init.bootstrap_identity(self.layout, HOST, os.environ, SystemClock()).identity.daemon_id

    def check(self, told: Told, chance: random.Random) -> str:
        case, first = self.case_of_this
        old = {"legacy": self.LEGACY, "fresh": ""}.get(case, first)
        stays = case == "moved copy"
        previous = [] if case in ("fresh", "copy") or stays else [old]

        async def look(life: Life) -> None:
            if case == "fresh":
                for name in ("ann", "bob"):
                    await life.register(name)
            else:
                assert life.provenance() == json.loads((self.top / "standing.json").read_text())
            if case not in ("fresh", "copy"):
                # What was written under the old id is this daemon's own.
                [message_id] = [id for id, text in life.messages().items() if text == "one 0"]
                await life.as_agent("ann")("message.edit", message_id=message_id, content="one 0 fixed")
                assert "one 0 fixed" in life.messages().values()
            await send(life, lambda *_: None, "goes on")

        live(self.root, look)
        key = load_key(self.layout.daemon_key)
        assert key is not None
        block = json.loads(self.layout.config_file.read_text())["identity"]
        kept = json.loads(self.layout.daemon_json.read_text())
        assert block["daemon_id"] == kept["daemon_id"] == key.daemon_id
        assert block.get("previous_ids", []) == kept["previous_ids"] == previous, (case, block, kept)
        ids = (key.daemon_id, *previous)
        assert [id for id in ids if signatures.certifies(id, key.signer.public_key)] == [key.daemon_id]
        assert (key.daemon_id == first) is stays
        for [told_id] in told.of("!rotated"):
            assert told_id == key.daemon_id, "it was said to be another one"
        if case == "copy":
            original = find_layout(self.work / "original")
            theirs = load_key(original.daemon_key)
            assert theirs is not None
            assert theirs.daemon_id == first
        self.check_said(case, key.daemon_id, previous)
        check_sound(self.layout, chance)
        self.check_purge(case)
        return case

    def check_said(self, case: str, daemon_id: str, previous: list[str]) -> None:
        """What the daemon says of itself stands there once, and what was there before counts by its own word."""
        facts = facts_of(self.layout)
        own = [fact for fact in facts if fact.origin_daemon == daemon_id]
        assert len([fact for fact in own if isinstance(fact, DaemonKeyed)]) == 1
        assert [fact.previous_id for fact in own if isinstance(fact, DaemonSucceeded)] == previous
        registered = sorted(fact.agent_id for fact in own if isinstance(fact, AgentRegistered))
        assert registered == ([] if case == "copy" else ["ann", "bob"]), "not said to be its own, or twice"
        accepted = [fact for fact in facts if isinstance(fact, Accepted) and fact.kind == "before"]
        before: set[str] = set()
        for path in self.layout.branch_dir.rglob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                if not signatures.is_signed(line, events.decode(line).origin_daemon):
                    before.add(line_hash(line))
        assert bool(before) is (case in ("legacy", "keyless")), "what a daemon writes is signed"
        assert {line for fact in accepted for line in fact.lines} == before
        assert len([fact for fact in accepted if not fact.lines]) == bool(before), "the time before is not closed once"

    def check_purge(self, case: str) -> None:
        """A purge takes what this daemon wrote, under whatever id, and no other's."""
        left: list[str] = []

        async def purge(life: Life) -> None:
            nonlocal left
            await trio.sleep(0.002)
            await life.as_agent("")("purge.execute", before=now_text(), dry_run=False, confirm=True)
            left = sorted(life.messages().values())

        live(self.root, purge)
        assert left == (["one 0", "one 1", "one 2, fixed"] if case == "copy" else []), left
        check_projection(self.layout)


_SAID_SINCE = (DaemonKeyed, DaemonSucceeded, Accepted)


def unsign(layout: Layout, daemon_id: str, old: str) -> None:
    """Make of it what a daemon of before left: no key, no signatures, and perhaps an id of the old kind."""
    layout.daemon_key.unlink()
    for path in [*layout.branch_dir.rglob("*.jsonl"), layout.local_journal]:
        lines = [line for line in path.read_bytes().splitlines() if not isinstance(events.decode(line), _SAID_SINCE)]
        bare = [signatures.unsigned(line).replace(daemon_id.encode(), old.encode()) for line in lines]
        path.write_bytes(b"".join(line + b"\n" for line in bare))
    for path in (layout.config_file, layout.config_copy):
        config = json.loads(path.read_text())
        config["identity"]["daemon_id"] = old
        path.write_text(json.dumps(config))
    kept = json.loads(layout.daemon_json.read_text()) | {"daemon_id": old}
    kept.pop("key_inode", None)
    layout.daemon_json.write_text(json.dumps(kept))
    for path in layout.var_dir.glob("messages.db*"):
        path.unlink()


def unmark(layout: Layout) -> None:
    """Take away what a daemon of before did not know: the marks, and settings that lie elsewhere than people edit."""
    (layout.state_dir / trust.MARK).unlink()
    remove(layout.thrum_sync_dir / "state")
    layout.config_file.unlink()


def rename_state(layout: Layout, original: Path) -> None:
    """Say in a copy where it was copied from."""
    kept = json.loads(layout.daemon_json.read_text())
    layout.daemon_json.write_text(json.dumps(kept | {"state_dir": str(original)}))


class Sync(OnARepository):
    """Two rounds with a remote on this machine, where another clone's facts wait, beside a sender."""

    name = "sync"

    @property
    def there(self) -> Path:
        return self.work / "there"

    @property
    def remote(self) -> Path:
        return self.work / "remote.git"

    def make(self) -> None:
        make_repository(self.work / "first", {}, "--template=")
        git(self.work, "clone", "-q", "--template=", "--bare", "first", "remote.git")
        for root, name in ((self.root, "ann"), (self.there, "bob")):
            make_installation(root, clone_of=self.remote, sync=True)

            async def fill(life: Life, name: str = name) -> None:
                await life.register(name)
                await send(life, lambda *_: None, f"first of {name}", name, name)
                await life.round()

            live(root, fill)
        live(self.root, Life.round)

        async def more(life: Life) -> None:
            await life.round()
            for number in range(4):
                await send(life, lambda *_: None, f"waits {number}", "bob", "ann")
            await life.round()

        live(self.there, more)

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        self.let_a_minute_pass()
        if chance.random() < 0.4:
            fork_beside(lambda: live(self.there, partial(self.race, link)))

        async def work(life: Life) -> None:
            async def sender() -> None:
                for number in range(3):
                    await send(life, say, f"meanwhile {link} {number}", "ann", "bob")

            for number in range(3):
                await send(life, say, f"before {link} {number}", "ann", "bob")
            say("arm")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender)
                await life.round()
            came = [id for id, text in life.messages().items() if text.startswith("waits")]
            await life.as_agent("ann")("message.markRead", message_ids=came[:2])
            await life.round()

        live(self.root, work)

    def let_a_minute_pass(self) -> None:
        """After it a ref's lock is taken for a dead one's; until then rounds fail, and are tried again."""
        for root in (self.root, self.there):
            age((root / ".git/refs").rglob("*.lock"))

    @staticmethod
    async def race(link: int, life: Life) -> None:
        """What the other clone does meanwhile."""
        for number in range(3):
            await send(life, lambda *_: None, f"raced {link} {number}", "bob", "ann")
            await life.round()

    def check(self, told: Told, chance: random.Random) -> str:
        waits = [f"waits {number}" for number in range(4)]
        outcome = ""
        self.let_a_minute_pass()

        async def look(life: Life) -> None:
            nonlocal outcome
            check_sent(told, life)
            outcome = "ingested" if set(waits) <= set(life.messages().values()) else "not yet"
            await send(life, lambda *_: None, "goes on", "ann", "bob")
            await life.round()

        live(self.root, look)
        live(self.there, Life.round)
        if len(self.tips()) > 1:
            live(self.root, Life.round)
        assert len(self.tips()) == 1, "clones differ after a round of each"
        sent = {text for _, text, _ in told.of("!")}
        begun = {text for _, text in told.of("?")}
        for root in (self.root, self.there):
            layout = find_layout(root)
            creates = creates_of(layout)
            assert max(creates.values()) == 1, creates
            fixed = {"first of ann", "first of bob", "goes on", *waits}
            others = {text for text in creates if text.startswith("raced")}
            assert fixed | sent <= set(creates) <= fixed | begun | others
            check_sound(layout, chance)
        assert creates_of(find_layout(self.root)) == creates_of(find_layout(self.there))
        for at in (self.root, self.there, self.remote):
            git(at, "fsck", "--strict", "--no-dangling")
        self.check_purge()
        return outcome

    def check_purge(self) -> None:
        """What another daemon signed is not this one's to purge."""
        theirs = {text for text in creates_of(find_layout(self.there)) if text.startswith(("waits", "raced"))}

        async def purge(life: Life) -> None:
            await trio.sleep(0.002)
            await life.as_agent("")("purge.execute", before=now_text(), dry_run=False, confirm=True)
            assert set(life.messages().values()) == {"first of bob", *theirs}

        live(self.root, purge)
        check_projection(self.layout)

    def tips(self) -> set[str]:
        return {git(at, "rev-parse", "a-sync") for at in (self.root, self.there, self.remote)}
