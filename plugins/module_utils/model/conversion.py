"""Conversion of weights to a low-bit format: once, as the service's user, in a sandbox."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.model.hub import sha256_file
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (
    StoreError,
    WeightsRequest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (
    make_manifest,
    write_manifest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import result_of
from ansible_collections.xpu.fleet.plugins.module_utils.system.place import NotOwnError, take_over


@dataclass(frozen=True)
class Conversion:
    """One conversion: the service's configuration with the weights to read, and the service's command."""

    request: WeightsRequest
    config: Mapping[str, Any]
    command: Sequence[str]
    user: str
    environment_files: Sequence[str] = ()


def sandbox(conversion: Conversion, config: Path, output: Path) -> list[str]:
    """The command that runs the conversion: it can write only to the staging directory and has no network."""
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
    """Run the conversion beside its target, then swap the result in. Returns its manifest. Raises StoreError."""
    request = conversion.request
    place = request.place
    try:
        staging, user = place.begin_anew(), pwd.getpwnam(conversion.user)
        (staging / "config.json").write_text(json.dumps(conversion.config), encoding="utf-8")
        os.chown(staging, user.pw_uid, user.pw_gid)
        _run(conversion)
        # From here on only root can change files in there: the user's own processes may still be running.
        staging.chmod(0o700)
        os.chown(staging, os.geteuid(), os.getegid())
        manifest = _taken_over(request, staging)
    except KeyError as error:
        raise StoreError(f"user {conversion.user} does not exist") from error
    except NotOwnError as error:
        raise StoreError(f"the conversion left {error}") from error
    place.forget()
    return manifest


def _run(conversion: Conversion) -> None:
    """Run the conversion. Raises StoreError."""
    staging = conversion.request.incoming
    config, output = staging / "config.json", staging / "model"
    done = result_of(sandbox(conversion, config, output), {})
    if done.status:
        said = (done.error.strip() or done.output.strip())[-1500:]
        raise StoreError(
            f"the conversion to {conversion.config['model']['low_bit']} failed with status {done.status}: {said}"
        )


def _taken_over(request: WeightsRequest, staging: Path) -> dict[str, Any]:
    """Take ownership of the conversion's output; return its manifest. Raises NotOwnError and StoreError."""
    files: dict[str, dict[str, Any]] = {}

    def note(name: str, path: Path) -> None:
        found = path.stat()
        files[name] = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256_file(path)}

    try:
        output = take_over(staging, "model", note)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError("the conversion wrote nothing") from error
    if not files:
        raise StoreError("the conversion wrote nothing")
    manifest = make_manifest(request.identity, "low_bit", "", files)
    write_manifest(output, manifest)
    request.place.swap_in(output, f"{request.place.gathering}/model")
    return manifest
