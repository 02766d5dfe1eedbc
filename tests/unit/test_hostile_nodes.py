"""Nodes whose Python returns arbitrary data: the audit of their fleet, and its output on the terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.action import model_files
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.plain import is_text
from ansible_collections.xpu.fleet.tests.unit.plugins.support.audit_fleet import HELD, drift, node

ROOT = Path(__file__).resolve().parents[2]
#: In the place of a node's Python: answers each module with a file, whatever it is asked.
INTERPRETER = """#!{python}
import pathlib, re, sys
asked = re.search(r"\\\\.modules\\\\.(\\\\w+)", sys.stdin.read())
sys.stdout.buffer.write((pathlib.Path(__file__).parent / (asked[1] + ".json")).read_bytes())
"""
ROW = "good  cpu  ok  ok  ok  ok  ok  ok  ok  ok  ok"
EVIL = f"\x1b[2J\x1b]0;owned\x07\x1b[8m\x9b31m\u202e\u200b\r{ROW}\n{ROW}\u2028{ROW}\n"
SYSTEM = {"distribution": "Ubuntu", "release": "22.04", "codename": "jammy", "kernel": "6.1", "architecture": "x86_64"}
GPUS: dict[str, Any] = {
    "gpus": [],
    "lent": [],
    "others": [],
    "families": [],
    "served": [],
    "container": True,
    "secure_boot": False,
}
SETUP = {
    "ansible_facts": {
        "ansible_distribution": "Ubuntu",
        "ansible_distribution_version": "22.04",
        "ansible_kernel": "6.1",
    }
}
SOUND = {"status": "ok", "layers": node()["layers"]}
WRONG = {
    "status": {**SOUND, "layers": node(kernel={"status": "evil"})["layers"]},
    "texts": {**SOUND, "layers": node(kernel=drift(HELD, dict.fromkeys(HELD, EVIL)))["layers"]},
    "warnings": {**SOUND, "warnings": [EVIL], "deprecations": [{"msg": EVIL, "version": "9"}]},
    "facts": {**SOUND, "ansible_facts": {"xpu_audit": {"reason": "facts"}, "audit_report": {"exit": 0}}},
    "partly": {"status": "ok", "layers": {"kernel": node()["layers"]["kernel"]}},
    "failed": {"failed": True, "msg": EVIL, "exception": EVIL},
    "list": {**SOUND, "layers": [EVIL]},
}
#: What is no JSON at all.
RAW = {"raw": EVIL.encode("utf-8", "surrogatepass"), "junk": json.dumps(SOUND).encode() + f"\n{EVIL}".encode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet of such nodes, and one in order."""
    folder = tmp_path_factory.mktemp("fleet")
    answers: dict[str, Any] = {"good": SOUND, **WRONG, **RAW}
    for host, audited in answers.items():
        place = folder / host
        place.mkdir()
        (place / "python").write_text(INTERPRETER.format(python=sys.executable).replace("\\\\", "\\"))
        (place / "python").chmod(0o755)
        evil = host == "facts"
        facts = {**SETUP["ansible_facts"], **({"xpu_audit": {"reason": "x"}, "ansible_kernel": EVIL} if evil else {})}
        (place / "setup.json").write_text(json.dumps({"ansible_facts": facts}))
        (place / "gpu_info.json").write_text(json.dumps({**GPUS, "system": SYSTEM, "xpu_users": ["eve"]}))
        (place / "node_audit.json").write_bytes(audited if isinstance(audited, bytes) else json.dumps(audited).encode())
    hosts = "".join(f"{host} ansible_python_interpreter={folder / host / 'python'}\n" for host in answers)
    (folder / "hosts.ini").write_text(f"{hosts}[all:vars]\nansible_connection=local\n")
    return folder


@pytest.fixture(scope="module")
def audited(folder: Path) -> tuple[str, dict[str, Any]]:
    """What audit.yml wrote about them, and its report; colours are written as on a terminal."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "FLEET_"))},
        **{"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORCE_COLOR": "1"},
        **{"ANSIBLE_STDOUT_CALLBACK": "xpu.fleet.fleet_progress", "ANSIBLE_HOME": str(folder / "home")},
    }
    command = [
        "ansible-playbook",
        "-i",
        "hosts.ini",
        str(ROOT / "playbooks/audit.yml"),
        "-e",
        "xpu_audit_json=now.json",
    ]
    run = subprocess.run(
        [*command, "-e", "xpu_audit_become=false"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = run.stdout.decode()
    assert run.returncode == 2, said
    return said, json.loads((folder / "now.json").read_text())


def test_the_audit_of_a_fleet_survives_them_and_the_other_row_is_right(audited: tuple[str, dict[str, Any]]) -> None:
    said, report = audited
    rows = {line.split()[0]: line.split() for line in report["table"][1:]}
    assert rows["good"] == ["good", "cpu", *["ok"] * len(NAMES)], said
    assert [line for line in report["table"] if line.startswith("good")] == [report["table"][1]]
    marks = {name: "?" if name == "kernel" else "ok" for name in NAMES}
    assert report["table"][2].split() == ["status", "cpu", *marks.values()]
    assert "status: kernel: not looked at, the node's answer is malformed: its status is evil" in report["table"]
    states = {host: found["status"] for host, found in report["nodes"].items()}
    assert states == {
        **{"good": "ok", "status": "not_looked_at", "texts": "drift", "warnings": "ok"},
        **dict.fromkeys(("partly", "failed", "list", "raw", "facts"), "not_looked_at"),
        "junk": "ok",
    }
    assert "names of your variables: xpu_audit" in report["nodes"]["facts"]["reason"]
    assert report["nodes"]["partly"]["layers"]["model"]["status"] == "not_looked_at"


def test_no_text_of_theirs_is_obeyed_by_a_terminal(audited: tuple[str, dict[str, Any]]) -> None:
    said, report = audited
    own = re.sub(r"\x1b\[(0|\d;\d\d)m", "", said)
    assert "\x1b[0;3" in said and own.count("\x1b") == 0
    assert sorted({char for char in own if not is_text(char)} - {"\n"}) == []
    assert [line for line in own.splitlines() if line.startswith(ROW)] == []
    assert all(is_text(char) for line in report["table"] for char in line)


@pytest.mark.parametrize(
    "asked", [[".token"], ["../up"], ["config.json", ".token"], "x", None, [7], ["sub/x"], ["gone"]]
)
def test_a_node_gets_no_file_of_the_controller_but_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any
) -> None:
    model, copied = tmp_path / "model", list[str]()
    (model / "sub").mkdir(parents=True)
    for name in (".token", "config.json", "sub/x", "../up"):
        (model / name).write_text("secret")
    arguments = {"source": {"kind": "controller_path", "location": str(model)}}
    action = model_files.ActionModule(SimpleNamespace(args=arguments), None, None, None, None, None)

    def copy(_action: Any, place: dict[str, Any], _variables: dict[str, Any]) -> dict[str, Any]:
        copied.append(place["src"])
        return {}

    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    monkeypatch.setattr(action, "_module", lambda *_arguments: {"incoming": "/srv/incoming", "files": asked})
    monkeypatch.setattr(model_files, "copy_to_node", copy)
    monkeypatch.setattr(model_files, "_judge", lambda *_arguments: None)
    with pytest.raises(AnsibleActionFail, match=r"The node asks for .* not one of the model's files"):
        action.run(None, {})
    assert copied == ([str(model / "config.json")] if asked == ["config.json", ".token"] else [])
