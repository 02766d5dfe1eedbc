"""One test host: its definition, its files, and, for a container, its network and its process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from rig import cache, gpu
from rig.deb import File
from rig.host import RigError, run
from rig.userland import USER, USERLANDS, Userland, base, layer

MIRROR_PORT = 8077
#: systemd-nspawn's exit status when the container asked for a reboot.
REBOOT = 133
#: Path of the model fixture on a node.
MODELS = "/srv/models"
PR_SET_PDEATHSIG = 1
#: Kinds of nodes: a container that shares this machine's kernel, or a virtual machine with its own.
KINDS = ("container", "machine")
#: The userland of virtual machines.
MACHINE_USERLAND = "ubuntu2204"


@dataclass(frozen=True)
class Node:
    """A test host as its fleet's definition describes it."""

    fleet: str
    name: str
    userland: Userland
    address: str
    gpus: tuple[gpu.Gpu, ...] = field(default=())
    #: Requirements files whose wheels the mirror has for this node.
    wheels: tuple[str, ...] = field(default=("openvino",))
    #: Whether the mirror has the model fixture for this node.
    models: bool = False
    kind: str = KINDS[0]
    #: Another node's written files, kept by ``Fleet.keep``, from which this one starts.
    disk: Optional[Path] = None

    @classmethod
    def parse(cls, fleet: str, entry: Mapping[str, Any]) -> Node:
        """Make a node from one platform entry. Raises RigError that names its mistake."""
        name = entry.get("name", "?")
        try:
            userland = USERLANDS[entry["userland"]]
            address = str(entry["address"])
        except KeyError as error:
            raise RigError(
                f"platform {name}: {error} is missing or unknown (userlands: {', '.join(USERLANDS)})"
            ) from error
        cards = tuple(gpu.Gpu.parse(card) for card in entry.get("gpus") or ())
        wheels = tuple(entry.get("wheels") or ("openvino",))
        kind = str(entry.get("kind", KINDS[0]))
        if kind not in KINDS:
            raise RigError(f"platform {name}: kind {kind} is unknown (kinds: {', '.join(KINDS)})")
        models = bool(entry.get("models", False))
        disk = Path(entry["disk"]) if entry.get("disk") else None
        if kind == "machine":
            if userland.name != MACHINE_USERLAND:
                raise RigError(f"platform {name}: virtual machines have the userland {MACHINE_USERLAND}")
            if cards or models or disk:
                raise RigError(
                    f"platform {name}: virtual machines have a GPU of their own, and come without models or disk"
                )
        return cls(fleet, name, userland, address, cards, wheels, models, kind, disk)

    @property
    def is_machine(self) -> bool:
        """Whether this is a virtual machine."""
        return self.kind == "machine"

    @property
    def machine(self) -> str:
        """Name of the container and of its network namespace on this machine."""
        return f"xpu-{self.fleet}-{self.name}"

    @property
    def folder(self) -> Path:
        """Folder of this node's own files while the fleet is up."""
        return cache.RUN / self.fleet / "nodes" / self.name

    @property
    def root(self) -> Path:
        """Mount point of the node's root file system."""
        return self.folder / "root"

    @property
    def gateway(self) -> str:
        """This machine's address on the node's network, on which the mirror listens."""
        return f"{self.address.rsplit('.', 1)[0]}.1"

    @property
    def mirror(self) -> str:
        """The mirror's URL for the node."""
        return f"http://{self.gateway}:{MIRROR_PORT}"

    @property
    def host_key(self) -> Path:
        """The node's SSH host key, the same after every rebuild."""
        return cache.KEYS / f"{self.machine}.ssh_host_ed25519_key"

    def layers(self) -> list[Path]:
        """Return the read-only folders below the root file system, lowest last; builds missing ones."""
        return [*([self.disk] if self.disk else []), layer(self.userland), base(self.userland.suite)]

    @property
    def configured(self) -> Path:
        """A file that marks a configured node: from then on the node's files are its own."""
        return self.folder / "configured"

    def mount(self) -> None:
        """Mount the root file system; files written in an earlier run are still there."""
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lower = ":".join(str(path) for path in self.layers())
        options = f"lowerdir={lower},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        run(["mount", "-t", "overlay", self.machine, "-o", options, str(self.root)])

    def files(self, sources: str, keyring: bytes, authorized_key: str) -> dict[str, File]:
        """Return an installer's files on a new machine: name, package sources, SSH keys of machine and person."""
        public = self.public_host_key()
        return {
            "/etc/hostname": File(f"{self.name}\n"),
            "/etc/hosts": File(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n::1 localhost ip6-localhost\n"),
            "/etc/resolv.conf": File("# Test hosts have no name server.\n"),
            "/etc/apt/sources.list": File(sources),
            # The site's setting for its own index: plain HTTP is allowed from this one address.
            "/etc/pip.conf": File(f"[global]\ntrusted-host = {self.gateway}\n"),
            "/usr/share/keyrings/xpu-rig.gpg": File(keyring),
            "/etc/ssh/ssh_host_ed25519_key": File(self.host_key.read_text(), 0o600),
            "/etc/ssh/ssh_host_ed25519_key.pub": File(public),
            f"/home/{USER}/.ssh/authorized_keys": File(authorized_key, 0o600),
        }

    def configure(self, files: Mapping[str, File]) -> None:
        """Write those files, and the GPUs, into the root file system."""
        home = self.root / "home" / USER
        for name, file in files.items():
            path = self.root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
            path.chmod(file.mode)
            if home in path.parents:
                path.parent.chmod(0o700)
                for own in (path, path.parent):
                    os.chown(own, home.stat().st_uid, home.stat().st_gid)
        if self.gpus:
            gpu.write_tree(self.folder / "pci", self.gpus)
            gpu.write_device_unit(self.root, self.gpus)
        self.configured.touch()

    def public_host_key(self) -> str:
        """Return the public half of the SSH host key, one line; makes a missing key."""
        if not self.host_key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.machine, "-f", str(self.host_key)])
        return self.host_key.with_name(f"{self.host_key.name}.pub").read_text()

    def connect(self, bridge: str, index: int) -> None:
        """Make the node's network namespace with one interface on the fleet's bridge, and no route out."""
        outside = f"{bridge}n{index}"
        run(["ip", "netns", "add", self.machine])
        inside = ["ip", "-netns", self.machine]
        peer = ["peer", "name", "eth0", "netns", self.machine]
        run(["ip", "link", "add", outside, "type", "veth", *peer])
        run(["ip", "link", "set", outside, "master", bridge, "up"])
        run([*inside, "addr", "add", f"{self.address}/24", "dev", "eth0"])
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "link", "set", "eth0", "up"])

    def cgroups(self) -> list[Path]:
        """Return the control groups with only this node's processes."""
        return [root / "xpu-fleet" / self.fleet / self.name for root in cgroup_roots()]

    def start(self, shared: Path) -> subprocess.Popen[bytes]:
        """Start the container; it ends with this process at the latest.

        ``shared`` is the folder of models that a node with ``models`` mounts read-only, as from a file server.
        """
        groups = self.cgroups()
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
        libc = ctypes.CDLL(None)

        def enter() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            for group in groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        command = [
            "systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", f"--machine={self.machine}",
            "--register=no", "--keep-unit", f"--network-namespace-path=/run/netns/{self.machine}",
            "--console=passive", "--kill-signal=SIGRTMIN+3", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
        ]  # fmt: skip
        if self.models:
            command.append(f"--bind-ro={shared}:{MODELS}")
        if self.gpus:
            command.append(f"--bind-ro={self.folder / 'pci'}:/sys/bus/pci")
        with (self.folder / "console.log").open("ab") as console:
            return subprocess.Popen(
                command,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                preexec_fn=enter,  # noqa: PLW1509 - the supervisor starts nodes before it has any thread
            )


def cgroup_roots() -> list[Path]:
    """Return the hierarchies for nspawn's processes: one on a unified machine, two on a hybrid one."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.procs").exists():
        return [top]
    return [path for path in (top / "unified", top / "systemd") if (path / "cgroup.procs").exists()]
