"""`thrum init` on real repositories, without its command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.git.repository import make_repository
from thrum.admin.init import InitOptions, InitResult, initialise


def make_open_repository(root: Path) -> Path:
    """A repository that others may read, with a commit."""
    make_repository(root)
    (root / ".git").chmod(0o755)
    return root


def init(start: Path, **options: Any) -> InitResult:
    return initialise(start, InitOptions(**({"hostname": "laptop", "environ": os.environ} | options)))


def actions(result: InitResult) -> dict[str, str]:
    return {file.path: file.action for file in result.files}
