"""The demo behind `make demo`: a bare local node, provisioned by site.yml, answers a question."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVICE = ROOT / "roles/inference/files/xpuserve"
NODE = "http://10.77.1.11:8000"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"
NEXT = """
The node is up. From here:
  make chat           talk to it
  make demo-shell     look inside: a shell on the node (try: systemctl status 'xpuserve@*')
  make demo-remove    remove it
  curl {node}/v1/models
"""

_started = time.monotonic()


def main() -> int:
    """Return 0 if the node has given the right answer."""
    if os.geteuid() != 0:
        print("The demo makes a container with its own network: run it as root (sudo make demo).", file=sys.stderr)
        return 1
    steps = (
        ("Packages of this machine", rig("prepare")),
        ("A bare node (a container)", rig("up", "--fleet", "demo")),
        ("From bare node to service: site.yml", playbook()),
    )
    for number, (title, command) in enumerate(steps, 1):
        say(f"{number}/{len(steps) + 1} {title}")
        status = subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode
        if status != 0:
            print(f"This step failed with status {status}: {' '.join(command)}", file=sys.stderr)
            return 1
    say(f"{len(steps) + 1}/{len(steps) + 1} A question over HTTP")
    answer = ask(QUESTION)
    if ANSWER not in answer:
        print(f"The answer does not name {ANSWER}.", file=sys.stderr)
        return 1
    say("Done")
    print(NEXT.format(node=NODE), end="")
    return 0


def say(text: str) -> None:
    """Print a heading with the time since the start."""
    print(f"\n== {text} [{time.monotonic() - _started:.0f} s]", flush=True)


def rig(*arguments: str) -> list[str]:
    """Return a command of the test rig."""
    return [sys.executable, "-m", "rig", *arguments]


def playbook() -> list[str]:
    """Return the command an operator would type, with this environment's Ansible."""
    return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/demo", "site.yml"]


def environment() -> dict[str, str]:
    """Return the environment of every step."""
    path = os.pathsep.join([str(ROOT / "molecule"), str(SERVICE)])
    ansible = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false"}
    return {**os.environ, **ansible, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def ask(question: str) -> str:
    """Print question and answer while it streams; return the answer, "" if the service gives none."""
    print(f"> {question}", flush=True)
    command = [sys.executable, "-m", "xpuserve", "chat", "--url", NODE, "--once", question]
    answer = bytearray()
    # The node is on this machine; a user's proxy could not reach it.
    with subprocess.Popen(command, env={**environment(), "no_proxy": "*"}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 4096):
            answer += piece
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    return answer.decode(errors="replace") if process.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
