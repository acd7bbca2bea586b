"""The store: journals of facts, the one writer, and the SQLite projection of them."""
