"""Possible drift of the kernel on a machine: reported under its layer, repaired by a run, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from default.tests.drift.drifts import Drift
from kernel.faults.state import as_root, differences, look, unconverged, wanted
from rig.machine import Machine

SETTING = "/etc/default/grub.d/60-xpu-fleet.cfg"
DRIFTS = {
    "default-in-recovery": Drift(
        f"sed -i 's/\\(.*\\)-advanced-/\\1-recovery-/' {SETTING}; update-grub", "kernel", "GRUB's default"
    ),
    "default-by-position": Drift(f"rm {SETTING}; update-grub", "kernel", SETTING),
    "next-boot-chosen": Drift("grub-reboot 0", "kernel", "kernel for the next boot alone"),
    "firmware-at-the-next-boot": Drift("grub-reboot uefi-firmware", "kernel", "kernel for the next boot alone"),
    "kernel-hold-removed": Drift(
        f"apt-mark unhold linux-image-{wanted()}", "kernel", f"hold of linux-image-{wanted()}"
    ),
    "module-unbuilt": Drift(
        "dkms unbuild $(dkms status | sed -n 's#^\\(intel-i915-dkms/[^,]*\\),.*#\\1#p' | head -1) --all",
        "driver",
        "DKMS module intel-i915-dkms",
    ),
    "module-not-in-place": Drift(
        f"rm /lib/modules/{wanted()}/updates/dkms/i915.ko*", "driver", "DKMS module intel-i915-dkms"
    ),
}


@pytest.mark.parametrize("case", DRIFTS)
def test_it_is_named_and_put_right_and_nothing_else_moves(
    case: str, machine: Machine, play: Any, tmp_path: Path
) -> None:
    drift, report = DRIFTS[case], tmp_path / "audit.json"

    def audit() -> tuple[int, dict[str, Any]]:
        run = play("playbooks/audit.yml", "--extra-vars", json.dumps({"xpu_audit_json": str(report)}))
        (node,) = json.loads(report.read_text(encoding="utf-8"))["nodes"].values()
        return run.status, node["layers"]

    before = look(machine, files=True)
    assert unconverged(before, access=True) == []
    as_root(machine, drift.does)
    status, layers = audit()
    found = {name for name, layer in layers.items() if layer["status"] not in ("ok", "not_applicable")}
    assert (status, found) == (1, {drift.layer}), layers
    named = [entry for entry in layers[drift.layer]["findings"] if drift.says in entry["what"]]
    assert named, layers[drift.layer]
    run = play("playbooks/site.yml")
    assert run.clean, run.output
    assert audit()[0] == 0
    after = look(machine, files=True)
    assert unconverged(after, access=True) == []
    assert differences(before, after) == []
    assert after["boot"]["boot_id"] == before["boot"]["boot_id"]
