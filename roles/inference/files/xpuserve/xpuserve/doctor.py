"""Collects everything that a stack depends on, tests the service, and writes one report to share.

Read-only, and without any library, so that it runs on a broken node. Names of people, machines and
networks are removed (``redaction``); of files and commands only GPU-related parts are read.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xpuserve.client import local
from xpuserve.redaction import Redactor
from xpuserve.tls import TLSError, trusting

_DISPLAY_CLASS = "0x03"
_PACKAGES = re.compile(
    r"intel-|lib(ze|igc|igdfcl|igdgmm|mfx|vpl|igsc)|level-zero|ocl-icd|xpu-smi|clinfo|dkms|linux-(image|headers|modules|generic)"
)
#: Kernel parameters that affect a card's driver.
_PARAMETERS = re.compile(
    r"nomodeset|panic=|(i915|xe|vfio-pci|pci-stub|drm|modprobe|module_blacklist|initcall_blacklist|pci|iommu|intel_iommu)[.=]"
)
_MESSAGES = re.compile(r"\b(i915|xe|drm|guc|huc|gsc|mei|intel_vsec)\b", re.IGNORECASE)
_MODULES = ("sys/module/i915", "sys/module/xe")
_PROMPT = "Count from 1 to 20."


def look(root: Path = Path("/"), url: str = "", seconds: float = 120.0) -> dict[str, Any]:
    """Return the unredacted data; ``url`` is the service's, by default from its settings."""
    return {
        "system": _system(root),
        "gpus": [_gpu(path, root) for path in _displays(root)],
        "packages": dict(_packages(root)),
        "modules": {path.name: _module(path) for path in map(root.joinpath, _MODULES) if path.exists()},
        "dkms": _output(["dkms", "status"]),
        "messages": _messages(),
        "clinfo": _output(["clinfo"])[:200],
        "service": _service(root, url, seconds),
    }


def report(found: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    """Return a redacted report."""
    redacted: dict[str, Any] = redactor.data(found)
    return {"report": 1, **redacted}


def redactor_of(root: Path = Path("/"), hide: Iterable[str] = ()) -> Redactor:
    """Return a redactor with the node's names, its people, the service's keys, and further words to hide."""
    names = {*hide, socket.gethostname(), socket.getfqdn(), platform.node(), _text(root / "etc/hostname").strip()}
    names |= {name.split(".")[0] for name in names}
    people = [entry for entry in pwd.getpwall() if entry.pw_uid >= 1000 and entry.pw_name != "nobody"]
    for entry in people:
        names |= {entry.pw_name, *entry.pw_gecos.split(",")[:1]}
    for line in _text(root / "etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) > 4 and fields[2].isdecimal() and 1000 <= int(fields[2]) < 65534:
            names |= {fields[0], fields[4].split(",")[0]}
    return Redactor(names - {"", "localhost"}, _keys(root))


def as_text(bundle: dict[str, Any]) -> str:
    """Return a report for people: a heading for each part."""
    parts = []
    for name, value in bundle.items():
        body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            body = "\n".join(value)
        parts.append(f"== {name}\n{body or 'nothing'}\n")
    return "\n".join(parts)


def _system(root: Path) -> dict[str, Any]:
    told = dict(line.split("=", 1) for line in _text(root / "etc/os-release").splitlines() if "=" in line)
    words = _text(root / "proc/cmdline").split()
    return {
        "distribution": told.get("PRETTY_NAME", "").strip('"'),
        "kernel": _text(root / "proc/sys/kernel/osrelease").strip(),
        "architecture": platform.machine(),
        "parameters": [word for word in words if _PARAMETERS.match(word)],
        "secure_boot": _secure_boot(root),
    }


def _secure_boot(root: Path) -> str:
    for path in (root / "sys/firmware/efi/efivars").glob("SecureBoot-*"):
        try:
            return "on" if path.read_bytes()[4:5] == b"\x01" else "off"
        except OSError:
            return "unknown"
    return "off"


def _displays(root: Path) -> Iterator[Path]:
    devices = root / "sys/bus/pci/devices"
    for path in sorted(devices.iterdir()) if devices.is_dir() else ():
        if _text(path / "class").startswith(_DISPLAY_CLASS):
            yield path


def _gpu(device: Path, root: Path) -> dict[str, Any]:
    windows = [line.split() for line in _text(device / "resource").splitlines()]
    sizes = [int(words[1], 16) - int(words[0], 16) + 1 for words in windows if len(words) == 3 and int(words[1], 16)]
    files = (
        "vendor",
        "device",
        "subsystem_vendor",
        "subsystem_device",
        "class",
        "revision",
        "numa_node",
        "driver_override",
    )
    links = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
    driver = device / "driver"
    return {
        "slot": device.name,
        **{name: _text(device / name).strip() for name in (*files, *links)},
        "driver": driver.resolve().name if driver.exists() else "none",
        "windows": sizes,
        "nodes": sorted(path.name for path in (device / "drm").glob("*[0-9]")),
        "firmware": _firmware(device, root),
    }


def _firmware(device: Path, root: Path) -> list[str]:
    """Return debugfs's data about the card's firmware; only root can read it."""
    cards = sorted(path.name[4:] for path in (device / "drm").glob("card[0-9]*"))
    lines = []
    for place in (root / "sys/kernel/debug/dri" / name for name in (device.name, *cards)):
        for info in sorted(place.glob("gt*/uc/*uc_info")):
            lines += [line.strip() for line in _text(info).splitlines() if re.search("firmware|status|version", line)]
    return lines


def _module(path: Path) -> dict[str, str]:
    return {name: _text(path / name).strip() for name in ("version", "srcversion", "taint")}


def _messages() -> list[str]:
    """Return the last kernel messages about a graphics driver."""
    lines = _output(["dmesg"]) or _output(["journalctl", "-k", "-b", "-o", "cat", "--no-pager"])
    return [line for line in lines if _MESSAGES.search(line)][-200:]


def _packages(root: Path) -> Iterator[tuple[str, str]]:
    for stanza in _text(root / "var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        name = fields.get("Package", "")
        if _PACKAGES.match(name) and fields.get("Status", "").endswith(" installed"):
            yield name, fields.get("Version", "")


def _service(root: Path, url: str, seconds: float) -> dict[str, Any]:
    """Ask the service one question; tokens a second include the answer's first token."""
    try:
        settings = json.loads(_text(root / "etc/xpuserve/config.json") or "{}")
    except ValueError:
        settings = {}
    model = settings.get("model", {})
    told = {**{name: settings.get(name, "") for name in ("engine", "device")}, "model": model.get("name", "")}
    own = local(root / "etc/xpuserve/config.json")
    body = {
        "model": told["model"],
        "messages": [{"role": "user", "content": _PROMPT}],
        "max_tokens": 64,
        "temperature": 0,
    }
    request = urllib.request.Request(  # noqa: S310
        f"{url or own.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    for key in _keys(root)[:1]:
        request.add_header("Authorization", f"Bearer {key}")
    began = time.monotonic()
    try:
        trusted = trusting(None if url else own.certificate, named=bool(url))
        with urllib.request.urlopen(request, timeout=seconds, context=trusted) as answer:  # noqa: S310
            tokens = int(json.load(answer)["usage"]["completion_tokens"])
    except (OSError, TLSError, ValueError, KeyError, TypeError) as error:
        return {**told, "answer": f"none: {error}"}
    took = time.monotonic() - began
    return {**told, "answer": "given", "tokens": tokens, "tokens_per_second": round(tokens / took, 1) if took else 0}


def _keys(root: Path) -> list[str]:
    lines = _text(root / "etc/xpuserve/api_keys").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def _output(command: list[str]) -> list[str]:
    """Return a command's output as lines; none if it does not exist or is not permitted."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
