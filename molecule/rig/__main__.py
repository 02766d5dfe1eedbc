"""Run the rig's command line: ``python3 -m rig``."""

from __future__ import annotations

import sys

from rig.cli import main

if __name__ == "__main__":
    sys.exit(main())
