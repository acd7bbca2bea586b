"""Statements of identity.md §17, each as a user meets it: the real `thrum`, real worktrees, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Desk, Desks, kind, result, runtime_argv
from tests.support.daemon.repo import THRUM, Done, Repo, open_repo
from tests.support.trusted import trust_here


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    """One repository for all; each test has worktrees, names and modules of its own."""
    with open_repo("max") as opened:
        opened.thrum("daemon", "start")
        yield opened


@pytest.fixture
def fresh() -> Iterator[Repo]:
    with open_repo() as opened:
        yield opened


def identity_file(root: Path, name: str) -> Path:
    return root / ".thrum/identities" / f"{name}.json"


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a worktree's `.thrum`, with its bytes."""
    return {str(path): path.read_bytes() for path in sorted((root / ".thrum").rglob("*")) if path.is_file()}


def registered(repo: Repo) -> list[str]:
    return [agent["agent_id"] for agent in repo.json("agent", "list")["agents"]["agents"]]


def refused(done: Done, kind: str, status: int = 1) -> dict[str, Any]:
    assert (done.status, done.kind) == (status, kind), done
    return done.json["error"]


def json_of(done: dict[str, Any]) -> Any:
    assert done["status"] == 0, done
    return json.loads(done["out"])


def author(repo: Repo, sent: dict[str, Any]) -> str:
    facts = repo.facts("message.create")
    return next(fact["agent_id"] for fact in facts if fact["message_id"] == sent["message_id"])


# -- ids, names


@pytest.mark.spec("ID-02")
def test_a_password_in_the_origin_is_in_no_file_and_no_output(tmp_path: Path) -> None:
    repo = Repo(tmp_path)
    try:
        repo.git("remote", "add", "origin", "https://leon:s3cr3t-t0ken@example.com/shop.git")
        said = [repo.run(*words) for words in (["init", "--json"], ["daemon", "status", "--json"], ["daemon", "logs"])]
        said.append(repo.run("quickstart", "nux", "--role", "tester", "--module", "all", "--verbose"))
        said.append(repo.run("whoami", "--json"))
        said.append(repo.run("config", "show", "--json"))
        assert all("s3cr3t" not in done.out + done.err for done in said)
        written = [path for top in (repo.main / ".thrum", repo.main / ".git/thrum-sync") for path in top.rglob("*")]
        assert [path for path in written if path.is_file() and b"s3cr3t" in path.read_bytes()] == []
        config = json.loads((repo.main / ".thrum/config.json").read_text())
        assert config["identity"]["git_origin_url"] == "https://example.com/shop.git"
    finally:
        repo.close()


@pytest.mark.spec("ID-04")
def test_a_made_repository_id_survives_restarts_and_a_later_origin(fresh: Repo) -> None:
    fresh.thrum("quickstart", "--role", "tester", "--module", "all")
    before = fresh.json("whoami")
    fresh.git("remote", "add", "origin", "git@example.com:shop.git")
    fresh.thrum("daemon", "restart")
    fresh.thrum("init")
    after = fresh.json("whoami")
    assert (after["repo_id"], after["agent_id"]) == (before["repo_id"], before["agent_id"])
    assert before["repo_id"].startswith("r_") and len(before["repo_id"]) == 28
    assert fresh.json("quickstart", "--role", "tester", "--module", "all")["register"]["agent_id"] == before["agent_id"]


@pytest.mark.spec("ID-06")
def test_names_and_roles_of_others_are_taken(repo: Repo) -> None:
    place = repo.worktree("taken")
    repo.agent("taken_one", role="taken_role", module="tk", at=place)
    other = repo.worktree("taken_b")
    before = repo.facts("agent.register")
    name_is_role = repo.run("quickstart", "taken_role", "--role", "r", "--module", "m", "--json", at=other)
    error = refused(name_is_role, "name_equals_role")
    assert "conflicts with existing role" in error["message"] and error["details"]["cause"] == "other_role"
    role_is_name = repo.run("quickstart", "x", "--role", "taken_one", "--module", "m", "--json", at=other)
    assert "conflicts with existing agent name" in refused(role_is_name, "name_equals_role")["message"]
    repo.thrum("group", "create", "taken_group", at=place)
    for words in (["taken_group", "--role", "r"], ["x", "--role", "taken_group"]):
        done = repo.run("quickstart", *words, "--module", "m", "--json", at=other)
        assert refused(done, "name_equals_role")["details"]["cause"] == "group"
    assert repo.facts("agent.register") == before


@pytest.mark.spec("ID-07")
def test_a_record_decides_before_the_syntax_of_a_name(repo: Repo) -> None:
    place = repo.worktree("looks_unnamed")
    repo.agent("team_backend12", role="builder", module="lu", at=place)
    sent = repo.json("send", "hello", "--to", "@team_backend12")
    assert sent["resolved_to"] == 1
    assert "team_backend12" in repo.thrum("inbox", "--json", at=place)
    assert repo.json("whoami", at=place)["agent_id"] == "team_backend12"
    assert "team_backend12" in registered(repo)
    refused(repo.run("send", "x", "--to", "@team", "--json"), "unknown_recipient")


@pytest.mark.spec("ID-07")
def test_an_id_that_differs_only_in_case_is_refused(fresh: Repo) -> None:
    unnamed = fresh.json("quickstart", "--role", "tester", "--module", "all")["register"]["agent_id"]
    place = fresh.worktree("case")
    done = fresh.run("quickstart", unnamed.lower() + "x", "--role", "tester", "--module", "m", at=place)
    assert done.status == 0, done
    assert unnamed in registered(fresh)
    role, _, digest = unnamed.rpartition("_")
    asked = {"name": f"{role}_{digest.lower()}", "role": "builder", "module": "other"}
    with contextlib.closing(Desk(fresh, place)) as shell:
        assert kind(shell.ask("agent.register", **asked)) in ("name_taken", "invalid_name")


@pytest.mark.spec("ID-08")
def test_role_and_module_are_asked_for_by_registering_commands_alone(repo: Repo) -> None:
    place = repo.worktree("roleless")
    for command in (["quickstart", "x"], ["agent", "register", "--name", "x"]):
        assert (
            "role not specified: set THRUM_ROLE, use --role flag, or create identity file"
            in (refused(repo.run(*command, "--module", "m", "--json", at=place), "role_missing")["message"])
        )
        error = refused(repo.run(*command, "--role", "r", "--json", at=place), "module_missing")
        assert error["message"].startswith("module not specified")
    for command in (["inbox"], ["send", "x"], ["whoami"], ["session", "start"]):
        refused(repo.run(*command, "--json", at=place), "no_identity")
    for command in (["team"], ["agent", "list"], ["daemon", "status"]):
        assert repo.run(*command, "--json", at=place).status == 0


# -- repository


@pytest.mark.spec("ID-10")
def test_a_linked_worktree_uses_the_main_ones_state_and_nobody_s_identity(repo: Repo) -> None:
    place = repo.worktree("bare_linked")
    assert not (place / ".thrum").exists()
    refused(repo.run("inbox", "--json", at=place), "no_identity")
    repo.thrum("team", at=place)
    assert not (place / ".thrum").exists()
    assert len(repo.daemons()) == 1


@pytest.mark.spec("ID-13")
@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "redirect file is empty"),
        ("../main/.thrum", "redirect target must be absolute path"),
        ("~/main/.thrum", "redirect target must be absolute path"),
        ("{top}/nowhere", "redirect target does not exist"),
        ("{main}/README", "redirect target is not a directory"),
        ("{here}/.thrum", "redirect points to itself"),
        ("{chain}/.thrum", "redirect chain detected"),
    ],
)
def test_each_bad_redirect_is_named_and_starts_no_second_daemon(repo: Repo, target: str, words: str) -> None:
    here, chain = repo.worktree("redirected"), repo.worktree("chained")
    repo.agent("chained_one", module="ch", at=chain)
    assert (chain / ".thrum/redirect").exists()
    (here / ".thrum/identities").mkdir(parents=True, exist_ok=True)
    text = target.format(top=repo.top, main=repo.main, here=here, chain=chain)
    (here / ".thrum/redirect").write_text(f"{text}\n")
    trust_here(here, repo.main / ".thrum")
    for command in (["inbox"], ["send", "x"], ["daemon", "start"], ["init"]):
        error = refused(repo.run(*command, "--json", at=here), "bad_redirect")
        assert words in error["message"], error
    assert len(repo.daemons()) == 1
    assert not (here / ".thrum/var").exists()


@pytest.mark.spec("ID-14")
def test_under_a_redirect_state_is_shared_and_identity_is_local(repo: Repo) -> None:
    place = repo.worktree("redirects")
    repo.agent("redirects_one", module="rd", at=place)
    repo.run("context", "save", "--json", at=place, stdin="notes")
    assert sorted(path.name for path in (place / ".thrum").iterdir()) in (
        [".mark", "context", "identities", "redirect"],
        [".mark", "identities", "redirect"],
    )
    assert not identity_file(repo.main, "redirects_one").exists()
    assert repo.json("daemon", "status", at=place)["pid"] == repo.daemon


@pytest.mark.spec("ID-15")
def test_repo_beats_thrum_home_beats_the_working_directory(repo: Repo) -> None:
    one, two = repo.worktree("place_one"), repo.worktree("place_two")
    repo.agent("place_a", module="pa", at=one)
    repo.agent("place_b", module="pb", at=two)
    nobodys = repo.worktree("place_none")
    home = {"THRUM_HOME": str(two)}
    assert repo.json("whoami", at=one)["agent_id"] == "place_a"
    assert repo.json("whoami", at=nobodys, env=home)["agent_id"] == "place_b"
    assert repo.json("whoami", "--repo", str(repo.main), at=nobodys, env=home)["agent_id"] == "max"
    for useless in (repo.top, repo.top / "nowhere"):
        done = repo.run("whoami", "--json", at=one, env={"THRUM_HOME": str(useless)})
        assert done.status == 1 and "THRUM_HOME" in done.json["error"]["message"]


@pytest.mark.spec("ID-16")
def test_registering_with_thrum_home_at_another_worktree_is_refused_and_writes_nothing(repo: Repo) -> None:
    here, there = repo.worktree("home_here"), repo.worktree("home_there")
    before = repo.facts()
    for command in (["quickstart", "x"], ["agent", "register", "--name", "x"]):
        done = repo.run(*command, "--role", "r", "--module", "m", "--json", at=here, env={"THRUM_HOME": str(there)})
        error = refused(done, "repo_conflict")
        assert str(here) in error["message"] and str(there) in error["message"]
        assert "unset THRUM_HOME" in error["remedy"] and "--repo" in error["remedy"]
    assert repo.facts() == before
    assert not (here / ".thrum").exists() and not (there / ".thrum").exists()


# -- files


@pytest.mark.spec("ID-18")
def test_looking_leaves_an_old_file_as_it_is(repo: Repo) -> None:
    place = repo.worktree("old_file")
    repo.agent("old_one", module="of", at=place)
    path = identity_file(place, "old_one")
    fields = json.loads(path.read_text())
    fields["version"] = 2
    fields["agent"] = {key.capitalize(): value for key, value in fields["agent"].items()}
    path.write_text(json.dumps(fields))
    before = path.read_bytes()
    assert repo.json("whoami", at=place)["role"] == "worker"
    repo.thrum("team", at=place)
    assert path.read_bytes() == before
    repo.thrum("session", "set-intent", "write it anew", at=place)
    now = json.loads(path.read_text())
    assert (now["version"], now["agent"]["name"], now["intent"]) == (5, "old_one", "write it anew")


@pytest.mark.spec("ID-19")
def test_files_are_private_whatever_the_umask(fresh: Repo) -> None:
    before = os.umask(0)
    try:
        fresh.thrum("quickstart", "nux", "--role", "tester", "--module", "all")
    finally:
        os.umask(before)
    path = identity_file(fresh.main, "nux")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    fields = json.loads(path.read_text())
    assert "" not in fields.values() and 0 not in fields.values()
    assert fields["updated_at"][-5:-1].startswith(".") and fields["updated_at"].endswith("Z")


@pytest.mark.spec("ID-21")
def test_what_is_no_identity_file_is_seen_by_no_command(repo: Repo) -> None:
    place = repo.worktree("litter")
    repo.agent("litter_one", module="lt", at=place)
    directory = place / ".thrum/identities"
    text = (directory / "litter_one.json").read_text()
    for name in ("litter_two.json.deleted", ".litter_three.json", "litter_one.json.tmp", ".litter_one.json.x.tmp"):
        (directory / name).write_text(text)
    (directory / "litter_link.json").symlink_to(directory / "litter_one.json")
    me = repo.json("whoami", at=place)
    assert (me["agent_id"], me["selected_by"]) == ("litter_one", "only_file")
    for name in ("litter_two", "litter_link", ".litter_three"):
        done = repo.run("whoami", "--json", at=place, env={"THRUM_NAME": name})
        assert done.kind in ("identity_not_found", "invalid_name")


@pytest.mark.spec("ID-22")
def test_a_broken_file_is_an_error_when_chosen_and_a_warning_among_others(repo: Repo) -> None:
    place = repo.worktree("breaks")
    repo.agent("breaks_one", module="br", at=place)
    whole = identity_file(place, "breaks_one").read_text()
    identity_file(place, "breaks_two").write_text("{")
    done = repo.run("whoami", at=place)
    assert done.status == 0 and "breaks_two" in done.err and "warning" in done.err
    refused(repo.run("whoami", "--json", at=place, env={"THRUM_NAME": "breaks_two"}), "identity_invalid")
    identity_file(place, "breaks_two").write_text(whole)
    error = refused(repo.run("whoami", "--json", at=place, env={"THRUM_NAME": "breaks_two"}), "identity_invalid")
    assert "breaks_two.json" in error["message"]
    identity_file(place, "breaks_one").unlink()
    refused(repo.run("whoami", "--json", at=place), "identity_invalid")


# -- processes


# -- selection


@pytest.mark.spec("ID-32")
def test_two_sessions_in_one_worktree_have_each_their_own_identity(repo: Repo, desk: Desks) -> None:
    place = repo.worktree("shared")
    claude, codex = desk(place, "claude"), desk(place, "codex")
    result(claude.register("shared_a", module="sa"))
    result(codex.register("shared_b", module="sb"))
    for each, name in ((claude, "shared_a"), (codex, "shared_b")):
        me = json_of(each.thrum("whoami", "--json"))
        assert (me["agent_id"], me["selected_by"]) == (name, "pid")
        assert each.send() == name


@pytest.mark.spec("ID-33")
def test_a_runtime_inside_another_speaks_as_itself_once_it_is_registered(repo: Repo, desk: Desks) -> None:
    place = repo.worktree("inside")
    claude = desk(place, "claude")
    result(claude.register("inside_outer", module="io"))
    codex = runtime_argv(repo.top / "bin", "codex")
    by_codex = claude.order(run=[*codex, str(THRUM), "send", "unregistered", "--json"])
    assert author(repo, json_of(by_codex)) == "inside_outer"
    register = [str(THRUM), "quickstart", "inside_inner", "--role", "r", "--module", "ii"]
    script = f"{shlex.join(register)} >&2 && {shlex.join([str(THRUM), 'send', 'registered', '--json'])}"
    by_codex = claude.order(run=[*codex, "sh", "-c", script])
    assert author(repo, json_of(by_codex)) == "inside_inner"
    pids = [
        json.loads(identity_file(place, f"inside_{which}").read_text())["agent_pid"] for which in ("outer", "inner")
    ]
    assert pids[0] == claude.pid != pids[1]
    assert claude.send() == "inside_outer"


@pytest.mark.spec("ID-30")
def test_thrum_name_without_a_file_fails_whatever_else_there_is(repo: Repo) -> None:
    place = repo.worktree("named")
    repo.agent("named_one", module="nm", at=place)
    env = {"THRUM_NAME": "named_other", "THRUM_ROLE": "tester", "THRUM_MODULE": "all"}
    for command in (["whoami"], ["send", "x"], ["inbox"]):
        error = refused(repo.run(*command, "--json", at=place, env=env), "identity_not_found")
        assert error["message"] == "THRUM_NAME=named_other, but .thrum/identities/named_other.json does not exist"


@pytest.mark.spec("ID-34")
@pytest.mark.parametrize("key", ["role", "module"])
def test_flag_beats_variable_beats_file_and_the_file_stays(repo: Repo, key: str) -> None:
    path = identity_file(repo.main, "max")
    before = path.read_bytes()
    variable = {f"THRUM_{key.upper()}": "from_variable", "THRUM_DISPLAY": "From the variable"}
    plain, by_variable = repo.json("whoami"), repo.json("whoami", env=variable)
    by_flag = repo.json("whoami", f"--{key}", "from_flag", env=variable)
    assert [each[key] for each in (by_variable, by_flag)] == ["from_variable", "from_flag"]
    assert plain[key] not in ("from_variable", "from_flag")
    assert by_variable["display"] == "From the variable"
    assert [each["source"] for each in (plain, by_variable, by_flag)] == ["identity_file", "environment", "flags"]
    assert path.read_bytes() == before


@pytest.mark.spec("ID-35")
def test_the_name_wanted_is_the_variables_then_the_flags_then_the_words_then_the_files(repo: Repo) -> None:
    place = repo.worktree("wanted")
    rest = ["--role", "r", "--module", "wa", "--no-agent-pid"]
    done = repo.run("quickstart", "by_word", "--name", "by_flag", *rest, at=place, env={"THRUM_NAME": "by_variable"})
    assert done.status == 0 and "@by_variable" in done.out
    assert "warning" in done.err and "THRUM_NAME" in done.err
    done = repo.run("quickstart", *rest, at=place)
    assert "@by_variable" in done.out and "warning" not in done.err
    other = repo.worktree("wanted_b")
    rest[3] = "wb"
    assert "@by_flag" in repo.thrum("quickstart", "by_word", "--name", "by_flag", *rest, at=other)


@pytest.mark.spec("ID-36")
def test_whoami_starts_no_daemon_and_writes_nothing(fresh: Repo) -> None:
    fresh.thrum("quickstart", "nux", "--role", "tester", "--module", "all")
    fresh.thrum("daemon", "stop")
    before = tree(fresh.main)
    me = fresh.json("whoami")
    assert (me["agent_id"], me["source"], me["selected_by"]) == ("nux", "identity_file", "only_file")
    assert fresh.json("whoami", env={"THRUM_NAME": "nux"})["selected_by"] == "thrum_name"
    assert fresh.json("whoami", env={"THRUM_AGENT_ID": "zed"})["agent_id"] == "zed"
    assert fresh.daemon is None
    assert tree(fresh.main) == before


# -- registration


@pytest.mark.spec("ID-43")
def test_a_first_registration_is_a_fact_a_row_and_a_file(repo: Repo) -> None:
    place = repo.worktree("first")
    done = repo.json("agent", "register", "--name", "first_one", "--role", "r", "--module", "fi", at=place)
    assert (done["agent_id"], done["status"]) == ("first_one", "registered")
    events = [json.loads(line) for line in (repo.journals / "events.jsonl").read_text().splitlines()]
    assert [fact["agent_id"] for fact in events if fact["type"] == "agent.register"].count("first_one") == 1
    assert "first_one" in registered(repo)
    assert json.loads(identity_file(place, "first_one").read_text())["agent"]["name"] == "first_one"


@pytest.mark.spec("ID-45")
def test_the_same_role_and_module_under_another_name_is_a_conflict(repo: Repo) -> None:
    repo.agent("rival_a", role="rival", module="same", at=repo.worktree("rival_a"))
    register = ["agent", "register", "--name", "rival_b", "--role", "rival", "--module", "same", "--json"]
    place = repo.worktree("rival_b")
    done = repo.run(*register, at=place)
    assert (done.status, done.json["agent_id"], done.json["status"]) == (1, "", "conflict")
    conflict = done.json["conflict"]
    assert (conflict["existing_agent_id"], conflict["reason"]) == ("rival_a", "same_role_module")
    assert {"registered_at", "last_seen_at"} <= conflict.keys() and "conflict_pid" not in conflict
    remedy = done.json["error"]["remedy"]
    assert "another name or module" in remedy and "--re-register" in remedy and "--force" in remedy
    again = repo.run(*register, "--re-register", at=place)
    assert (again.status, again.json["status"]) == (0, "registered")
    assert any("rival_a" in warning for warning in again.json["warnings"])


@pytest.mark.spec("ID-48")
def test_agents_of_another_daemon_conflict_by_name_alone(fresh: Repo) -> None:
    fresh.thrum("quickstart", "nux", "--role", "tester", "--module", "all")
    fresh.thrum("daemon", "stop")
    journal = fresh.journals / "events.jsonl"
    [own] = [fact for fact in fresh.facts("agent.register") if fact["agent_id"] == "nux"]
    foreign = own | {
        "event_id": "evt_01KGH87Y00BBBBBBBBBBBBBBBB",
        "origin_daemon": "d_01KGH87Y00BBBBBBBBBBBBBBBB",
        "agent_id": "far",
        "name": "far",
        "role": "builder",
        "module": "core",
        "hostname": "elsewhere",
    }
    del foreign["client_key"], foreign["client_digest"]
    with journal.open("a") as lines:
        lines.write(json.dumps(foreign, separators=(",", ":")) + "\n")
    assert sorted(registered(fresh)) == ["far", "nux"]
    place = fresh.worktree("near")
    same = ["--role", "builder", "--module", "core"]
    done = fresh.run("agent", "register", "--name", "far", *same, "--json", at=place)
    assert done.json["conflict"]["reason"] == "other_daemon", done
    assert fresh.json("agent", "register", "--name", "near", *same, at=place)["status"] == "registered"
    forced = fresh.run("agent", "register", "--name", "far", *same, "--force", "--json", at=place)
    assert forced.json["conflict"]["reason"] == "other_daemon", "nobody takes a name that another machine holds"
    fresh.thrum("sync", "accept", foreign["origin_daemon"], "--gone")
    assert fresh.json("agent", "register", "--name", "far", *same, "--force", at=place)["status"] == "registered"


# -- who calls


@pytest.mark.spec("ID-57")
def test_a_registration_counts_from_the_next_call_of_its_connection(repo: Repo, desk: Desks) -> None:
    shell = desk(repo.worktree("next_call"))
    assert shell.send() == "anonymous_caller"
    result(shell.register("next_one", module="nc"))
    assert shell.send() == "next_one"


@pytest.mark.spec("ID-80")
def test_a_process_on_the_unix_socket_cannot_become_a_user(repo: Repo, desk: Desks) -> None:
    before = repo.facts()
    for caller in (desk(repo.top), desk(repo.main, "claude")):
        assert kind(caller.ask("user.register", username="leon")) == "wrong_transport"
        assert result(caller.ask("user.identify"))["username"] == "test"
        assert kind(caller.ask("message.send", content="x", caller_agent_id="user:leon")) in (
            "identity_mismatch",
            "anonymous_caller",
        )
    assert repo.facts() == before


# -- the daemon's own identity


@pytest.mark.spec("ID-48", "ID-75", "ID-77", "ID-79")
def test_an_old_daemon_id_is_rotated_at_the_start_with_one_row_and_a_shown_block(fresh: Repo) -> None:
    fresh.thrum("quickstart", "nux", "--role", "tester", "--module", "all")
    fresh.thrum("daemon", "stop")
    config = fresh.settings
    fields = json.loads(config.read_text())
    fields["identity"]["daemon_id"] = "d_0123456789ab"
    fields["of_another_program"] = {"x": 1}
    config.write_text(json.dumps(fields))
    for name in ("daemon.key", "daemon.json"):  # there were none in those days
        (fresh.journals.parent / name).unlink()
    old = config.read_bytes()
    fresh.thrum("daemon", "start")
    status = fresh.json("daemon", "status")["identity"]
    now = json.loads(config.read_text())
    assert status["daemon_id"] == now["identity"]["daemon_id"] and len(status["daemon_id"]) == 28
    assert "d_0123456789ab" in now["identity"]["previous_ids"]
    assert now["of_another_program"] == {"x": 1}
    assert (fresh.main / ".thrum/config.json.pre-identity-bak").read_bytes() == old
    assert [row[0] for row in fresh.projection()["daemon_identity"]] == [status["daemon_id"]]
    text = fresh.thrum("daemon", "status")
    block = text[text.index("Identity:") :].splitlines()
    assert [line.split(":")[0].strip() for line in block[1:6]] == [
        "daemon_id",
        "repo_name",
        "hostname",
        "repo_path",
        "init_at",
    ]
    assert fresh.json("whoami")["agent_id"] == "nux"
    assert registered(fresh) == ["nux"]
    again = fresh.json("agent", "register", "--name", "nux", "--role", "tester", "--module", "all", "--display", "N.")
    assert again["status"] == "updated", "an agent of the rotated id is its own"


@pytest.mark.spec("ID-76")
def test_a_second_start_leaves_the_configuration_alone(fresh: Repo) -> None:
    fresh.thrum("daemon", "restart")
    config = fresh.main / ".thrum/config.json"
    before = (config.read_bytes(), config.stat().st_mtime_ns)
    fresh.thrum("daemon", "restart")
    fresh.thrum("init")
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before
