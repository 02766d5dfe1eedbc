"""A fleet of test hosts on its own network: start it, watch it, remove every trace of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import yaml

from rig import cache, contents, golden, machine, mirror, repository
from rig.deb import File
from rig.host import RigError, run, say, unmount, write
from rig.machine import Machine
from rig.node import MIRROR_PORT, REBOOT, Node, cgroup_roots
from rig.userland import USER

FLEETS = Path(__file__).parent / "fleets"
NSPAWN_RUNTIME = Path("/run/systemd/nspawn")  # nspawn needs it; a machine without systemd lacks it
BOOT_TIMEOUT = 90.0  # time limit in seconds for a node to answer on its SSH port
SHUTDOWN_TIMEOUT = 5.0  # seconds for nodes to shut down; afterwards they are killed
STOP_TIMEOUT = 15.0  # seconds for a process to end after its signal


@dataclass(frozen=True)
class Fleet:
    """The nodes of one definition file."""

    name: str
    nodes: tuple[Node, ...]
    definition: Mapping[str, Any]

    @classmethod
    def load(cls, name: str, path: Optional[Path] = None) -> Fleet:
        """Load a fleet's ``platforms``. Raises RigError if they do not form one network."""
        source = path or FLEETS / f"{name}.yml"
        try:
            definition = {"platforms": yaml.safe_load(source.read_text())["platforms"]}
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise RigError(f"fleet {name}: {source} has no list of platforms ({error})") from error
        nodes = tuple(Node.parse(name, entry) for entry in definition["platforms"])
        if len({node.gateway for node in nodes}) != 1:
            raise RigError(f"fleet {name}: its nodes' addresses have to share one /24 network")
        return cls(name, nodes, definition)

    @property
    def has_machines(self) -> bool:
        """Whether some of the nodes are virtual machines."""
        return any(node.is_machine for node in self.nodes)

    @property
    def containers(self) -> list[Node]:
        """The nodes that are containers."""
        return [node for node in self.nodes if not node.is_machine]

    @property
    def machines(self) -> list[Machine]:
        """The nodes that are virtual machines, while the fleet is up."""
        layers = self.state().get("layers", {})
        return [
            Machine(node, Path(layers[node.name][0]))
            for node in self.nodes
            if layers.get(node.name) and node.is_machine
        ]

    @property
    def folder(self) -> Path:
        """Folder with everything of the running fleet."""
        return cache.RUN / self.name

    @property
    def gateway(self) -> str:
        """This machine's address on the fleet's network."""
        return self.nodes[0].gateway

    @property
    def bridge(self) -> str:
        """Name of the fleet's bridge, unique by the third number of its addresses."""
        return f"xpu{self.gateway.split('.')[2]}"

    @property
    def state_file(self) -> Path:
        """The running fleet's record, for later runs of the rig."""
        return self.folder / "state.json"

    def state(self) -> dict[str, Any]:
        """Return the content of the state file; {} if it does not exist."""
        with contextlib.suppress(OSError, ValueError):
            loaded: dict[str, Any] = json.loads(self.state_file.read_text())
            return loaded
        return {}

    # -- up ---------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start every node, reachable over SSH and served by the mirror; changes nothing if all runs already."""
        with cache.lock(f"fleet-{self.name}"):
            self._refuse_shared_network()
            self.refresh()
            state = self.state()
            if state.get("definition") != self.definition or state.get("layers") != self._layers():
                self._take_down()
            elif self.running():
                say(f"fleet {self.name} is up")
                return
            self._clear_leftovers()
            self._prepare()
            self._launch()
            for host in self.machines:
                self._power_on(host)
            self._wait()

    def refresh(self) -> None:
        """Rebuild the mirror's content from the stacks' present data; a running mirror continues with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mounts = contents.mounts(self.nodes)
        write(self.folder / "mirror.json.new", json.dumps(mounts, indent=1))
        (self.folder / "mirror.json.new").rename(self.folder / "mirror.json")
        facts = {
            "mirror": self.nodes[0].mirror,
            "fingerprint": repository.fingerprint(),
            "ssh_key": str(ssh_key()),
            "ssh_user": USER,
            "known_hosts": str(self.folder / "known_hosts"),
            "nodes": {node.name: node.address for node in self.nodes},
            **contents.facts(self.nodes),
        }
        write(self.folder / "facts.json", json.dumps(facts, indent=1))
        state = self.state()
        if state:
            self._write_state({**state, "artifacts": self._artifacts()})

    def mounts(self) -> mirror.Mounts:
        """Return the mirror's content."""
        mounts: mirror.Mounts = json.loads((self.folder / "mirror.json").read_text())
        return mounts

    def _layers(self) -> dict[str, list[str]]:
        return {
            node.name: [str(path) for path in ([golden.golden()] if node.is_machine else node.layers())]
            for node in self.nodes
        }

    def _artifacts(self) -> list[str]:
        paths = [Path(path) for paths in (*self.mounts().values(), *self._layers().values()) for path in paths]
        # Another node's disk is no artifact.
        kept = [path for path in paths if path.is_relative_to(cache.ARTIFACTS)]
        names = {path.relative_to(cache.ARTIFACTS).parts[0] for path in kept}
        return sorted(str(cache.ARTIFACTS / name) for name in names)

    def _write_state(self, state: Mapping[str, Any]) -> None:
        partial = self.state_file.with_suffix(".new")
        write(partial, json.dumps(state, indent=1))
        partial.rename(self.state_file)

    def _prepare(self) -> None:
        say(f"fleet {self.name}: {', '.join(f'{node.name} ({node.userland.name})' for node in self.nodes)}")
        self._write_state({"definition": self.definition, "layers": self._layers(), "artifacts": self._artifacts()})
        NSPAWN_RUNTIME.mkdir(parents=True, exist_ok=True)
        run(["ip", "link", "add", self.bridge, "type", "bridge"])
        run(["ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        for index, node in enumerate(self.containers):
            node.mount()
            if not node.configured.exists():
                node.configure(self._files(node))
            node.connect(self.bridge, index)
        for host in self.machines:
            host.connect(self.bridge)
        known = "".join(f"{node.address} {node.public_host_key()}" for node in self.nodes)
        write(self.folder / "known_hosts", known)

    def _refuse_shared_network(self) -> None:
        """Raise RigError if another fleet has this network: taking its bridge would disconnect its nodes."""
        for other in fleets():
            if other.name != self.name and other.gateway == self.gateway:
                raise RigError(
                    f"fleet {self.name}: fleet {other.name} is on network {self.gateway}/24; take it down "
                    f"(python3 -m rig down --fleet {other.name}) or give one of them other addresses"
                )

    def _files(self, node: Node) -> dict[str, File]:
        keyring = (repository.sign_key() / "public.gpg").read_bytes()
        return node.files(contents.sources(node), keyring, ssh_key().with_suffix(".pub").read_text())

    def _power_on(self, host: Machine) -> None:
        """Make a new machine; an existing one boots from its disk as it was."""
        if host.node.configured.exists():
            host.start()
        else:
            host.create(self._files(host.node))

    def _launch(self) -> None:
        """Start the supervisor, detached from this process and its terminal."""
        with (self.folder / "supervisor.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "rig", "supervise", "--fleet", self.name],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + (machine.BOOT_TIMEOUT if self.has_machines else BOOT_TIMEOUT)
        for node in self.nodes:
            while not answers(node.address, 22):
                if time.monotonic() > deadline:
                    raise RigError(f"{node.name} did not answer over SSH; see {node.folder}/console.log")
                time.sleep(0.1)  # an SSH server that is not up tells nobody when it is
            say(f"{node.name} answers at {node.address}")

    # -- supervise --------------------------------------------------------------------------------------------------

    def supervise(self) -> None:
        """Run the nodes and the mirror until a signal ends them; restarts a node that reboots."""
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stopping.set())
        self._write_state({**self.state(), "supervisor": os.getpid(), "started": process_start(os.getpid())})
        shared = Path(self.mounts().get("/models", ["/"])[0])
        processes = {node: node.start(shared) for node in self.containers}
        server = mirror.serve(self.gateway, MIRROR_PORT, mirror.MountFile(self.folder / "mirror.json"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while not stopping.wait(0.2):
            for node, process in processes.items():
                if process.poll() == REBOOT:
                    say(f"{node.name} reboots")
                    processes[node] = node.start(shared)
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))

    def running(self) -> bool:
        """Tell whether this fleet's supervisor is alive and every node answers over SSH."""
        return self._supervisor() is not None and all(answers(node.address, 22) for node in self.nodes)

    def _supervisor(self) -> Optional[int]:
        """Return the supervisor's process id, None if it ended or another process has that id."""
        state = self.state()
        pid = state.get("supervisor")
        return pid if pid and process_start(pid) == state.get("started") else None

    # -- down -------------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Stop the fleet and remove all of it: processes, mounts, network, files."""
        with cache.lock(f"fleet-{self.name}"):
            self._take_down()
            cache.remove(self.folder)
            say(f"fleet {self.name} is down")

    def keep(self, name: str) -> Path:
        """Stop the fleet, but keep a container's written files as the start of nodes of this fleet's name."""
        disk = self.folder / "disk"
        with cache.lock(f"fleet-{self.name}"):
            self._clear_leftovers()
            cache.remove(disk)
            (self.folder / "nodes" / name / "upper").rename(disk)
            self._take_down()
        return disk

    def _take_down(self) -> None:
        self._clear_leftovers()
        cache.remove(self.folder / "nodes")
        self.state_file.unlink(missing_ok=True)

    def _clear_leftovers(self) -> None:
        """Remove processes, mounts and interfaces of this fleet left by an earlier run; its files stay."""
        pid = self._supervisor()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            while process_start(pid) is not None and time.monotonic() < deadline:
                time.sleep(0.05)  # it is no child of this process, which could be waited for
        for folder in (self.folder / "nodes").glob("*"):
            machine.end(folder)
        for group in cgroup_roots():
            empty_cgroup(group / "xpu-fleet" / self.name)
        names = {node.name for node in self.nodes}
        names |= {path.name for path in (self.folder / "nodes").glob("*")}
        for name in sorted(names):
            unmount(self.folder / "nodes" / name / "root")
        prefix = f"xpu-{self.name}-"
        for line in run(["ip", "netns", "list"]).splitlines():
            namespace = line.split()[0]
            if namespace.startswith(prefix) and namespace.removeprefix(prefix) in names:
                run(["ip", "netns", "delete", namespace], check=False)
        ports = [path.name for path in Path("/sys/class/net").glob(f"{self.bridge}{machine.TAP}[0-9]*")]
        for link in (*ports, self.bridge):
            run(["ip", "link", "delete", link], check=False)


def fleets() -> Iterator[Fleet]:
    """Yield the fleets that are up, or half up after a crash."""
    for state_file in sorted(cache.RUN.glob("*/state.json")):
        name = state_file.parent.name
        definition = json.loads(state_file.read_text())["definition"]
        yield Fleet(name, tuple(Node.parse(name, entry) for entry in definition["platforms"]), definition)


def find(name: str) -> Fleet:
    """Return a fleet that is up by its name. Raises RigError if there is none."""
    for fleet in fleets():
        if fleet.name == name:
            return fleet
    raise RigError(f"no fleet {name} is up")


def ssh_key() -> Path:
    """Return the private key for every test host, made at its first use."""
    key = cache.KEYS / "id_ed25519"
    if not key.exists():
        with cache.lock("ssh-key"):
            if not key.exists():
                cache.KEYS.mkdir(parents=True, exist_ok=True, mode=0o700)
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "xpu-fleet-rig", "-f", str(key)])
    return key


def answers(address: str, port: int) -> bool:
    """Tell whether an SSH server answers at an address."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def process_start(pid: int) -> Optional[int]:
    """Return when a process started, in clock ticks since boot; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def empty_cgroup(group: Path) -> None:
    """Kill what still runs in a control group and its children, and remove them."""
    if not group.exists():
        return
    deadline = time.monotonic() + STOP_TIMEOUT
    while time.monotonic() < deadline:
        pids = [int(pid) for path in group.rglob("cgroup.procs") for pid in path.read_text().split()]
        pids = [pid for pid in pids if pid > 0]
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)  # they are no children of this process, and may have begun others meanwhile
    folders = [path for path in group.rglob("*") if path.is_dir()]
    for path in (*sorted(folders, key=lambda path: -len(path.parts)), group):
        # A process with many threads leaves the list before its last thread has ended.
        while path.exists():
            try:
                path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    with contextlib.suppress(OSError):
        group.parent.rmdir()
