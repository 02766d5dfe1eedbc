"""Possible drift on the node of stack cpu."""

from __future__ import annotations

from typing import Any

import pytest
from default.tests.drift.drifts import ENGINE_FILES, Drift, edited, endure

testinfra_hosts = ["ansible://cpu"]

UNIT = "/etc/systemd/system/xpuserve@.service"
OWN = "/etc/systemd/system/xpuserve@0.service.d"
CONFIG = "/etc/xpuserve/config.json"
DRIFTS = {
    # No layer of this stack depends on the platform: only its own finding makes anything run.
    "dpkg-cut-off": Drift(
        "sed -i '/^Package: sed$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status",
        "platform",
        "packages installed in part",
    ),
    "group-left": Drift("gpasswd --delete xpu render", "access", "xpu in group render"),
    "shell": Drift("usermod --shell /bin/bash xpuserve", "access", "shell of xpuserve"),
    # Once for its user, once for the process that has started since.
    "service-in-another-group": Drift("usermod -aG adm xpuserve", "access", "other groups of xpuserve"),
    "process-in-another-group": Drift(
        "usermod -aG adm xpuserve && systemctl restart xpuserve@0 && gpasswd --delete xpuserve adm",
        "access",
        "other groups of the process of xpuserve@0.service",
    ),
    **ENGINE_FILES,
    "weights-corrupted": Drift(
        "printf x | dd of=$(find /var/lib/xpu/models -name '*.gguf' | head -1) bs=1 seek=5000 conv=notrunc",
        "model",
        "weights in",
        frozenset({"service"}),
    ),
    "weights-cut": Drift(
        "truncate --size 1000000 $(find /var/lib/xpu/models -name '*.gguf' | head -1)",
        "model",
        "weights in",
        frozenset({"service"}),
    ),
    "weights-closed": Drift("chmod -R o-rwx /var/lib/xpu", "model", "that the service cannot read"),
    "manifest-lost": Drift(
        "rm /var/lib/xpu/models/*/.xpu-manifest.json", "model", "weights in", frozenset({"service"})
    ),
    "unit-masked": Drift("systemctl mask --now xpuserve@0", "service", "xpuserve@0.service"),
    "unit-stopped": Drift("systemctl stop xpuserve@0", "service", "xpuserve@0.service"),
    "unit-disabled": Drift("systemctl disable xpuserve@0", "service", "xpuserve@0.service at boot"),
    "unit-edited": Drift(edited(UNIT), "service", UNIT),
    # No file has what systemd has read, and no file's time shows it.
    "unit-not-read-again": Drift(
        f"mkdir {OWN} && printf '[Service]\\nEnvironment=BY_HAND=1\\n' > {OWN}/by-hand.conf && systemctl daemon-reload"
        f" && rm -r {OWN}",
        "service",
        "unit file of xpuserve@0.service",
    ),
    "unit-for-a-gpu-that-is-not": Drift("systemctl enable xpuserve@7", "service", "instances that should not be there"),
    "settings-edited": Drift(f"sed -i 's/8000/8001/' {CONFIG}", "service", CONFIG),
    "setting-added": Drift(f"sed -i 's/^{{/{{\"by_hand\": 1,/' {CONFIG}", "service", CONFIG),
    "stack-environment-lost": Drift("rm /etc/xpuserve/stack.env", "service", "/etc/xpuserve/stack.env"),
    "code-replaced": Drift("echo x >> /opt/xpu/xpuserve.pyz", "service", "/opt/xpu/xpuserve.pyz"),
    "command-replaced": Drift("echo '#!/bin/sh' > /usr/local/bin/xpuserve", "service", "/usr/local/bin/xpuserve"),
    "service-wedged": Drift(
        "kill -STOP $(systemctl show --property MainPID --value xpuserve@0)", "service", "state of instance 0"
    ),
}


@pytest.mark.parametrize("case", DRIFTS)
def test_it_is_named_and_put_right_and_nothing_else_moves(case: str, host: Any, layers: Any, site: Any) -> None:
    endure(DRIFTS[case], host, layers, site)
