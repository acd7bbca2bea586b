"""A round against git and journals in memory: what it ingests, commits and pushes, and when it leaves things alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.sim.git import FIRST_OBJECTS, REGULAR, Remote, blob_id, commit_of, copy_closure, history, put_commit
from tests.support.store.factmaker import Maker
from tests.support.store.old_tombstones import old_tombstones
from tests.support.store.signers import Daemon
from tests.support.sync.memory_clone import MemoryClone, tampered
from thrum.git.trees import TreeEntry
from thrum.model import events, limits
from thrum.model.errors import InternalError, StoreFailed
from thrum.sync.ports import Arrived, ForeignProject, Ingested, RemoteFailed
from thrum.sync.worktree import FIRST


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def make() -> Maker:
    return Maker()


def test_what_two_clones_wrote_is_in_both_once_and_their_branches_are_the_same_commit(remote, make) -> None:
    one, other = MemoryClone(remote, "one"), MemoryClone(remote, "other")
    one.journals.add(make.message("furiosa", "nux", text="from one"))
    other.journals.add(make.message("furiosa", "nux", text="from the other"))
    assert one.sync().sent == 1
    outcome = other.sync()
    assert (outcome.received, outcome.sent) == (1, 1)
    assert one.sync().received == 1
    assert one.repo.ref == other.repo.ref == remote.tip
    assert one.blob("messages/furiosa.jsonl").count(b"\n") == 2
    assert sorted(one.journals.files["messages/furiosa.jsonl"].split(b"\n")) == sorted(
        other.journals.files["messages/furiosa.jsonl"].split(b"\n")
    )


def test_a_commit_says_what_it_carries_and_from_whom(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message(), make.message(), make(events.AgentContextSaved, agent_id="nux", content="x"))
    clone.sync()
    assert clone.subject() == "sync: 2 messages, 1 note from user@here"


def test_a_round_with_nothing_new_reads_no_journal_and_makes_no_commit(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()
    tip = remote.tip
    clone.journals.asked.clear()
    outcome = clone.sync()
    assert (outcome.received, outcome.sent, outcome.pushed_seq) == (0, 0, 1)
    assert clone.journals.asked == []
    assert clone.repo.ref == remote.tip == tip


def test_a_round_that_lost_its_memory_comes_to_the_same_commit(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message(), make(events.AgentCleaned, agent_id="nux"))
    clone.sync()
    tip = remote.tip
    clone.journals.memory.clear()
    assert clone.sync().sent == 0
    assert remote.tip == tip


def test_a_remote_that_does_not_answer_keeps_nothing_from_being_committed_here(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.network.is_offline = True
    clone.journals.add(make.message())
    with pytest.raises(RemoteFailed) as failed:
        clone.sync()
    assert failed.value.trouble == "offline"
    assert clone.blob("messages/furiosa.jsonl")
    assert (clone.outcome.committed_seq, clone.outcome.pushed_seq) == (1, None)
    clone.network.is_offline = False
    assert clone.sync().sent == 1


def test_without_fetch_and_push_it_is_a_commit_and_no_more(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.network.is_offline = True
    clone.journals.add(make.message())
    outcome = clone.sync(fetch=False, push=False)
    assert (outcome.committed_seq, outcome.pushed_seq, outcome.sent) == (1, None, 0)


def test_a_push_that_lost_the_race_is_made_anew_on_the_new_head(remote, make) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(make.message(text="one"))
    other.journals.add(make.message("nux", text="other"))
    for step in one.begin():
        if step == "remembered" and not other.outcome.sent:
            other.sync()
    assert (one.outcome.sent, one.outcome.received) == (1, 1)
    assert remote.tip == one.repo.ref
    assert len(history(remote.objects, remote.tip)) == 3  # the first commit and theirs, without a merge


def test_whoever_loses_every_race_gives_up_for_now(remote, make) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(make.message())
    with pytest.raises(RemoteFailed, match="other clones keep pushing"):
        for step in one.begin():
            if step == "remembered":
                other.journals.add(make.message("nux"))
                other.sync()
    assert len(history(remote.objects, remote.tip)) == 1 + limits.push_attempts_max


def test_a_push_whose_answer_was_lost_is_found_done(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.chance.rates = {"push answer lost": 1.0}
    with pytest.raises(RemoteFailed):
        clone.sync()
    clone.chance.stop()
    tip = remote.tip
    assert clone.sync().pushed_seq == 1
    assert remote.tip == tip


def test_a_branch_that_is_moved_meanwhile_is_looked_at_again(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()
    clone.journals.add(make.message())
    moved = False
    for step in clone.begin():
        if step == "built" and not moved:
            moved = True
            clone.repo.ref = FIRST  # git reset --hard, by hand
    assert clone.repo.ref == remote.tip
    assert clone.blob("messages/furiosa.jsonl").count(b"\n") == 2


def test_a_branch_that_is_deleted_and_collected_meanwhile_is_told_as_gone(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    with pytest.raises(StoreFailed, match="is gone"):
        for step in clone.begin():
            if step == "copied receipts":
                clone.repo.ref = ""
                clone.repo.objects.pop(FIRST, None)


def test_what_somebody_put_on_our_branch_by_hand_is_ingested(remote, make) -> None:
    """By `git pull` there, say; and then the remote's branch was deleted."""
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(make.message())
    one.sync()
    copy_closure(remote.objects, other.repo.objects, remote.tip)
    other.repo.ref = remote.tip
    remote.move("")
    other.journals.add(make.message("nux"))
    assert other.sync().received == 1
    assert len(commit_of(remote.objects, remote.tip).files) == 2


def test_a_branch_that_somebody_deleted_begins_again_at_the_remotes(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()
    clone.repo.ref = ""
    clone.journals.add(make.message())
    assert clone.sync().sent == 1
    assert clone.repo.ref == remote.tip


def test_without_any_branch_the_user_is_told_to_restart(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.repo.ref = ""
    with pytest.raises(StoreFailed, match="is gone"):
        clone.sync()


@pytest.mark.parametrize("tip", ["", FIRST])
def test_a_remote_that_was_reset_gets_everything_again(remote, make, tip) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(make.message())
    one.sync()
    other.sync()
    remote.move(tip)
    assert other.sync().pushed_seq is not None
    assert one.sync().pushed_seq is not None
    assert b"evt_" in one.blob("messages/furiosa.jsonl")
    assert one.repo.ref == other.repo.ref == remote.tip


def test_a_journal_that_is_written_anew_meanwhile_is_read_again(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.journals.moves = 2
    assert clone.sync().sent == 1
    clone.journals.add(make.message())
    clone.journals.moves = 99
    with pytest.raises(StoreFailed):
        clone.sync()


# -- agreeing


def test_clones_that_do_not_agree_on_what_is_tombstoned_come_to_rest(remote, make) -> None:
    """One clock runs ahead: what its user cleaned up is tombstoned there, and for the others not before its day."""
    ahead, other = MemoryClone(remote), MemoryClone(remote)
    registered = make(events.SessionStarted, session_id="ses_" + "nux", agent_id="nux")
    other.journals.add(registered)
    other.sync()
    ahead.sync()
    cleaned = make(events.AgentCleaned, agent_id="nux")
    ahead.journals.add(cleaned)
    ahead.journals.tombstoned = old_tombstones(agents={"nux": events.order_of(cleaned)})
    for _ in range(2):
        ahead.sync()
        other.sync()
    tip = remote.tip
    for _ in range(3):
        assert ahead.sync().sent == 0
        assert other.sync().sent == 0
    assert ahead.repo.ref == other.repo.ref == remote.tip == tip
    other.journals.tombstoned = ahead.journals.tombstoned
    other.journals.add(make.message())
    other.sync()
    assert b"agent.session.start" not in other.blob("events.jsonl")


def test_clones_that_each_take_away_what_the_other_brings_back_come_to_rest(remote, make) -> None:
    """A stranger's cleanups, and clocks far apart: one calls this tombstoned, the other that."""
    one, other = MemoryClone(remote), MemoryClone(remote)
    names = ("furiosa", "nux", "max")
    one.journals.add(*(make(events.SessionStarted, session_id="ses_" + name, agent_id=name) for name in names))
    one.sync()
    other.sync()
    one.journals.tombstoned = old_tombstones(agents={"furiosa": ("9999", "")})
    other.journals.tombstoned = old_tombstones(agents={"nux": ("9999", "")})
    for clone in (one, other):
        clone.journals.add(make(events.SessionStarted, session_id="ses_" + "ace", agent_id="ace"))
        clone.sync()
    for _ in range(3):
        one.sync()
        other.sync()
    tip = remote.tip
    for clone in (one, other):
        assert clone.sync().sent == 0
        assert clone.blob("events.jsonl").count(b"agent.session.start") == 5
    assert one.repo.ref == other.repo.ref == remote.tip == tip


@pytest.mark.parametrize("earlier", ["raced", "offline"])
def test_what_was_purged_leaves_the_branch_with_the_purge_however_often_others_were_there_first(
    remote, make, earlier
) -> None:
    """What was committed and never pushed was put nowhere: nothing is brought back, so nothing stays for its sake."""
    clone, other = MemoryClone(remote), MemoryClone(remote)
    clone.journals.add(make(events.SessionStarted, session_id="ses_" + "nux", agent_id="nux"))
    clone.sync()
    cleaned = make(events.AgentCleaned, agent_id="nux")
    clone.journals.add(cleaned)
    clone.journals.tombstoned = old_tombstones(agents={"nux": events.order_of(cleaned)})
    if earlier == "offline":
        clone.sync(fetch=False, push=False)
    for step in clone.begin():
        if step == "remembered" and not other.outcome.sent:
            other.journals.add(make.message("max"))
            other.sync()
    assert remote.tip == clone.repo.ref
    assert b"agent.cleanup" in clone.blob("events.jsonl")
    assert b"agent.session.start" not in clone.blob("events.jsonl")
    assert {*clone.repo.files(clone.repo.ref)} > {"messages/max.jsonl"}


def test_a_round_that_would_only_leave_lines_out_does_not_look_at_them_again(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make(events.SessionStarted, session_id="ses_" + "nux", agent_id="nux"), make.message())
    clone.sync()
    tip = remote.tip
    clone.journals.tombstoned = old_tombstones(agents={"nux": ("9999", "")})
    clone.sync()
    assert clone.journals.asked.count("events.jsonl") == 2
    clone.sync()
    assert clone.journals.asked.count("events.jsonl") == 2
    assert remote.tip == tip
    clone.journals.add(make(events.SessionStarted, session_id="ses_" + "furiosa", agent_id="furiosa"))
    clone.sync()
    assert clone.blob("events.jsonl").count(b"\n") == 1


def test_what_was_taken_away_from_the_branch_comes_back(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message(), make.message("nux"))
    clone.sync()
    tampered(remote, lambda files: files.clear())
    assert clone.sync().sent == 2
    assert clone.blob("messages/nux.jsonl")


def test_a_branch_of_ours_that_somebody_filled_with_other_files_is_fixed(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()

    def spoil(files: dict[str, tuple[int, bytes]]) -> None:
        files.clear()
        files["README"] = (REGULAR, b"mine")

    tampered(remote, spoil)
    assert clone.sync().sent == 1
    assert clone.blob("README") == b"mine"


def test_a_spoiled_branch_that_began_anew_is_fixed_by_who_never_saw_it(remote, make) -> None:
    data = b"mine"
    remote.objects |= FIRST_OBJECTS | {blob_id(data): data}
    remote.move(put_commit(remote.objects, [TreeEntry(b"README", REGULAR, blob_id(data))], FIRST, "spoiled", 2))
    clone = MemoryClone(Remote())
    clone.journals.add(make.message())
    clone.sync()
    clone.network.remote = remote
    assert clone.sync().pushed_seq == 1
    assert sorted(clone.repo.files(remote.tip)) == ["README", "messages/furiosa.jsonl"]


def test_a_branch_of_the_project_that_only_has_our_name_is_left_alone(remote, make) -> None:
    data = b"the project's"
    remote.objects[blob_id(data)] = data
    remote.move(put_commit(remote.objects, [TreeEntry(b"README", REGULAR, blob_id(data))], "", "project", 2))
    tip = remote.tip
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    with pytest.raises(RemoteFailed, match="not thrum's"):
        clone.sync()
    assert remote.tip == tip


@pytest.mark.parametrize("path", ["messages", "messages/furiosa.jsonl/x", "events.jsonl/x/y"])
def test_what_lies_where_a_journal_must_be_gives_way(remote, make, path) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message(), make(events.AgentCleaned, agent_id="nux"))
    clone.sync()

    def spoil(files: dict[str, tuple[int, bytes]]) -> None:
        files.clear()
        files[path] = (REGULAR, b"x")

    tampered(remote, spoil)
    assert clone.sync().sent == 2
    assert sorted(clone.repo.files(clone.repo.ref)) == ["events.jsonl", "messages/furiosa.jsonl"]


def test_a_link_in_the_place_of_a_journal_is_none_whatever_it_leads_to(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()
    tampered(remote, lambda files: files.update({path: (0o120000, data) for path, (_, data) in files.items()}))
    assert clone.sync().sent == 1
    assert clone.repo.files(clone.repo.ref)["messages/furiosa.jsonl"].mode == REGULAR


def test_other_files_and_modes_travel_on(remote, make) -> None:
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()
    tampered(remote, lambda files: files.update({"bin/x": (0o100755, b"x"), "messages/a b.jsonl": (REGULAR, b"y")}))
    clone.journals.add(make.message())
    assert clone.sync().sent == 1
    found = clone.repo.files(clone.repo.ref)
    assert found["bin/x"].mode == 0o100755
    assert "messages/a b.jsonl" in found
    assert clone.journals.arrived == []


def test_a_fact_in_the_wrong_file_goes_home(remote, make) -> None:
    clone, other = MemoryClone(remote), MemoryClone(remote)
    clone.journals.append("messages/nux.jsonl", raw := events.encode(make.message("furiosa")))
    clone.sync()
    assert clone.blob("messages/furiosa.jsonl") == raw + b"\n"
    other.sync()
    assert list(other.journals.files) == ["messages/furiosa.jsonl"]
    assert other.repo.ref == clone.repo.ref == remote.tip


def test_lines_over_the_limit_travel_on_and_are_not_ingested(remote, make, monkeypatch) -> None:
    monkeypatch.setattr(limits, "line_bytes_max", 1_000)
    clone = MemoryClone(remote)
    clone.journals.add(make.message())
    clone.sync()
    long = events.encode(make.message(text="x" * 2_000))
    name = "messages/furiosa.jsonl"
    tampered(remote, lambda files: files.update({name: (REGULAR, files[name][1] + long + b"\n")}))
    for _ in range(2):
        clone.journals.add(make.message())
        clone.sync()
    assert long in clone.blob(name)
    assert long not in clone.journals.files[name]


def test_a_journal_of_the_remote_that_is_too_large_stops_nobody_else(remote, make, monkeypatch) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(make.message(text="x" * 5_000), make.message("nux"))
    one.sync()
    monkeypatch.setattr(limits, "author_journal_bytes_max", 4_000)
    other.journals.add(make.message("furiosa"), make.message("nux"))
    outcome = other.sync()
    assert outcome.skipped == {"messages/furiosa.jsonl"}
    assert (outcome.received, outcome.sent) == (1, 1)
    assert other.blob("messages/furiosa.jsonl") == one.blob("messages/furiosa.jsonl")


def test_what_could_not_be_ingested_stays_on_the_branch_in_every_later_round(remote, make, monkeypatch) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    other.journals.add(make.message("furiosa"))
    other.sync()
    one.sync()
    one.journals.add(make.message(text="x" * 5_000))
    one.sync()
    large = one.blob("messages/furiosa.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(limits, "author_journal_bytes_max", 4_000)
        for _ in range(3):
            other.journals.add(make.message("furiosa"), make.message("nux"))
            outcome = other.sync()
            assert outcome.skipped == {"messages/furiosa.jsonl"}
            assert other.blob("messages/furiosa.jsonl") == large
            assert outcome.sent and outcome.pushed_seq is None, "what is here of it is not at the remote"
    assert other.sync().received == 1
    assert other.outcome.skipped == set()
    assert other.blob("messages/furiosa.jsonl").count(b"\n") == 5
    one.sync()
    assert one.repo.ref == other.repo.ref == remote.tip


def test_a_journal_that_the_store_stumbles_over_stops_nobody_else(remote, make) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    bad = make.message("furiosa", text="bad")
    one.journals.add(make.message("furiosa"), bad, make.message("nux"))
    one.sync()
    ingest = other.journals.ingest

    def stumble(arrived: Sequence[Arrived]) -> Ingested:
        if any(line.raw == events.encode(bad) for line in arrived):
            raise InternalError("internal error 1")
        return ingest(arrived)

    other.journals.ingest = stumble
    for _ in range(2):
        other.journals.add(make.message("ace"))
        assert other.sync().skipped == {"messages/furiosa.jsonl"}
        assert other.blob("messages/furiosa.jsonl") == one.blob("messages/furiosa.jsonl")
    assert other.journals.files["messages/nux.jsonl"] == one.journals.files["messages/nux.jsonl"]
    other.journals.ingest = ingest
    assert other.sync().received == 2
    assert other.outcome.skipped == set()


def test_small_journals_arrive_together(remote, make) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    names = [f"agent_{number}" for number in range(50)]
    one.journals.add(*(make.message(name) for name in names), make(events.AgentCleaned, agent_id="nux"))
    one.sync()
    assert [step for step in other.begin() if step == "ingested"] == ["ingested"] * 2
    assert other.outcome.received == 51
    assert other.repo.ref == one.repo.ref == remote.tip


def test_many_lines_arrive_in_portions_that_fit_a_batch(remote, make, monkeypatch) -> None:
    monkeypatch.setattr(limits, "batch_facts_max", 3)
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(*(make.message() for _ in range(8)))
    one.sync()
    assert [step for step in other.begin() if step == "ingested"] == ["ingested"] * 3
    assert other.outcome.received == 8


# -- whose branch it is


def signed_key(number: int, repo_id: str) -> bytes:
    daemon = Daemon(number)
    return daemon.line(daemon.introduction(repo_id))


def test_the_branch_of_another_project_is_refused_and_nothing_is_merged_or_pushed(remote, make) -> None:
    theirs, ours = MemoryClone(remote), MemoryClone(remote)
    theirs.journals.append("events.jsonl", signed_key(1, "r_theirs"))
    theirs.journals.add(make.message())
    theirs.sync()
    tip = remote.tip
    ours.journals.repo_ids = frozenset({"r_ours"})
    ours.journals.add(make.message("nux"))
    with pytest.raises(ForeignProject, match=r"r_theirs.*r_ours") as refused:
        ours.sync()
    assert (refused.value.trouble, refused.value.repo_ids) == ("foreign", {"r_theirs"})
    assert remote.tip == tip and ours.journals.arrived == [] and ours.journals.closed == 0
    ours.journals.repo_ids = frozenset({"r_ours", "r_theirs"})  # thrum sync accept
    assert ours.sync().sent == 1
    assert ours.journals.closed == 1


def test_a_branch_with_one_key_of_ours_or_with_none_is_no_other_project(remote, make) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    unsigned = events.encode(Daemon(3).introduction("r_theirs"))
    one.journals.append("events.jsonl", unsigned)
    one.sync()
    other.journals.repo_ids = frozenset({"r_ours"})
    assert other.sync().received == 1
    one.journals.append("events.jsonl", signed_key(1, "r_theirs"))
    one.journals.append("events.jsonl", signed_key(2, "r_ours"))
    one.sync()
    assert other.sync().received == 2


def test_what_a_newer_program_changed_the_rules_of_is_ingested_and_not_pushed_to(remote, make) -> None:
    one, other = MemoryClone(remote), MemoryClone(remote)
    one.journals.add(make.message())
    one.sync()
    other.journals.read_only = True
    other.journals.add(make.message("nux"))
    tip = remote.tip
    outcome = other.sync()
    assert outcome.read_only and (outcome.received, outcome.committed, outcome.sent) == (1, 1, 0)
    assert remote.tip == tip
    other.journals.read_only = False
    assert other.sync().sent == 1
