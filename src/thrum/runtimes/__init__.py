"""What thrum knows of each agent runtime: its preset, its hooks, the files written for it, the doors to its model."""
