"""With which command a session is shown in a terminal."""

from __future__ import annotations

import pytest

from thrum.model.errors import TmuxFailed
from thrum.terminal.tmux import attach_command


def test_a_session_is_shown_by_a_client_of_its_own_or_by_the_one_that_is_there() -> None:
    assert attach_command("/s", "auth", {}) == ("tmux", "-u", "-S", "/s", "attach-session", "-t", "=auth")
    inside = attach_command("/s", "auth", {"TMUX": "/s,12,0"})
    assert inside == ("tmux", "-u", "-S", "/s", "switch-client", "-t", "=auth")


def test_no_client_is_started_inside_one_of_another_server() -> None:
    with pytest.raises(TmuxFailed, match="another tmux"):
        attach_command("/s", "auth", {"TMUX": "/other,12,0"})
