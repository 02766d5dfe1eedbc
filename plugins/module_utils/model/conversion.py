"""Conversion of weights to a low-bit format: once, as the service's user, with nothing else in reach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.model.hub import sha256_file
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (
    Request,
    StoreError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (
    make_manifest,
    swap_in,
    write_manifest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import result_of


@dataclass(frozen=True)
class Conversion:
    """One conversion: the service's configuration with the weights to read, and how to run the service."""

    request: Request
    config: Mapping[str, Any]
    command: Sequence[str]
    user: str
    environment_files: Sequence[str] = ()


def sandbox(conversion: Conversion, config: Path, output: Path) -> list[str]:
    """The command that runs the conversion: it can write to the staging directory alone and has no network."""
    properties = [
        f"User={conversion.user}",
        f"Group={conversion.user}",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "PrivateNetwork=yes",
        "RestrictSUIDSGID=yes",
        "UMask=0022",
        f"ReadWritePaths={output.parent}",
        "Environment=HOME=/tmp HF_HOME=/tmp/huggingface HF_HUB_OFFLINE=1",
        *[f"EnvironmentFile=-{path}" for path in conversion.environment_files],
    ]
    return [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect",
        *[f"--property={value}" for value in properties],
        *conversion.command, "convert", "--config", str(config), "--output", str(output),
    ]  # fmt: skip


def convert(conversion: Conversion) -> dict[str, Any]:
    """Run the conversion beside the place of its result, then swap that in. Returns its manifest. Raises StoreError."""
    request = conversion.request
    staging = request.incoming
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    shutil.chown(staging, conversion.user, conversion.user)
    config, output = staging / "config.json", staging / "model"
    config.write_text(json.dumps(conversion.config), encoding="utf-8")
    done = result_of(sandbox(conversion, config, output), {})
    if done.status:
        said = (done.error.strip() or done.output.strip())[-1500:]
        raise StoreError(
            f"the conversion to {conversion.config['model']['low_bit']} failed with status {done.status}: {said}"
        )
    files = {}
    for path in sorted(output.rglob("*")) if output.is_dir() else []:
        if path.is_symlink():
            raise StoreError(f"the conversion left a link, {path.name}, which is not taken over")
        shutil.chown(path, "root", "root")
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            found = path.stat()
            name = path.relative_to(output).as_posix()
            files[name] = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256_file(path)}
    if not files:
        raise StoreError("the conversion wrote nothing")
    shutil.chown(output, "root", "root")
    manifest = make_manifest(request.identity, "low_bit", "", files)
    write_manifest(output, manifest)
    swap_in(output, request.directory)
    shutil.rmtree(staging)
    return manifest
