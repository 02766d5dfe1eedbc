"""Roles write exactly what their expectations state; the audit's table and exit status follow from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.filter.audit import file_expectations
from ansible_collections.xpu.fleet.plugins.module_utils.audit.fleet import fleet_report
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpus import served_gpus
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import requirement_lines
from ansible_collections.xpu.fleet.plugins.plugin_utils.copying import file_listing

ROOT = Path(__file__).resolve().parents[2]
ROLES = (
    *("stack", "graphics_repository", "kernel", "gpu_driver", "render_access", "oneapi", "python_runtime", "model"),
    "inference",
)
#: Tells what the audit would expect of a node.
TELLER = """
from ansible_collections.xpu.fleet.plugins.action.node_audit import ActionModule as Audit
from ansible_collections.xpu.fleet.plugins.module_utils.layers import NAMES


class ActionModule(Audit):
    def run(self, tmp=None, task_vars=None):
        return {"expected": self.expected(NAMES, task_vars)}
"""
UNITS = "/etc/systemd/system"
#: Where roles write what they render, and the template with what it needs beside the role's own variables.
RENDERED: dict[str, tuple[str, dict[str, Any]]] = {
    "/etc/apt/apt.conf.d/51xpu-fleet-proxy": ("graphics_repository/templates/proxy.conf.j2", {}),
    "/etc/apt/preferences.d/xpu-fleet-kernel.pref": (
        "pinned_packages/templates/preferences.j2",
        {"pinned_packages_versions": "{{ stack_resolved.kernel.packages }}"},
    ),
    "/etc/apt/apt.conf.d/52xpu-fleet-kernel": (
        "pinned_packages/templates/unattended-upgrades.conf.j2",
        {
            "pinned_packages_versions": "{{ stack_resolved.kernel.packages }}",
            "pinned_packages_not_upgraded": "{{ stack_resolved.kernel.metapackages }}",
        },
    ),
    "/etc/apt/preferences.d/xpu-fleet-modules.pref": (
        "pinned_packages/templates/preferences.j2",
        {"pinned_packages_versions": "{{ __gpu_driver_kernel_side }}"},
    ),
    "/etc/apt/preferences.d/xpu-fleet-driver.pref": (
        "pinned_packages/templates/preferences.j2",
        {"pinned_packages_versions": "{{ __gpu_driver_user_side }}"},
    ),
    "/etc/dkms/intel-i915-dkms.conf": ("gpu_driver/templates/dkms.conf.j2", {}),
    "/etc/apt/preferences.d/xpu-fleet-oneapi.pref": (
        "pinned_packages/templates/preferences.j2",
        {"pinned_packages_versions": "{{ __oneapi_packages }}"},
    ),
    f"{UNITS}/xpuserve@.service": ("inference/templates/xpuserve@.service.j2", {}),
    f"{UNITS}/xpuserve@0.service.d/gpu.conf": (
        "inference/templates/gpu.conf.j2",
        {"item": 0, "__inference_found": {"gpus": "{{ stack_resolved.gpus }}"}},
    ),
    "/etc/xpuserve/stack.env": ("inference/templates/stack.env.j2", {}),
    "/etc/xpuserve/api_keys": ("inference/templates/api_keys.j2", {}),
    "/opt/xpu/proxy.env": ("python_runtime/templates/proxy.env.j2", {}),
    "/usr/local/bin/xpuserve": ("inference/templates/xpuserve.sh.j2", {}),
}


def play(root: Path, out: Path) -> list[dict[str, Any]]:
    """A play that asks every role for its expectation, and renders what roles render into files."""
    # What playbooks/gpus.yml kept of an earlier time.
    earlier = [{"address": "0000:09:00.0", "id": "8086:56a1", "name": "Intel Arc A750", "family": "arc"}]
    facts = {"xpu_gpus": earlier, "cacheable": True}
    tasks: list[dict[str, Any]] = [{"name": "Facts", "ansible.builtin.set_fact": facts}]
    tasks += [{"name": "Stack", "ansible.builtin.include_role": {"name": "xpu.fleet.stack", "public": True}}]
    checks = {"name": "xpu.fleet.stack", "tasks_from": "preflight"}
    refusal = {"name": "Refused", "ansible.builtin.set_fact": {"refused": "{{ ansible_failed_result.msg }}"}}
    tasks.append({"block": [{"name": "Checks", "ansible.builtin.include_role": checks}], "rescue": [refusal]})
    site = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    asked = {
        "plain": {"python_runtime_proxy": "", "python_runtime_wheelhouse": ""},
        "after": {**site[-1]["vars"], "xpu_audit_tokens_per_second": 3},
        "other": {"model_name": "smollm2-135m-instruct"},
        "named": {"xpu_audit_tokens_per_second": 3},
        "own": {},
    }
    for name, variables in asked.items():
        tasks.append({"name": name, "expectations": {}, "vars": variables, "register": f"of_{name}"})
    choose: dict[str, Any] = {"name": "xpu.fleet.model", "tasks_from": "choose", "public": True}
    tasks.append({"name": "Model", "ansible.builtin.include_role": choose})
    # The role's own list, with the weights as role model shares them.
    weights = {"path": "{{ __model_low_bit_place }}", "format": "low_bit"}
    restarts = {"name": "Restarts", "vars": {"model_resolved": weights}}
    restarts["ansible.builtin.set_fact"] = {"restarts": "{{ __inference_inputs + __inference_libraries }}"}
    tasks.append(restarts)
    for number, (template, variables) in enumerate(RENDERED.values()):
        written = {"src": f"{ROOT}/roles/{template}", "dest": f"{out}/{number}", "mode": "0644"}
        model = {"model_resolved": "{{ __model_plan }}"}
        pins = {
            "__pinned_packages_exact": "{{ pinned_packages_versions | dict2items | selectattr('value') | items2dict }}",
            "pinned_packages_not_upgraded": [],
        }
        tasks.append({"name": template, "ansible.builtin.template": written, "vars": {**pins, **model, **variables}})
    install = yaml.safe_load((ROOT / "roles/inference/tasks/install.yml").read_text())
    (archive,) = [task["xpu.fleet.zipapp"] for task in install if "xpu.fleet.zipapp" in task]
    moved = {"src": f"{ROOT}/roles/inference/files/xpuserve", "package": archive["package"], "dest": f"{out}/pyz"}
    tasks.append({"name": "Archive", "xpu.fleet.zipapp": {**moved, "mode": "0644"}})
    expected = "{{ of_own.expected }}"
    compared = {"expected": expected, "root": f"{root}"}
    tasks.append({"name": "Compare", "xpu.fleet.node_audit": compared, "register": "found"})
    told: dict[str, Any] = {"expected": expected, "found": "{{ found.layers }}"}
    told.update({"restarts": "{{ restarts }}", "refused": "{{ refused }}"})
    told["plain_python"] = "{{ of_plain.expected.python }}"
    told["prompts"] = {name: f"{{{{ of_{name}.expected.service.prompt }}}}" for name in asked}
    result = "{{ told | to_json }}"
    tasks.append({"name": "Tell", "ansible.builtin.copy": {"content": result, "dest": f"{out}/result", "mode": "0644"}})
    tasks[-1]["vars"] = {"told": told}
    variables = {
        **{"ansible_python_interpreter": sys.executable, "stack_root": f"{root}"},
        **{"xpu_users": ["alice"], "xpu_proxy": "http://proxy.example.com:3128", "model_token": "hf_x"},
        **{"inference_api_keys": ["a-key-of-sixteen-characters"], "python_runtime_wheelhouse": f"{out}/wheels"},
    }
    (out / "variables.yml").write_text(yaml.safe_dump(variables))
    (out / "action_plugins").mkdir()
    (out / "action_plugins/expectations.py").write_text(TELLER)
    files = [ROOT / "playbooks/vars/prompt.yml"]
    files += [
        path for kind in ("defaults", "vars") for role in ROLES for path in ROOT.glob(f"roles/{role}/{kind}/main.yml")
    ]
    of_all = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    return [{**of_all, "vars_files": [*map(str, files), str(out / "variables.yml")], "tasks": tasks}]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the roles expect of a bare node with an Arc card, what they render, and what the audit says of the node."""
    root, out = tmp_path_factory.mktemp("node"), tmp_path_factory.mktemp("out")
    card = root / "sys/bus/pci/devices/0000:03:00.0"
    (card / "drm/renderD128").mkdir(parents=True)
    for name, text in {"vendor": "0x8086", "device": "0x56a0", "class": "0x030000"}.items():
        (card / name).write_text(text)
    former = root / "etc/systemd/system/xpuserve@1.service.d"
    former.mkdir(parents=True)
    (former / "gpu.conf").write_text("# GPU 0000:07:00.0 and no other.\n")
    (root / "etc/os-release").write_text('ID=ubuntu\nNAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\n')
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/osrelease").write_text("5.15.0-91-generic\n")
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(
        "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n"
    )
    (out / "wheels").mkdir()
    (out / "wheels/alpha-1.0.whl").write_text("wheel")
    (out / "play.yml").write_text(yaml.safe_dump(play(root, out)))
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(out / "play.yml")],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    rendered = {path: (out / str(number)).read_bytes() for number, path in enumerate(RENDERED)}
    rendered["/opt/xpu/xpuserve.pyz"] = (out / "pyz").read_bytes()
    return {"rendered": rendered, **json.loads((out / "result").read_text())}


def test_every_layer_is_told_what_to_expect(asked: dict[str, Any]) -> None:
    assert set(asked["expected"]) == set(NAMES)
    assert all(asked["expected"].values())


def test_expected_checksums_are_those_of_what_the_roles_render(asked: dict[str, Any]) -> None:
    files = {path: wanted for layer in asked["expected"].values() for path, wanted in layer.get("files", {}).items()}
    different = [
        path
        for path, content in asked["rendered"].items()
        if files[path]["sha256"] != hashlib.sha256(content).hexdigest()
    ]
    assert different == []
    # The service's settings are compared value by value, wheels by their size.
    others = {path for path in files if path not in asked["rendered"] and "size" not in files[path]}
    assert {path for path in others if not path.startswith(("/etc/dkms/", "/etc/apt/"))} == {
        "/etc/xpuserve/config.json"
    }


def test_files_of_the_controller_are_listed_as_the_model_was(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_text("weights")
    (tmp_path / ".hidden").write_text("")
    os.utime(tmp_path / "tiny.gguf", (1700000000, 1700000000))
    listing = {"tiny.gguf": [7, 1700000000]}
    assert file_listing(str(tmp_path)) == listing == file_listing(str(tmp_path / "tiny.gguf"))


def test_proxy_and_wheels_of_the_engines_installation_are_expected_where_they_are_set(asked: dict[str, Any]) -> None:
    python, plain = asked["expected"]["python"], asked["plain_python"]
    assert python["files"]["/opt/xpu/wheelhouse/alpha-1.0.whl"] == {"size": 5}
    assert (python["files"]["/opt/xpu/proxy.env"]["mode"], python["absent"]) == ("0600", [])
    assert (plain["files"], plain["absent"]) == ({}, ["/opt/xpu/proxy.env"])


def test_an_instance_is_restarted_for_all_that_the_audit_compares_its_start_with(asked: dict[str, Any]) -> None:
    compared, low_bit = asked["expected"]["service"]["inputs"], asked["expected"]["model"]["low_bit"]["directory"]
    assert set(asked["restarts"]) - set(compared) == {low_bit}
    assert set(compared) <= set(asked["restarts"])
    assert f"{low_bit}/.xpu-manifest.json" in compared


def test_the_stacks_speed_counts_for_its_own_model_where_nobody_names_one(asked: dict[str, Any]) -> None:
    speeds = {name: float(prompt["tokens_per_second"]) for name, prompt in asked["prompts"].items()}
    assert speeds == {"own": 13.75, "named": 3, "other": 0, "after": 0, "plain": 13.75}
    assert asked["prompts"]["own"]["model"] == "llama-2-7b-chat"
    assert (asked["prompts"]["own"]["contains"], int(asked["prompts"]["own"]["seconds"])) == ("Paris", 30)


def test_after_a_change_the_service_is_asked_as_in_an_audit_without_hurry(asked: dict[str, Any]) -> None:
    audit, after = asked["prompts"]["own"], asked["prompts"]["after"]
    assert {name for name in audit if audit[name] != after[name]} == {"seconds", "tokens_per_second"}
    assert int(after["seconds"]) == 900
    playbooks = [yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text()) for name in ("audit", "site")]
    assert [plays[-1]["vars_files"] for plays in playbooks] == [["vars/prompt.yml"]] * 2


def test_a_copied_directory_is_told_by_sizes(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "a.whl").write_text("wheel")
    (tmp_path / "more/b.whl").write_text("another")
    assert file_expectations(str(tmp_path), "/opt/wheels") == {
        "/opt/wheels/a.whl": {"size": 5},
        "/opt/wheels/more/b.whl": {"size": 7},
    }


def test_the_engines_pins_are_told_without_their_hashes(asked: dict[str, Any]) -> None:
    requirements = (ROOT / "roles/stack/vars/requirements/bigdl-gpu.txt").read_text()
    told = asked["expected"]["python"]["requirements"]
    assert requirement_lines(told) == requirement_lines(requirements)
    assert "--hash" in requirements and "--hash" not in told


def test_packages_and_holds_are_those_of_the_stack(asked: dict[str, Any]) -> None:
    stack = yaml.safe_load((ROOT / "roles/stack/vars/arc-647.yml").read_text())["stack_definition"]
    kernel, driver = asked["expected"]["kernel"], asked["expected"]["driver"]
    assert kernel["packages"] == stack["kernel"]["packages"]
    assert set(kernel["holds"]) == set(stack["kernel"]["packages"])
    assert driver["packages"].items() >= stack["driver"]["packages"].items()
    assert {entry["package"] for entry in stack["driver"]["dkms"]} < set(driver["holds"])
    assert "udev" in driver["packages"] and "udev" not in driver["holds"]


def test_the_audit_understands_all_of_it_and_misses_everything(asked: dict[str, Any]) -> None:
    for name, layer in asked["found"].items():
        assert not [entry for entry in layer["unseen"] if "ExpectationError" in entry["why"]], name
        if name != "platform":
            assert layer["findings"], name


def test_gpus_that_were_there_are_missed(asked: dict[str, Any]) -> None:
    assert asked["found"]["platform"]["findings"] == [
        {"what": "GPU at 0000:07:00.0", "expected": "a GPU", "found": "none"},
        {"what": "GPU at 0000:09:00.0", "expected": "8086:56a1", "found": "none"},
    ]


def test_a_node_that_lost_a_gpu_is_refused(asked: dict[str, Any]) -> None:
    assert "had a GPU at 0000:07:00.0, 0000:09:00.0, which" in asked["refused"]
    assert "add its address to xpu_lost_gpus" in asked["refused"]


def test_what_an_instance_is_given_can_be_read_again(asked: dict[str, Any], tmp_path: Path) -> None:
    settings = f"{UNITS}/xpuserve@0.service.d/gpu.conf"
    written = tmp_path / settings.lstrip("/")
    written.parent.mkdir(parents=True)
    written.write_bytes(asked["rendered"][settings])
    assert served_gpus(tmp_path) == ["0000:03:00.0"]


def layers(**more: dict[str, Any]) -> dict[str, Any]:
    sound = {"status": "ok", "reason": "", "findings": [], "unseen": []}
    return {name: {**sound, **more.get(name, {})} for name in NAMES}


DRIFTED = {"status": "drift", "findings": [{"what": "hold of x", "expected": "held", "found": "not held"}]}


def test_the_table_has_a_row_for_each_node_and_says_what_is_wrong() -> None:
    audits = {
        "arc1": {"stack": "arc-647", "layers": layers()},
        "arc2": {"stack": "arc-647", "layers": layers(kernel=DRIFTED, oneapi={"status": "not_applicable"})},
    }
    report = fleet_report(audits, ["arc1", "arc2"])
    assert (report["status"], report["exit"]) == ("drift", 1)
    assert report["table"].pop() == "arc2: kernel: hold of x: expected held, found not held"
    assert [line.split() for line in report["table"]] == [
        ["node", "stack", *NAMES],
        ["arc1", "arc-647", *["ok"] * 9],
        ["arc2", "arc-647", "ok", "ok", "DRIFT", "ok", "ok", "-", "ok", "ok", "ok"],
    ]


@pytest.mark.parametrize(
    ("second", "status", "code"),
    [
        ({"stack": "cpu", "layers": layers()}, "ok", 0),
        ({"stack": "cpu", "layers": layers(model=DRIFTED)}, "drift", 1),
        ({"stack": "cpu", "layers": layers(model={"status": "not_looked_at"})}, "not_looked_at", 2),
        ({"reason": "No stack fits this node."}, "not_looked_at", 2),
        (None, "not_looked_at", 2),
    ],
)
def test_the_exit_status_tells_drift_from_what_could_not_be_looked_at(
    second: dict[str, Any] | None, status: str, code: int
) -> None:
    audits = {"a": {"stack": "cpu", "layers": layers()}, **({"b": second} if second else {})}
    report = fleet_report(audits, ["a", "b"])
    assert (report["status"], report["exit"]) == (status, code)
    assert report["nodes"]["b"]["reason"] == ((second or {"reason": "not reached"}).get("reason") or "")


@pytest.mark.parametrize("name", ["audit", "plan"])
def test_what_is_told_of_all_nodes_is_told_once_whatever_strategy_is_configured(name: str) -> None:
    (play,) = yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text())
    assert play["strategy"] == "ansible.builtin.linear"


def test_an_audit_of_no_node_is_not_in_order() -> None:
    assert fleet_report({}, [])["exit"] == 2


@pytest.mark.parametrize("code", [0, 1, 2])
def test_ansible_playbook_ends_with_the_status_of_the_audit(tmp_path: Path, code: int) -> None:
    (tmp_path / "play.yml").write_text(
        yaml.safe_dump(
            [
                {
                    **{"hosts": "localhost", "gather_facts": False},
                    "tasks": [{"name": "Tell", "ansible.builtin.set_stats": {"data": {"xpu_audit_exit": code}}}],
                }
            ]
        )
    )
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert "PLAY RECAP" in run.stdout


def test_an_audit_that_no_host_matches_could_not_look(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: {}, b: {}}, vars: {ansible_connection: local}}\n")
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "-e", "xpu_hosts=a", "--limit", "b"]
    audit = subprocess.run([*command, "playbooks/audit.yml"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert audit.returncode == 2, audit.stdout + audit.stderr
    assert "The audit has no result: no host matches" in audit.stdout + audit.stderr
    other = subprocess.run([*command, "playbooks/gpus.yml"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode == 0, other.stdout + other.stderr


def test_an_audit_that_does_not_come_to_its_end_could_not_look(tmp_path: Path) -> None:
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", "-e", f"xpu_audit_json={tmp_path}"]
    command.append("playbooks/audit.yml")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "it stopped before its end" in run.stdout + run.stderr


def test_variables_of_a_wrong_type_are_named_by_the_audit() -> None:
    wrong: dict[str, Any] = {
        "ansible_python_interpreter": sys.executable,
        "xpu_audit_become": False,
        "xpu_stack": "cpu",
    }
    wrong |= {"oneapi_environment_file": ["a"], "inference_port": "x"}
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(wrong), "playbooks/plan.yml"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = " ".join((run.stdout + run.stderr).split())
    assert run.returncode == 2, said
    assert "oneapi_environment_file must be a string" in said
    assert "inference_port must be a whole number" in said


def test_expectations_have_names_of_their_own() -> None:
    # What a task has registered would stand before a variable of the same name.
    for role in ROLES[1:]:
        folder = ROOT / "roles" / role
        kept = set(re.findall(r"register: (\w+)", "".join(path.read_text() for path in folder.glob("tasks/*.yml"))))
        assert not kept.intersection(yaml.safe_load((folder / "vars/main.yml").read_text())), role
