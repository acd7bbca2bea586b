"""Which methods are open to whom (identity.md §11): all of them, so that a new one is closed until it says else."""

from __future__ import annotations

import pytest

from thrum.identity.caller import CLASS_OF
from thrum.model.methods.method import Access, Empty, Method
from thrum.model.methods.table import METHODS

READ = {
    "health",
    "sync.status",
    "peer.list",
    "peer.status",
    "telegram.status",
    "agent.list",
    "agent.whoami",
    "agent.listContext",
    "team.list",
    "session.list",
    "context.show",
    "context.preamble.show",
    "message.get",
    "message.find",
    "message.printed",
    "message.list",
    "message.outbox",
    "group.list",
    "group.info",
    "group.members",
    "monitor.list",
    "monitor.show",
    "monitor.logs",
    "tmux.status",
    "tmux.capture",
    "tmux.check-pane",
    "tmux.queue-status",
    "tmux.queue-wait",
    "user.identify",
    "agent.lookup",
    "bus.info",
    "events.since",
    "thread.list",
    "worktree.list",
    "wake.status",
    "runtime.hook",  # decision 0069
    "config.show",
    "config.get",
    "config.diff",
    "cli.run",
}
BOOTSTRAP = {"agent.register", "session.start", "session.setIntent", "user.register"}
PERSON = {
    "ui.open",
    "permission.answer",
    "peer.start_pairing",
    "peer.wait_pairing",
    "peer.join",
    "peer.remove",
    "peer.configure",
    "sync.configure",
    "sync.accept",
    "purge.accept",
}
OPERATOR = {
    "runtime.thread",  # decision 0070
    "worktree.create",  # decision 0067
    "daemon.stop",
    "sync.force",
    "verify.run",
    "tmux.create",
    "tmux.launch",
    "purge.execute",
    "config.set",
    "config.unset",
    "config.accept",
}
"""Of these `config.*` is a person's where the key is guarded (tests/e2e/test_person.py)."""


@pytest.mark.spec("ID-62", "ID-66")
def test_what_needs_no_identity_but_changes_something_is_for_the_unix_socket_alone() -> None:
    for method in METHODS.values():
        if class_of(method) in ("operator", "person") or method.access is Access.INTERNAL:
            assert method.transports == "U", method.name


def class_of(method: Method) -> str:
    return CLASS_OF.get(method.access, "agent")


@pytest.mark.spec("ID-63")
def test_a_method_that_declares_nothing_is_for_agents() -> None:
    assert class_of(Method(name="new.method", params=Empty, result=Empty)) == "agent"


@pytest.mark.spec("ID-62", "ID-63")
@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_method_is_open_to_whom_the_table_says(method: Method) -> None:
    if method.name in READ:
        assert class_of(method) == "read"
    elif method.name in BOOTSTRAP:
        assert class_of(method) == "bootstrap"
    elif method.name in PERSON:
        assert class_of(method) == "person"
    elif method.name in OPERATOR or method.name.startswith("backup."):
        assert class_of(method) == "operator"
    else:
        assert class_of(method) == "agent"
