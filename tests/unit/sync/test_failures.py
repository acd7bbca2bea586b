"""What git says of a remote, sorted by its words alone; what of a URL is secret."""

from __future__ import annotations

import pytest

from thrum.git.runner import Finished
from thrum.sync.failures import clean, reason_of, secrets_in, trouble_of
from thrum.sync.remote import pushed


@pytest.mark.parametrize(
    ("summary", "outcome"),
    [
        ("[rejected] (fetch first)", "raced"),
        ("[rejected] (non-fast-forward)", "raced"),
        ("[remote rejected] (cannot lock ref 'refs/heads/a-sync': is at 11 but expected 22)", "raced"),
        ("[remote rejected] (incorrect old value provided)", "raced"),
        ("[remote rejected] (failed to update ref)", "raced"),
        ("[remote rejected] (pre-receive hook declined)", "refused"),
        ("[remote rejected] (protected branch hook declined)", "refused"),
    ],
)
def test_a_race_is_told_from_a_refusal(summary: str, outcome: str) -> None:
    out = f"To origin\n!\t{'1' * 40}:refs/heads/a-sync\t{summary}\nDone\n"
    assert pushed(Finished(1, out, "error: failed to push some refs to 'origin'\n", "")) == outcome


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://ann:pass-word@host/x", {"pass-word"}),
        ("https://to%2Fken99@host/x", {"to%2Fken99", "to/ken99"}),
        ("https://host/x?private_token=abcdef", {"abcdef"}),
        ("ssh://git:pass-word@host/x", {"pass-word"}),
        ("git:pass-word@host:x", {"pass-word"}),
        ("git@host:x", set()),
        ("/a/path@with/at", set()),
    ],
)
def test_what_is_secret_in_a_url(url: str, secrets: set[str]) -> None:
    assert secrets_in(url) >= secrets
    assert secrets_in(url) <= secrets | {"ann"}
    shown = clean(f"fatal: unable to access '{url}/': no", secrets_in(url))
    assert not any(secret in shown for secret in secrets)


def test_a_reason_is_one_short_line_that_a_terminal_may_see() -> None:
    reason = reason_of("remote: Counting objects: 3, done.\r\nremote: \x1b]0;owned\x07 no" + "!" * 5000)
    assert len(reason) <= 300
    assert reason.isprintable()
    assert reason_of("") == "git gave no reason"
    assert trouble_of("something else entirely") == "failed"
