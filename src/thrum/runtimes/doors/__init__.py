"""One module for each runtime: how its state is known, and the doors to its model (wake.md §3)."""
