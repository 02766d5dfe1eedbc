"""Let the tests of the engines import the service from the checkout; they run in an engine's own environment."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles/inference/files/xpuserve"))
