"""Terminals: panes of tmux, what their screens say, and the sessions that thrum made. Pure decisions apart from I/O."""
