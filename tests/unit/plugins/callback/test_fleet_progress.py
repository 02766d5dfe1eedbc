"""The callback fleet_progress in runs of ansible-playbook: in a pipe, on a terminal, interrupted, and without rich."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
PLAY: list[dict[str, Any]] = [
    {
        **{"name": "Provision", "hosts": "all", "gather_facts": False, "strategy": "{{ chosen_strategy }}"},
        "tasks": [
            {"name": "Reach it", "ansible.builtin.raw": "true", "changed_when": False},
            {
                "name": "Change the kernel",
                "ansible.builtin.include_role": {"name": "xpu.fleet.kernel", "apply": {"tags": ["kernel"]}},
                "tags": ["kernel"],
            },
            {
                "name": "Bring the model",
                "ansible.builtin.include_role": {"name": "xpu.fleet.model"},
                "when": False,
                "tags": ["model"],
            },
            {"name": "Say", "ansible.builtin.debug": {"msg": ["hello from {{ inventory_hostname }}", "and more"]}},
            {
                "name": "Tell of all",
                "ansible.builtin.debug": {"msg": "a table"},
                "run_once": True,
                "when": "chosen_strategy == 'linear'",
            },
            {
                "name": "Keep it secret",
                "ansible.builtin.fail": {"msg": "tops3cret {{ item }}"},
                "loop": ["tops3cret-item"],
                "no_log": True,
                "ignore_errors": True,
                "when": "inventory_hostname == 'good'",
            },
            {
                "name": "Break",
                "ansible.builtin.fail": {"msg": "The disk is full of {{ item }}"},
                "loop": ["models", "drivers"],
                "when": "inventory_hostname == 'bad'",
            },
        ],
    }
]
ROLES = {
    "kernel": [{"name": "Reboot", "ansible.builtin.include_role": {"name": "xpu.fleet.node_reboot"}}],
    "node_reboot": [{"name": "Reboot the node", "ansible.legacy.reboot": {"reboot_timeout": "{{ 1700 + 100 }}"}}],
}
#: Stands in for ansible.builtin.reboot, which refuses to reboot the machine that it runs on.
REBOOT = """
import time
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _VALID_ARGS = frozenset(("reboot_timeout",))

    def run(self, tmp=None, task_vars=None):
        time.sleep(1.5)
        return {"changed": True, "rebooted": True, "warnings": ["mind the gap"]}
"""
HOSTS = f"""
good ansible_connection=local
bad ansible_connection=local
gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1
[all:vars]
ansible_python_interpreter={sys.executable}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A playbook, its hosts, and this collection with roles that do nothing."""
    folder = tmp_path_factory.mktemp("progress")
    collection = folder / "collections/ansible_collections/xpu/fleet"
    collection.mkdir(parents=True)
    for name in ("plugins", "meta", "galaxy.yml"):
        (collection / name).symlink_to(ROOT / name)
    for role, tasks in ROLES.items():
        (collection / "roles" / role / "tasks").mkdir(parents=True)
        (collection / "roles" / role / "tasks/main.yml").write_text(yaml.safe_dump(tasks))
    (folder / "action_plugins").mkdir()
    (folder / "action_plugins/reboot.py").write_text(REBOOT)
    (folder / "play.yml").write_text(yaml.safe_dump(PLAY, sort_keys=False))
    (folder / "hosts").write_text(HOSTS)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a run: nothing of this machine's configuration, this callback."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "FLEET_"))}
    return {
        **kept,
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_STDOUT_CALLBACK": "xpu.fleet.fleet_progress",
        "ANSIBLE_INJECT_FACT_VARS": "false",
        "ANSIBLE_HOME": str(folder / "home"),
        "TERM": "xterm",
        **more,
    }


def piped(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook in a pipe."""
    command = ["ansible-playbook", "-i", "hosts", "play.yml", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False
    )


def on_a_terminal(folder: Path, *arguments: str, interrupt_at: bytes = b"") -> tuple[int, bytes]:
    """Run the playbook on a terminal of 24 lines, interrupted once something is on it. Return status and output."""
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    # Where the tests run in the background, a shell has them ignore Ctrl-C, and what they start does too.
    heeds = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", heeds, "ansible-playbook", "-i", "hosts", "play.yml", *arguments]
    run = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    output, interrupted = b"", not interrupt_at
    while True:
        try:
            output += os.read(keyboard, 65536)
        except OSError:  # the last that had the terminal open has ended
            break
        if not interrupted and interrupt_at in output:
            run.send_signal(signal.SIGINT)
            interrupted = True
    os.close(keyboard)
    return run.wait(timeout=60), output


def screen(output: bytes) -> list[str]:
    """What is left on the screen, of the codes that the live lines are made of: erase a line, go up, colours."""
    lines, row = [""], 0
    for code, text in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", output.decode()):
        if code == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif code == "\x1b[1A":
            row -= 1
        elif code == "\x1b[2K":
            lines[row] = ""
        lines[row] += text
    return [line.rstrip() for line in lines]


def assert_what_matters_is_told(lines: list[str]) -> None:
    """Failures, messages, warnings, recap and times are there in full, each once; secrets are not."""
    text = "\n".join(lines)
    assert "tops3cret" not in text and "censored" in text
    assert lines.count("    hello from good") == lines.count("    hello from bad") == 1
    assert len([line for line in lines if "The disk is full of models" in line and "msg" in line]) == 1
    assert len([line for line in lines if "The disk is full of drivers" in line and "msg" in line]) == 1
    assert len([line for line in lines if line.startswith("fatal: [gone]: UNREACHABLE!")]) == 1
    assert "[WARNING]: mind the gap" in text
    recap = {line.split()[0]: line.split()[2:] for line in lines if " : ok=" in line}
    assert {"changed=1", "failed=0", "ignored=1"} <= set(recap["good"])
    assert {"changed=1", "failed=1"} <= set(recap["bad"])
    assert {"unreachable=1", "changed=0"} <= set(recap["gone"])
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("TIME PER LAYER")) :]
    assert re.fullmatch(r" +good +bad( +gone)?", table[1])
    assert any(re.fullmatch(r"kernel +\d+:\d\d +\d+:\d\d.*", line) for line in table)
    assert any(line.startswith("whole run: ") for line in table)


def test_in_a_pipe_there_are_plain_lines(folder: Path) -> None:
    run = piped(folder, "-e", "chosen_strategy=linear")
    assert run.returncode == 4, run.stdout + run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    assert_what_matters_is_told((run.stderr + run.stdout).splitlines())
    for host in ("good", "bad"):
        told = [line.split(" ", 1)[1] for line in run.stdout.splitlines() if re.match(rf"\d+:\d\d {host}: k", line)]
        assert told[:2] == [f"{host}: kernel: begins", f"{host}: kernel: rebooting, back within 1800s"]
        assert re.fullmatch(rf"{host}: kernel: back after \d+s", told[2])
        assert told[3:] == []
    # What one node tells for all is not said to be of that node.
    assert re.findall(r"^\d+:\d\d (.*a table)$", run.stdout, re.MULTILINE) == ["Tell of all: a table"]
    # A role that is not due begins no layer.
    assert "model: " not in run.stdout


def test_on_a_terminal_lines_live_and_leave_it_as_it_was(folder: Path) -> None:
    status, output = on_a_terminal(folder, "-e", "chosen_strategy=free")
    assert status == 4, output.decode()
    drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", output.decode())
    assert re.search(r"↻ good +kernel +0:0\d +rebooting, back within 1\d\d\ds", drawn)
    assert re.search(r"Provision +\d+:\d\d  (1 unreachable, )?[12] rebooting", drawn)
    assert output.rfind(b"\x1b[?25l") < output.rfind(b"\x1b[?25h")
    left = screen(output)
    assert not [line for line in left if line[:1] in ("▸", "↻", "✗", "·")]
    assert_what_matters_is_told(left)


def test_an_interrupted_run_leaves_the_terminal_as_it_was(folder: Path) -> None:
    status, output = on_a_terminal(folder, "-e", "chosen_strategy=linear", interrupt_at=b"rebooting")
    assert status == 99, output.decode()
    assert output.rfind(b"\x1b[?25l") < output.rfind(b"\x1b[?25h")
    left = screen(output)
    assert any("User interrupted execution" in line for line in left)
    assert not [line for line in left if line[:1] in ("▸", "↻", "✗", "·")]


def test_without_rich_nothing_runs_and_it_is_said_what_to_install(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich/__init__.py").write_text("raise ImportError('No module named rich')\n")
    run = piped(folder, PYTHONPATH=str(tmp_path))
    assert run.returncode == 1
    assert "pip install rich" in run.stderr
    assert run.stdout == ""
