"""Let the tests of the engines import the service from the checkout; they run in an engine's own environment.

Each file is for one engine: without its library, it is not collected.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles/inference/files/xpuserve"), str(ROOT)]

# BigDL's transformers are too old for engine torch, and nobody has both.
collect_ignore = ["test_torch.py" if importlib.util.find_spec("bigdl") else "test_bigdl.py"]
