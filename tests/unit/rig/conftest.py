"""Make the rig importable as its command line does: from the folder molecule."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "molecule"))
