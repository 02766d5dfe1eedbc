"""Draining instances of the service, and the requests that they still have."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.runtime.own_address import opener
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably

#: The service looks for its file here: DRAIN_FILE of xpuserve/server.py. Only root can write there.
DIRECTORY = "/etc/xpuserve"
#: Seconds within which a healthy service answers.
TIMEOUT = 10.0
_GAUGE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Drain:
    """Why an instance is drained. ``failed`` is set if a change did not complete."""

    reason: str
    owner: str = ""
    since: str = ""
    failed: bool = False


def path_of(directory: Path, instance: str) -> Path:
    """Return the file that drains an instance while it exists."""
    return directory / f"drain-{instance}"


def read(directory: Path, instance: str) -> Optional[Drain]:
    """Return why an instance is drained, None if it is not. A file of unknown origin drains too."""
    try:
        text = path_of(directory, instance).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        said = json.loads(text)
        return Drain(str(said["reason"]), str(said["owner"]), str(said["since"]), said["failed"] is True)
    except (ValueError, TypeError, KeyError):
        return Drain(" ".join(text.split())[:200] or "drained by hand")


def write(directory: Path, instance: str, drain: Optional[Drain]) -> None:
    """Drain an instance, or bring it back if ``drain`` is None."""
    path = path_of(directory, instance)
    if drain is None:
        path.unlink(missing_ok=True)
    else:
        write_durably(path, json.dumps(asdict(drain)).encode() + b"\n")


def drained(directory: Path) -> list[str]:
    """Return the drained instances."""
    return sorted(path.name.partition("-")[2] for path in directory.glob("drain-*"))


def load(url: str, key: str = "", certificate: str = "") -> Optional[Mapping[str, int]]:
    """Return the number of ``running`` and ``waiting`` requests of an instance, None if it does not answer."""
    try:
        text = _fetch(f"{url}/metrics", key, certificate).decode("utf-8", "replace")
    except OSError:
        return None
    found = {name: int(float(value)) for name, value in _GAUGE.findall(text)}
    return {"running": found.get("running", 0), "waiting": found.get("waiting", 0)}


def is_ready(url: str, certificate: str = "") -> bool:
    """Tell whether an instance serves."""
    try:
        _fetch(f"{url}/ready", certificate=certificate)
    except OSError:
        return False
    return True


def busy(urls: Mapping[str, str], key: str = "", certificate: str = "") -> list[str]:
    """Return a sentence for each instance with requests. One that does not answer serves nobody."""
    found = {instance: load(url, key, certificate) for instance, url in urls.items()}
    return [
        f"instance {instance}: {counts['running']} requests run, {counts['waiting']} wait"
        for instance, counts in found.items()
        if counts and any(counts.values())
    ]


def state(directory: Path, instances: Sequence[str]) -> dict[str, Any]:
    """Return plain data of the drained instances, by name."""
    found = {instance: read(directory, instance) for instance in instances}
    return {instance: asdict(drain) for instance, drain in found.items() if drain}


def _fetch(url: str, key: str = "", certificate: str = "") -> bytes:
    """Return an answer of the service."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the service's own address
    with opener(certificate).open(request, timeout=TIMEOUT) as response:
        content: bytes = response.read()
        return content
