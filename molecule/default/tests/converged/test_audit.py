"""The audit of converged nodes: all is in order; what is changed by hand is found and put right, nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

testinfra_hosts = ["ansible://arc", "ansible://native", "ansible://cpu"]


@pytest.fixture
def unmasked(host: Any) -> Iterator[str]:
    """The unit of the service, which is as it was afterwards."""
    yield "xpuserve@0.service"
    host.check_output("rm -f /etc/systemd/system/xpuserve@0.service && systemctl daemon-reload")


def test_a_converged_node_is_in_order(audited: Any) -> None:
    said, layers = audited()
    assert said.status == 0, said.output
    assert {layer["status"] for layer in layers.values()} <= {"ok", "not_applicable"}
    assert layers["service"]["status"] == layers["python"]["status"] == "ok"


def test_a_node_in_order_costs_three_modules_and_no_role(host: Any, site: Any) -> None:
    cursor = host.check_output("journalctl --lines 0 --show-cursor").rpartition("-- cursor: ")[2].strip()
    run = site()
    assert (run.status, run.changed) == (0, 0), run.output
    # What Ansible's modules write down of themselves is what was executed on the node.
    said = host.check_output("journalctl --output short --after-cursor %s", cursor)
    executed = re.findall(r" ansible-(\S+)\[\d+\]: Invoked", said)
    # The reading of the journal is a module, too.
    ours = [name for name in executed if name != "ansible.legacy.command"]
    assert ours == ["ansible.legacy.setup", "xpu.fleet.gpu_info", "xpu.fleet.node_audit"], said


def test_every_role_by_itself_changes_nothing_on_a_converged_node(site: Any) -> None:
    run = site({"xpu_force": True})
    assert (run.status, run.changed) == (0, 0), run.output
    assert "TASK [xpu.fleet.inference : " in run.output


def test_a_masked_unit_is_found_under_the_service_and_put_right(
    host: Any, audited: Any, site: Any, unmasked: str
) -> None:
    host.check_output(f"systemctl mask {unmasked}")
    said, layers = audited()
    assert said.status == 1, said.output
    others = {name for name, layer in layers.items() if layer["status"] not in ("ok", "not_applicable")}
    assert others == {"service"}, said.output
    assert "xpuserve@0" in json.dumps(layers["service"]["findings"])
    mended = site()
    assert mended.status == 0, mended.output
    assert audited()[0].status == 0
    roles = set(
        re.findall(r"^TASK \[xpu\.fleet\.(\w+) : Validating arguments against arg spec 'main'", mended.output, re.M)
    )
    assert roles == {"stack", "model", "inference"}, mended.output
