"""Who calls, with real processes: scripts named as runtimes, raw clients under them, real worktrees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Answer, Desks, kind, result
from tests.support.daemon.repo import THRUM, Repo, open_repo
from tests.support.trusted import trust_here
from thrum.model.methods.method import Access
from thrum.model.methods.table import METHODS

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PLAIN_AND_AGAIN: list[dict[str, Any]] = [{}, {"re_register": True}]


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


def reason(answer: Answer) -> str:
    return answer["error"]["data"]["details"]["reason"]


def identity_file(root: Path, name: str) -> Path:
    return root / ".thrum/identities" / f"{name}.json"


def in_file(root: Path, name: str) -> dict[str, Any]:
    return json.loads(identity_file(root, name).read_text())


# -- who calls


@pytest.mark.spec("ID-60")
def test_a_runtime_s_children_are_its_agent_wherever_they_stand(repo: Repo, desk: Desks) -> None:
    home, away = repo.worktree("c4"), repo.worktree("c4_away")
    claude = desk(home, "claude")
    result(claude.register("c_four", module="c4"))
    assert in_file(home, "c_four")["agent_pid"] == claude.pid
    assert claude.send() == "c_four"
    for place in (away, repo.top, Path("/")):
        claude.order(cd=str(place))
        assert claude.send() == "c_four"
        assert claude.send(caller_agent_id="c_four") == "c_four"


@pytest.mark.spec("ID-58", "ID-60")
def test_a_claim_for_another_root_is_refused_to_a_proven_agent_even_there(repo: Repo, desk: Desks) -> None:
    home, other = repo.worktree("c6"), repo.worktree("c6_other")
    claude = desk(home, "claude")
    result(claude.register("c_six", module="c6"))
    result(desk(other).register("c_six_other", module="c6o"))
    claude.order(cd=str(other))
    for method, params in (("message.send", {"content": "x"}), ("agent.list", {}), ("health", {})):
        answer = claude.ask(method, caller_agent_id="c_six_other", **params)
        assert (kind(answer), reason(answer)) == ("identity_mismatch", "identity_mismatch")
    done = claude.thrum("send", "x", "--json")
    assert json.loads(done["out"])["error"]["kind"] in ("identity_mismatch", "cross_worktree")


@pytest.mark.spec("ID-61")
def test_in_a_shared_worktree_a_claim_for_a_neighbour_holds_unless_that_one_lives(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("c5")
    claude, shell = desk(root, "claude"), desk(root)
    result(claude.register("c_five", module="c5"))
    result(shell.register("c_five_b", module="c5b"))
    assert claude.send(caller_agent_id="c_five_b") == "c_five_b"
    assert shell.send(caller_agent_id="c_five_b") == "c_five_b"
    assert shell.send() == "several_identities"
    codex = desk(root, "codex")
    result(codex.register("c_five_b", module="c5b"))
    assert claude.send(caller_agent_id="c_five_b") == "identity_mismatch"
    assert codex.send() == "c_five_b"


@pytest.mark.spec("ID-61")
def test_a_stranger_at_a_live_agent_s_place(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("c13")
    claude, shell, codex = desk(root, "claude"), desk(root, terminal=True), desk(root, "codex")
    result(claude.register("c_thirteen", module="c13"))
    assert shell.send() == "cross_worktree"
    assert shell.send(caller_agent_id="c_thirteen") == "c_thirteen"
    assert codex.send(caller_agent_id="c_thirteen") == "cross_worktree"
    assert kind(codex.ask("agent.list", caller_agent_id="c_thirteen")) == "cross_worktree"
    assert result(shell.ask("agent.list"))["agents"]
    assert kind(shell.ask("session.start", agent_id="c_thirteen")) == "anonymous_caller"


def test_what_a_shared_server_starts_is_known_by_its_place_and_not_by_the_server(repo: Repo, desk: Desks) -> None:
    """One `codex app-server` for all terminals: neither it nor the runtime that started it is anybody in particular."""
    one, two = repo.worktree("served_a"), repo.worktree("served_b")
    tool = desk(one, "codex", "codex app-server")
    result(tool.register("served_one", module="sa"))
    assert "agent_pid" not in in_file(one, "served_one")
    assert tool.send() == "served_one"
    repo.agent("served_two", module="sb", at=two)
    tool.order(cd=str(two))
    assert tool.send() == "served_two", "the other session's tools run in the same server"
    assert tool.send(caller_agent_id="served_one") == "identity_mismatch"
    assert json.loads(tool.thrum("whoami", "--json")["out"])["agent_id"] == "served_two"
    assert json.loads(tool.thrum("send", "x", "--json", CODEX_THREAD_ID="nobody's")["out"])["message_id"]
    assert repo.facts("message.create")[-1]["agent_id"] == "served_two"


def test_who_holds_the_connection_of_another_is_that_other(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("forked")
    claude = desk(root, "claude")
    result(claude.register("forked_one", module="f1"))
    assert result(claude.order(forked="agent.whoami"))["agent_id"] == "forked_one"


def test_a_connection_outlives_its_process_as_nobody(repo: Repo) -> None:
    root = repo.worktree("orphan")
    repo.agent("orphan_one", module="o1", at=root)
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); answers = s.makefile('rb')\n"
        """s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"agent.whoami"}\\n'); first = answers.readline()\n"""
        "reader, writer = os.pipe()\n"
        "if os.fork(): os._exit(0)\n"
        "parent = os.getppid()\n"
        "os.close(writer); os.read(reader, 1)\n"
        """s.sendall(b'{"jsonrpc":"2.0","id":2,"method":"message.send","params":{"content":"x"}}\\n')\n"""
        "os.write(1, first + answers.readline())\n"
    )
    lines = repo.spawn_python("-c", program, str(repo.socket), at=root).end().out.splitlines()
    assert result(json.loads(lines[0]))["agent_id"] == "orphan_one"
    answer = json.loads(lines[1])
    assert (kind(answer), reason(answer)) == ("caller_unproved", "introspection_failed")


def test_a_caller_that_drifts_after_connecting_is_judged_where_it_stands(repo: Repo, desk: Desks) -> None:
    here, there = repo.worktree("drift"), repo.worktree("drift_b")
    shell = desk(here)
    result(shell.register("drift_a", module="d1"))
    assert shell.send() == "drift_a"
    shell.order(cd=str(there))
    assert shell.send() == "anonymous_caller"
    assert shell.send(caller_agent_id="drift_a") == "anonymous_caller"
    result(shell.register("drift_b", module="d2"))
    assert shell.send() == "drift_b"
    shell.order(cd=str(repo.top))
    assert shell.send() == "anonymous_caller"


@pytest.mark.spec("ID-58")
def test_frames_of_a_run_claim_and_prove_nothing(repo: Repo, desk: Desks) -> None:
    here, there = repo.worktree("framed"), repo.worktree("framed_b")
    shell = desk(here)
    result(shell.register("framed_a", module="fr1"))
    result(desk(there).register("framed_b", module="fr2"))
    before = repo.facts("message.create")
    forgeries: list[dict[str, Any]] = [
        {"cwd": str(there)},
        {"cwd": str(here), "env": {"THRUM_NAME": "framed_b"}},
        {"cwd": str(here), "env": {"THRUM_AGENT_ID": "framed_b"}},
        {"cwd": str(here), "env": {"THRUM_HOME": str(there)}},
        {"cwd": str(here), "argv": ["--repo", str(there), "send", "forged"]},
    ]
    for forgery in forgeries:
        run = result(shell.ask("cli.run", **{"argv": ["send", "forged"], **forgery}))
        assert run["exit_status"] == 1, forgery
    assert repo.facts("message.create") == before
    for cwd in ("", "relative", "\0"):
        assert kind(shell.ask("cli.run", argv=["whoami"], cwd=cwd)) == "invalid_params"


@pytest.mark.spec("ID-62")
def test_an_unproved_caller_reaches_exactly_what_is_open_to_it_and_leaves_no_mark(repo: Repo, desk: Desks) -> None:
    sent = repo.json("send", "to everybody", at=repo.agent("seen_one", module="seen"))["message_id"]
    nobody, below = desk(repo.top), desk(repo.top, "claude")
    needed: dict[str, dict[str, Any]] = {
        "message.get": {"message_id": sent},
        "message.find": {"end": sent[-6:]},
        "message.printed": {"message_ids": [sent]},
        "group.info": {"name": "everyone"},
        "group.members": {"name": "everyone"},
        "context.show": {"agent_name": "seen_one"},
        "context.preamble.show": {"agent_name": "seen_one"},
        "config.get": {"key": "daemon.log_level"},
        "agent.lookup": {"name": "seen_one"},
        "events.since": {"after_seq": 0},
        "message.send": {"content": "x"},
        "message.edit": {"message_id": "x"},
        "message.delete": {"message_id": "x"},
        "message.wait": {"timeout_ms": 0},
        "tmux.capture": {"name": "none"},
        "tmux.check-pane": {"session": "none"},
        "runtime.hook": {"runtime": "claude", "event": "Stop"},
    }
    before = repo.facts()
    of_ones_own: list[str] = []
    for name, method in METHODS.items():
        if method.access in (Access.BOOTSTRAP, Access.OPERATOR, Access.INTERNAL) or name == "cli.run":
            continue
        if method.access is Access.ANONYMOUS:
            answer = nobody.ask(name, **needed.get(name, {}))
            if "error" in answer and kind(answer) != "tmux_session_not_found":
                assert kind(answer) == "no_identity", (name, answer)
                of_ones_own.append(name)
            continue
        if method.access in (Access.PERSON, Access.NOT_AN_AGENT):
            needs = {"sync.configure": {"enabled": False}}.get(name, {})
            assert kind(below.ask(name, **needs)) in ("not_a_person", "invalid_params"), name
            continue
        answer = nobody.ask(name, **needed.get(name, {}))
        assert kind(answer) in ("anonymous_caller", "unknown_method", "invalid_params"), (name, answer)
    assert sorted(of_ones_own) == ["agent.whoami", "message.outbox"], "nobody has none"
    assert repo.facts() == before
    assert kind(nobody.register("nobody_at_all")) == "not_a_worktree"
    assert kind(nobody.ask("session.start")) == "anonymous_caller"
    assert kind(below.ask("sync.configure", enabled=False)) == "not_a_person"
    assert result(nobody.ask("sync.configure", enabled=False))["local_only"] is True


@pytest.mark.spec("ID-58", "ID-62")
def test_a_claim_that_nothing_confirms_opens_no_inbox_and_is_told_to_be_unused(repo: Repo, desk: Desks) -> None:
    place = repo.agent("claimed_one", module="cl")
    outside = desk(repo.top)
    own = {
        "message.list": [
            {"for_agent": "claimed_one"},
            {"unread": True},
            {"unread_for_agent": "claimed_one"},
            {"mentions": True},
        ],
        "message.outbox": [{}],
        "agent.whoami": [{}],
    }
    for method, asked in own.items():
        for params in asked:
            answer = outside.ask(method, caller_agent_id="claimed_one", **params)
            assert kind(answer) == "identity_mismatch", (method, params)
            assert answer["error"]["data"]["details"]["expected_agent"] == "claimed_one"
            assert "nothing here confirms that" in answer["error"]["data"]["remedy"]
    for method in ("health", "team.list", "message.list", "agent.list"):
        answer = outside.ask(method, caller_agent_id="claimed_one")
        assert result(answer) and len(answer["warnings"]) == 1, answer
        assert '"claimed_one"' in answer["warnings"][0]
        assert "warnings" not in outside.ask(method)
    assert result(outside.ask("message.list", for_agent="claimed_one"))["total"] >= 0, "without a claim it only filters"
    there = ("--repo", str(place))
    shown = outside.thrum("inbox", *there, "--json")
    assert json.loads(shown["out"])["error"]["kind"] == "identity_mismatch"
    for words in (["sent"], ["whoami"]):
        done = outside.thrum(*words, *there)
        assert done["status"] == 0, done
        lines = [line for line in done["err"].splitlines() if line.startswith("warning: ")]
        said = 'warning: you are not seen as "claimed_one" here: nothing confirms it; read without an identity'
        assert lines == [said], done
    for words in (["team"], ["inbox", "--all"], ["agent", "list"]):
        done = outside.thrum(*words, *there)
        assert (done["status"], done["err"]) == (0, ""), "no claim is made, and none is warned of"


@pytest.mark.spec("ID-65")
@as_root
def test_a_socket_of_another_user_is_told_nothing(repo: Repo) -> None:
    root = repo.worktree("foreign")
    repo.agent("foreign_one", module="fo", at=root)
    place = repo.top / "open_to_all"
    place.mkdir()
    os.chmod(repo.top, 0o755)
    os.chmod(place, 0o777)
    program = (
        "import os, socket, sys\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1])\n"
        "os.chmod(sys.argv[1], 0o777); listener.listen(); print('up', flush=True)\n"
        "while True:\n"
        "    connection, _ = listener.accept()\n"
        "    print(connection.recv(65536), flush=True)\n"
        "    connection.close()\n"
    )
    stranger = repo.spawn_python("-c", program, str(place / "sock"))
    assert stranger.line() == "up"
    done = repo.run("send", "a secret", "--json", at=root, env={"THRUM_SOCKET": str(place / "sock")})
    assert (done.status, done.kind) == (1, "foreign_user")
    assert "secret" not in "".join(done.err)
    stranger.kill()
    assert "secret" not in stranger.end().out


# -- registering


@pytest.mark.spec("ID-44")
def test_a_registration_says_again_what_is_recorded_and_writes_only_what_is_new(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("again")
    claude = desk(root, "claude")
    assert result(claude.register("again_one", module="a1"))["status"] == "registered"
    path = identity_file(root, "again_one")
    before, text = repo.facts(), path.read_bytes()
    assert result(claude.register("again_one", module="a1"))["status"] == "registered"
    assert (repo.facts(), path.read_bytes()) == (before, text)
    assert result(claude.register("again_one", module="a1", bind_pid=False))["status"] == "registered"
    assert (repo.facts(), path.read_bytes()) == (before, text), "it still is that process"
    assert result(claude.register("again_one", module="a1", re_register=True))["status"] == "updated"
    assert result(claude.register("again_one", module="a1", display="Again"))["status"] == "updated"
    assert len(repo.facts()) == len(before) + 2
    path.unlink()
    assert result(claude.register("again_one", module="a1"))["status"] == "registered"
    assert in_file(root, "again_one")["agent_pid"] == claude.pid


@pytest.mark.spec("ID-17", "ID-19")
def test_files_are_private_and_keep_what_others_wrote(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("kept")
    shell = desk(root)
    result(shell.register("kept_one", module="k1"))
    path = identity_file(root, "kept_one")
    modes = [each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    text = in_file(root, "kept_one")
    text |= {"version": 6, "of_another_program": {"x": [1]}}
    text["agent"]["Colour"] = "red"
    path.write_text(json.dumps(text))
    result(shell.ask("session.setIntent", intent="to keep"))
    now = in_file(root, "kept_one")
    assert (now["version"], now["of_another_program"], now["agent"]["Colour"]) == (6, {"x": [1]}, "red")
    assert now["intent"] == "to keep"


@pytest.mark.spec("ID-46")
def test_a_name_that_lives_elsewhere_is_held_until_it_is_forced(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("held")
    claude, shell = desk(root, "claude"), desk(root)
    result(claude.register("held_one", module="h1"))
    result(claude.ask("session.start"))
    for options in PLAIN_AND_AGAIN:
        conflict = result(shell.register("held_one", module="h1", **options))
        assert (conflict["agent_id"], conflict["conflict"]["reason"]) == ("", "name_held")
        assert conflict["conflict"]["conflict_pid"] == claude.pid
    assert result(shell.register("held_one", module="h1", force=True))["status"] == "updated"
    names = sorted(each.name for each in (root / ".thrum/identities").glob("held_one*"))
    assert names == ["held_one.json", "held_one.json.deleted"]
    assert "agent_pid" not in in_file(root, "held_one")
    [ended] = [fact for fact in repo.facts("agent.session.end") if fact["agent_id"] == "held_one"]
    assert ended["reason"] == "superseded"


@pytest.mark.spec("ID-47")
def test_a_name_bound_to_another_root_moves_when_that_root_is_gone(repo: Repo, desk: Desks) -> None:
    old, new = repo.worktree("moves"), repo.worktree("moves_to")
    result(desk(old).register("moves_one", module="mv"))
    shell = desk(new)
    for options in PLAIN_AND_AGAIN:
        assert result(shell.register("moves_one", module="mv", **options))["conflict"]["reason"] == "other_worktree"
    shutil.rmtree(old)
    assert result(shell.register("moves_one", module="mv"))["status"] == "updated"
    assert shell.send() == "moves_one"


@pytest.mark.spec("ID-49")
def test_of_registrations_of_one_name_at_once_one_wins(repo: Repo, desk: Desks) -> None:
    desks = [desk(repo.worktree(f"race{number}")) for number in range(6)]
    for each in desks:
        each.ask("health")
    params = {"name": "race_one", "role": "builder", "module": "race"}
    order = {"rpc": "agent.register", "params": params}
    for each in desks:
        each.begin(order)
    answers = [result(each.outcome()) for each in desks]
    assert sorted(answer["status"] for answer in answers) == ["conflict"] * 5 + ["registered"]
    assert len([fact for fact in repo.facts("agent.register") if fact["agent_id"] == "race_one"]) == 1
    assert len(list(repo.top.glob("race*/.thrum/identities/race_one.json"))) == 1


def test_the_process_of_a_file_without_record_does_not_keep_its_next_name_from_it(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("ghost")
    claude = desk(root, "claude")
    result(claude.register("ghost_one", module="g1"))
    ghost = in_file(root, "ghost_one")
    ghost["agent"]["name"] = "ghost_old"
    identity_file(root, "ghost_old").write_text(json.dumps(ghost))
    identity_file(root, "ghost_one").unlink()
    assert result(claude.register("ghost_one", module="g1"))["status"] == "registered"
    assert claude.send() == "ghost_one"


@pytest.mark.spec("ID-05")
@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"name": "a\0b"}, "invalid_name"),
        ({"name": "\u0430lice"}, "invalid_name"),
        ({"name": "daemon"}, "reserved_name"),
        ({"name": "builder"}, "name_equals_role"),
        ({"role": ""}, "role_missing"),
        ({"module": ""}, "module_missing"),
        ({"display": "\x1b[31m"}, "invalid_name"),
        ({"hostname": "h" * 129}, "body_too_large"),
        ({"hostname": "h\x1b"}, "invalid_params"),
        ({"runtime": "r\n"}, "invalid_params"),
        ({"worktree": "\0"}, "identity_mismatch"),
        ({"worktree": "/"}, "identity_mismatch"),
        ({"name": None}, "invalid_params"),
        ({"colour": "red"}, "invalid_params"),
    ],
)
def test_a_bad_registration_is_refused_and_writes_nothing(
    repo: Repo, desk: Desks, params: dict[str, Any], wanted: str
) -> None:
    root = repo.worktree("bad")
    before = repo.facts()
    answer = desk(root).ask("agent.register", **{"name": "bad_one", "role": "builder", "module": "bad", **params})
    assert kind(answer) == wanted
    assert repo.facts() == before
    assert not (root / ".thrum").exists()


def test_what_keeps_the_identity_file_from_being_written_is_found_first(repo: Repo, desk: Desks) -> None:
    broken, blocked = repo.worktree("broken"), repo.worktree("blocked")
    identity_file(broken, "broken_one").parent.mkdir(parents=True)
    identity_file(broken, "broken_one").write_text("{")
    (broken / ".thrum/redirect").write_text(f"{repo.main}/.thrum")
    trust_here(broken, repo.main / ".thrum")
    (blocked / ".thrum").write_text("")
    odd = Path(os.fsdecode(os.fsencode(repo.top) + b"/odd\xff"))
    repo.git("worktree", "add", "-q", str(odd), "-b", "odd")
    before = repo.facts()
    assert kind(desk(broken).register("broken_one", module="b1")) == "identity_invalid"
    assert kind(desk(blocked).register("blocked_one", module="b2")) == "store_failed"
    assert kind(desk(odd).register("odd_one", module="b3")) == "not_a_worktree"
    assert repo.facts() == before


def test_a_worktree_with_a_state_of_its_own_is_not_redirected(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("own_state")
    (root / ".thrum").mkdir()
    (root / ".thrum/config.json").write_text("{}")
    assert kind(desk(root).register("own_state_one", module="os")) == "not_initialized"
    trust_here(root)
    result(desk(root).register("own_state_one", module="os"))
    assert not (root / ".thrum/redirect").exists()


@pytest.mark.spec("ID-39", "ID-55")
def test_a_bootstrap_call_is_for_oneself_or_for_whom_this_connection_registered(repo: Repo, desk: Desks) -> None:
    home, visited = repo.worktree("boot"), repo.worktree("boot_b")
    claude = desk(home, "claude")
    result(claude.register("boot_one", module="bo1"))
    claude.order(cd=str(visited))
    result(claude.register("boot_two", module="bo2"))
    assert "agent_pid" not in in_file(visited, "boot_two"), "its process is another agent"
    assert result(claude.ask("session.start", agent_id="boot_two"))["agent_id"] == "boot_two"
    claude.order(hang_up=True)
    assert kind(claude.ask("session.start", agent_id="boot_two")) == "identity_mismatch"
    assert kind(claude.ask("session.setIntent", intent="x", caller_agent_id="boot_two")) == "identity_mismatch"


def test_a_retried_intent_gets_the_first_answer(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("retried")
    shell = desk(root)
    result(shell.register("retried_one", module="re"))
    first = result(shell.ask("session.setIntent", intent="first", client_key="k1"))
    result(shell.ask("session.setIntent", intent="second", client_key="k2"))
    again = result(shell.ask("session.setIntent", intent="first", client_key="k1"))
    assert again == {**first, "replayed": True}
    assert in_file(root, "retried_one")["intent"] == "second"


# -- the launcher's place


def test_a_directory_s_name_may_lie_and_its_worktree_counts(repo: Repo) -> None:
    root = repo.worktree("places")
    repo.agent("places_one", module="pl", at=root)
    link = repo.top / "link_to_places"
    link.symlink_to(root)
    shell = f'cd "{link}" && "{THRUM}" whoami --field agent_id'
    assert subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout == "places_one\n"
    lying = repo.run("whoami", "--field", "agent_id", at=root, env={"PWD": str(repo.main)})
    assert lying.out == "places_one\n"
    gone = root / "gone"
    gone.mkdir()
    shell = f'cd "{gone}" && rmdir "{gone}" && PWD="{root}" "{THRUM}" send forged --json'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["remedy"]


@pytest.mark.parametrize("command", [["whoami"], ["init", "--dry-run"]])
def test_a_closed_stdout_is_an_error_and_not_another_file(repo: Repo, command: list[str]) -> None:
    root = repo.worktree("closed")
    done = subprocess.run(
        ["sh", "-c", f'"{THRUM}" {" ".join(command)} --repo "{repo.main}" >&-'],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error: " in done.stderr


def test_a_closed_stdin_is_an_empty_one(repo: Repo) -> None:
    root = repo.worktree("closed_in")
    repo.agent("closed_in_one", module="ci", at=root)
    done = subprocess.run(["sh", "-c", f'"{THRUM}" send --stdin --json <&-'], cwd=root, capture_output=True, text=True)
    assert json.loads(done.stdout)["error"]["kind"] == "empty_body"


def test_runs_over_one_connection_are_bound_like_other_requests(repo: Repo) -> None:
    root = repo.worktree("runs")
    repo.agent("runs_one", module="ru", at=root)
    wait = {"argv": ["wait", "--timeout", "1"], "cwd": str(root)}
    lines = [json.dumps({"jsonrpc": "2.0", "id": "run", "method": "cli.run", "params": wait})] * 33
    lines.append(json.dumps({"jsonrpc": "2.0", "id": "after", "method": "bus.info"}))
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.stdin.buffer.read())\n"
        "answers = s.makefile('rb')\n"
        "for _ in range(34): sys.stdout.buffer.write(answers.readline())\n"
    )
    talker = repo.spawn_python("-c", program, str(repo.socket), at=root)
    ids = [json.loads(line)["id"] for line in talker.end(stdin="\n".join(lines) + "\n").out.splitlines()]
    assert sorted(ids) == ["after"] + ["run"] * 33
    assert ids[0] == "run", "what comes after them is read when one of them has ended"


def test_a_shell_that_registers_again_takes_the_dead_process_out_of_record_and_file(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("dead")
    claude = desk(root, "claude")
    result(claude.register("dead_one", module="de"))
    assert in_file(root, "dead_one")["agent_pid"] == claude.pid
    claude.close()
    shell = desk(root)
    assert result(shell.register("dead_one", module="de"))["status"] == "registered"
    assert "agent_pid" not in in_file(root, "dead_one")
    placed = [fact for fact in repo.facts("agent.place") if fact["agent_id"] == "dead_one"]
    assert "agent_pid" not in placed[-1]
