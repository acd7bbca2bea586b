"""python -m thrum."""

from thrum.launcher import main

main()
