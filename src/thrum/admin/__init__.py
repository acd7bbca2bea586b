"""Care of the data: what looks at journals, branch and projection as a whole, and sets them right.

Everything here blocks. The daemon calls it in a thread when it chooses to; without a daemon the command line calls it
in its own process, under the daemon's lock (cli.md 3.13 to 3.16).
"""
