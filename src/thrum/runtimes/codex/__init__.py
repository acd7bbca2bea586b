"""Codex' app-server: its control socket, what it tells of its threads, which of its hooks are trusted."""
