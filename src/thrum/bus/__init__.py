"""The bus: it says when, the store says what (rpc.md §8). `thrum.bus.subscriber` is for any Python program."""
