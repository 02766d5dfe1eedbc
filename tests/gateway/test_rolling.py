"""upgrade.yml before HAProxy: its own plays and modules, with stubs for what looks at nodes and changes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.plugin_utils.controller import owner
from fleet.controller import Controller

from tests.gateway.door import ROOT, Door, gateway
from tests.gateway.engines import Engine

STREAM = {"messages": [{"role": "user", "content": "a"}], "stream": True}
#: In the place of the roles, and of looking at nodes.
STUBS: dict[str, list[dict[str, Any]]] = {
    "fleet": [
        {"name": "Look", "ansible.builtin.set_fact": {"audit_report": {"nodes": {}, "status": "ok"}}, "run_once": True},
        {
            "name": "See",
            "ansible.builtin.set_fact": {
                "xpu_audit": {"layers": {}},
                "xpu_due": "{{ ['service'] if due | default(true) | bool else [] }}",
            },
        },
    ],
    "provision": [{"name": "Change it", "ansible.builtin.debug": {"msg": "for {{ inference_queue_requests }}"}}],
    "audit": [
        {"name": "Prove it", "ansible.builtin.fail": {"msg": "no answer"}, "when": "bad | default(false) | bool"},
        {"name": "Say so", "ansible.builtin.set_fact": {"audit_found": {"layers": {}}}},
    ],
}
#: Of the tasks that choose, those that need no role.
CHOOSING = ("Read which", "Set whether", "Report why", "Set the group")


class Instance(Engine):
    """An instance whose agent looks for its file, as the service's does."""

    def __init__(self, number: int, place: Path) -> None:
        self._file = place / f"drain-{number}"
        super().__init__(str(number))

    @property
    def agent(self) -> str:
        """What it says now."""
        return "drain" if self._file.exists() else "ready up 100%"

    @agent.setter
    def agent(self, _value: str) -> None:
        """Nothing else is said."""


class Run(Controller):
    """A run of upgrade.yml that goes on."""

    def __init__(self, place: Path, *arguments: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        environment |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        command = ["ansible-playbook", "-i", str(place / "hosts.json"), str(place / "upgrade.yml"), *arguments]
        super().__init__(command, environment, Path.cwd())


class Node:
    """A node of two instances behind one gateway or two."""

    def __init__(self, place: Path, instances: list[Instance], doors: list[Door]) -> None:
        self.place, self.instances, self.doors, self.door = place, instances, doors, doors[0]
        self.locks = [place / f"lock-{door.place.name}" for door in doors]
        self.lock = self.locks[0]
        self.runs: list[Run] = []
        self._copy()

    def _copy(self) -> None:
        """Copy what is tried; its modules keep their files in the test's folder."""
        ports = re.findall(r"server node-\d 127.0.0.1:(\d+)", (self.door.place / "haproxy.cfg").read_text())
        # The gateways are this machine: what is delegated to one of them finds its own files by its name.
        own = {
            "xpu.fleet.service_drain": {"directory": str(self.place / "drained")},
            "xpu.fleet.fleet_lock": {"file": f"{self.place}/lock-{{{{ item.key | default(item) }}}}"},
            "xpu.fleet.gateway_servers": {"socket": f"{self.place}/{{{{ item }}}}/admin.sock"},
        }
        plays = yaml.safe_load((ROOT / "playbooks/upgrade.yml").read_text())
        (self.place / "upgrade.yml").write_text(yaml.safe_dump([{**play, "module_defaults": own} for play in plays]))
        shutil.copytree(ROOT / "playbooks/vars", self.place / "vars")
        (self.place / "tasks").mkdir()
        tasks = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "playbooks/tasks").glob("upgrade_*")}
        tasks["proof"] = yaml.safe_load((ROOT / "playbooks/tasks/proof.yml").read_text())
        # A playbook of that name is beside it: tasks/audit.yml is not to be confused with it.
        shutil.copy(ROOT / "playbooks/audit.yml", self.place)
        tasks["upgrade_choose"] = [task for task in tasks["upgrade_choose"] if task["name"].startswith(CHOOSING)]
        assert len(tasks["upgrade_choose"]) == len(CHOOSING)
        for name, listed in (tasks | STUBS).items():
            text = yaml.safe_dump([{**task, "tags": ["always"]} for task in listed])
            for here, there in (("/var/lib/xpu-fleet", str(self.place)), ("owner: root", ""), ("group: root", "")):
                text = text.replace(here, there)
            (self.place / f"tasks/{name}.yml").write_text(text)
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_become": False,
            "xpu_upgrade_confirmed": True,
            "inference_queue_requests": 2,
            "inference_endpoints": {
                "model": "m",
                "instances": 2,
                "urls": [f"http://127.0.0.1:{port}" for port in ports],
            },
        }
        gateways: dict[str, Any] = {"hosts": {door.place.name: {} for door in self.doors}}
        hosts = {"all": {"vars": variables, "hosts": {"node": {}}, "children": {"gateways": gateways}}}
        (self.place / "hosts.json").write_text(json.dumps(hosts))

    def upgrade(self, *arguments: str) -> Run:
        """Begin a rolling change."""
        self.runs.append(Run(self.place, *arguments))
        return self.runs[-1]

    def statuses(self) -> set[str]:
        """What the gateways think of its instances."""
        return {status.partition(" ")[0] for door in self.doors for status, _weight in door.states().values()}


@pytest.fixture(params=[1])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "drained").mkdir()
    instances = [Instance(number, tmp_path / "drained") for number in range(2)]
    with ExitStack() as stack:
        doors = []
        for number in range(request.param):
            place = tmp_path / f"door{number + 1}"
            place.mkdir()
            doors.append(stack.enter_context(gateway(place, instances)))
        one = Node(tmp_path, instances, doors)
        yield one
        for run in one.runs:
            run.kill()


@pytest.mark.parametrize("node", [1, 2], indirect=True)
def test_a_node_is_changed_when_its_answers_have_ended_and_then_serves(node: Node) -> None:
    for instance in node.instances:
        instance.may_go_on.clear()
    answers = [door.ask(STREAM) for door in node.doors]
    run = node.upgrade()
    run.comes_to("Wait until the gateways send it nothing")
    node.door.until(lambda _states: node.statuses() == {"DRAIN"})
    assert "Ensure the layers are in order" not in run.output
    assert [json.loads(lock.read_text())["process"] for lock in node.locks] == [str(run._process.pid)] * len(node.doors)
    for instance in node.instances:
        instance.may_go_on.set()
    assert all(answer.rest().endswith("[DONE]\n\n") for answer in answers)
    assert run.end() == 0, run.output
    assert "for 2" in run.output and "node: done" in run.output and node.statuses() == {"UP"}
    assert not any(lock.exists() for lock in node.locks)


@pytest.mark.parametrize("node", [2], indirect=True)
def test_a_node_is_not_changed_while_a_gateway_cannot_be_told(node: Node) -> None:
    node.doors[1].process.kill()
    (node.doors[1].place / "admin.sock").unlink()
    run = node.upgrade("-e", "xpu_upgrade_drain_timeout=2")
    assert run.end() == 2
    said = " ".join(run.output.split())
    assert "node: failed, it serves as before: Wait until the gateways send it nothing" in said and "for 2" not in said
    node.door.until(lambda states: all(status == "UP" for status, _weight in states.values()))


def test_a_run_without_a_change_removes_the_lock_of_an_interrupted_one(node: Node) -> None:
    # A process of that number began at another time.
    node.lock.write_text(json.dumps({**owner("new driver", os.getpid()), "started": "1"}))
    run = node.upgrade("-e", "due=false")
    assert run.end() == 0, run.output
    assert "The lock of an interrupted run is removed" in run.output and not node.lock.exists(), run.output
    node.lock.write_text(json.dumps(owner("new driver", os.getpid())))
    run = node.upgrade("-e", "due=false")
    assert run.end() == 0, run.output
    assert f"(process {os.getpid()}) changes this fleet since" in " ".join(run.output.split()) and node.lock.exists()


def test_a_node_that_fails_its_gate_stays_out_until_a_run_heals_it(node: Node) -> None:
    failed = node.upgrade("-e", "bad=true")
    assert failed.end() == 2
    assert "node: failed, it stays drained: Prove it: no answer" in " ".join(failed.output.split())
    assert node.statuses() == {"DRAIN"} and not node.lock.exists()
    said = json.loads((node.place / "drained/drain-1").read_text())
    assert said["failed"] and said["reason"] == "Prove it: no answer"
    healed = node.upgrade()
    assert healed.end() == 0, healed.output
    assert "first, already drained: node" in healed.output and "Prove it: no answer" in healed.output
    assert node.statuses() == {"UP"}


def test_a_second_controller_is_refused(node: Node) -> None:
    node.lock.write_text(json.dumps(owner("new driver", os.getpid())))
    run = node.upgrade()
    assert run.end() == 2
    said = " ".join(run.output.split())
    assert f"(process {os.getpid()}) changes this fleet since" in said and "xpu_upgrade_take_over=true" in said
    assert "Set the node as drained" not in said and node.statuses() == {"UP"} and node.lock.exists()


def test_a_run_that_was_killed_is_followed_by_one_that_finishes(node: Node) -> None:
    for instance in node.instances:
        instance.may_go_on.clear()
    answer = node.door.ask(STREAM)
    run = node.upgrade()
    run.comes_to("Wait until the gateways send it nothing")
    run.kill()
    for instance in node.instances:
        instance.may_go_on.set()
    assert answer.rest().endswith("[DONE]\n\n")
    following = node.upgrade()
    assert following.end() == 0, following.output
    assert "is taken over" in following.output and "node: done" in following.output
    assert node.statuses() == {"UP"} and not node.lock.exists()


def test_a_node_that_failed_goes_back_to_what_was_proven(node: Node) -> None:
    (node.place / "proven.json").write_text(json.dumps({"inference_queue_requests": 1}))
    for number in range(2):
        said = {"reason": "no answer", "owner": "alice", "since": "s", "failed": True}
        (node.place / f"drained/drain-{number}").write_text(json.dumps(said))
    run = node.upgrade("-e", "xpu_upgrade_back=true")
    assert run.end() == 0, run.output
    assert "for 1" in run.output and "node: done" in run.output and node.statuses() == {"UP"}


def test_a_node_without_a_record_of_proven_settings_is_named(node: Node) -> None:
    (node.place / "drained/drain-0").write_text(json.dumps({"reason": "r", "owner": "o", "since": "s", "failed": True}))
    run = node.upgrade("-e", "xpu_upgrade_back=true")
    assert run.end() == 2
    said = " ".join(run.output.split())
    assert "node has no proven settings to go back to:" in said and "proven.json is missing there" in said
    assert run.output.count("fatal: ") == 1
