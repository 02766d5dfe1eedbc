"""A test host as a virtual machine: its own kernel, GRUB, real reboots, snapshots and power cuts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from rig import cache, deb, golden, qemu
from rig.host import RigError, run, say
from rig.node import Node
from rig.userland import USER

#: Snapshot of a configured, unused machine.
READY = "ready"
BOOT_TIMEOUT = 400.0  # seconds, on a busy host; 30 are normal on an idle one
RESTORE_TIMEOUT = 180.0
#: A few seconds on an idle host.
CONFIGURE_TIMEOUTS = (60.0, 120.0, 180.0)
SHUTDOWN_TIMEOUT = 60.0
NBDKIT = "nbdkit"
#: The part between the bridge's name and a number in names of machines' ports.
TAP = "t"


@dataclass(frozen=True)
class Machine:
    """The virtual machine of one node."""

    node: Node
    #: Folder of the golden machine from which this one is copied.
    image: Path

    @classmethod
    def of(cls, fleet: Union[str, Any], name: str) -> Machine:
        """Return a machine of a running fleet, by both names (or the fleet itself)."""
        title = fleet if isinstance(fleet, str) else fleet.name
        try:
            state = json.loads((cache.RUN / title / "state.json").read_text())
            platforms, layers = state["definition"]["platforms"], state["layers"]
        except (OSError, ValueError, KeyError) as error:
            raise RigError(f"no fleet {title} is up") from error
        for entry in platforms:
            node = Node.parse(title, entry)
            if node.name == name and node.is_machine:
                return cls(node, Path(layers[name][0]))
        raise RigError(f"fleet {title} has no virtual machine {name}")

    @property
    def hardware(self) -> qemu.Hardware:
        """QEMU's hardware settings."""
        folder = self.node.folder
        made = json.loads((self.image / "machine.json").read_text())
        choice = {key: made[key] for key in ("accelerator", "processor")}
        return qemu.Hardware(self.node.machine, folder, folder / "disk.qcow2", self.tap, self.mac, **choice)

    @property
    def tap(self) -> str:
        """The machine's network interface on this host, a port of the fleet's bridge."""
        third, last = self.node.address.split(".")[2:]
        return f"xpu{third}{TAP}{last}"

    @property
    def mac(self) -> str:
        """The address of the machine's network card."""
        return "52:54:00:" + ":".join(f"{int(part):02x}" for part in self.node.address.split(".")[1:])

    @property
    def console(self) -> Path:
        """Log of the serial console: GRUB, the kernel, systemd. It continues over reboots."""
        return self.hardware.console

    @property
    def running(self) -> bool:
        """Whether the machine is switched on."""
        return self.hardware.pid is not None

    # -- power --------------------------------------------------------------------------------------------------------

    def start(self, snapshot: str | None = None, lossy: bool = False) -> None:
        """Switch the machine on: a cold boot through GRUB, or disk and memory of a snapshot.

        With ``lossy``, the disk keeps writes in a volatile cache until the guest flushes them.
        """
        if self.running:
            raise RigError(f"{self.node.name} is running")
        self._stop_block_server()
        block = self._start_block_server() if lossy else None
        extra = ["-loadvm", snapshot] if snapshot else []
        self.hardware.launch(*extra, block=block, enter=self._enter)
        if snapshot:
            self._set_clock()

    def stop(self) -> None:
        """Switch the machine off by its power button; one that does not react is killed."""
        with contextlib.suppress(RigError), qemu.Monitor(self.hardware.monitor) as monitor:
            monitor.execute("system_powerdown")
        if not self.hardware.gone(SHUTDOWN_TIMEOUT):
            self.hardware.quit()
        self._stop_block_server()

    def cut_power(self) -> None:
        """Cut the machine's power. A lossy machine loses its writes since the last flush."""
        if qemu.live(self._block_pidfile, NBDKIT) is None:
            self.hardware.quit()
            return
        qemu.kill(self._block_pidfile, NBDKIT)
        self.hardware.kill()

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def save(self, name: str) -> None:
        """Save disk and memory under a name; replaces an older snapshot of that name."""
        self._monitor_says(f"savevm {name}")

    def revert(self, name: str) -> None:
        """Restore a snapshot, and set the clock; switches the machine on if necessary."""
        if not self.running:
            self.start(snapshot=name)
            return
        self._monitor_says(f"loadvm {name}")
        self._set_clock()

    def _monitor_says(self, line: str) -> None:
        with qemu.Monitor(self.hardware.monitor) as monitor:
            said = monitor.human(line).strip()
        if said:
            raise RigError(f"{self.node.name}: {line}: {said}")

    # -- inside -------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until a login over SSH works."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise RigError(f"{self.node.name} is switched off")
            if self._try_ssh("true").returncode == 0:
                return
            time.sleep(0.3)
        raise RigError(f"{self.node.name} did not answer over SSH in {timeout:.0f} s\n{golden.tail(self.console)}")

    def ssh(self, command: str, check: bool = True) -> str:
        """Run a command as the machine's administrator (who may sudo); returns its output."""
        result = self._try_ssh(command, timeout=None)
        if check and result.returncode != 0:
            raise RigError(f"{self.node.name}: {command}: status {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def _try_ssh(self, command: str, timeout: float | None = 40.0) -> subprocess.CompletedProcess[str]:
        words = [*ssh_command(cache.RUN / self.node.fleet / "known_hosts"), f"{USER}@{self.node.address}", command]
        try:
            return subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 255, "", "no answer in time")

    def _set_clock(self) -> None:
        deadline = time.monotonic() + RESTORE_TIMEOUT
        while self._try_ssh(f"sudo date --set=@{time.time():.0f} > /dev/null").returncode != 0:
            if time.monotonic() > deadline or not self.running:
                raise RigError(
                    f"{self.node.name} does not answer after its snapshot was restored\n{golden.tail(self.console)}"
                )

    # -- a new machine ------------------------------------------------------------------------------------------------

    def connect(self, bridge: str) -> None:
        """Make the machine's port on the fleet's bridge."""
        run(["ip", "link", "delete", self.tap], check=False)
        run(["ip", "tuntap", "add", "dev", self.tap, "mode", "tap"])
        run(["ip", "link", "set", self.tap, "master", bridge, "up"])

    def create(self, files: Mapping[str, deb.File]) -> None:
        """Start a copy of the golden machine and make it this node; ``files`` are those of an installer."""
        self.node.folder.mkdir(parents=True, exist_ok=True)
        for timeout in CONFIGURE_TIMEOUTS:
            try:
                self._configure(files, timeout)
                break
            except RigError as error:
                # Rarely a copy receives nothing on its serial port; another copy of the same memory does.
                self.hardware.kill()
                if timeout == CONFIGURE_TIMEOUTS[-1]:
                    raise
                say(f"{self.node.name} starts again from a new copy: {str(error).splitlines()[0]}")
        self.wait(RESTORE_TIMEOUT)
        self.save(READY)
        self.node.configured.touch()

    def _configure(self, files: Mapping[str, deb.File], timeout: float) -> None:
        """Start a new copy of the golden disk and memory, and configure it over its second serial port."""
        self.hardware.disk.unlink(missing_ok=True)
        self.console.unlink(missing_ok=True)
        qemu.create_disk(self.hardware.disk, self.image / "disk.qcow2")
        self.hardware.launch("-incoming", f"exec:cat '{self.image / 'memory'}'", enter=self._enter)
        deadline = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX) as port:
            port.settimeout(timeout)
            port.connect(str(self.hardware.setup))
            self._resume(deadline)
            text = base64.encodebytes(self._setup_script(files).encode()) + b".\n"
            port.sendall(text)
            golden.read_until(port, "xpu-rig: configured", deadline)

    def _resume(self, deadline: float) -> None:
        with qemu.Monitor(self.hardware.monitor) as monitor:
            while (status := monitor.execute("query-status")["status"]) != "running":
                if status in ("inmigrate", "paused", "postmigrate"):
                    if status != "inmigrate":
                        monitor.execute("cont")
                    time.sleep(0.1)
                if time.monotonic() > deadline or status == "internal-error":
                    raise RigError(f"{self.node.name}: the golden machine's memory does not load ({status})")

    def _setup_script(self, files: Mapping[str, deb.File]) -> str:
        """Return the script that makes the golden machine this one: its files, name, clock, address and SSH key."""
        own = {**files, "/etc/xpu-rig-address": deb.File(f"{self.node.address}\n")}
        archive = base64.encodebytes(deb.tarball(own)).decode()
        return (
            f"set -e\ndate --set=@{time.time():.0f} > /dev/null\n"
            f"base64 --decode << END | tar --extract --gzip --no-overwrite-dir --directory=/\n{archive}END\n"
            f"chown --recursive {USER}: /home/{USER}/.ssh\nchmod 700 /home/{USER}/.ssh\n"
            f"hostname {self.node.name}\nip link set eth0 address {self.mac}\n"
            "systemctl start xpu-rig-network.service\nsystemctl restart ssh.service\n"
            "touch /var/lib/xpu-rig/configured\nsync\n"
        )

    # -- processes ----------------------------------------------------------------------------------------------------

    @property
    def _enter(self) -> Callable[[], None]:
        """Runs first in a new process: join the node's control groups, by which the fleet can always kill it."""
        groups = self.node.cgroups()
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)

        def enter() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        return enter

    @property
    def _block_pidfile(self) -> Path:
        return self.node.folder / "nbdkit.pid"

    def _start_block_server(self) -> Path:
        """Start a server for the disk that writes to the file only at a flush."""
        address = self.node.folder / "nbd"
        address.unlink(missing_ok=True)
        command = [
            NBDKIT, f"--unix={address}", f"--pidfile={self._block_pidfile}", "--filter=cache", "file",
            f"file={self.hardware.disk}", "cache=writeback",
        ]  # fmt: skip
        result = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(self.node.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            start_new_session=True,
            preexec_fn=self._enter,
        )
        if result.returncode != 0:
            raise RigError(f"{self.node.name}: nbdkit does not start: {result.stderr.strip()}")
        return address

    def _stop_block_server(self) -> None:
        """Stop the server after QEMU flushed and disconnected; also removes its files after a power cut."""
        qemu.kill(self._block_pidfile, NBDKIT)
        self._block_pidfile.unlink(missing_ok=True)


def end(folder: Path) -> None:
    """End all processes of the machine whose files are in a folder, whatever its state."""
    qemu.kill(folder / "qemu.pid", "qemu-system")
    qemu.kill(folder / "nbdkit.pid", NBDKIT)


def ssh_command(known_hosts: Path) -> list[str]:
    """Return the rig's SSH command: it detects a lost machine in seconds."""
    return [
        "ssh", "-q", "-i", str(cache.KEYS / "id_ed25519"), "-o", f"UserKnownHostsFile={known_hosts}",
        "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=10",
        "-o", "StrictHostKeyChecking=yes",
    ]  # fmt: skip
