"""Let the tests under load import what is beside them, and the rig, which has the model."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "molecule"),
    str(ROOT / "collections"),
    str(ROOT / "roles/inference/files/xpuserve"),
]
