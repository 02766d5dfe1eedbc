"""A node's report contains what its cards depend on, and none of the planted secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xpuserve import cli, doctor
from xpuserve.redaction import Redactor

SERVICE = Path(__file__).parents[3] / "roles/inference/files/xpuserve"

#: Private data, by kind.
PLANTED = {
    "key of the service": "kE9-vq2-xpuserve-api-key-0123",
    "host name": "gpu-rack7-berlin",
    "domain": "gpu-rack7-berlin.corp.example.com",
    "person": "annalena",
    "whole name": "Annalena Beispiel",
    "IPv4": "192.168.44.17",
    "IPv6": "2001:db8:44::17",
    "MAC": "3c:ec:ef:12:34:56",
    "serial number": "LQAC23400731",
    "UUID": "5f0c3a5e-0c3f-4b42-9b8e-6d5f4c3b2a10",
    "token of a hub": "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "password of a proxy": "hunter2hunter2",
    "mail": "annalena@corp.example.com",
    "password of an audit": "tr0ub4dor-and-3",
    "private key": "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ",
    "long secret": "9c1185a5c5e9fc54612808977ee8f548b2258d31",
}
LINES = [
    "i915 0000:03:00.0: [drm] host {host name} at {IPv4} and [{IPv6}] via {MAC}",
    "xe 0000:03:00.0: serial number: {serial number}",
    "i915 0000:03:00.0: [drm] uuid {UUID} opened by /home/{person}/run as {mail}",
    "drm: fetched http://{person}:{password of a proxy}@proxy.corp.example.com:3128/x with {token of a hub}",
    "drm: Authorization: Bearer {key of the service}",
    "drm: password={password of an audit} {long secret}",
    "drm: -----BEGIN PRIVATE KEY----- {private key}",
    "drm: {whole name} on {domain}",
    "usb 1-1: SerialNumber: {serial number}",
]


def write(root: Path, path: str, text: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's files with an Arc card; commands say what was planted."""
    root = tmp_path / "root"
    write(root, "etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nVERSION_ID="24.04"\n')
    write(root, "etc/hostname", f"{PLANTED['host name']}\n")
    write(root, "etc/passwd", f"{PLANTED['person']}:x:1000:1000:{PLANTED['whole name']},,,:/home/x:/bin/sh\n")
    write(root, "etc/xpuserve/api_keys", f"# Managed\n{PLANTED['key of the service']}\n")
    write(
        root,
        "etc/xpuserve/config.json",
        json.dumps({"engine": "openvino", "device": "gpu", "port": 9, "model": {"name": "tiny"}}),
    )
    write(root, "proc/sys/kernel/osrelease", "6.8.0-138-generic\n")
    write(root, "proc/cmdline", f"BOOT_IMAGE=/vmlinuz root=UUID={PLANTED['UUID']} nomodeset ip={PLANTED['IPv4']}\n")
    device = root / "sys/bus/pci/devices/0000:03:00.0"
    for name, text in {"class": "0x030000", "vendor": "0x8086", "device": "0x56a0"}.items():
        write(device, name, f"{text}\n")
    write(device, "resource", "0x0 0x0 0x0\n0x0 0x0 0x0\n0x4000000000 0x43ffffffff 0x14220c\n")
    status = "Status: install ok installed"
    write(
        root,
        "var/lib/dpkg/status",
        f"Package: intel-opencl-icd\n{status}\nVersion: 25.18.33578.77-1146~24.04\n\n"
        f"Package: xpu-smi\n{status}\nVersion: 1.2.3.4\n\nPackage: secret-tool\n{status}\nVersion: 1\n",
    )
    said = [line.format(**PLANTED) for line in LINES]
    monkeypatch.setattr(doctor, "_output", lambda command: said if command[0] in ("dmesg", "clinfo", "dkms") else [])
    return root


def bundle(root: Path) -> dict[str, Any]:
    audit = {
        "layers": {
            "driver": {
                "versions": {"level-zero": "1.2.3.4"},
                "findings": [{"found": line.format(**PLANTED)} for line in LINES],
            }
        }
    }
    return doctor.report(
        {**doctor.look(root, seconds=1), "audit": audit}, doctor.redactor_of(root, hide=[PLANTED["domain"]])
    )


@pytest.mark.parametrize("what", sorted(PLANTED))
def test_what_was_planted_is_in_no_form_of_the_report(node: Path, what: str) -> None:
    found = bundle(node)
    for text in (json.dumps(found), doctor.as_text(found)):
        assert PLANTED[what].lower() not in text.lower()


def test_what_is_wanted_of_a_card_is_there(node: Path) -> None:
    found = bundle(node)
    assert found["system"] == {
        "distribution": "Ubuntu 24.04.2 LTS",
        "kernel": "6.8.0-138-generic",
        "architecture": found["system"]["architecture"],
        "parameters": ["nomodeset"],
        "secure_boot": "off",
    }
    (card,) = found["gpus"]
    assert (card["slot"], card["device"], card["driver"], card["windows"]) == (
        "0000:03:00.0",
        "0x56a0",
        "none",
        [1 << 34],
    )
    assert found["packages"] == {"intel-opencl-icd": "25.18.33578.77-1146~24.04", "xpu-smi": "1.2.3.4"}
    assert found["audit"]["layers"]["driver"]["versions"] == {"level-zero": "1.2.3.4"}
    assert found["messages"][1] == "xe 0000:03:00.0: serial number: [serial]"
    assert not any("usb" in line for line in found["messages"])
    assert found["service"]["answer"].startswith("none: ")
    assert "== gpus" in doctor.as_text(found)


@pytest.mark.parametrize(
    "text", ["0000:03:00.0", "GuC firmware 70.29.2", "12:30:45", "127.0.0.1", "5.15.0-91-generic", "MTL: 70.5.1"]
)
def test_what_names_nobody_stays(text: str) -> None:
    assert Redactor(["rack7"]).text(text) == text


def test_the_command_writes_two_files_that_people_can_read_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audit.json").write_text(json.dumps({"refused": "No stack fits"}))
    arguments = [
        "--audit",
        str(tmp_path / "audit.json"),
        "--url",
        "http://127.0.0.1:9",
        "--output",
        str(tmp_path / "report"),
    ]
    assert cli.main(["doctor", *arguments]) == 0
    assert "Read them before you share them" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["audit"] == {"refused": "No stack fits"}
    assert "No stack fits" in (tmp_path / "report.txt").read_text()
    assert cli.main(["doctor", "--audit", str(tmp_path / "none.json")]) == 2


def test_it_needs_no_library() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SERVICE)!r}); "
        "from xpuserve import doctor, redaction; print(sorted(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "openvino" not in loaded and "fastapi" not in loaded
