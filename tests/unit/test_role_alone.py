"""A role that needs another one's facts says so if it is alone in a play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.xpu.fleet.tests.unit.playbook_run import inventory, playbook

BARE: dict[str, Any] = {"repositories": {}, "kernel": {}, "driver": {}, "oneapi": {}}
WHOLE = {
    "repositories": {"graphics": {"uris": []}},
    "kernel": {"release": "1"},
    "driver": {"module": "x"},
    "oneapi": {"root": "/"},
}
LAST = "xpu.fleet.render_access, xpu.fleet.python_runtime, xpu.fleet.model;"
ALL = f"xpu.fleet.graphics_repository, xpu.fleet.kernel, xpu.fleet.gpu_driver, xpu.fleet.oneapi, {LAST}"


def test_role_inference_names_the_roles_that_it_needs(tmp_path: Path) -> None:
    task = {"name": "Serve", "ansible.builtin.include_role": {"name": "xpu.fleet.inference"}}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    hosts = {"bare": {"stack_resolved": BARE}, "whole": {"stack_resolved": WHOLE}}
    run = playbook(str(tmp_path / "play"), "-i", inventory(tmp_path, hosts))
    assert run.status == 2, run.output
    assert "UNREACHABLE" not in run.output
    for host, roles in {"bare": LAST, "whole": ALL}.items():
        assert f"Put them before it in the same play: {roles} or run the playbook xpu.fleet.site" in run.text, host
