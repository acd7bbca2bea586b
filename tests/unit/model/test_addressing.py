"""Who a message reaches (events.md §8, cli.md 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from thrum.model import addressing
from thrum.model.addressing import BROADCAST, Member, suggest
from thrum.model.errors import NoRecipients, UnknownRecipient
from thrum.model.events import Pair


class Town:
    """A directory in memory: furiosa, nux and max; two implementers; a group of nux and all reviewers."""

    agents = {"furiosa": "implementer", "nux": "implementer", "max": "reviewer", "implementer_35HV62T9B9": "tester"}
    users = ("user:leon",)
    renamed = {"rictus": "nux"}
    taken: tuple[str, ...] = ()
    """Roles of agents here that an agent elsewhere took as its name."""

    def is_agent(self, agent_id: str) -> bool:
        return agent_id in self.agents or agent_id in self.users

    def current_id(self, agent_id: str) -> str:
        return self.renamed.get(agent_id, "")

    def is_role_here(self, word: str) -> bool:
        return word in self.taken

    def with_role(self, role: str) -> Sequence[str]:
        return [agent for agent, its_role in self.agents.items() if its_role == role]

    def group(self, name: str) -> Sequence[Member] | None:
        return {"crew": [Member("agent", "nux"), Member("role", "reviewer")], "all_of_us": [Member("role", "*")]}.get(
            name
        )

    def everyone(self) -> Sequence[str]:
        return [*self.agents, *self.users]

    def words(self) -> Iterable[str]:
        return [*self.agents, "implementer", "reviewer", "crew", "everyone"]


TOWN = Town()


def resolve(*addresses: str, sender: str = "furiosa") -> addressing.Audience:
    return addressing.resolve(addresses, sender, TOWN)


@pytest.mark.parametrize(
    ("address", "recipients", "pair"),
    [
        ("@nux", ("nux",), Pair("agent", "nux")),
        ("nux", ("nux",), Pair("agent", "nux")),
        ("@furiosa", ("furiosa",), Pair("agent", "furiosa")),
        ("@implementer_35hv62t9b9", ("implementer_35HV62T9B9",), Pair("agent", "implementer_35HV62T9B9")),
        ("agent:implementer:35HV62T9B9", ("implementer_35HV62T9B9",), Pair("agent", "implementer_35HV62T9B9")),
        ("@implementer", ("nux",), Pair("role", "implementer")),
        ("@crew", ("max", "nux"), Pair("group", "crew")),
        ("user:leon", ("user:leon",), Pair("user", "leon")),
        ("@everyone", ("implementer_35HV62T9B9", "max", "nux", "user:leon"), BROADCAST),
    ],
)
def test_each_form_of_address_reaches_whom_it_says(address: str, recipients: tuple[str, ...], pair: Pair) -> None:
    audience = resolve(address)
    assert (audience.recipients, audience.audiences) == (recipients, (pair,))
    assert not audience.quiet


def test_whoever_is_addressed_twice_counts_once_and_audiences_keep_the_senders_order() -> None:
    audience = resolve("@implementer", "@nux", "@nux", "@crew")
    assert audience.recipients == ("max", "nux")
    assert audience.audiences == (Pair("role", "implementer"), Pair("agent", "nux"), Pair("group", "crew"))
    assert audience.refs == (Pair("mention", "implementer"), Pair("mention", "nux"), Pair("group", "crew"))
    assert audience.scopes == (Pair("group", "crew"),)


def test_every_unknown_address_is_named_and_a_close_spelling_is_offered() -> None:
    with pytest.raises(UnknownRecipient) as one:
        resolve("@nuks")
    assert one.value.message == "unknown recipient: @nuks"
    assert one.value.details["suggestions"] == ["nux"]
    assert one.value.remedy == "did you mean @nux? Names: thrum team --all"
    for written in ("@Nux", "NUX"):
        with pytest.raises(UnknownRecipient) as case:
            resolve(written)
        assert case.value.details["suggestions"] == ["nux"]
    with pytest.raises(UnknownRecipient) as several:
        resolve("@nux", "@a", "b")
    assert several.value.message == "unknown recipients: @a, @b"
    with pytest.raises(UnknownRecipient) as comma:
        resolve("@nux,@max")
    assert "one --to for each" in comma.value.remedy


@pytest.mark.parametrize("address", ["", "@", "@@nux", "x" * 200, "implementer2", "@../nux", "agent:x"])
def test_odd_addresses_are_unknown_not_a_crash(address: str) -> None:
    with pytest.raises(UnknownRecipient):
        resolve(address)


def test_a_role_that_only_the_sender_has_reaches_nobody_and_says_so() -> None:
    with pytest.raises(NoRecipients, match="nobody but you is @reviewer"):
        resolve("@reviewer", sender="max")


def test_a_broadcast_may_be_empty_and_a_team_post_is_quiet() -> None:
    class Alone(Town):
        def everyone(self) -> Sequence[str]:
            return ["furiosa"]

    assert addressing.resolve(["everyone"], "furiosa", Alone()).recipients == ()
    post = addressing.to_team("furiosa", TOWN)
    assert post.quiet and post.audiences == () and "furiosa" not in post.recipients and "nux" in post.recipients


def test_a_reply_goes_to_the_author_and_those_named_one_by_one_and_with_everybody_to_all() -> None:
    named, wide = [Pair("agent", "nux"), Pair("user", "leon")], [Pair("role", "reviewer"), Pair("group", "crew")]
    audience = addressing.resolve_reply("furiosa", [*named, *wide, BROADCAST], False, "nux", TOWN)
    assert audience.recipients == ("furiosa", "user:leon")
    assert audience.audiences == (Pair("agent", "furiosa"), Pair("user", "leon"))
    audience = addressing.resolve_reply("furiosa", [*named, *wide], False, "nux", TOWN, everybody=True)
    assert audience.recipients == ("furiosa", "max", "user:leon"), "never the sender, whom the group names"
    assert audience.audiences == (Pair("agent", "furiosa"), Pair("user", "leon"), *wide)


def test_what_names_nobody_but_all_of_a_role_is_followed_only_with_everybody() -> None:
    with pytest.raises(NoRecipients, match="names only @reviewer") as refused:
        addressing.resolve_reply("furiosa", [Pair("role", "reviewer")], False, "furiosa", TOWN)
    assert "--all" in refused.value.remedy
    assert addressing.resolve_reply(
        "furiosa", [Pair("role", "reviewer")], False, "furiosa", TOWN, everybody=True
    ).recipients == ("max",)


def test_a_reply_to_a_team_post_goes_to_its_author_and_with_everybody_or_to_ones_own_to_the_team() -> None:
    assert addressing.resolve_reply("furiosa", [], True, "nux", TOWN).recipients == ("furiosa",)
    assert addressing.resolve_reply("furiosa", [], True, "nux", TOWN, everybody=True).quiet
    assert addressing.resolve_reply("furiosa", [], True, "furiosa", TOWN).quiet


def test_a_reply_leaves_out_who_has_left() -> None:
    audience = addressing.resolve_reply("gone", [Pair("agent", "nux"), Pair("agent", "left")], False, "max", TOWN)
    assert audience.recipients == ("nux",)
    with pytest.raises(NoRecipients):
        addressing.resolve_reply("gone", [Pair("agent", "left")], False, "max", TOWN)


def test_who_was_renamed_is_reached_by_the_old_name_as_long_as_nobody_else_has_it() -> None:
    audience = addressing.resolve(["@rictus"], "max", TOWN)
    assert (audience.recipients, audience.audiences) == (("nux",), (Pair("agent", "nux"),))
    assert addressing.resolve_reply("rictus", [], False, "max", TOWN).recipients == ("nux",)
    asked = [Pair("agent", "rictus"), Pair("agent", "nux")]
    assert addressing.resolve_reply("furiosa", asked, False, "max", TOWN).recipients == ("furiosa", "nux")


def test_beside_a_close_spelling_a_far_one_is_not_suggested() -> None:
    assert suggest("reviewer", ["reviewer_max", "developer", "everyone"]) == ["reviewer_max"]
    assert suggest("reviewr", ["reviewer", "reviewer_2"]) == ["reviewer", "reviewer_2"]
