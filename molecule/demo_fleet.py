"""The demo of a fleet: three bare nodes and a gateway, and a rolling change that eight clients do not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import demo
from fleet.clients import asking

INVENTORY = ("-i", "inventories/demo_fleet")
#: Any setting of the service is suitable: its change restarts every instance.
CHANGE = ("-e", "inference_queue_requests=99", "-e", "xpu_upgrade_confirmed=true")
NEXT = """
The fleet is up. From here:
  curl http://10.77.41.10:8080/v1/models   what it serves at one address
  make demo-fleet-remove                   remove it
"""


def main() -> int:
    """Return 0 if no client noticed the change."""
    if os.geteuid() != 0:
        print(
            "The demo makes containers with their own network: run it as root (sudo make demo-fleet).", file=sys.stderr
        )
        return 1
    steps = (
        ("Packages of this machine", demo.rig("prepare")),
        ("Four bare hosts (containers)", demo.rig("up", "--fleet", "demo-fleet")),
        ("Three nodes and a gateway: playbooks/fleet.yml", playbook("fleet")),
    )
    for number, (title, command) in enumerate(steps, 1):
        demo.say(f"{number}/4 {title}")
        if run(command):
            return 1
    demo.say("4/4 A rolling change while 8 clients ask: playbooks/upgrade.yml")
    began = time.monotonic()
    # A pause for reading; without it, eight streams leave Ansible little of two processors.
    with asking("10.77.41.10", 8080, pause=1) as clients:
        status = run(playbook("upgrade", *CHANGE))
    print(f"In {time.monotonic() - began:.0f} s: {clients}.")
    if status or clients.failed or clients.cut:
        print("\n".join([*clients.failed, *clients.cut][:10]), file=sys.stderr)
        return 1
    demo.say("Done")
    print(NEXT, end="")
    return 0


def playbook(name: str, *arguments: str) -> list[str]:
    """Return the command that an operator would type, with this environment's Ansible."""
    return [str(Path(sys.executable).with_name("ansible-playbook")), *INVENTORY, f"playbooks/{name}.yml", *arguments]


def run(command: list[str]) -> int:
    """Run a step; return its status, and report one that is not 0."""
    status = subprocess.run(command, cwd=demo.ROOT, env=demo.environment(), check=False).returncode
    if status:
        print(f"This step failed with status {status}: {' '.join(command)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
