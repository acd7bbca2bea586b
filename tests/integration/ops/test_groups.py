"""Groups and their members, on a real store (rpc.md §5, cli.md 3.22, events.md §9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.in_process import Daemon, open_daemon
from tests.support.here import DAEMON
from thrum.model import clock, errors, ids
from thrum.model.events import GroupCreated, GroupMemberAdded
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View


async def names(agent: Any, group: str) -> list[tuple[str, str]]:
    result = await agent("group.members", name=group)
    return [(each.member_type, each.member_value) for each in result.members]


async def test_a_group_reaches_its_agents_and_the_agents_of_its_roles(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await daemon.registered("nux", "tester")
        await daemon.registered("max", "reviewer")
        made = await furiosa("group.create", name="core", description="the core")
        assert ids.is_id("grp", made.group_id) and made.created_by == "furiosa"
        assert (await furiosa("group.member.add", group="core", member_type="agent", member_value="max")).changed
        assert (await furiosa("group.member.add", group="core", member_type="role", member_value="tester")).changed
        sent = await furiosa("message.send", content="hi", to=["@core"])
        assert {each.agent_id for each in sent.recipients} == {"max", "nux"}
        assert (await furiosa("group.members", name="core", expand=True)).expanded == ("max", "nux")
        assert (await furiosa("group.members", name="core")).expanded is None
        seen = await furiosa("group.info", name="core")
        assert (seen.description, [each.added_by for each in seen.members]) == ("the core", ["furiosa", "furiosa"])


async def test_adding_twice_and_removing_nobody_is_fine_writes_nothing_and_says_so(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await furiosa("group.create", name="core")
        member = {"group": "core", "member_type": "agent", "member_value": "furiosa"}
        assert (await furiosa("group.member.add", **member)).changed
        head = daemon.store.view.head_seq()
        assert not (await furiosa("group.member.add", **member)).changed
        assert not (await furiosa("group.member.remove", **{**member, "member_value": "ghost"})).changed
        assert daemon.store.view.head_seq() == head
        assert (await furiosa("group.member.remove", **member)).changed
        assert await names(furiosa, "core") == []
        assert (await furiosa("group.member.add", **member)).changed, "and back, in the same millisecond"
        assert await names(furiosa, "core") == [("agent", "furiosa")]


@pytest.mark.spec("ID-06")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", errors.InvalidName),
        ("Bad-Name", errors.InvalidName),
        ("../x", errors.InvalidName),
        ("a/b", errors.InvalidName),
        ("x" * 65, errors.InvalidName),
        ("c\u043ere", errors.InvalidName),
        ("core\n", errors.InvalidName),
        ("everyone", errors.ReservedName),
        ("all", errors.ReservedName),
        ("nux", errors.NameEqualsRole),
        ("tester", errors.NameEqualsRole),
        ("core", errors.GroupExists),
    ],
)
async def test_a_group_has_a_name_of_its_own(tmp_path: Path, name: str, error: type[errors.ThrumError]) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux", "tester")
        await nux("group.create", name="core")
        head = daemon.store.view.head_seq()
        with pytest.raises(error):
            await nux("group.create", name=name)
        assert daemon.store.view.head_seq() == head


async def test_a_group_may_not_read_like_the_id_of_an_unnamed_agent(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        root = daemon.ctx.here.layout.root
        made = await daemon.as_agent("", str(root))("agent.register", role="tester", module="auth")
        with pytest.raises(errors.NameTaken):
            await daemon.as_agent(made.agent_id)("group.create", name=made.agent_id.lower())


@pytest.mark.spec("ID-06")
async def test_an_agent_can_take_no_name_or_role_that_a_group_has(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux", "tester")
        await nux("group.create", name="core")
        nobody = daemon.as_agent("", str(tmp_path / "w-nux"))
        with pytest.raises(errors.NameEqualsRole):
            await nobody("agent.register", name="core", role="tester", module="x")
        with pytest.raises(errors.NameEqualsRole):
            await nobody("agent.register", name="max", role="core", module="x")


async def test_a_member_is_a_registered_agent_or_what_a_role_can_be_called(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux", "tester")
        await nux("group.create", name="core")
        with pytest.raises(errors.AgentNotFound) as refused:
            await nux("group.member.add", group="core", member_type="agent", member_value="nuks")
        assert refused.value.details["suggestions"] == ["nux"]
        for role, error in (("a b", errors.InvalidName), ("nux", errors.NameEqualsRole), ("all", errors.ReservedName)):
            with pytest.raises(error):
                await nux("group.member.add", group="core", member_type="role", member_value=role)
        later = await nux("group.member.add", group="core", member_type="role", member_value="reviewer")
        assert later.changed, "a role may come before its agents"
        assert (await nux("group.member.add", group="core", member_type="role", member_value="*")).changed
        with pytest.raises(errors.GroupNotFound) as missing:
            await nux("group.member.add", group="cor", member_type="agent", member_value="nux")
        assert missing.value.details["suggestions"] == ["core"]


async def test_everyone_is_there_from_the_beginning_and_nobody_changes_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux", "tester")
        await daemon.registered("max")
        (everyone,) = (await nux("group.list")).groups
        assert (everyone.name, everyone.member_count) == ("everyone", 1)
        assert clock.parse_ms(everyone.created_at) == ids.ulid_ms(DAEMON)
        assert await names(nux, "everyone") == [("role", "*")]
        assert (await nux("group.members", name="everyone", expand=True)).expanded == ("max", "nux")
        assert (await nux("group.info", name="everyone")).created_by == "system"
        member = {"group": "everyone", "member_type": "agent", "member_value": "nux"}
        for method, params in (
            ("group.delete", {"name": "everyone"}),
            ("group.member.add", member),
            ("group.member.remove", member),
        ):
            with pytest.raises(errors.ProtectedGroup):
                await nux(method, **params)


async def test_a_deleted_group_is_gone_for_good_and_its_name_is_free(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        max_ = await daemon.registered("max")
        first = await nux("group.create", name="core")
        await nux("group.member.add", group="core", member_type="agent", member_value="max")
        sent = await nux("message.send", content="stays", to=["@core"])
        assert (await nux("group.delete", name="core")).name == "core"
        for call in ("group.info", "group.delete"):
            with pytest.raises(errors.GroupNotFound):
                await nux(call, name="core")
        with pytest.raises(errors.UnknownRecipient):
            await nux("message.send", content="hi", to=["@core"])
        inbox = await max_("message.list", for_agent="max")
        assert [each.message_id for each in inbox.messages] == [sent.message_id]
        second = await nux("group.create", name="core")
        assert second.group_id != first.group_id
        assert await names(nux, "core") == []


async def test_a_retried_call_gives_the_first_answer(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        first = await nux("group.create", name="core", client_key="k.1")
        again = await nux("group.create", name="core", client_key="k.1")
        assert again.replayed and (again.group_id, again.created_at) == (first.group_id, first.created_at)
        member = {"group": "core", "member_type": "agent", "member_value": "nux"}
        for _ in range(2):
            assert (await nux("group.member.add", **member, client_key="k.2")).changed
        for _ in range(2):
            assert (await nux("group.member.remove", **member, client_key="k.3")).changed
        gone = [await nux("group.delete", name="core", client_key="k.4") for _ in range(2)]
        assert gone[0] == gone[1]


async def test_the_first_change_starts_a_session(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        assert daemon.store.view.open_session("nux") is None
        await nux("group.create", name="core")
        assert daemon.store.view.open_session("nux") is not None


async def put(daemon: Daemon, *members: str) -> None:
    """A group `core` as another clone would have made it, at the same time."""

    def decide(view: View, stamp: Stamp) -> Decision[None]:
        group_id = stamp.new_id("grp_")
        made = stamp.make(GroupCreated, group_id=group_id, name="core", description="", created_by="x")
        added = [
            stamp.make(GroupMemberAdded, group_id=group_id, member_type="agent", member_value=name, added_by="x")
            for name in members
        ]
        return Decision([made, *added], lambda _view, _seqs: None)

    await daemon.ctx.journal.commit(decide)


async def test_groups_of_one_name_are_changed_as_one(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        await daemon.registered("max")
        await put(daemon, "nux", "max")
        await put(daemon, "nux")
        assert [each.name for each in (await nux("group.list")).groups] == ["everyone", "core"]
        assert await names(nux, "core") == [("agent", "max"), ("agent", "nux")]
        member = {"group": "core", "member_type": "agent", "member_value": "nux"}
        assert not (await nux("group.member.add", **member)).changed
        assert (await nux("group.member.remove", **member)).changed
        assert await names(nux, "core") == [("agent", "max")], "taken out of both"
        await nux("group.delete", name="core")
        with pytest.raises(errors.GroupNotFound):
            await nux("group.info", name="core")


async def test_an_agent_that_is_gone_is_no_member_and_can_be_added_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        await nux("group.create", name="core")
        member = {"group": "core", "member_type": "agent", "member_value": "max"}
        with pytest.raises(errors.AgentNotFound):
            await nux("group.member.add", **member)
        await daemon.registered("max")
        assert (await nux("group.member.add", **member)).changed


async def test_nobody_changes_a_group_without_being_somebody(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.registered("nux")
        nobody = daemon.as_agent("")
        with pytest.raises(errors.ThrumError):
            await nobody("group.create", name="core")
        assert len((await nobody("group.list")).groups) == 1, "looking is free"


async def test_groups_are_as_they_were_after_a_restart(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        await nux("group.create", name="core")
        await nux("group.member.add", group="core", member_type="role", member_value="tester")
    for path in (tmp_path / "repo" / ".thrum" / "var").glob("messages.db*"):
        path.unlink()
    async with open_daemon(tmp_path) as daemon:
        assert await names(daemon.as_agent("nux"), "core") == [("role", "tester")]
