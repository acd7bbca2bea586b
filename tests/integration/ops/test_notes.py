"""Notes and preambles through the daemon: who may read and write whose (rpc.md §5, cli.md 3.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon.in_process import open_daemon
from thrum.model import errors, notes


async def test_an_agent_saves_shows_and_clears_its_own(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        head = daemon.store.view.head_seq()
        saved = await nux("context.save", agent_name="nux", content="remember\n")
        assert (saved.path, saved.size) == (".thrum/context/nux.md", 9)
        assert saved.message == "Context saved for nux (9 bytes)"
        assert (tmp_path / "w-nux" / ".thrum" / "context" / "nux.md").read_text() == "remember\n"
        preamble = await nux("context.preamble.save", agent_name="nux", content="be kind")
        assert preamble.message == "Preamble saved for nux (7 bytes)"
        shown = await nux("context.show", agent_name="nux")
        assert (shown.content, shown.has_context, shown.size) == ("remember\n", True, 9)
        assert (shown.preamble, shown.has_preamble, shown.preamble_size) == ("be kind", True, 7)
        assert not (await nux("context.show", agent_name="nux", include_preamble=False)).has_preamble
        assert (await nux("context.preamble.show", agent_name="nux")).content == "be kind"
        assert (await nux("context.clear", agent_name="nux")).cleared
        assert not (await nux("context.clear", agent_name="nux")).cleared
        assert not (await nux("context.show", agent_name="nux")).has_context
        assert daemon.store.view.head_seq() == head, "notes are files of this worktree, no facts"


async def test_reading_anothers_is_free_and_writing_needs_the_same_worktree(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        home = str(tmp_path / "w")
        nux = await daemon.registered("nux", root=home)
        mate = await daemon.registered("mate", "tester", root=home)
        stranger = await daemon.registered("stranger", "reviewer")
        await mate("context.save", agent_name="nux", content="from the next desk")
        for reader in (nux, stranger, daemon.as_agent("")):
            assert (await reader("context.show", agent_name="nux")).content == "from the next desk"
        for method, more in (
            ("context.save", {"content": "x"}),
            ("context.preamble.save", {"content": "x"}),
            ("context.clear", {}),
        ):
            with pytest.raises(errors.IdentityMismatch) as refused:
                await stranger(method, agent_name="nux", **more)
            assert refused.value.details == {"expected_agent": "nux", "detected_agent": "stranger"}
            with pytest.raises(errors.ThrumError):
                await daemon.as_agent("")(method, agent_name="nux", **more)
            with pytest.raises(errors.IdentityMismatch):
                await nux(method, agent_name="nux", repo_path=str(tmp_path), **more)
            with pytest.raises(errors.AgentNotFound):
                await nux(method, agent_name="ghost", **more)
        assert (await nux("context.show", agent_name="nux")).content == "from the next desk"


async def test_only_roots_of_this_repository_are_read(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        other = tmp_path / "other"
        notes.save_notes(other, "nux", "not of this repository")
        with pytest.raises(errors.NotAWorktree):
            await nux("context.show", agent_name="nux", repo_path=str(other))
        shown = await nux("context.show", agent_name="nux", repo_path=str(tmp_path / "w-nux"))
        assert not shown.has_context
        with pytest.raises(errors.AgentNotFound):
            await nux("context.show", agent_name="../other")
