"""Who counts as a person, and who as no agent: what stands in the way, in words (rpc.md §3, Pe and Na)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from thrum.identity.person import Ancestry, check_person_act, look_at_ancestry, obstacle
from thrum.identity.processes import CHAIN_MAX, Process, ProcessMap, Program, Terminal
from thrum.identity.runtimes import KNOWN_RUNTIMES, MARKS
from thrum.model.errors import NotAPerson
from thrum.model.methods.agents import TeamListParams
from thrum.model.methods.messages import MessageListParams, OutboxParams
from thrum.model.methods.method import Access, Empty
from thrum.model.methods.settings import ConfigSetParams
from thrum.model.methods.table import METHODS

TERMINAL = Terminal("/dev/pts/3", foreground=True)
PERSON = Ancestry(9, ("thrum", "bash"), terminal=TERMINAL)
SHELL, THRUM = Process(5, 1, "b/5", 5.0, comm="bash"), Process(9, 5, "b/9", 9.0, comm="thrum")


def table() -> ProcessMap:
    """A person's shell at a terminal, and a command in it."""
    found = ProcessMap(SHELL, THRUM)
    found.terminals = {5: TERMINAL, 9: TERMINAL}
    return found


def look(found: ProcessMap, placed: dict[int, str] | None = None) -> Ancestry:
    return look_at_ancestry(found, (THRUM, SHELL), KNOWN_RUNTIMES, placed or {}, (placed or {}).__getitem__)


def test_a_command_at_a_terminal_is_a_person_s() -> None:
    assert look(table()) == PERSON
    assert obstacle(PERSON, Access.PERSON) == obstacle(PERSON, Access.NOT_AN_AGENT) == ""


@pytest.mark.parametrize("pid", [5, 9])
@pytest.mark.parametrize("variable", sorted(MARKS))
def test_a_runtime_s_variable_in_a_first_environment_is_an_agent_s(variable: str, pid: int) -> None:
    """Of the process itself, or of one above it: who takes it away for a command has it himself."""
    found = table()
    found.environs[pid] = {variable: ""}
    for level in (Access.PERSON, Access.NOT_AN_AGENT):
        assert obstacle(look(found), level) == f"{variable} of {MARKS[variable]} is in the environment of pid {pid}"


def test_a_runtime_or_a_daemon_among_the_ancestors_is_in_the_way_and_is_named() -> None:
    for argv, words in (
        (("claude",), "claude (pid 5) is among the ancestors"),
        (("python", "-m", "thrum.daemon", "/repo"), "a thrum daemon (pid 5) is among the ancestors"),
    ):
        found = table()
        found.programs[5] = Program(argv[0], argv=argv)
        for level in (Access.PERSON, Access.NOT_AN_AGENT):
            assert obstacle(look(found), level) == words


def test_a_runtime_that_is_a_container_s_first_process_is_among_the_ancestors() -> None:
    found = table()
    found.processes[1] = Process(1, 0, "b/1", 1.0, comm="claude")
    assert obstacle(look(found), Access.NOT_AN_AGENT) == "claude (pid 1) is among the ancestors"
    found.processes[1] = replace(found.processes[1], comm="systemd")
    assert obstacle(look(found), Access.PERSON) == ""
    # Entered from outside, as by `docker exec`: nothing of it leads to the first process.
    found.processes[1] = replace(found.processes[1], comm="claude")
    outside = replace(SHELL, ppid=0)
    assert obstacle(look_at_ancestry(found, (THRUM, outside), KNOWN_RUNTIMES), Access.NOT_AN_AGENT) == ""


def test_a_command_that_is_a_container_s_first_process_is_judged_as_any() -> None:
    found = ProcessMap(Process(1, 0, "b/1", 1.0, comm="thrum"))
    ancestry = look_at_ancestry(found, found.chain(1), KNOWN_RUNTIMES)
    assert ancestry == Ancestry(1, ("thrum",))
    assert obstacle(ancestry, Access.NOT_AN_AGENT) == ""


def test_a_runtime_so_far_above_that_nobody_looks_is_not_outrun() -> None:
    deep = [Process(pid, pid - 1, f"b/{pid}", float(pid), comm="sh") for pid in range(200, 200 - CHAIN_MAX, -1)]
    for level in (Access.PERSON, Access.NOT_AN_AGENT):
        assert (
            obstacle(look_at_ancestry(ProcessMap(*deep), deep, KNOWN_RUNTIMES), level)
            == "it has more than 64 ancestors"
        )
        assert "more than" not in obstacle(look_at_ancestry(ProcessMap(*deep), deep[1:], KNOWN_RUNTIMES), level)


@pytest.mark.parametrize(
    ("ancestry", "words"),
    [
        (replace(PERSON, terminal=None), "no terminal"),
        (replace(PERSON, terminal=Terminal("/dev/pts/3", foreground=False)), "it runs in the background of /dev/pts/3"),
        (replace(PERSON, agent="furiosa"), "@furiosa runs in this terminal, /dev/pts/3"),
    ],
    ids=["no terminal", "background", "an agent's"],
)
def test_only_a_person_needs_a_terminal_of_its_own(ancestry: Ancestry, words: str) -> None:
    assert obstacle(ancestry, Access.PERSON) == words
    assert obstacle(ancestry, Access.NOT_AN_AGENT) == ""


def test_a_terminal_in_which_an_agent_runs_is_found_by_the_kernel() -> None:
    found = table()
    found.processes[7] = Process(7, 5, "b/7", 7.0)
    found.terminals[7] = TERMINAL
    assert look(found, {7: "furiosa"}).agent == "furiosa"
    found.terminals[7] = Terminal("/dev/pts/4", foreground=True)
    assert look(found, {7: "furiosa", 8: "gone"}).agent == ""


def test_what_cannot_be_read_of_the_process_itself_is_no_person_and_of_a_login_above_it_does_not_matter() -> None:
    class Hidden(ProcessMap):
        secret = 5

        def environ(self, pid: int) -> dict[str, str]:
            if pid == self.secret:
                raise PermissionError
            return {}

    found = Hidden(SHELL, THRUM)
    assert look(found).mark == ""
    found.secret = 9
    with pytest.raises(PermissionError):
        look(found)


def test_who_did_it_is_recorded_and_who_was_refused_too() -> None:
    records: list[tuple[str, str, dict[str, Any]]] = []
    check_person_act(PERSON, Access.PERSON, "permission.answer", lambda *record: records.append(record))
    with pytest.raises(NotAPerson) as refused:
        check_person_act(
            replace(PERSON, runtime="claude", runtime_pid=7), Access.NOT_AN_AGENT, "config.set k", _append(records)
        )
    assert refused.value.code == -32003
    assert refused.value.message == "this needs a person at a terminal: claude (pid 7) is among the ancestors"
    assert refused.value.remedy == "open a terminal that no agent started, repeat there"
    who = {"caller_pid": 9, "chain": "thrum < bash", "terminal": "/dev/pts/3"}
    assert records == [
        ("info", "person_act", {"act": "permission.answer", **who}),
        (
            "warning",
            "not_a_person",
            {"act": "config.set k", **who, "reason": "claude (pid 7) is among the ancestors"},
        ),
    ]


def _append(records: list[tuple[str, str, dict[str, Any]]]) -> Any:
    return lambda *record: records.append(record)


# -- the levels in the table of methods


def test_a_person_s_methods_are_reached_over_the_unix_socket_alone() -> None:
    methods = [method for method in METHODS.values() if method.access in (Access.PERSON, Access.NOT_AN_AGENT)]
    assert "sync.configure" in [method.name for method in methods]
    for method in [*methods, *(method for method in METHODS.values() if method.level_of is not None)]:
        assert method.transports == "U", method.name


@pytest.mark.parametrize("name", ["config.set", "config.unset"])
def test_settings_that_guard_agents_are_no_agent_s_to_change(name: str) -> None:
    def level(key: str) -> Access:
        return METHODS[name].level(ConfigSetParams(key=key, value=1))

    for key in ("daemon.local_only", "identity_guard.cross_worktree", "identity_guard", "daemon", "runtime.processes"):
        assert level(key) is Access.NOT_AN_AGENT, key
    for key in ("daemon.log_level", "daemon.local", "identity_guards", "runtime.primary", "project_name"):
        assert level(key) is Access.OPERATOR, key


def test_reads_of_what_is_one_s_own_are_told_from_looks() -> None:
    listing, outbox = METHODS["message.list"], METHODS["message.outbox"]
    for own in ({"for_agent": "a"}, {"unread_for_agent": "a"}, {"unread": True}, {"mentions": True}):
        assert listing.asks_own(MessageListParams(**own)), own
    assert not listing.asks_own(MessageListParams(recipient="a", author_id="b"))
    assert outbox.asks_own(OutboxParams()) and not outbox.asks_own(OutboxParams(author_id="a"))
    assert METHODS["agent.whoami"].asks_own(Empty())
    assert not METHODS["team.list"].asks_own(TeamListParams())
