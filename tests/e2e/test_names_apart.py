"""One name in several clones, and what a person makes of it: real daemons, real remotes (events.md §11, ADR 0040)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon.clones import Clones, daemon_of, open_namesakes
from tests.support.daemon.repo import Repo
from tests.support.git.stranger import Stranger, letter, line


@pytest.fixture
def clones() -> Iterator[Clones]:
    with open_namesakes() as clones:
        yield clones


def heads(repo: Repo, *words: str) -> list[str]:
    return [text for text in repo.thrum("inbox", "--peek", "--all", *words).split("\n") if " → " in text]


def module_of(repo: Repo, name: str) -> str:
    found = repo.json("agent", "list")["agents"]["agents"]
    return {each["agent_id"]: each["module"] for each in found}[name]


def test_each_clone_shows_its_own_agent_of_a_name_and_the_other_ones_words_with_the_host(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    alpha.thrum("send", "from alpha", "--to", "@eye")
    beta.thrum("send", "from beta", "--to", "@eye")
    clones.settle()
    assert (module_of(alpha, "sam"), module_of(beta, "sam")) == ("first", "second")
    shown, said = heads(gamma), gamma.thrum("log").splitlines()
    for lines in (shown, [each for each in said if "from " in each]):
        assert len(lines) == 2 and sum("another @sam" in each for each in lines) == 1, lines
    assert sum("@sam [alpha" in each for each in shown) == sum("@sam [beta" in each for each in shown) == 1, shown
    for host in ("alpha", "beta"):
        assert any(f"@sam [{host}" in each and f"from {host}" in each for each in said), said
    by = {each["body"]["content"]: each for each in gamma.json("inbox", "--peek", "--all")["messages"]}
    assert {text: each["origin_daemon"] for text, each in by.items()} == {
        "from alpha": daemon_of(alpha),
        "from beta": daemon_of(beta),
    }


def test_who_writes_to_a_name_of_several_machines_is_told_and_all_of_them_get_it(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    done = gamma.run("send", "to both", "--to", "@sam")
    assert done.status == 0 and "@sam is the name of agents on several machines: all of them get it" in done.err
    clones.settle()
    assert "to both" in alpha.thrum("inbox")
    clones.settle()
    # What the one has read the other has not.
    assert (alpha.json("inbox", "--peek")["unread"], beta.json("inbox", "--peek")["unread"]) == (0, 1)
    assert "to both" in beta.thrum("inbox")
    assert "several machines" not in gamma.run("send", "to one", "--to", "@eye").err
    # With sync off `✓` alone would not be the truth, for a post to the team neither.
    gamma.thrum("sync", "disable")
    for words in (("to both", "--to", "@sam"), ("to all",), ("to a role", "--to", "@worker")):
        err = gamma.run("send", *words).err
        assert err == "warning: @sam is elsewhere, and sync is off: thrum sync enable\n", words
    assert gamma.run("send", "to one", "--to", "@eye").err == ""


def test_a_role_of_this_machine_is_meant_before_a_foreign_agent_of_that_name(clones: Clones) -> None:
    """`tester` is a role at gamma when a clone that cannot know it registers an agent of that name."""
    _, beta, gamma = clones.repos
    apart = clones.network.rename(clones.top / "away")
    beta.thrum("agent", "register", "--name", "nux", "--role", "worker", "--module", "n", at=beta.worktree("nux"))
    gamma.agent("max", role="checker", module="c")
    beta.agent("checker", role="worker", module="k", at=beta.worktree("checker"))
    apart.rename(clones.network)
    clones.settle()
    sent = gamma.json("send", "for the role", "--to", "@checker")
    assert [each["type"] for each in sent["audiences"]] == ["role"] and sent["resolved_to"] == 1
    sent = beta.json("send", "for the name", "--to", "@checker", at=beta.worktree("nux"))
    assert [each["type"] for each in sent["audiences"]] == ["agent"]


def test_a_foreign_agent_that_is_hidden_here_is_hidden_here_alone_and_its_name_is_free(clones: Clones) -> None:
    alpha, _, gamma = clones.repos
    refused = alpha.run("agent", "delete", "eye", "--json")
    assert refused.kind == "not_yours" and "--force hides it here" in refused.json["error"]["remedy"]
    said = alpha.thrum("agent", "delete", "eye", "--force")
    assert said == "✓ @eye is hidden here; it remains an agent of gamma and can only be deleted there\n"
    clones.settle()
    names = {each["agent_id"] for each in alpha.json("agent", "list")["agents"]["agents"]}
    assert "eye" not in names and module_of(gamma, "eye") == "all"
    assert alpha.run("send", "x", "--to", "@eye", "--json").status != 0
    assert gamma.run("send", "still me", "--to", "@sam").status == 0
    alpha.agent("eye", role="looker", module="mine")
    assert module_of(alpha, "eye") == "mine"


def test_a_person_says_whose_a_name_is(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    other = {"first": beta, "second": alpha}[module_of(gamma, "sam")]
    gamma.thrum("sync", "accept", daemon_of(other), "--holder", "@sam")
    assert module_of(gamma, "sam") == {alpha: "first", beta: "second"}[other]
    gamma.assert_projection_is_as_rebuilt()
    assert module_of(gamma, "sam") == {alpha: "first", beta: "second"}[other]
    assert gamma.run("sync", "accept", daemon_of(other), "--holder", "nobody", "--json").kind == "agent_not_found"
    assert gamma.run("sync", "accept", "--holder", "sam", "--json").status != 0


def test_the_names_of_a_daemon_that_is_gone_are_free_here(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    taken = gamma.run("quickstart", "sam", "--role", "w", "--module", "z", "--json", at=gamma.worktree("sam"))
    assert taken.json["register"]["conflict"]["reason"] == "other_daemon"
    for repo in (alpha, beta):
        gamma.thrum("sync", "accept", daemon_of(repo), "--gone")
    gamma.agent("sam", role="w", module="z")
    clones.settle()
    assert module_of(gamma, "sam") == "z" and module_of(alpha, "sam") == "first"
    unknown = "d_01KGH87Y00SNBDYSNBDYSNBDYS"
    assert gamma.run("sync", "accept", unknown, "--gone", "--json").status == 1


def test_unsigned_lines_count_once_a_person_says_so_and_verify_counts_them(clones: Clones) -> None:
    alpha, _, gamma = clones.repos
    stranger = Stranger(clones.remote, clones.top / "stranger")
    registered = line("agent.register", agent_id="old", kind="agent", name="old", role="r", module="m")
    stranger.push(appended={"events.jsonl": registered, "messages/old.jsonl": letter("old", "of old", "eye")})
    clones.settle()
    assert "of old" not in gamma.thrum("inbox", "--all")
    said = gamma.json("verify")
    assert said["ok"] and said["foreign"]["hidden"] == 2
    assert "Of other daemons: 2 unsigned, not shown\n" in gamma.thrum("verify")
    (origin,) = [each["daemon_id"] for each in gamma.json("sync", "status")["origins"] if each.get("hidden")]
    gamma.thrum("sync", "accept", origin)
    assert "of old" in gamma.thrum("inbox", "--all") and "of old" not in alpha.thrum("inbox", "--all", "--to", "@eye")
    assert gamma.json("verify")["foreign"] == {"unsigned": 2}
    gamma.assert_projection_is_as_rebuilt()


def test_that_two_clones_share_a_name_shows_wherever_one_looks_until_one_is_renamed(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    said = "shared with another @sam, of a clone on beta (one of you: thrum agent rename NEW)"
    assert f"Name:      {said}\n" in alpha.thrum("whoami") and alpha.json("whoami")["namesakes"] == ["beta"]
    assert f"Name:     {said}\n" in alpha.thrum("team", "--all")
    verified = alpha.run("verify")
    assert f"Name {said}" in verified.out and verified.out.endswith("Verified.\n")
    assert alpha.json("verify")["namesakes"] == {"sam": ["beta"]}
    waited = alpha.run("wait", "--timeout", "0")
    assert waited.err.count("another @sam, of a clone on beta, shares this name: thrum agent rename NEW") == 1
    # Whom it does not concern is not told.
    for words in (("whoami",), ("team", "--all"), ("verify",)):
        assert "shared with" not in gamma.thrum(*words)
    beta.thrum("agent", "rename", "pam")
    clones.settle()
    for repo in (alpha, beta):
        for words in (("whoami",), ("team", "--all"), ("verify",)):
            assert "shared with" not in repo.thrum(*words)
        assert "shares this name" not in repo.run("wait", "--timeout", "0").err


def test_a_name_is_compared_with_the_other_clones_before_it_is_taken(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    alpha.agent("neo", role="worker", module="n")
    clones.settle([alpha])
    taken = beta.run("quickstart", "neo", "--role", "w", "--module", "z", "--json", at=beta.worktree("neo"))
    assert taken.json["register"]["conflict"]["reason"] == "other_daemon"
    assert beta.run("agent", "rename", "neo", "--json").kind == "name_taken"
    fresh = Repo(clone_of=clones.remote)
    clones.repos.append(fresh)
    done = fresh.run("init", "--sync")
    assert "not synced" not in done.err and "\n  Sync: on, with origin (" in done.out
    assert fresh.json("agent", "list")["agents"]["agents"], "it knows the others at once"
    apart = clones.network.rename(clones.top / "away")
    words = ("agent", "register", "--role", "w", "--module", "z", "--name")
    done = gamma.run(*words, "trin", at=gamma.worktree("trin"))
    assert done.status == 0 and "@trin was not compared with other clones' names (" in done.err
    assert "not compared" not in gamma.run(*words, "trin", "--re-register", at=gamma.worktree("trin")).err
    apart.rename(clones.network)
