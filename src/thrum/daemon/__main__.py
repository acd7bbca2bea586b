"""`python -m thrum.daemon MAIN_ROOT [--local] [--force]`: what starts, and by which other processes know a daemon.

The one place where a daemon reads its environment.
"""

import gc
import os
import sys

if __name__ == "__main__":
    gc.disable()  # nothing of what is loaded now becomes garbage
    from thrum.daemon.process import main

    sys.exit(main(sys.argv[1:], os.environ))
