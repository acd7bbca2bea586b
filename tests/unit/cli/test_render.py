"""Each text of cli.md §5, to the letter."""

from __future__ import annotations

from thrum.cli import render
from thrum.cli.render import RenderContext
from thrum.model import clock, wire_types
from thrum.model.events import Body, FileChange, Pair
from thrum.model.methods.agents import WhoamiResult
from thrum.model.methods.daemon import HealthResult
from thrum.model.methods.messages import MessageListResult, SendResult

NOW = clock.parse_ms("2026-02-03T12:00:00Z")
RENDERING = RenderContext(NOW)


def ago(minutes: float) -> str:
    return clock.format_ms(NOW - round(minutes * 60_000))


def message(message_id: str, content: str, minutes: float, **more: object) -> wire_types.Message:
    fields: dict[str, object] = {
        "message_id": message_id,
        "seq": 1,
        "agent_id": "furiosa",
        "body": Body("markdown", content),
        "created_at": ago(minutes),
        "deleted": False,
        "is_read": False,
    }
    return wire_types.Message(**(fields | more))  # pyright: ignore[reportArgumentType]


NUX, REVIEWER = Pair("agent", "nux"), Pair("role", "reviewer")
FIRST = "msg_01HXE8Z7R9K3Q6M2W8F4VYABCD"


def test_the_inbox_reads_as_specified() -> None:
    shown = [
        message("msg_01HXE8Z9R9K3Q6M2W8F4VYABCE", "Starting work on auth module", 2, quiet=True, updated_at=ago(1)),
        message(
            FIRST,
            "Token refresh is in",
            3,
            audiences=(NUX, REVIEWER),
            scopes=(Pair("module", "auth"),),
            refs=(Pair("mention", "nux"), Pair("pr", "42")),
        ),
        message(
            "msg_01HXE7R3R9K3Q6M2W8F4VYABCF",
            "Reading it",
            60,
            agent_id="max",
            audiences=(NUX,),
            reply_to="msg_01HXE7Q1R9K3Q6M2W8F4VYABC0",
            is_read=True,
        ),
    ]
    result = MessageListResult(messages=tuple(shown), unread=2, total=12, page=1, page_size=10, total_pages=2)
    assert render.messages(shown, RENDERING) + "\n" + render.showing(result, counted=True) == "\n".join(
        [
            "● msg_01HXE8Z9R9K3Q6M2W8F4VYABCE  @furiosa → team  2m ago  (edited)",
            "  Starting work on auth module",
            "● msg_01HXE8Z7R9K3Q6M2W8F4VYABCD  @furiosa → @nux, @reviewer  3m ago",
            "  Token refresh is in",
            "  scopes: module:auth  refs: pr:42",
            "○ msg_01HXE7R3R9K3Q6M2W8F4VYABCF  @max → @nux  1h ago  ↳ msg_01HXE7Q1R9K3Q6M2W8F4VYABC0",
            "  Reading it",
            "Showing 1-3 of 12 messages (2 unread)",
        ]
    )


def test_a_body_of_many_lines_is_whole_and_indented() -> None:
    assert render.message(message(FIRST, "one\n\n● two", 0, audiences=(NUX,)), RENDERING).split("\n")[1:] == [
        "  one",
        "",
        "  ● two",
    ]


def test_an_author_of_another_daemon_is_followed_by_its_host() -> None:
    foreign = message(FIRST, "hi", 0, origin_daemon="d_01KGH87Y00FFFFFFFFFFFUVWXY", audiences=(NUX,))
    hosts = {"d_01KGH87Y00FFFFFFFFFFFUVWXY": "laptop"}
    assert "@furiosa [laptop] → @nux" in render.message(foreign, RenderContext(NOW, hosts=hosts))
    assert "@furiosa [d_…FUVWXY] → @nux" in render.message(foreign, RENDERING)
    assert "@furiosa → @nux" in render.message(message(FIRST, "hi", 0, audiences=(NUX,)), RENDERING)


def test_structured_data_stands_below_the_body() -> None:
    shown = message(FIRST, "hi", 0, body=Body("markdown", "hi", '{"passed":45}'), audiences=(NUX,))
    assert render.message(shown, RENDERING).endswith('\n  structured: {"passed":45}')


def sent(resolved: int, *audiences: Pair, quiet: bool = False) -> str:
    return render.sent(
        SendResult(
            message_id=FIRST,
            created_at=ago(0),
            seq=1,
            resolved_to=resolved,
            quiet=quiet,
            audiences=audiences,
            recipients=(),
        )
    )


def test_sending_tells_who_gets_it() -> None:
    assert sent(3, NUX, REVIEWER) == "  To: @nux, @reviewer (3 recipients)"
    assert sent(4, quiet=True) == "  To: team (4 agents, nobody woken)"
    assert sent(1, quiet=True) == "  To: team (1 agent, nobody woken)"
    assert sent(1, NUX) == "  To: @nux"
    assert sent(5, Pair("broadcast", "everyone")) == "  To: @everyone (5 recipients)"


def test_the_next_step_marks_what_was_printed_and_nothing_else() -> None:
    one = [message(FIRST, "hi", 0)]
    assert render.next_step(one) == 'thrum reply VYABCD "TEXT"  (mark as read: thrum message read VYABCD)'
    assert render.next_step(one, are_read=True) == 'thrum reply VYABCD "TEXT"', "that is done"
    assert render.next_step(one * 2) == 'thrum reply MSG_ID "TEXT"  (mark as read: thrum message read VYABCD VYABCD)'


def test_a_message_says_what_else_is_to_be_known_of_it() -> None:
    shown = message(
        FIRST, "at 3", 2, audiences=(NUX,), quiet=True, urgent=True, expires_at=ago(1), superseded_by="msg_8H3KQZ"
    )
    head = f"● {FIRST}  @furiosa → @nux  2m ago"
    assert render.head(shown, RENDERING) == f"{head}  (urgent)  (expired)  (superseded by 8H3KQZ)"
    shown.expires_at, shown.superseded_by = ago(-1), ""
    assert render.head(shown, RENDERING) == f"{head}  (urgent)", "it is still good for a minute"
    assert sent(1, NUX, quiet=True) == "  To: @nux (nobody woken)"
    assert sent(3, REVIEWER, quiet=True) == "  To: @reviewer (3 recipients, nobody woken)"


def test_what_i_sent_tells_who_has_read_it() -> None:
    out = wire_types.OutMessage(
        message_id=FIRST,
        seq=1,
        agent_id="me",
        body=Body("markdown", "\nToken  refresh\nis in"),
        created_at=ago(5),
        deleted=False,
        audiences=(NUX, REVIEWER),
        recipients=(
            wire_types.Recipient("a", ago(5), read_at=ago(1)),
            wire_types.Recipient("b", ago(5), delivered_at=ago(5)),
            wire_types.Recipient("c", ago(5), seen_at=ago(1)),
            wire_types.Recipient("d", ago(5)),  # of another machine: nothing is known of it yet
            wire_types.Recipient("e", ago(5), delivered_at=ago(5), offered_at=ago(3)),
        ),
        read_count=1,
    )
    assert render.out_message(out, RENDERING).split("\n") == [
        f"{FIRST}  5m ago  to @nux, @reviewer  1/5 read",
        "  Token refresh…",
        "  Recipients: @a(read), @b(delivered), @c(seen), @d(stored), @e(offered)",
    ]
    out.origin_daemon = "d_01KGH87Y00FFFFFFFFFFFFFFFF"
    rendering = render.RenderContext(NOW, hosts={out.origin_daemon: "desk"})
    assert render.out_message(out, rendering).split("\n")[0].endswith("1/5 read  written on [desk]")


def test_one_message_in_full_has_the_lines_that_apply() -> None:
    detail = wire_types.Detail(
        message_id=FIRST,
        seq=1,
        version=2,
        author=wire_types.Author("furiosa", ""),
        body=Body("markdown", "Token refresh is in"),
        scopes=(Pair("module", "auth"),),
        refs=(),
        metadata=wire_types.Metadata(deleted_at=ago(1), delete_reason="wrong\nbranch"),
        created_at="2026-02-03T10:00:00.000Z",
        updated_at="2026-02-03T11:00:00.000Z",
        deleted=True,
        audiences=(NUX,),
    )
    assert render.detail(detail, RENDERING).split("\n") == [
        f"Message: {FIRST}",
        "From:    @furiosa",
        "Time:    2026-02-03T10:00:00Z (2h ago)",
        "To:      @nux",
        "Scopes:  module:auth",
        "Edited:  2026-02-03T11:00:00Z (version 2)",
        r"Status:  DELETED 2026-02-03T11:59:00Z: wrong\x0abranch",
        "",
        "  Token refresh is in",
    ]
    detail.origin_daemon = "d_01KGH87Y00FFFFFFFFFFFFFFFF"
    assert "From:    @furiosa [" in render.detail(detail, RENDERING)


def member(**more: object) -> wire_types.TeamMember:
    fields: dict[str, object] = {
        "agent_id": "implementer_35HV62T9B9",
        "role": "implementer",
        "module": "auth",
        "agent_pid": 12345,
        "pid_live": True,
        "worktree": "/src/auth",
        "session_id": "ses_01HXF2A9R9K3Q6M2W8F4VYABCD",
        "session_start": ago(135),
        "intent": "Fixing token refresh",
        "branch": "feature/auth",
        "unmerged_commits": 2,
        "inbox_total": 12,
        "inbox_unread": 3,
        "status": "active",
        "is_local": True,
    }
    return wire_types.TeamMember(**(fields | more))  # pyright: ignore[reportArgumentType]


def test_the_team_shows_every_status_but_idle_and_no_inbox_of_another_clones_agent() -> None:
    assert "Status:   working" in render.member(member(agent_status="working"), RENDERING)
    assert "Status:" not in render.member(member(agent_status="idle"), RENDERING)
    assert "Inbox:" not in render.member(member(is_local=False, hostname="desk"), RENDERING)


def test_the_team_says_that_a_worktree_is_gone() -> None:
    assert "Worktree: gone (thrum agent cleanup)" in render.member(
        member(worktree="", worktree_missing=True), RENDERING
    )


def test_the_team_reads_as_specified() -> None:
    assert render.member(member(), RENDERING).split("\n") == [
        "@implementer [active] auth — feature/auth",
        "PID:      12345 [live]",
        "Worktree: auth",
        "Session:  ses_01HXF2A9... (active 2h15m)",
        "Intent:   Fixing token refresh",
        "Inbox:    3 unread / 12 total",
        "Branch:   feature/auth (2 commits ahead)",
    ]
    other = member(
        agent_id="reviewer_0123456789",
        agent_pid=67890,
        pid_live=False,
        worktree="",
        session_id="ses_01HXF1B8R9K3Q6M2W8F4VYABCD",
        session_start=ago(45),
        intent="Reviewing PR #42",
        inbox_total=5,
        inbox_unread=0,
        unmerged_commits=0,
    )
    assert render.member(other, RENDERING).split("\n") == [
        "@reviewer [active] auth — feature/auth",
        "PID:      67890 [stale]",
        "Session:  ses_01HXF1B8... (active 45m)",
        "Intent:   Reviewing PR #42",
        "Inbox:    0 unread / 5 total",
    ]


def test_team_lines_appear_only_where_there_is_something() -> None:
    offline = member(
        agent_id="max",
        status="offline",
        session_id="",
        session_start="",
        agent_pid=0,
        pid_live=None,
        intent="",
        branch="",
        last_seen=ago(180),
        worktree="",
        is_local=False,
        hostname="laptop",
    )
    assert render.member(offline, RENDERING).split("\n") == [
        "@max [offline] auth",
        "Role:     implementer",
        "Host:     laptop",
        "Session:  none (last seen 3h ago)",
    ]
    change = FileChange("src/a.py", ago(5), 42, 10, "modified")
    busy = member(current_task="T-1", agent_status="blocked", unmerged_commits=1, file_changes=(change,))
    shown = render.member(busy, RENDERING, files=True)
    assert "Intent:   Fixing token refresh\nTask:     T-1\nStatus:   blocked\nInbox:" in shown
    assert shown.endswith("(1 commit ahead)\nFiles:\n  src/a.py  5m ago  +42 -10")


def test_an_intent_cannot_forge_lines_of_the_team() -> None:
    shown = render.member(member(intent="x\nInbox:    0 unread"), RENDERING)
    assert r"Intent:   x\x0aInbox:    0 unread" in shown


def test_whoami_reads_as_specified() -> None:
    me = WhoamiResult(
        agent_id="furiosa",
        role="implementer",
        module="auth",
        display="Auth Agent",
        source="identity_file",
        session_id="ses_01HXE8Z7R9K3Q6M2W8F4VYABCD",
        session_start=ago(135),
        branch="feature/auth",
        intent="Token refresh",
        worktree="/src/app",
        identity_file=".thrum/identities/furiosa.json",
    )
    assert render.whoami(me, RENDERING, "/src/app").split("\n") == [
        "Agent ID:  furiosa",
        "Role:      @implementer",
        "Module:    auth",
        "Display:   Auth Agent",
        "Source:    identity_file",
        "Session:   ses_01HXE8Z7R9K3Q6M2W8F4VYABCD (active 2h15m)",
        "Branch:    feature/auth",
        "Intent:    Token refresh",
        "Worktree:  /src/app",
        "Identity:  .thrum/identities/furiosa.json",
    ]
    bare = WhoamiResult(agent_id="furiosa", role="", module="", display="", source="environment")
    assert render.whoami(bare, RENDERING, "").split("\n") == [
        "Agent ID:  furiosa",
        "Source:    environment",
        "Session:   none (the next change starts one)",
    ]


def test_the_daemons_status_reads_as_specified() -> None:
    health = HealthResult(
        status="ok",
        uptime_ms=12_240_000,
        version="0.1.0",
        protocol=1,
        repo_id="r_x",
        pid=7718,
        epoch="e",
        seq=1,
        sync_state="local-only",
        local_only=True,
        websocket_port=9999,
        identity=wire_types.DaemonIdentity(
            daemon_id="d_01HYTEST0R9K3Q6M2W8F4VYABC",
            repo_name="app",
            hostname="laptop",
            repo_path="/src/app",
            git_origin_url="https://github.com/me/app",
            init_at="2026-04-17T06:30:00.000Z",
        ),
    )
    assert render.daemon_status(health, "/src/app/.thrum/var/thrum.sock").split("\n") == [
        "Daemon:   running (pid 7718, up 3h24m)",
        "Version:  0.1.0",
        "Socket:   /src/app/.thrum/var/thrum.sock",
        "Sync:     local-only",
        "Web:      http://localhost:9999",
        "",
        "Identity:",
        "  daemon_id:  d_01HYTEST0R9K3Q6M2W8F4VYABC",
        "  repo_name:  app",
        "  hostname:   laptop",
        "  repo_path:  /src/app",
        "  git_origin: https://github.com/me/app",
        "  init_at:    2026-04-17T06:30:00Z",
    ]


def test_a_watched_event_is_one_line_cut_to_the_width() -> None:
    hint = wire_types.Hint(
        epoch="e",
        seq=1,
        type="message.create",
        message_id=FIRST,
        from_="furiosa",
        to=("@nux",),
        preview="Token refresh is in.",
        at="2026-02-03T18:05:00.000Z",
    )
    whole = f"18:05:00Z  message.create  @furiosa → @nux  Token refresh is in.  {FIRST}"
    assert render.hint_line(hint, 0) == whole
    assert render.hint_line(hint, 88) == f"18:05:00Z  message.create  @furiosa → @nux  Token refre…  {FIRST}"
    hint.preview = "a\x1b[2J\n\nb"
    assert render.hint_line(hint, 0).split("  ")[3] == r"a\x1b[2J b"


def test_agents_are_listed_a_line_each() -> None:
    info = wire_types.AgentInfo(
        agent_id="furiosa",
        kind="agent",
        role="implementer",
        module="auth",
        display="",
        registered_at=ago(90),
        last_seen_at=ago(5),
    )
    here = member(agent_id="furiosa", intent="Token refresh")
    line = "furiosa  implementer  auth"
    assert render.agents([info], [here], RENDERING) == f"● @{line}  feature/auth  5m ago  Token refresh"
    assert render.agents([info], [], RENDERING) == f"○ @{line}  5m ago"


def test_a_table_shortens_only_its_flexible_column() -> None:
    shown = render.table(["A", "B"], [["x", "a long text here"], ["世界", "y"]], 12, flexible=1)
    assert shown.split("\n") == ["A     B", "x     a lon…", "世界  y"]


def test_what_thrum_itself_adds_to_scopes_and_refs_is_not_shown() -> None:
    everyone = Pair("broadcast", "everyone")
    each = message("msg_01", "hi", 2, scopes=(everyone,), refs=(everyone, Pair("mention", "nux"), Pair("pr", "42")))
    assert render.message(each, RENDERING).split("\n")[1:] == ["  hi", "  refs: pr:42"]


def test_a_name_that_only_looks_like_an_unnamed_id_is_shown_as_the_name() -> None:
    assert render.at("team_backend123") == "@team_backend123"
    assert render.at("coordinator_1B9K33T6RK") == "@coordinator"
    assert render.at("furiosa") == "@furiosa"


def test_a_sender_reads_a_line_for_each_who_will_not_see_it_soon_three_at_most() -> None:
    def told(*reasons: str) -> list[str]:
        recipients = [wire_types.Recipient(f"a{n}", ago(0), why=why) for n, why in enumerate(reasons)]
        return render.not_soon(recipients)

    soon = (
        "",
        "working (next tool call)",
        "offered: no proof yet",
        "on another machine (its daemon: last heard 2m ago)",
    )
    assert told(*soon) == []
    assert told("dialog open 3m", *soon, "deaf: no waiter") == ["@a0: dialog open 3m", "@a5: deaf: no waiter"]
    many = told(*["process gone 12m"] * 9)
    assert many == [*(f"@a{n}: process gone 12m" for n in range(3)), "and 6 more: thrum sent"]
    looked_at = told(*["process gone 12m"] * 20, *[""] * 10)
    assert looked_at[-1] == "and at least 17 more: thrum sent", "no one looked at the last ten"


def test_the_highest_state_is_shown_with_why_it_is_not_higher() -> None:
    delivered = wire_types.Recipient("nux", ago(3), ago(3), why="dialog open 3m")
    assert render.state(delivered) == "delivered: dialog open 3m"
    offered = wire_types.Recipient("nux", ago(3), ago(3), ago(2), why="offered: no proof yet")
    assert render.state(offered) == "offered: no proof yet"
    assert render.state(wire_types.Recipient("nux", ago(3), seen_at=ago(1))) == "seen"
