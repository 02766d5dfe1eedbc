"""What site.yml costs: wall time, the controller's CPU, modules and SSH connections per node (`make bench-fleet`).

Nodes are containers of the test rig with stack `cpu`. Fresh ones are provisioned from nothing. The converged ones are
copies: they start from the disk that one fresh node has written. A converged node is one however it became so; a copy
that a run finds anything to change on ends the benchmark. No copy counts as fresh.

``ansible -m ping`` on the converged nodes is the least that a run can cost: a connection and a module for each node.

Every run begins without an SSH connection. Tasks are those that the recap counts, skipped ones too. Modules and
connections are counted in the nodes' journals, so what copying a file's content takes is not among the modules. CPU is
user and system time of Ansible and of what it waits for; what SSH's connections use after they have gone to the
background is not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from rig import host
from rig.fleet import Fleet
from rig.host import RigError
from rig.node import Node

ROOT = Path(__file__).resolve().parents[2]
FLEET = "bench"
NETWORK = "10.77.15"
FRESH, CONVERGED, PING = "fresh", "converged", "ping"
FORCED = ", forced"
HEAD = (
    "nodes",
    "run",
    "wall s",
    "CPU s",
    "tasks/node",
    "modules/node",
    "connections/node",
    "wall/forced",
    "CPU/forced",
)
#: Time limit in seconds for the services of all nodes to load their model.
LOADING = 600.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class BenchError(Exception):
    """The measured event did not happen; the message says what did."""


@dataclass(frozen=True)
class Cost:
    """Cost of one run, or the medians of several."""

    nodes: int
    run: str
    wall: float
    cpu: float
    #: Of the node with the most.
    tasks: int
    modules: int
    connections: int

    @property
    def forced(self) -> bool:
        """Whether every role ran."""
        return self.run.endswith(FORCED)


# -- counting -----------------------------------------------------------------------------------------------------


def counted(journal: str) -> tuple[int, int]:
    """Return the number of modules and SSH connections in a node's journal, without those of its reader."""
    modules = re.findall(r" ansible-\S+ Invoked with ", journal)
    connections = re.findall(r" sshd\S*\[\d+\]: Accepted publickey", journal)
    return len(modules), len(connections) - 1


def recap(output: str) -> dict[str, tuple[int, int]]:
    """Return a run's changes on each node, and its tasks. Raises BenchError without a recap, or after a failure."""
    pattern = r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+) +skipped=(\d+)"
    lines = re.findall(pattern, output, re.MULTILINE)
    if not lines or any(int(unreachable) or int(failed) for _, _, _, unreachable, failed, _ in lines):
        raise BenchError(f"the run failed:\n{output[-4000:]}")
    return {name: (int(changed), int(ok) + int(skipped)) for name, ok, changed, _, _, skipped in lines}


def pinged(output: str) -> dict[str, tuple[int, int]]:
    """Return the same for nodes that answered a ping, which is one task."""
    return dict.fromkeys(re.findall(r"^(\S+) \| SUCCESS", output, re.MULTILINE), (0, 1))


def median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of runs of one kind."""
    wall, cpu = (statistics.median(getattr(cost, name) for cost in costs) for name in ("wall", "cpu"))
    most = (max(getattr(cost, name) for cost in costs) for name in ("tasks", "modules", "connections"))
    return Cost(costs[0].nodes, costs[0].run, wall, cpu, *most)


# -- the table ----------------------------------------------------------------------------------------------------


def rows(costs: Sequence[Cost]) -> list[list[str]]:
    """Return the lines of the table; a dash stands for a missing measurement."""
    known = {(cost.nodes, cost.run): cost for cost in costs}
    table = []
    for cost in costs:
        forced = None if cost.forced else known.get((cost.nodes, cost.run + FORCED))
        ratios = [f"{cost.wall / forced.wall:.2f}", f"{cost.cpu / forced.cpu:.2f}"] if forced else ["-", "-"]
        counts = [str(cost.tasks), str(cost.modules), str(cost.connections)]
        figures = [f"{cost.wall:.1f}", f"{cost.cpu:.1f}", *counts]
        table.append([str(cost.nodes), cost.run, *figures, *ratios])
    return table


def text(costs: Sequence[Cost]) -> str:
    """Return the table for a terminal."""
    table = [list(HEAD), *rows(costs)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    return "\n".join("  ".join(word.rjust(width) for word, width in zip(row, widths)) for row in table)


def growth(costs: Sequence[Cost]) -> list[str]:
    """Return a line for each kind of run that compares the most nodes with the fewest."""
    said = []
    for run in dict.fromkeys(cost.run for cost in costs):
        of_kind = sorted((cost for cost in costs if cost.run == run), key=lambda cost: cost.nodes)
        few, many = of_kind[0], of_kind[-1]
        if many.nodes > few.nodes:
            ratios = f"{many.wall / few.wall:.2f} times the wall time, {many.cpu / few.cpu:.2f} times the CPU"
            said.append(f"{run}: {many.nodes} nodes take {ratios} of {few.nodes}")
    return said


def against_ping(costs: Sequence[Cost]) -> list[str]:
    """Return a line that compares the cost of each further converged node with a ping, if both were measured."""
    known = {(cost.nodes, cost.run): cost for cost in costs}
    both = sorted(nodes for nodes, run in known if run == PING and (nodes, CONVERGED) in known)
    if len(both) < 2:
        return []
    few, many = both[0], both[-1]

    def growth_of(run: str) -> tuple[float, float]:
        first, last = known[few, run], known[many, run]
        return (last.cpu - first.cpu) / (many - few), last.wall / first.wall

    (cpu, wall), (ping_cpu, ping_wall) = growth_of(CONVERGED), growth_of(PING)
    more = (
        f"a further converged node takes {cpu:.2f} s of CPU, {cpu / ping_cpu:.1f} times the {ping_cpu:.2f} s of a ping"
    )
    times = (
        f"{wall:.2f} times the wall time of {few}, {wall / ping_wall:.2f} times what it is for ping ({ping_wall:.2f})"
    )
    return [more, f"{many} converged nodes take {times}"]


def markdown(costs: Sequence[Cost], command: str, when: datetime, machine: str) -> str:
    """Return the table as a document that describes the measurement."""
    lines = [
        "# What site.yml costs",
        "",
        f"`{command}` on {when:%Y-%m-%d %H:%M} UTC, {machine}.",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{'--:|' * len(HEAD)}",
        *(f"| {' | '.join(row)} |" for row in rows(costs)),
        "",
        *(f"- {line}" for line in [*growth(costs), *against_ping(costs)]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def this_machine() -> str:
    """Return the machine's properties that the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    return f"{os.cpu_count()} processors ({model[1] if model else 'unknown'}), load {os.getloadavg()[0]:.1f} before"


# -- nodes --------------------------------------------------------------------------------------------------------


def fleet_of(count: int, disk: Optional[Path] = None) -> Fleet:
    """Return a fleet of that many nodes: bare, or with that disk."""
    platforms = [
        {"name": f"n{number}", "userland": "debian12", "address": f"{NETWORK}.{10 + number}"}
        | ({"disk": str(disk)} if disk else {})
        for number in range(1, count + 1)
    ]
    return Fleet(FLEET, tuple(Node.parse(FLEET, entry) for entry in platforms), {"platforms": platforms})


def inventory(fleet: Fleet) -> dict[str, Any]:
    """Return the inventory of a fleet, as an operator without internet would write it."""
    facts = json.loads((fleet.folder / "facts.json").read_text(encoding="utf-8"))
    variables = {
        "ansible_user": facts["ssh_user"],
        "ansible_ssh_private_key_file": facts["ssh_key"],
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={facts['known_hosts']} -o StrictHostKeyChecking=yes",
        "python_runtime_find_links": [f"{facts['mirror']}/wheels/"],
        "python_runtime_no_index": True,
        "xpu_serial": "100%",
        "inference_host": "0.0.0.0",  # noqa: S104 - the fleet's network leads nowhere
    }
    hosts = {name: {"ansible_host": address} for name, address in facts["nodes"].items()}
    return {"all": {"hosts": hosts, "vars": variables}}


def wait_for_services(fleet: Fleet) -> None:
    """Wait for every node's service: loading models would take the nodes' time during a run."""
    deadline = time.monotonic() + LOADING
    for node in fleet.nodes:
        while not _is_ready(node):
            if time.monotonic() > deadline:
                raise BenchError(f"the service of {node.name} has no model after {LOADING:.0f} s")
            time.sleep(0.2)


def _is_ready(node: Node) -> bool:
    with suppress(OSError), _OPENER.open(f"http://{node.address}:8000/ready", timeout=5):
        return True
    return False


class Journals:
    """The journals of a fleet's nodes from now on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._facts = json.loads((fleet.folder / "facts.json").read_text(encoding="utf-8"))
        said = {node: self._ask(node, "--lines 0 --show-cursor") for node in fleet.nodes}
        self._cursors = {node: text.rpartition("-- cursor: ")[2].strip() for node, text in said.items()}

    def counted(self) -> tuple[int, int]:
        """Return modules and connections of the node with the most."""
        counts = [
            counted(self._ask(node, f"--output short --after-cursor {shlex.quote(cursor)}"))
            for node, cursor in self._cursors.items()
        ]
        return max(modules for modules, _ in counts), max(connections for _, connections in counts)

    def _ask(self, node: Node, options: str) -> str:
        command = [
            *("ssh", "-q", "-i", self._facts["ssh_key"], "-o", f"UserKnownHostsFile={self._facts['known_hosts']}"),
            f"{self._facts['ssh_user']}@{node.address}",
            f"sudo journalctl --sync && sudo journalctl --no-pager {options}",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# -- runs ---------------------------------------------------------------------------------------------------------


def measure(fleet: Fleet, state: str, force: bool = False) -> Cost:
    """Run site.yml on a whole fleet, or ping it. Raises BenchError if it fails, or changes a converged node."""
    journals = Journals(fleet)
    with tempfile.TemporaryDirectory(prefix="xpu-") as place:
        hosts, log = Path(place, "hosts.yml"), Path(place, "log")
        hosts.write_text(json.dumps(inventory(fleet)), encoding="utf-8")
        site = ["ansible-playbook", "site.yml", "--extra-vars", json.dumps({"xpu_force": force})]
        program, *arguments = ["ansible", "all", "--module-name", "ping"] if state == PING else site
        command = [str(Path(sys.executable).with_name(program)), "--inventory", str(hosts), *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": place,
        }
        with log.open("wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said = log.read_text(encoding="utf-8", errors="replace")
        nodes = pinged(said) if state == PING else recap(said)
    if process.returncode or len(nodes) != len(fleet.nodes):
        raise BenchError(f"{program} ended with status {process.returncode} on {len(nodes)} nodes:\n{said[-4000:]}")
    if state == CONVERGED and any(changed for changed, _ in nodes.values()):
        raise BenchError(f"a converged node was changed: {nodes}")
    modules, connections = journals.counted()
    name = state + FORCED if force else state
    tasks = max(tasks for _, tasks in nodes.values())
    return Cost(len(fleet.nodes), name, wall, usage.ru_utime + usage.ru_stime, tasks, modules, connections)


def benchmark(nodes: Sequence[int], forced: Sequence[int], fresh: Sequence[int], repeat: int) -> list[Cost]:
    """Return the cost of all runs. Converged nodes are copies of the first node of the last fresh fleet."""
    costs = []
    for count in fresh:
        for force in (True, False):
            fleet = fleet_of(count)
            fleet.down()
            fleet.up()
            costs.append(_told(measure(fleet, FRESH, force)))
    disk = fleet.keep("n1")
    for count in nodes:
        fleet = fleet_of(count, disk)
        fleet.up()
        wait_for_services(fleet)
        runs = [(PING, False), (CONVERGED, False), *([(CONVERGED, True)] if count in forced else [])]
        for state, force in runs:
            costs.append(median([_told(measure(fleet, state, force)) for _ in range(repeat)]))
    return costs


def _told(cost: Cost) -> Cost:
    print(f"{cost.nodes} {cost.run}: {cost.wall:.1f} s, CPU {cost.cpu:.1f} s", file=sys.stderr, flush=True)
    return cost


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Return 0 with the table printed, 1 after a message that says why there is none."""
    options = parser().parse_args(arguments)
    machine = this_machine()
    try:
        host.require_root()
        host.require_tools(machines=False)
    except RigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        forced = options.nodes if options.forced is None else options.forced
        costs = benchmark(options.nodes, forced, options.fresh, options.repeat)
    except (BenchError, RigError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            fleet_of(1).down()
    print(text(costs), *growth(costs), *against_ping(costs), sep="\n")
    if options.markdown:
        given = sys.argv[1:] if arguments is None else arguments
        command = shlex.join(["make", "bench-fleet", *([f"BENCH={shlex.join(given)}"] if given else [])])
        said = markdown(costs, command, datetime.now(timezone.utc), machine)
        options.markdown.write_text(said, encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    top = argparse.ArgumentParser(description="Measure what site.yml costs on fresh and on converged nodes.")
    top.add_argument("--nodes", type=_counts, default=[1, 5, 20], help="numbers of converged nodes (1,5,20)")
    top.add_argument(
        "--forced", type=_counts_or_none, help="those of them to run with xpu_force, too (all; 0 for none)"
    )
    top.add_argument("--fresh", type=_counts, default=[1], help="numbers of fresh nodes, each minutes (1)")
    top.add_argument("--repeat", type=int, default=1, help="runs of each kind on converged nodes; medians are told")
    top.add_argument("--markdown", type=Path, help="file to write the table to, with date and command")
    top.add_argument("--keep", action="store_true", help="leave the last fleet up (python3 -m rig down --fleet bench)")
    return top


def _counts_or_none(text: str) -> list[int]:
    return [] if text == "0" else _counts(text)


def _counts(text: str) -> list[int]:
    counts = [int(word) for word in text.split(",") if word]
    if not counts or not all(0 < count <= 200 for count in counts):
        raise argparse.ArgumentTypeError("numbers from 1 to 200 are needed, with commas between them")
    return counts


if __name__ == "__main__":
    sys.exit(main())
