"""`python -m thrum.daemon MAIN_ROOT [--local] [--force]`: the command that starts a daemon, by which other processes
recognize it.

The one place where a daemon reads its environment.
"""

import gc
import os
import sys

if __name__ == "__main__":
    gc.disable()  # nothing of what is loaded now becomes garbage
    from thrum.daemon.process import main

    sys.exit(main(sys.argv[1:], os.environ))
