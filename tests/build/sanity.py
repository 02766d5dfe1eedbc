"""Run ``ansible-test sanity`` on the artifact with each ansible-core that this machine's Pythons can run."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.core.runs import CORES, controllers, environment
from tests.pythons import found


def main() -> int:
    """Return 0 if no core found anything; the arguments are the cores, all by default."""
    chosen = sys.argv[1:] or list(CORES)
    pythons = controllers(chosen, found())
    missing = [core for core in chosen if core not in pythons]
    for core in missing:
        print(f"ansible-core {core}: no Python of this machine carries it", flush=True)
    failed = []
    for core, python in pythons.items():
        print(f"ansible-core {core} on {python.name}", flush=True)
        path = os.pathsep.join([str(environment(f"core-{core}", python) / "bin"), os.environ["PATH"]])
        command = [sys.executable, "-m", "pytest", "tests/build/test_sanity.py"]
        if subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode:
            failed.append(core)
    if failed:
        print(f"Not clean: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or not pythons else 0


if __name__ == "__main__":
    sys.exit(main())
