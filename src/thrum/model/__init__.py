"""What everything agrees on: facts, ids, methods, errors, bounds, places, settings. No I/O but files."""
