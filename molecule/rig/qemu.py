"""QEMU: its command line, its monitor, its accelerator."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from rig.host import RigError, run

MEMORY = 1024  # MiB
PROCESSORS = 2
#: The guest's size of the disk. The file is a little larger, so that a block server can serve all of it in one request.
DISK_SIZE = 12 << 30
FILE_SIZE = 20 << 30
#: Accelerator -> processor. An old processor is emulated faster: a new one's wide vectors, byte-wise copies
#: and kernel protections cost more to emulate than they save.
PROCESSOR_OF = {"kvm": "max", "tcg": "Westmere,+rdrand,+rdtscp"}
#: Forces one of the above for every machine; without it KVM is used if a guest boots with it, and TCG otherwise.
OVERRIDE = "XPU_FLEET_ACCEL"
#: Flags of Intel's and AMD's virtualization extensions in /proc/cpuinfo.
EXTENSIONS = re.compile(r"^flags\s*:.*\b(vmx|svm)\b", re.MULTILINE)
QUIT_TIMEOUT = 20.0
#: Priority of an emulated processor: a run on it takes longest, so everything ends sooner.
NICE = 10


@dataclass(frozen=True)
class Hardware:
    """The hardware of a virtual machine; saved memory loads only into the same hardware."""

    name: str
    folder: Path
    disk: Path
    tap: str
    mac: str
    accelerator: str
    processor: str

    @property
    def pidfile(self) -> Path:
        """File with QEMU's process id while it runs."""
        return self.folder / "qemu.pid"

    @property
    def monitor(self) -> Path:
        """Socket of QEMU's monitor."""
        return self.folder / "qmp"

    @property
    def setup(self) -> Path:
        """Socket of the guest's second serial port."""
        return self.folder / "setup"

    @property
    def console(self) -> Path:
        """Log of the guest's first serial port: GRUB, the kernel and systemd."""
        return self.folder / "console.log"

    def command(self, *extra: str, block: Optional[Path] = None) -> list[str]:
        """Return the command line; ``block`` is the socket of a block server in front of the disk."""
        disk: dict[str, Any] = {"driver": "qcow2", "node-name": "disk", "discard": "unmap"}
        if block is None:
            # No sync: the host's memory keeps QEMU's writes if QEMU ends.
            disk["cache"] = {"no-flush": True}
            disk["file"] = {"driver": "file", "filename": str(self.disk), "cache": {"no-flush": True}}
        else:
            disk["file"] = {"driver": "nbd", "server": {"type": "unix", "path": str(block)}}
        accelerator = "tcg,thread=multi" if self.accelerator == "tcg" else self.accelerator
        return [
            "qemu-system-x86_64", "-name", self.name, "-machine", "q35", "-accel", accelerator,
            "-cpu", self.processor,
            "-smp", str(PROCESSORS), "-m", str(MEMORY), "-nodefaults", "-no-user-config", "-display", "none",
            # GRUB does not reach the kernel without a screen.
            "-vga", "std",
            "-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk",
            "-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net,mac={self.mac},romfile=",
            "-device", "virtio-rng-pci",
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            "-chardev", f"socket,id=setup,path={self.setup},server=on,wait=off", "-serial", "chardev:setup",
            "-qmp", f"unix:{self.monitor},server=on,wait=off", "-pidfile", str(self.pidfile), "-daemonize", *extra,
        ]  # fmt: skip

    def launch(self, *extra: str, block: Optional[Path] = None, enter: Optional[Callable[[], None]] = None) -> None:
        """Start QEMU in the background, with priority over others; ``enter`` runs in the new process first."""

        def first() -> None:
            with contextlib.suppress(OSError):
                os.nice(-NICE)
            if enter:
                enter()

        # A new session, so that the caller's shell does not end QEMU with the caller.
        result = subprocess.run(
            self.command(*extra, block=block),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            preexec_fn=first,
        )
        if result.returncode != 0:
            raise RigError(f"{self.name}: QEMU does not start: {result.stderr.strip()}")
        # If a kernel groups processes by session, a nice value has no effect on other sessions.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/autogroup").write_text(f"-{NICE}")

    @property
    def pid(self) -> Optional[int]:
        """QEMU's process id, None if it does not run."""
        return live(self.pidfile, "qemu-system")

    def quit(self) -> None:
        """End QEMU; the guest's finished writes are on its disk, pending ones are lost."""
        with contextlib.suppress(RigError), Monitor(self.monitor) as monitor:
            monitor.execute("quit")
        if not self.gone(QUIT_TIMEOUT):
            self.kill()

    def kill(self) -> None:
        """End QEMU at once."""
        kill(self.pidfile, "qemu-system")

    def gone(self, timeout: float) -> bool:
        """Wait for QEMU to end; returns whether it has."""
        deadline = time.monotonic() + timeout
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


class Monitor:
    """A connection to a QEMU monitor (QMP)."""

    def __init__(self, path: Path, timeout: float = 120.0) -> None:
        """Connect. Raises RigError if nothing answers."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            self._stream = self._socket.makefile("rw", encoding="utf-8")
            self._stream.readline()
            self.execute("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise RigError(f"no virtual machine answers at {path}: {error}") from error

    def __enter__(self) -> Monitor:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        # Both: the socket stays open while its stream is, and QEMU talks to one client at a time.
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Return the result of a command. Raises RigError with QEMU's reason if it fails."""
        try:
            self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._stream.flush()
            while line := self._stream.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise RigError(f"QEMU refuses {command}: {answer['error']['desc']}")
        except OSError as error:
            raise RigError(f"QEMU did not answer {command}: {error}") from error
        # QEMU ended before its answer, as after "quit".
        return {}

    def human(self, line: str) -> str:
        """Return the output of a command for people."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))


def version() -> str:
    """Return QEMU's version; another version may not load saved memory."""
    return run(["qemu-system-x86_64", "--version"]).splitlines()[0]


def candidates(
    environment: Mapping[str, str], kvm: Path = Path("/dev/kvm"), processor: Path = Path("/proc/cpuinfo")
) -> list[str]:
    """Return the accelerators to try, best first. Raises RigError for an unknown override.

    Some virtual machines have a /dev/kvm that opens, on processors without the required extensions. There a
    guest's GRUB hangs, which takes a minute to notice.
    """
    wanted = environment.get(OVERRIDE, "")
    if wanted and wanted not in PROCESSOR_OF:
        raise RigError(f"{OVERRIDE}={wanted}: choose one of {', '.join(PROCESSOR_OF)}")
    if wanted:
        return [wanted]
    able = EXTENSIONS.search(processor.read_text()) is not None and os.access(kvm, os.R_OK | os.W_OK)
    return [name for name in PROCESSOR_OF if name != "kvm" or able]


def choice(accelerator: str) -> dict[str, str]:
    """Return an accelerator and its processor, in the form for `Hardware` and a golden machine's description."""
    return {"accelerator": accelerator, "processor": PROCESSOR_OF[accelerator]}


def live(pidfile: Path, program: str) -> Optional[int]:
    """Return the process id in a file if that process is this program and was started with that file."""
    try:
        pid = int(pidfile.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if program in words[0] and any(str(pidfile) in word for word in words) and state != "Z" else None


def kill(pidfile: Path, program: str) -> None:
    """Kill a program and wait for its end."""
    pid = live(pidfile, program)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + QUIT_TIMEOUT
    while live(pidfile, program) is not None:
        if time.monotonic() > deadline:
            raise RigError(f"process {pid} ({program}) is still running after it was killed")
        time.sleep(0.02)


def create_disk(path: Path, backing: Path) -> None:
    """Make an overlay disk with the differences from another one."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(backing), str(path)])
    with path.open("r+b") as image:
        image.truncate(FILE_SIZE)
