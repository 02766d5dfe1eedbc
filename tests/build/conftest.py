"""Let these tests import the collection from the checkout, for the names that the artifact has to document."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
