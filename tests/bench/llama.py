"""llama-cpp-python, built from its source for this processor.

``python3 -m tests.bench.llama`` puts the wheel into the cache. That takes minutes, so the benchmark never does it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Optional

from rig import cache, wheels
from rig.host import RigError, run

from tests.engine import environment

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements/peer-llama-cpp.txt"
PACKAGE = "llama-cpp-python"
PYTHON = ".".join(map(str, sys.version_info[:2]))
# Without AMX: with it, this version's server ends with SIGILL on a machine whose processor has AMX.
FLAGS = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def main() -> int:
    """Return 0 with the wheel in the cache; on failure 1, with the reason on standard error."""
    try:
        print(cache.artifact(PACKAGE, recipe(), build))
    except RigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def recipe() -> dict[str, Any]:
    """Return all inputs of the build: the compiler uses every other instruction of this processor."""
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    return {"python": PYTHON, "requirements": REQUIREMENTS.read_text(), "processor": flags, "compiler": FLAGS}


def build(target: Path) -> None:
    """Build the wheel, and write its requirements beside it."""
    entries = list(wheels.requirements(REQUIREMENTS, PYTHON))
    own = [entry.text() for entry in entries if entry.line.startswith(f"{PACKAGE}==")]
    others = [entry.text() for entry in entries if not entry.line.startswith(f"{PACKAGE}==")]
    listing = target / "own.txt"
    listing.write_text("\n".join(own) + "\n")
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    run(  # without pip's cache: a wheel there may be of other flags
        [*pip, "--no-cache-dir", "--no-binary", PACKAGE, "--wheel-dir", str(target), "-r", str(listing)],
        env={"CFLAGS": FLAGS, "CXXFLAGS": FLAGS},
    )
    # Another build is another environment.
    (target / REQUIREMENTS.name).write_text("\n".join([f"# {cache.digest(recipe())}", *others]) + "\n")


def peer() -> Optional[Path]:
    """Return the environment of its server, or None if the wheel is not in the cache."""
    built = cache.place(PACKAGE, recipe())
    if not built.is_dir():
        return None
    return environment.made(built / REQUIREMENTS.name, PYTHON, [], [str(wheel) for wheel in built.glob("*.whl")])


if __name__ == "__main__":
    sys.exit(main())
