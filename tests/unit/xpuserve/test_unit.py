"""The unit that the role writes, as systemd reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest

ROLE = Path(__file__).parents[3] / "roles/inference"
VALUES: dict[str, Any] = {
    "ansible_managed": "Written by Ansible",
    "__inference_engine": "/opt/xpu/engines/openvino",
    "__inference_service": "/opt/xpu/xpuserve.pyz",
    "__inference_settings": "/etc/xpuserve",
    "__inference_user": "root",
    "__inference_own": ["192.0.2.1"],
    "__inference_allowed": ["192.0.2.0/24"],
    "__inference_local": False,
    "inference_memory_max": "90%",
    "inference_start_timeout": 3600,
    "inference_stop_timeout": 60,
    "model_resolved": {"name": "fake-1b"},
}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("local", [True, False])
def test_systemd_understands_the_unit(tmp_path: Path, device: str, local: bool) -> None:
    source = (ROLE / "templates/xpuserve@.service.j2").read_text()
    values = {**VALUES, "stack_resolved": {"device": device}, "__inference_local": local}
    text = jinja2.Template(source, undefined=jinja2.StrictUndefined, trim_blocks=True).render(values)
    # The one thing that it looks for and that is on nodes only.
    text = text.replace("/opt/xpu/engines/openvino/bin/python", sys.executable)
    unit = tmp_path / "xpuserve@.service"
    unit.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "xpuserve@0.service")]
    unit.with_name("xpuserve@0.service").symlink_to(unit)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "xpuserve" in line] == []
    assert done.returncode == 0, done.stderr
    assert "\nWatchdogSec=30\n" in text
    assert "\nKillMode=mixed\n" in text  # the engine's process is not systemd's to end
    assert "\nTimeoutStopSec=70\n" in text
    assert "\nLimitNOFILE=65536\n" in text
    # It is tried again for ever, but for a configuration that cannot be used, and not at once.
    assert "\nStartLimitIntervalSec=0\n" in text
    assert "\nRestartPreventExitStatus=2\n" in text
    assert "\nRestartSec=10\n" in text
    assert "\nIPAddressDeny=any\n" in text
