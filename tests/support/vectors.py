"""Cases that the specification gives in full: inputs and what comes of them."""

from __future__ import annotations

import json
from typing import Any

from tests.support.places import DATA

VECTORS: dict[str, Any] = json.loads((DATA / "vectors.json").read_text(encoding="utf-8"))
