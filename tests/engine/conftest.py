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
LIBRARIES = {"test_bigdl.py": "bigdl", "test_texts.py": "openvino_genai"}
collect_ignore = [file for file, library in LIBRARIES.items() if not importlib.util.find_spec(library)]
if importlib.util.find_spec("bigdl") or importlib.util.find_spec("openvino_genai"):
    collect_ignore.append("test_torch.py")
