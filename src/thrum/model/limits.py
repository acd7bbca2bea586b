"""Every bound of the program, with the relations between them asserted. Units come last in a name.

Source: events.md §3, rpc.md §1, cli.md §1.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024

# -- facts: they bind what this daemon writes; foreign lines are bound by `line_bytes_max` alone (events.md §3)
line_bytes_max: Final = 8 * MIB
integer_max: Final = 2**53 - 1
body_bytes_max: Final = 1 * MIB
structured_bytes_max: Final = 256 * KIB
id_chars_max: Final = 128
name_chars_max: Final = 64
role_chars_max: Final = 64
module_chars_max: Final = 128
display_chars_max: Final = 128
hostname_chars_max: Final = 128
intent_chars_max: Final = 1_000
task_chars_max: Final = 1_000
reason_chars_max: Final = 500
description_chars_max: Final = 500
pair_type_chars_max: Final = 64
pair_value_chars_max: Final = 512
pairs_max: Final = 64
recipients_max: Final = 10_000
work_paths_max: Final = 500
work_commits_max: Final = 50
work_commits_read_max: Final = 1_000
"""How many unmerged commits are looked at: beyond it neither counted nor searched."""
work_subject_chars_max: Final = 200
work_counted_bytes_max: Final = 1 * MIB
"""The lines of a new file are counted up to this size."""
work_seconds_max: Final = 3.0
"""How long git may take for one worktree."""
git_seconds_max: Final = 600.0
"""How long any other git on this machine may take: only what hangs is killed."""
work_fact_paths_max: Final = 20
work_fact_interval_ms: Final = 15 * 60_000
"""How often a session's git state is written down at most (events.md §4)."""
context_bytes_max: Final = 256 * KIB
client_key_chars_max: Final = 64
user_name_chars_max: Final = 32
future_stamp_ms_max: Final = 24 * 3600 * 1000


# -- durations and settings (cli.md §1.6, §3.19)
duration_ms_max: Final = 100_000 * 86_400_000
setting_chars_max: Final = 4_096
"""Of a setting that is text, and of each text in one that is a list."""
setting_number_max: Final = 1_000_000
"""Of a setting that counts something."""
setting_names_max: Final = 256
"""In a setting that is a list of names."""
json_depth_max: Final = 32
"""How deep a file that people edit may be nested."""

# -- the committer (events.md §11)
batch_facts_max: Final = 1_000
batch_bytes_max: Final = 8 * MIB
committer_waiting_max: Final = 4_096
committer_wait_seconds: Final = 5.0

# -- sync (events.md §11)
author_journal_bytes_max: Final = 512 * MIB
"""A journal of the remote that is larger is quarantined and reported; the others are still synced."""
quarantined_bytes_max: Final = 64 * KIB
"""So much is kept of a line of the branch that is over the limit."""
quarantined_each_max: Final = 100
"""So many lines of one reason are kept of one journal; of the others the number."""
quarantined_all_bytes_max: Final = 16 * MIB
"""The quarantine beyond which nothing more is kept but truncated last lines."""
quarantined_counts_max: Final = 1_000
"""So many journals and reasons are counted apart; the others together."""
compare_names_seconds: Final = 3.0
"""How long a registration waits to learn who has a name elsewhere."""
sync_wait_max_ms: Final = 60_000
push_attempts_max: Final = 8
"""How often a round that lost the race to push fetches, merges and pushes again."""

# -- RPC (rpc.md §1)
request_line_bytes_max: Final = 8 * MIB
answer_line_bytes_max: Final = 16 * MIB
connections_max: Final = 2_048
own_files_max: Final = 256
"""Of open files kept for the daemon's own: journals, database, git, the bus, processes that are watched."""
open_files_wanted: Final = 65_536
"""The limit of open files that a daemon asks for: libzmq ends the process when its own accept finds none left."""
open_files_least: Final = 1_024
"""With fewer than these a daemon serves, and says that they are few."""
own_files_min: Final = 40
"""With fewer than these, and a few connections, no daemon starts: 24 are open in an idle daemon, git takes 8."""
connections_min: Final = 8
requests_per_connection_max: Final = 32
requests_in_flight_max: Final = 256
long_polls_max: Final = 1_024
line_seconds_max: Final = 30.0
turn_seconds: Final = 0.005
"""How long one turn of the event loop may be before no more requests begin in it."""
gc_threshold: Final = (10_000, 20, 20)
"""How seldom Python looks for garbage that refers to itself: with 100 clients a tenth of each message's time."""
request_seconds_max: Final = 10.0
long_poll_seconds_max: Final = 3_600.0
answer_stall_seconds_max: Final = 30.0
unsent_bytes_max: Final = 16 * MIB
"""So much of answers may wait on a connection before no more of its requests are taken."""
unsent_all_bytes_max: Final = 128 * MIB
"""Of all connections together: beyond it, the one whose oldest answer waits for the longest time is closed."""
unread_seconds: Final = 1.0
"""A connection whose answers wait this long makes room for a new one, if none is idle."""
large_request_bytes: Final = 64 * KIB
"""A request beyond this is a large one: those are counted, the others are small enough by their number."""
structure_bytes_max: Final = 512 * KIB
"""Of one list or object in a large request: about 50 ms to decode, if it is nothing but brackets."""
run_words_max: Final = 1_000
"""A command line of more words runs in the launcher's own process."""
large_requests_bytes_max: Final = 64 * MIB
"""Of large requests under way, of all connections together: beyond it `busy`."""
started_lines_bytes_max: Final = 64 * MIB
"""Of large lines that are not whole yet: beyond it, the connection whose line began first is closed."""
retry_after_ms: Final = 500
drain_seconds: Final = 5.0
listen_backlog: Final = 4_096
frame_bytes_max: Final = 64 * KIB

# -- pages and waits
page_size_default: Final = 10
page_size_max: Final = 1_000
cursor_limit_default: Final = 50
cursor_limit_max: Final = 200
search_words_max: Final = 64
"""In one search; the index takes no deeper expression than 256."""
unindexed_max: Final = 256
wake_attempt_kept_ms: Final = 7 * 86_400_000
"""How long an attempt to wake is remembered that nothing waits for any more (wake.md §5)."""
wake_unseen_max: Final = 1_000
"""So many unseen messages of an agent are looked at before it is woken: the newest ones."""
hook_payload_bytes_max: Final = 4 * MIB
"""Of what a runtime tells its hook: a prompt may be long."""
wake_attempts_shown: Final = 10
unindexed_bytes_max: Final = 1 * MIB
"""So much of messages may wait for the index of words; a search looks through it."""
answer_bodies_bytes_max: Final = 8 * MIB
wait_default_ms: Final = 30_000
wait_max_ms: Final = 3_600_000
wait_limit_default: Final = 10
wait_limit_max: Final = 100
since_limit_default: Final = 200
since_limit_max: Final = 1_000
since_wait_max_ms: Final = 60_000
since_scan_max: Final = 4_000
"""How many facts one `events.since` looks at before it answers with `more`, so that no call holds the daemon."""

# -- waking agents (wake.md §3, §4, §6)
recipients_looked_at_max: Final = 20
"""Of one message that is sent: whether they run, and why they will not see it soon."""
wake_text_chars_max: Final = 9_000
"""Of all that one wake says, its token included."""
wake_body_bytes_max: Final = 2 * KIB
wake_line_chars_max: Final = 80
"""Of a message's first words."""
wake_attempts_max: Final = 3
"""Counted ones for a message, in one process of a runtime."""
wake_window_seconds: Final = 0.3
"""What comes so soon after an offer goes together."""
wake_working_seconds: Final = 60.0
"""While it works, an agent is offered ordinary mail at most so often."""
wake_urgent_max: Final = 3
"""Urgent messages of one author within a minute that are treated as such."""
wake_proof_seconds: Final = 60.0
"""Idle without a break for so long, and what was offered did not arrive."""
wake_failures_max: Final = 2
wake_rest_seconds: Final = 600.0
"""How long a door that failed so often in a row is left alone."""
wake_deaf_seconds: Final = 10.0
"""Without a waiter for so long, a runtime is deaf: between a wake and the next waiter there are seconds."""
wake_probable_seconds: Final = 10.0
"""A turn that begins so soon after an offer without proof is shown as its effect."""
wake_line_max: Final = 400
"""Characters of a line that is typed, its token included: runtimes show a longer paste as `[Pasted text]`."""
wake_refused_seconds: Final = 5.0
"""How long a door that refused is left alone while its runtime's state stays as it is; doubled each time."""

# -- the bus (rpc.md §8)
tick_seconds: Final = 5.0
preview_chars_max: Final = 120
hint_bytes_max: Final = 2 * KIB
hint_addresses_max: Final = 16
bus_high_water_mark: Final = 1_000
subscription_bytes_max: Final = 256

# -- the daemon
user_tokens_max: Final = 4_096
"""How many tokens of users a daemon remembers."""
stdin_seconds_max: Final = 1.0
"""How long a pipe may take for its first byte where no word asked for stdin (cli.md §3.3)."""
start_seconds_max: Final = 10.0
idle_seconds_max: Final = 86_400.0
"""A daemon ends by itself after this long without commands, sessions, waits or listeners."""
idle_check_seconds: Final = 600.0
seen_interval_ms: Final = 60_000
recipient_silent_ms: Final = 30 * 60_000
"""A recipient last seen longer ago may not be there (hint `send.recipient-stale`)."""
state_check_seconds: Final = 5.0
sweep_seconds: Final = 2.0
"""How often the processes of agents are looked at, where their end is not announced."""
socket_path_bytes_max: Final = 107
socket_path_bytes_max_macos: Final = 103
log_bytes_max: Final = 10 * MIB
read_bytes_max: Final = 16 * MIB
"""Of a file that is read as a whole: settings, identities, the log's last words."""
log_files_max: Final = 4
watch_reconnect_seconds: Final = 60.0
suggestions_max: Final = 3
lines_before_max: Final = 10_000
"""Hashes of unsigned lines in one `accept`."""

assert body_bytes_max + structured_bytes_max < line_bytes_max, "a message fits a line"
assert answer_line_bytes_max <= unsent_bytes_max < unsent_all_bytes_max, "one answer never closes its connection"
assert structured_bytes_max < structure_bytes_max
assert request_line_bytes_max <= min(large_requests_bytes_max, started_lines_bytes_max)
assert line_bytes_max <= request_line_bytes_max < answer_line_bytes_max, "what can be stored can be asked for"
assert answer_bodies_bytes_max < answer_line_bytes_max
assert line_bytes_max < author_journal_bytes_max
assert requests_in_flight_max < committer_waiting_max, "requests in flight alone never fill the committer"
assert committer_wait_seconds < request_seconds_max, "busy is said before timed_out"
assert drain_seconds < start_seconds_max, "a restart waits longer than a stop"
assert tick_seconds < watch_reconnect_seconds
assert wake_body_bytes_max < wake_text_chars_max
assert wake_refused_seconds < wake_rest_seconds
