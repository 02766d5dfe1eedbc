"""Nodes and GPUs for tests of the choice of a stack, and the stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import GPUS
from ansible_collections.xpu.fleet.plugins.module_utils.stacks import NodeFacts

GA = "5.15.0-141-generic"
NEWEST = "7.0.0-22-generic"
VARS = Path(__file__).resolve().parents[4] / "roles/stack/vars"
STACKS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text())["stack_definition"] for path in VARS.glob("*.yml")
}


def gpu(device: str = "56a0", family: str = "", address: str = "0000:03:00.0", **more: Any) -> dict[str, Any]:
    """A GPU as gpu_info tells it, of its own family unless another is named."""
    family = family or GPUS[device][0]
    return {
        "address": address,
        "id": f"8086:{device}",
        "name": f"Intel {family}",
        "family": family,
        "driver": "xe" if family == "arc-b" else "i915",
        "render_node": "/dev/dri/renderD128",
        "memory_bytes": 0,
        **more,
    }


def node(*gpus: dict[str, Any], system: str = "Ubuntu 22.04", **more: Any) -> NodeFacts:
    """A node with these GPUs, on Ubuntu 22.04 with a kernel of its HWE line unless others are named."""
    distribution, release = system.split()
    codename = {"22.04": "jammy", "24.04": "noble", "26.04": "resolute"}.get(release, "other")
    return NodeFacts(
        distribution=distribution,
        release=release,
        codename=codename,
        kernel=more.pop("kernel", "6.8.0-50-generic"),
        gpus=list(gpus),
        **more,
    )
