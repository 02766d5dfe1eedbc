"""Import the service from the checkout for the engines' tests, which run in an engine's own environment.

Each file is for one engine: without its library, pytest does not collect it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles/inference/files/xpuserve"), str(ROOT)]

# BigDL's transformers are too old for engine torch, so no environment has both.
collect_ignore = ["test_torch.py" if importlib.util.find_spec("bigdl") else "test_bigdl.py"]
