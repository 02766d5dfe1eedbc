"""HAProxy with the role's own template, and clients of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.gateway import keys, pools

from tests.gateway.engines import Engine, serving

ROOT = Path(__file__).resolve().parents[2]
KEY = "key-of-the-first-client"
OTHER_KEY = "key-of-the-other-client"
MODEL = "small"
#: The program under test; `make test-gateway` sets others than the machine's.
HAPROXY = os.environ.get("XPU_FLEET_HAPROXY", "haproxy")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def render(place: Path, variables: dict[str, Any], *more: str) -> None:
    """Write what role gateway writes, and ``more`` of its templates, into a directory of the test's own.

    The templates need nothing of Ansible's but to_json and bool; Jinja alone takes a thousandth of a playbook's time.
    """
    defaults = yaml.safe_load((ROOT / "roles/gateway/defaults/main.yml").read_text())
    known = yaml.safe_load((ROOT / "roles/gateway/vars/main.yml").read_text())
    values = {**defaults, **known, "__gateway_local": True, **variables}
    host = values["gateway_host"]
    values |= {
        "ansible_managed": "a test",
        "__gateway_settings": str(place),
        "__gateway_state": str(place),
        "__gateway_runtime": str(place),
        "__gateway_bind_host": f"[{host}]" if ":" in host else host,
        "__gateway_keys": keys(values["gateway_api_keys"]),
        "__gateway_pools": pools(values["instances"]),
    }
    loader = jinja2.FileSystemLoader(ROOT / "roles/gateway/templates")
    jinja = jinja2.Environment(  # noqa: S701 - no HTML
        loader=loader, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    jinja.filters |= {"to_json": json.dumps, "bool": bool, "xpu.fleet.as_list": list}
    for name in ("haproxy.cfg", "keys.map", "models.map", "models.json", *more):
        (place / name).write_text(jinja.get_template(f"{name}.j2").render(values))


class Door:
    """A gateway that runs."""

    def __init__(self, place: Path, port: int, metrics_port: int) -> None:
        self.place, self.port, self.metrics_port = place, port, metrics_port
        self.process = subprocess.Popen(
            [HAPROXY, "-W", "-f", str(place / "haproxy.cfg")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        self.news = threading.Condition()

    def ask(
        self, body: dict[str, Any] | None = None, *, key: str = KEY, path: str = "/v1/chat/completions"
    ) -> GatewayAnswer:
        """Send a request; the answer's body has not been read yet."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        text = None if body is None else json.dumps({"model": MODEL, **body})
        client.request("GET" if text is None else "POST", path, text, headers)
        return GatewayAnswer(client.getresponse())

    def says(self, wanted: Callable[[str], bool]) -> str:
        """Wait for such a line of the log."""
        with self.news:
            assert self.news.wait_for(lambda: any(map(wanted, self.log)), timeout=60), self.log
            return next(filter(wanted, self.log))

    def admin(self, command: str) -> str:
        """Ask HAProxy itself."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.place}/admin.sock")
            client.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def states(self) -> dict[str, tuple[str, int]]:
        """Status and weight of each instance."""
        rows = [line.split(",") for line in self.admin("show stat").splitlines() if line and not line.startswith("#")]
        return {row[1]: (row[17], int(row[18])) for row in rows if row[1].startswith("node-")}

    def reload(self) -> None:
        """Do what the unit's ExecReload does, and wait until the new process has the socket.

        In its first five seconds, HAProxy 2.6 and 2.8 pass no counters on to the next process, and 3.0 may miss the
        signal.
        """
        self.until(lambda _states: "resync_timeout=<PAST>" in self.admin("show peers"))
        keep = ROOT / "roles/gateway/files/keep_state.py"
        subprocess.run([sys.executable, "-I", keep, f"{self.place}/admin.sock", f"{self.place}/servers"], check=True)
        former = self._worker()
        self.process.send_signal(signal.SIGUSR2)
        self.until(lambda _states: self._worker() != former)

    def _worker(self) -> str:
        return next(line for line in self.admin("show info").splitlines() if line.startswith("Pid: "))

    def idle(self) -> None:
        """Wait until no instance has a request: one that has just been answered counts for a moment still."""
        self.until(lambda _states: all(line.split(",")[4] == "0" for line in self._servers()))

    def _servers(self) -> list[str]:
        return [line for line in self.admin("show stat").splitlines() if ",node-" in line]

    def until(self, wanted: Callable[[dict[str, tuple[str, int]]], bool]) -> None:
        """Wait until the instances are in such a state; HAProxy looks at them every second."""
        waited = threading.Event()
        for _ in range(600):
            if wanted(self.states()):
                return
            waited.wait(0.1)
        raise AssertionError(self.states())


class GatewayAnswer:
    """The head of an answer, and its body when it is asked for."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers

    def line(self) -> str:
        """The next line that is not empty."""
        return next((text for line in iter(self._response.readline, b"") if (text := line.decode().strip())), "")

    def rest(self) -> str:
        """All that is left; raises http.client.IncompleteRead where it was cut."""
        return self._response.read().decode()

    def json(self) -> Any:
        """The body of an answer that is whole."""
        return json.loads(self.rest())


@contextmanager
def gateway(
    place: Path,
    engines: Sequence[Engine],
    *,
    tls: ssl.SSLContext | None = None,
    text_models: Mapping[str, Mapping[str, str]] | None = None,
    **variables: Any,
) -> Iterator[Door]:
    """Run a gateway before these engines, which speak TLS where there is a context for it.

    Those that `text_models` names have models for texts.
    """
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(engine, tls)) for engine in engines]
        instances = {
            f"node-{number}": [
                {"name": f"node-{number}", "address": "127.0.0.1", "port": port, "agent_port": agent, "model": MODEL}
                | {"tls": tls is not None, "requests": variables.get("gateway_instance_requests", 16)}
                | {"text_models": (text_models or {}).get(engines[number].name, {})}
            ]
            for number, (port, agent) in enumerate(ports)
        }
        port, metrics_port = free_port(), free_port()
        settings = {
            "instances": instances,
            "gateway_port": port,
            "gateway_metrics_port": metrics_port,
            "gateway_tls": False,
            "gateway_check_interval": 1,
            "gateway_slow_start": 1,
            "gateway_connections": 1000,
            "gateway_api_keys": [f"first {KEY}", f"other:2 {OTHER_KEY}"],
            **variables,
        }
        render(place, settings)
        (place / "servers").touch()
        door = Door(place, port, metrics_port)
        process = door.process
        stack.callback(_end, process)

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                with door.news:
                    door.log.append(line)
                    door.news.notify_all()

        threading.Thread(target=read, daemon=True).start()
        waited = threading.Event()
        while not (place / "admin.sock").exists():
            assert process.poll() is None, door.log
            waited.wait(0.05)
        door.until(lambda states: len(states) == len(engines) and all(up.startswith("UP") for up, _ in states.values()))
        yield door


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(30)
