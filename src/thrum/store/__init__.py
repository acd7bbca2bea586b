"""The store: journals of facts, the one writer, and the SQLite picture of them."""
