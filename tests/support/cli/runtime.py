"""A process that counts as an agent runtime and runs commands for its agent: each line of stdin, each answer a line.

Started by `sh` under the name of a runtime; in: `{"argv", "cwd", "env"}`, out: `{"status", "out", "err"}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        done = subprocess.run(
            asked["argv"], cwd=asked["cwd"], env={**os.environ, **asked["env"]}, capture_output=True, text=True
        )
        sys.stdout.write(json.dumps({"status": done.returncode, "out": done.stdout, "err": done.stderr}) + "\n")
        sys.stdout.flush()
