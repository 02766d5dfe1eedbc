"""No module, action or log of a run shows an operator's secret, whatever its form."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import forms
from ansible_collections.xpu.fleet.tests.unit.plugins.support.hub import serve

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "collections"
#: The secrets, with characters that are escaped in each way that there is, and without.
TOKEN = "hf_Qw3rtZuiOpAsDfGh"
PASSWORD = "gE8eim-Wort%2Bx"

TOKENS = {
    "line end": f"{TOKEN}\n",
    "Windows line end": f"{TOKEN}\r\n",
    "quotes": f'"{TOKEN}"',
    "Bearer": f"Bearer {TOKEN}",
    "two lines": f"{TOKEN}\nsecond",
    "blank": f"{TOKEN} second",
    "zero byte": f"{TOKEN}\0",
    "not ASCII": f"{TOKEN}\u00fc\u200b",
    "escaped line end": f"{TOKEN}\\n",
    "quotes and backslash": f'{TOKEN}"\\second',
}
PROXIES = {
    "whole": f"http://user:{PASSWORD}@127.0.0.1:9",
    "line end": f"http://user:{PASSWORD}@127.0.0.1:9\n",
    "no scheme": f"user:{PASSWORD}@127.0.0.1:9",
    "slash": f"http://user:/{PASSWORD}@127.0.0.1:9",
    "number sign": f"http://user:#{PASSWORD}@127.0.0.1:9",
    "at sign": f"http://user:{PASSWORD}@second@127.0.0.1:9",
    "no number": f"http://user:{PASSWORD}@127.0.0.1:port",
    "bracket": f"http://user:{PASSWORD}@[::1",
    "user alone": f"http://{PASSWORD}@127.0.0.1:9",
    "quotes": f"'http://user:{PASSWORD}@127.0.0.1:9'",
}
#: pip asks once.
QUICK = {"PIP_RETRIES": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
URL = f"http://user:{PASSWORD}@127.0.0.1:9/simple"
KEY = "0123456789ABCDEF0123456789ABCDEF01234567"


def repository(url: str) -> dict[str, Any]:
    return {
        "name": "a", "uris": [url], "suites": ["a"], "components": ["a"], "architectures": ["amd64"], "key_url": url,
        "fingerprints": [KEY], "keyring": "/nonexistent/a.gpg", "sources": "/nonexistent/a.sources", "superseded": [],
    }  # fmt: skip


def calls(  # noqa: PLR0917 - one for each thing that differs
    place: str, token: str, proxy: str, url: str, hub: str, service: str = "http://127.0.0.1:9"
) -> dict[str, list[dict[str, Any]]]:
    """How to give its secrets to every module that takes one: in options of their own, and in URLs."""
    model: dict[str, Any] = {"name": "m", "directory": f"{place}/m", "formats": ["safetensors"]}
    source = {"kind": "huggingface", "location": "owner/model", "revision": "main"}
    wheel = {"kind": "wheel", "location": "a==1", "sha256": "0" * 64}
    environment = {"directory": f"{place}/venv", "interpreter": sys.executable, "requirements": "a==1"}
    audited = {
        "service": {
            "template": "xpuserve", "instances": ["0"], "inputs": [], "urls": [service],
            "prompt": {"model": "m", "text": "x", "expected": "x"},
        }
    }  # fmt: skip
    return {
        "model_files": [
            {**model, "source": source, "endpoint": hub, "token": token},
            {**model, "source": source, "endpoint": hub, "proxy": proxy},
            {**model, "source": source, "endpoint": url},
            {
                **model,
                "source": wheel,
                "formats": ["gguf"],
                "python": sys.executable,
                "index_url": url,
                "find_links": [url],
            },
        ],
        "apt_keyring": [{"url": url, "fingerprints": [KEY], "dest": f"{place}/a.gpg", "proxy": proxy, "force": True}],
        "apt_pins": [{"packages": {"xpu-nothing": "1"}, "repositories": [repository(url)], "proxy": proxy}],
        "kernel_candidate": [{"at_least": "999.0", "metapackage": "linux-generic", "proxy": proxy}],
        "python_environment": [{**environment, "proxy": proxy, "index_url": url, "find_links": [url]}],
        "reachable": [{"sources": [url], "purpose": "a", "advice": "b", "proxy": proxy}],
        "service_drain": [{"instances": ["0"], "urls": [service], "api_key": token}],
        "node_audit": [{"expected": audited, "layers": ["service"], "api_key": token}],
    }


def shown(output: str) -> list[str]:
    """The forms of the secrets that an output has."""
    return sorted(form for secret in (TOKEN, PASSWORD) for form in forms(secret) if form in output)


def test_every_module_that_takes_a_secret_is_among_them() -> None:
    takers = {path.stem for path in (ROOT / "plugins/modules").glob("*.py") if '"no_log": True' in path.read_text()}
    assert takers == set(calls("", "", "", "", ""))


@contextmanager
def refusing_service() -> Iterator[str]:
    """A service that is ready, and refuses every key; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(200 if self.command == "GET" else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def output_of(module: str, arguments: dict[str, Any], *, check: bool = False) -> str:
    """Everything that a module's process says."""
    name = f"ansible_collections.xpu.fleet.plugins.modules.{module}"
    private = {"_ansible_verbosity": 4, "_ansible_diff": True, "_ansible_check_mode": check}
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {**private, **arguments}})
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")} | QUICK
    done = subprocess.run(
        [sys.executable, "-B", "-m", name], input=given, env={**environment, "PYTHONPATH": str(COLLECTIONS)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert '"invocation"' in done.stdout, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("case", TOKENS)
def test_no_module_shows_a_token(case: str, tmp_path: Path) -> None:
    with serve() as hub, refusing_service() as service:
        hub.token = TOKEN
        given = calls(str(tmp_path), TOKENS[case], "", "http://127.0.0.1:9", hub.url, service)
        for arguments, module in ((given["model_files"][0], "model_files"), (given["node_audit"][0], "node_audit")):
            assert shown(output_of(module, arguments)) == [], module


@pytest.mark.parametrize("case", PROXIES)
def test_no_module_shows_a_proxys_password(case: str, tmp_path: Path) -> None:
    for module, variants in calls(str(tmp_path), "", PROXIES[case], "http://127.0.0.1:9", "http://127.0.0.1:9").items():
        for arguments in variants:
            if "proxy" in arguments:
                assert shown(output_of(module, arguments, check=module == "python_environment")) == [], module


@pytest.mark.parametrize("url", [URL, f"http://{PASSWORD}@127.0.0.1:9/simple", f"http://u:{PASSWORD}@127.0.0.1:port/x"])
def test_no_module_shows_the_password_of_a_url(url: str, tmp_path: Path) -> None:
    for module, variants in calls(str(tmp_path), "", "", url, "http://127.0.0.1:9").items():
        for arguments in variants:
            if url in json.dumps(arguments):
                building = module == "python_environment" and url != URL
                assert shown(output_of(module, arguments, check=building)) == [], module


def test_no_command_line_shows_a_password(tmp_path: Path) -> None:
    python, seen = tmp_path / "python", tmp_path / "seen"
    python.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nfor last; do :; done\nls -l "$last" >>{seen}\nexit 1\n')
    python.chmod(0o755)
    variant = calls(str(tmp_path), "", "", URL, "")["model_files"][3]
    output_of("model_files", {**variant, "python": str(python)})
    said = seen.read_text()
    assert "pip download" in said and shown(said) == [] and "127.0.0.1" not in said
    assert re.search(r"^-rw------- ", said, re.MULTILINE)


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Call a module
      ansible.builtin.include_tasks: call.yml
      loop: "{{ calls }}"
      loop_control: {label: one}
    - name: Check types
      xpu.fleet.variable_types:
        roles: [model, inference, python_runtime, graphics_repository, oneapi, stack]
      ignore_errors: true
"""


def test_a_run_at_its_most_talkative_shows_no_secret(tmp_path: Path) -> None:
    """Secrets come from a file of variables, as they do from a vault."""
    (tmp_path / "play.yml").write_text(PLAY)
    with serve() as hub, refusing_service() as service:
        hub.token = TOKEN
        given = calls(str(tmp_path), f"{TOKEN}\r\n", f"http://user:{PASSWORD}@127.0.0.1:port", URL, hub.url, service)
        listed = [{"module": module, "arguments": one} for module, variants in given.items() for one in variants]
        text = "".join(
            f"- name: Call {module}\n  xpu.fleet.{module}: '{{{{ item.arguments }}}}'\n"
            f"  when: item.module == '{module}'\n  ignore_errors: true\n"
            for module in given
        )
        (tmp_path / "call.yml").write_text(text)
        variables = {
            "calls": listed, "model_token": [TOKEN], "inference_api_keys": [[TOKEN], {"key": TOKEN}],
            "model_proxy": {"url": PROXIES["whole"]}, "graphics_repository_proxy": [PROXIES["whole"]],
            "xpu_proxy": [PROXIES["whole"]], "python_runtime_proxy": [PASSWORD], "oneapi_proxy": [PASSWORD],
        }  # fmt: skip
        (tmp_path / "secrets.json").write_text(json.dumps(variables))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")} | QUICK
        environment |= {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")), "-vvvv", "--diff", "-i", "localhost,",
                "-c", "local", "-e", f"@{tmp_path}/secrets.json",
                "-e", f"ansible_python_interpreter={sys.executable}", "play.yml",
            ],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    output = done.stdout + done.stderr
    assert "model_token must be a string" in output, output[-3000:]
    # The audit's own action passes on nothing but findings.
    assert output.count('"invocation"') >= len(listed) - 1, output[-3000:]
    assert shown(output) == [], [line for line in output.splitlines() if shown(line)][:5]
