"""Maintenance: tools that check and repair journals, branch and projection as a whole. Composition.

Everything here blocks. The daemon calls it in a thread when it chooses to; without a daemon the command line calls it
in its own process, under the daemon's lock (cli.md 3.13 to 3.16).
"""
