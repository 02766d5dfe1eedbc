"""A mirror's content for the nodes of a fleet."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rig import cache, debian, miniconda, repository, stacks, wheels
from rig.host import run
from rig.mirror import Mounts
from rig.node import MODELS, Node


def mounts(nodes: Sequence[Node]) -> Mounts:
    """Return the folders of the cache to serve to these nodes; builds missing ones."""
    found: Mounts = {"/keys": [str(public_keys())]}
    for userland in {node.userland.repository: node.userland for node in nodes}.values():
        found[f"/{userland.repository}"] = [str(debian.mirror(userland.suite))]
    codenames = {node.userland.codename for node in nodes} - {""}
    for codename in sorted(codenames):
        # Containers need no kernel that boots, and its build takes minutes.
        machines = any(node.is_machine for node in nodes if node.userland.codename == codename)
        made = stacks.machine_distribution(codename) if machines else stacks.distribution(codename)
        found[f"/ubuntu-{codename}"] = [str(made)]
        for path in sorted(stacks.vendor(codename).iterdir()):
            found.setdefault(f"/{path.name}", []).append(str(path))
    if "jammy" in codenames:
        found["/miniconda"] = [str(miniconda.installers())]
    houses = sorted({(name, node.userland.python) for node in nodes for name in node.wheels})
    found["/wheels"] = [str(wheels.model()), *(str(wheels.house(*house)) for house in houses)]
    if any(node.models for node in nodes):
        found["/models"] = [str(models())]
    return found


def facts(nodes: Sequence[Node]) -> dict[str, Any]:
    """Return what an inventory needs to know of the mirror's content."""
    found: dict[str, Any] = {}
    if any(node.userland.codename == "jammy" for node in nodes):
        scripts = sorted(miniconda.installers().glob("*.sh"))
        found["miniconda"] = {path.name: miniconda.checksum(path) for path in scripts}
    if any(node.models for node in nodes):
        found["models"] = MODELS
    return found


def sources(node: Node) -> str:
    """Return a node's apt sources after its installation."""
    userland = node.userland
    lines = debian.sources(node.mirror, userland.repository, [userland.suite])
    if userland.codename:
        lines += debian.sources(node.mirror, f"ubuntu-{userland.codename}", [userland.codename])
    return lines


def public_keys() -> Path:
    """Return the vendor's key files: the rig's key with an unpinned one, and the unpinned one alone."""
    homes = [repository.sign_key(), repository.sign_key("other")]

    def build(target: Path) -> None:
        own, other = [(home / "public.asc").read_text() for home in homes]
        for name in ("intel-graphics.key", "GPG-PUB-KEY-INTEL-SW-PRODUCTS.PUB"):
            (target / name).write_text(own + other)
        (target / "rig.key").write_text(own)
        (target / "other.key").write_text(other)

    return cache.artifact("keys", [2, *(repository.fingerprint(name) for name in ("rig", "other"))], build)


def models() -> Path:
    """Return the model fixture: the default model's weights as GGUF and as a Hugging Face folder."""
    script = Path(__file__).with_name("smollm2.py")
    recipe = [script.read_text(), script.with_suffix(".txt").read_text()]
    return cache.artifact("models", recipe, _make_models)


def _make_models(target: Path) -> None:
    script = Path(__file__).with_name("smollm2.py")
    quiet = {"PIP_NO_CACHE_DIR": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    run([sys.executable, str(script), str(target)], env=quiet)
