"""Send, reply, edit, delete, mark: on a real store (rpc.md §5, events.md §8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon.in_process import open_daemon
from thrum.model import clock, errors


async def test_a_message_reaches_whom_it_names_and_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="Token refresh is in", to=["@nux"])
        journal = daemon.ctx.here.layout.branch_dir / "messages" / "furiosa.jsonl"
        assert sent.message_id in journal.read_text()
        assert [recipient.agent_id for recipient in sent.recipients] == ["nux"]
        assert sent.resolved_to == 1 and not sent.quiet and sent.seq == daemon.store.view.head_seq()
        page = await nux("message.list", for_agent="nux")
        assert [(m.message_id, m.body.content, m.is_read) for m in page.messages] == [
            (sent.message_id, "Token refresh is in", False)
        ]
        assert (page.total, page.unread) == (1, 1)


@pytest.mark.spec("ID-54")
async def test_the_first_message_starts_a_session_in_the_same_batch(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        assert daemon.store.view.open_session("furiosa") is None
        sent = await furiosa("message.send", content="hello")
        session = daemon.store.view.open_session("furiosa")
        row = daemon.store.view.message(sent.message_id)
        assert session is not None and row is not None and row.session_id == session.session_id
        assert session.started_at == row.created_at


async def test_one_unknown_address_and_nothing_is_stored(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await daemon.registered("nux")
        before = daemon.store.view.head_seq()
        with pytest.raises(errors.UnknownRecipient, match="@nuks"):
            await furiosa("message.send", content="hi", to=["@nux", "@nuks"])
        assert daemon.store.view.head_seq() == before


async def test_a_retried_send_with_its_key_gives_the_first_answer_and_no_second_message(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        first = await furiosa("message.send", content="once", to=["nux"], client_key="k.1")
        again = await furiosa("message.send", content="once", to=["nux"], client_key="k.1")
        assert again.replayed and not first.replayed
        assert (again.message_id, again.created_at, again.seq) == (first.message_id, first.created_at, first.seq)
        assert [r.agent_id for r in again.recipients] == ["nux"]
        assert (await nux("message.list", for_agent="nux")).total == 1
        with pytest.raises(errors.ClientKeyReused):
            await furiosa("message.send", content="another", to=["nux"], client_key="k.1")


async def test_the_answer_to_a_send_names_recipients_that_were_silent_for_half_an_hour(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        began = daemon.clock.now_ms()
        daemon.clock.ms += 5 * 60_000
        await daemon.registered("toast")
        await nux("message.send", content="here")
        daemon.clock.ms += 30 * 60_000
        sent = await furiosa("message.send", content="hi", to=["nux", "toast"])
        assert sent.silent == (), "half an hour is not over it"
        daemon.clock.ms += 1
        sent = await furiosa("message.send", content="hi", to=["nux", "toast"])
        assert {each.agent_id for each in sent.silent} == {"nux", "toast"}
        assert {clock.parse_ms(each.last_seen_at) for each in sent.silent} == {began + 5 * 60_000}
        post = await furiosa("message.send", content="for whoever reads it")
        assert post.quiet and post.silent == (), "a post to the team waits for nobody"


async def test_a_reply_joins_the_thread_goes_to_the_audience_and_reads_the_parent(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux, toast = [await daemon.registered(name) for name in ("furiosa", "nux", "toast")]
        root = await furiosa("message.send", content="who takes it?", to=["nux", "toast"])
        reply = await nux("message.send", content="me", reply_to=root.message_id)
        assert reply.reply_to == root.message_id and reply.thread_id == "thr_" + root.message_id[4:]
        assert {r.agent_id for r in reply.recipients} == {"furiosa", "toast"}
        second = await toast("message.send", content="fine", reply_to=reply.message_id)
        assert second.thread_id == reply.thread_id
        thread = await toast("message.list", thread_id=root.message_id, chronological=True)
        assert [m.message_id for m in thread.messages] == [root.message_id, reply.message_id, second.message_id]
        (outgoing,) = (await furiosa("message.outbox")).messages
        states = {r.agent_id: (bool(r.read_at), bool(r.replied_at)) for r in outgoing.recipients}
        assert states == {"nux": (True, True), "toast": (False, False)}


async def test_only_the_author_edits_and_deletes_and_a_delete_is_final(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="one", to=["nux"])
        with pytest.raises(errors.NotAuthor, match="it is by @furiosa, you are @nux"):
            await nux("message.edit", message_id=sent.message_id, content="mine")
        edited = await furiosa("message.edit", message_id=sent.message_id, content="two")
        assert edited.version == 1 and edited.updated_at > sent.created_at
        (shown,) = (await nux("message.list", for_agent="nux")).messages
        assert shown.body.content == "two" and shown.updated_at == edited.updated_at
        with pytest.raises(errors.NotAuthor):
            await nux("message.delete", message_id=sent.message_id)
        deleted = await furiosa("message.delete", message_id=sent.message_id, reason="wrong")
        page = await nux("message.list", for_agent="nux")
        assert page.messages == () and (page.total, page.unread) == (0, 0)
        detail = (await nux("message.get", message_id=sent.message_id)).message
        assert detail.deleted and detail.metadata.deleted_at == deleted.deleted_at
        assert detail.metadata.delete_reason == "wrong"
        for method, more in (("message.edit", {"content": "x"}), ("message.delete", {})):
            with pytest.raises(errors.MessageDeleted):
                await furiosa(method, message_id=sent.message_id, **more)
        with pytest.raises(errors.MessageDeleted):
            await nux("message.send", content="hm", reply_to=sent.message_id)


async def test_marking_counts_what_is_new_and_marks_nothing_if_one_id_is_unknown(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        ids = [(await furiosa("message.send", content=str(n), to=["nux"])).message_id for n in range(3)]
        with pytest.raises(errors.MessageNotFound):
            await nux("message.markRead", message_ids=[ids[0], "msg_01KGHF3N80AAAAAAAAAAAAAAA1"])
        assert (await nux("message.list", for_agent="nux")).unread == 3
        marked = await nux("message.markRead", message_ids=[ids[0]])
        assert (marked.marked_count, marked.remaining) == (1, 2)
        assert (await nux("message.markRead", message_ids=[ids[0]])).marked_count == 0
        skipped = await furiosa("message.markRead", message_ids=[ids[1]])
        assert (skipped.marked_count, skipped.skipped_count) == (0, 1)
        assert (await nux("message.markRead", all=True)).marked_count == 2
        assert (await nux("message.list", for_agent="nux", unread=True)).messages == ()


async def test_a_message_to_oneself_is_in_ones_own_inbox_as_read(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await furiosa("message.send", content="note", to=["furiosa"])
        page = await furiosa("message.list", for_agent="furiosa")
        assert [m.is_read for m in page.messages] == [True] and page.unread == 0


async def test_a_team_post_is_in_every_inbox_and_a_later_agent_does_not_get_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="starting on auth")
        assert sent.quiet and sent.audiences == () and sent.resolved_to == 1
        late = await daemon.registered("late")
        assert (await nux("message.list", for_agent="nux")).total == 1
        assert (await late("message.list", for_agent="late")).total == 0
        alone = await nux("message.send", content="thanks", reply_to=sent.message_id)
        assert [r.agent_id for r in alone.recipients] == ["furiosa"]


async def test_another_agents_inbox_is_refused_but_may_be_looked_at(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        await furiosa("message.send", content="secret-free", to=["nux"])
        with pytest.raises(errors.IdentityMismatch):
            await furiosa("message.list", for_agent="nux")
        look = await furiosa("message.list", recipient="@nux")
        assert [m.body.content for m in look.messages] == ["secret-free"]
        assert (await nux("message.list", for_agent="nux")).unread == 1


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"content": " \n\t"}, errors.EmptyBody),
        ({"content": "x" * 1_048_577}, errors.BodyTooLarge),
        ({"content": "é" * 524_289}, errors.BodyTooLarge),
        ({"content": "hi", "format": "html"}, errors.InvalidParams),
        ({"content": "{", "format": "json"}, errors.BadJson),
        ({"content": "hi", "structured": {"x": "y" * 262_144}}, errors.BodyTooLarge),
        ({"content": "hi", "scopes": [{"type": "Bad Type", "value": "x"}]}, errors.BadScope),
        ({"content": "hi", "scopes": [{"type": "module", "value": ""}]}, errors.BadScope),
        ({"content": "hi", "scopes": [{"type": "t", "value": str(n)} for n in range(65)]}, errors.BadScope),
        ({"content": "hi", "refs": [{"type": "mention", "value": "nux"}]}, errors.BadRef),
        ({"content": "hi", "refs": [{"type": "reply_to", "value": "x"}]}, errors.BadRef),
        ({"content": "hi", "reply_to": "msg_01KGHF3N80AAAAAAAAAAAAAAA1"}, errors.MessageNotFound),
        ({"content": "hi", "acting_as": "nux"}, errors.InvalidParams),
    ],
)
async def test_bad_messages_are_refused_and_leave_nothing(
    tmp_path: Path, params: dict[str, object], kind: type[errors.ThrumError]
) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        before = daemon.store.view.head_seq()
        with pytest.raises(kind) as refused:
            await furiosa("message.send", **params)
        assert refused.value.message and daemon.store.view.head_seq() == before


async def test_the_largest_message_is_kept_whole(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        content = "é" * 524_288
        sent = await furiosa("message.send", content=content, structured={"b": 1, "a": [1.5, "ü"]})
        detail = (await furiosa("message.get", message_id=sent.message_id)).message
        assert detail.body.content == content and detail.body.structured == '{"a":[1.5,"ü"],"b":1}'


async def test_everything_is_there_after_a_restart_and_after_the_database_is_deleted(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="kept", to=["nux"])
        await nux("message.markRead", message_ids=[sent.message_id])
        await furiosa("session.setIntent", intent="Token refresh")
        database, clock = daemon.ctx.here.layout.database, daemon.clock
        before = [await nux("message.list", for_agent="nux"), await nux("team.list")]
    for delete in (False, True):
        if delete:
            for path in database.parent.glob("messages.db*"):
                path.unlink()
        async with open_daemon(tmp_path, clock) as daemon:
            nux = daemon.as_agent("nux")
            after = [await nux("message.list", for_agent="nux"), await nux("team.list")]
            assert after[0].messages[0].is_read
            assert after == before


# -- what wakes, and for how long


async def test_a_quiet_message_goes_to_whom_it_names_and_wakes_nobody(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        await daemon.registered("max")
        sent = await furiosa("message.send", content="later", to=["nux"], quiet=True)
        assert sent.quiet and [each.agent_id for each in sent.recipients] == ["nux"]
        assert (await nux("message.wait", timeout_ms=0)).status == "timeout"
        assert (await nux("message.list", for_agent="nux")).unread == 1
        answer = await nux("message.send", content="ok", reply_to=sent.message_id, reply_all=True)
        assert [each.agent_id for each in answer.recipients] == ["furiosa"], "it was no post to the team"
        assert not answer.quiet


async def test_an_urgent_message_needs_somebody_to_wake(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await daemon.registered("nux")
        sent = await furiosa("message.send", content="fire", to=["nux"], urgent=True)
        assert (await furiosa("message.get", message_id=sent.message_id)).message.urgent
        for more in ({}, {"to": ["nux"], "quiet": True}):
            with pytest.raises(errors.InvalidParams, match="urgent"):
                await furiosa("message.send", content="fire", urgent=True, **more)


async def test_a_message_that_has_expired_ends_no_wait_and_stays_in_the_inbox(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="lunch?", to=["nux"], expires_in_ms=60_000, client_key="k")
        row = daemon.store.view.message(sent.message_id)
        assert row is not None
        assert clock.parse_ms(row.expires_at) == clock.parse_ms(sent.created_at) + 60_000
        again = await furiosa("message.send", content="lunch?", to=["nux"], expires_in_ms=60_000, client_key="k")
        assert again.replayed and again.message_id == sent.message_id
        daemon.clock.ms += 59_000
        assert (await nux("message.wait", timeout_ms=0, mark="none")).status == "received"
        daemon.clock.ms += 1_000
        assert (await nux("message.wait", timeout_ms=0)).status == "timeout"
        [listed] = (await nux("message.list", for_agent="nux")).messages
        assert listed.expires_at == row.expires_at and not listed.is_read
        await nux("message.send", content="too late", reply_to=sent.message_id)


async def test_an_expiry_is_a_time_to_come(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        for bad in ("tomorrow", "2001-02-03T10:00:00Z"):
            with pytest.raises(errors.BadTime):
                await furiosa("message.send", content="x", expires_at=bad)
        with pytest.raises(errors.InvalidParams, match="expires_in_ms"):
            await furiosa("message.send", content="x", expires_in_ms=-1)
        sent = await furiosa("message.send", content="x", expires_at="2101-02-03T12:00:00+02:00")
        row = daemon.store.view.message(sent.message_id)
        assert row is not None and row.expires_at == "2101-02-03T10:00:00.000Z"


async def test_a_message_replaces_an_own_one_for_the_same_recipients(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        await daemon.registered("max")
        first = await furiosa("message.send", content="at 3", to=["@nux"])
        second = await furiosa("message.send", content="at 4", supersedes=first.message_id)
        assert [each.agent_id for each in second.recipients] == ["nux"]
        told = await nux("message.wait", timeout_ms=0)
        assert [(each.message_id, each.supersedes) for each in told.messages] == [(second.message_id, first.message_id)]
        found = (await nux("message.get", message_id=first.message_id)).message
        assert found.superseded_by == second.message_id
        [shown] = [each for each in (await furiosa("message.outbox")).messages if each.superseded_by]
        assert shown.message_id == first.message_id
        third = await furiosa("message.send", content="to all", to=["@max"], supersedes=second.message_id)
        assert [each.agent_id for each in third.recipients] == ["max"], "who is named gets it"


async def test_nobody_replaces_what_is_not_his_own(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="at 3", to=["nux"])
        with pytest.raises(errors.NotAuthor, match="replace"):
            await nux("message.send", content="at 4", supersedes=sent.message_id)
        with pytest.raises(errors.MessageNotFound):
            await nux("message.send", content="at 4", supersedes="msg_unknown")
        await furiosa("message.delete", message_id=sent.message_id)
        with pytest.raises(errors.MessageDeleted):
            await furiosa("message.send", content="at 4", supersedes=sent.message_id)
