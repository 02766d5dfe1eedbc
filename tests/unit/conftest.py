"""Let unit tests import the collection from the checkout, as Ansible does."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for path in (ROOT / "collections", ROOT / "roles/inference/files/xpuserve", ROOT / "molecule"):
    sys.path.insert(0, str(path))
