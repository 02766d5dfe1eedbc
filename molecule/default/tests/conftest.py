"""Shared parts of the default scenario's tests: the stack's data, and a client outside of the node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
#: The expected stack of each node; the scenario's inventory gives only mirrors and a device.
STACK_OF_NODE = {
    "arc": "arc-647",
    "native": "native",
    "arcb": "native",
    "flex": "datacenter-2523",
    "cpu": "cpu",
}


@pytest.fixture(scope="module")
def node(host: Any) -> str:
    """The inventory name of the host under test."""
    return str(host.backend.get_pytest_id().split("://")[-1])


@pytest.fixture(scope="module")
def stack(node: str) -> dict[str, Any]:
    """The data of the node's stack, as an operator reads it."""
    path = ROOT / "roles/stack/vars" / f"{STACK_OF_NODE[node]}.yml"
    definition: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["stack_definition"]
    return definition


@dataclass(frozen=True)
class ServiceClient:
    """A plain HTTP client of one node's service, with its key, if there is one."""

    url: str
    key: str = ""

    def get(self, path: str) -> tuple[int, Any]:
        """Status and decoded body."""
        return self._send(urllib.request.Request(self.url + path, headers=self._headers()))

    def answers(self, path: str) -> bool:
        """Whether the service answers without a refusal."""
        try:
            return self.get(path)[0] == 200
        except OSError:
            return False

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and decoded body; a body of bytes is sent unchanged."""
        return self._send(self._request(path, body))

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """The events of a streamed answer as they come; the last is the string [DONE]."""
        with urllib.request.urlopen(self._request(path, {**body, "stream": True}), timeout=120) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response:
                if line.startswith(b"data: "):
                    data = line[6:].decode().strip()
                    yield data if data == "[DONE]" else json.loads(data)

    def _request(self, path: str, body: Any) -> urllib.request.Request:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {**self._headers(), "content-type": "application/json"}
        return urllib.request.Request(self.url + path, data=data, headers=headers)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def _send(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, body = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        return status, json.loads(body) if body else None


@pytest.fixture(scope="module")
def client(host: Any) -> ServiceClient:
    """A client on the controller, outside the node."""
    variables = host.ansible.get_variables()
    url = f"http://{variables['ansible_host']}:{variables.get('inference_port', 8000)}"
    return ServiceClient(url, *variables.get("inference_api_keys", [])[:1])


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, at most as long as a node on shared processors may take."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)  # conditions are asked of a node, which tells nobody when they change


@dataclass(frozen=True)
class Run:
    """The output of a playbook run."""

    status: int
    output: str

    @property
    def changed(self) -> int:
        """Sum of changed= over the recap; -1 without a recap."""
        counts = [int(part.split("=")[1]) for part in self.output.split() if part.startswith("changed=")]
        return sum(counts) if counts else -1

    @property
    def roles(self) -> set[str]:
        """The roles that ran, beyond stating their expectation."""
        begins = r"^TASK \[xpu\.fleet\.(\w+) : Validating arguments against arg spec 'main'"
        return set(re.findall(begins, self.output, re.MULTILINE))


Play = Callable[..., Run]


def play(playbook: str, node: str, inventory: str = "") -> Play:
    """Return a function that runs a playbook on a node with extra variables and options; "": the scenario inventory."""

    def run(variables: dict[str, Any] | None = None, *options: str) -> Run:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--inventory",
            inventory or os.environ["MOLECULE_INVENTORY_FILE"],
            "--limit",
            node,
            "--extra-vars",
            json.dumps(variables or {}),
            *options,
            playbook,
        ]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        return Run(done.returncode, done.stdout + done.stderr)

    return run


@pytest.fixture(scope="module")
def site_with() -> Callable[[Path], Play]:
    """Run site.yml on the hosts of another inventory."""
    return lambda inventory: play("site.yml", "all", str(inventory))


@pytest.fixture(scope="module")
def site(node: str) -> Play:
    """Run site.yml on the node."""
    return play("site.yml", node)


@pytest.fixture(scope="module")
def rollback(node: str) -> Play:
    """Run rollback.yml on the node."""
    return play("playbooks/rollback.yml", node)


@pytest.fixture(scope="module")
def audit_of(node: str) -> Play:
    """Run audit.yml on the node."""
    return play("playbooks/audit.yml", node)


@pytest.fixture
def audited(audit_of: Play, tmp_path: Path) -> Callable[..., tuple[Run, dict[str, Any]]]:
    """Run audit.yml on the node, with more variables; the output, and the node's layers."""

    def run(**variables: Any) -> tuple[Run, dict[str, Any]]:
        said = audit_of({"xpu_audit_json": str(tmp_path / "audit.json"), **variables})
        report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
        (node,) = report["nodes"].values()
        return said, node["layers"]

    return run


@pytest.fixture
def layers(audited: Callable[..., tuple[Run, dict[str, Any]]]) -> Callable[[], dict[str, Any]]:
    """Audit the node; its layers."""
    return lambda: audited()[1]
