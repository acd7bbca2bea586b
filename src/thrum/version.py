"""The version of thrum. The number itself is in `thrum.__init__`, where it costs the launcher no extra module."""

from __future__ import annotations

import sys
from typing import Final

import thrum

VERSION: Final = thrum.__version__
BUILD: Final = "dev"


def version_text() -> str:
    """What `thrum version` says."""
    return f"thrum {VERSION} (build {BUILD}, Python {sys.version.split()[0]})"
