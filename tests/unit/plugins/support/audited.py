"""A converged node as a tree of files, with its expectation; tests change one thing and check the audit's finding."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree
from typing import Any, Optional

import pip
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import audit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode
from ansible_collections.xpu.fleet.tests.unit.plugins.support.aptrepo import SigningKey
from ansible_collections.xpu.fleet.tests.unit.plugins.support.wheels import make_wheel

MENU = Path(__file__).with_name("menus") / "ubuntu2204.cfg"
UUID = "5f0c3a5e-0c3f-4b42-9b8e-6d5f4c3b2a10"
KERNEL, NEWER = "5.19.0-41-generic", "6.2.0-26-generic"
UNIT = "xpuserve@0.service"
PID = "4242"
SOURCES = "/etc/apt/sources.list.d/intel-graphics.sources"
KEYRING = "/usr/share/keyrings/intel-graphics.gpg"
PIN = "/etc/apt/preferences.d/xpu-fleet-driver.pref"
GRUB_SETTING = "/etc/default/grub.d/60-xpu-fleet.cfg"
MODEL = "/var/lib/xpu/models/tiny"
ENVIRONMENT = "/opt/xpu/engines/openvino"
SETTINGS = "/etc/xpuserve/config.json"


class Answers:
    """What the service answers: a text and a status, in its own time."""

    def __init__(self) -> None:
        self.ready, self.status, self.text, self.tokens = 200, 200, "The capital of France is Paris.", 8
        self.full_for = 0  # so many questions, which are answered with 429
        self.asked: list[dict[str, Any]] = []
        self.url = ""


@contextmanager
def service(tls: Optional[ssl.SSLContext] = None) -> Iterator[Answers]:
    """Serve chat completions on a port of this machine, over TLS where there is a context for it."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.ready if self.path == "/ready" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answers.asked.append({**body, "key": self.headers.get("Authorization", "")})
            choice = {"message": {"role": "assistant", "content": answers.text}}
            content = json.dumps({"choices": [choice], "usage": {"completion_tokens": answers.tokens}}).encode()
            self.send_response(429 if len(answers.asked) <= answers.full_for else answers.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Audited:
    """The node, and the audit of it."""

    def __init__(self, root: Path, key: SigningKey, answers: Answers) -> None:
        self.root, self.answers = root, answers
        self.packages = {
            "dpkg": "1.21.1",
            "linux-image-5.19.0-41-generic": "5.19.0-41.42~22.04.1",
            "intel-opencl-icd": "23.17.26241.33-647~22.04",
            "intel-oneapi-mkl": "2023.2.0-49495",
        }
        self.held = {"linux-image-5.19.0-41-generic", "intel-opencl-icd", "intel-oneapi-mkl"}
        self.unit = {
            **{"Id": UNIT, "LoadState": "loaded", "ActiveState": "active", "SubState": "running"},
            **{"UnitFileState": "enabled", "MainPID": PID, "NeedDaemonReload": "no"},
            "ExecMainStartTimestampMonotonic": str(int((time.clock_gettime(time.CLOCK_MONOTONIC) + 60) * 1e6)),
        }
        self.srcversion = "ABC123"
        self.expected: dict[str, Any] = {}
        self._platform()
        self._repository(key)
        self._kernel()
        self._driver()
        self._access()
        self._oneapi()
        self._model()
        self._service()
        self.expected["python"] = {}

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> Path:
        """Write a file of the node."""
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        return file

    def at(self, path: str) -> Path:
        """Where a path of the node is."""
        return self.root / path.lstrip("/")

    def replace(self, path: str, old: str, new: str) -> None:
        """Change a file as a person with an editor would."""
        text = self.at(path).read_text()
        assert old in text
        self.at(path).write_text(text.replace(old, new))

    def audit(self) -> dict[str, dict[str, Any]]:
        """Look at all layers."""
        stanzas = [
            f"Package: {name}\nStatus: {'hold' if name in self.held else 'install'} ok installed\n"
            f"Architecture: amd64\nVersion: {version}\nDescription: something\n of several lines\n"
            for name, version in self.packages.items()
        ]
        self.write("/var/lib/dpkg/status", "\n".join(stanzas))
        return audit(AuditedNode(self.root, self.expected, self.run))

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Answer as the node's commands would."""
        if command[:2] == ["systemctl", "show"]:
            return 0, "".join(f"{name}={value}\n" for name, value in self.unit.items()), ""
        if command[0] == "modinfo":
            return 0, f"{self.srcversion}\n", ""
        if command[0] == "grub-probe":
            return 0, "ext2\n" if command[1] == "--target=fs" else "\n", ""
        return (0, "", "") if command[0] == "grub-mkconfig" else (127, "", f"command not found: {command[0]}")

    def add_python(self, wheels: Path) -> None:
        """Give the node the engine's environment, with one distribution."""
        place = self.at(ENVIRONMENT)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(place)], check=True)
        (site,) = place.glob("lib/python*/site-packages")
        copytree(Path(pip.__file__).parent, site / "pip")
        wheels.mkdir()
        digest = make_wheel(wheels, "alpha", "1.0")
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(site)
        self.expected["python"] = {
            "directory": ENVIRONMENT,
            "interpreter": sys.executable,
            "requirements": f"alpha==1.0 --hash=sha256:{digest}\n",
        }

    def file(self, path: str, text: str, mode: str = "0644", group: str = "root") -> dict[str, dict[str, str]]:
        """Write a file as a role renders it; return its expectation."""
        self.write(path, text, int(mode, 8))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {path: {"sha256": digest, "mode": mode, "owner": "root", "group": group}}

    def _platform(self) -> None:
        self.write("/etc/os-release", 'NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\n')
        self.write("/proc/1/environ", "TERM=linux\0")
        (self.root / "var/lib/dpkg/updates").mkdir(parents=True)
        card = "/sys/devices/0000:03:00.0"
        for name, text in {"vendor": "0x8086", "device": "0x56a0", "class": "0x030000"}.items():
            self.write(f"{card}/{name}", f"{text}\n")
        self.write(f"{card}/drm/renderD128/dev", "226:128\n")
        self.write("/dev/dri/renderD128", "")
        driver = self.at("/sys/bus/pci/drivers/i915")
        driver.mkdir(parents=True)
        self.at(f"{card}/driver").symlink_to(driver)
        self.at("/sys/bus/pci/devices").mkdir()
        self.at("/sys/bus/pci/devices/0000:03:00.0").symlink_to(self.at(card))
        self.expected["platform"] = {
            **{"distribution": "Ubuntu", "release": "22.04", "container": False, "secure_boot": False},
            "gpus": [{"address": "0000:03:00.0", "id": "8086:56a0"}],
        }

    def _repository(self, key: SigningKey) -> None:
        definition = {
            **{"uris": ["https://repository.example.com/ubuntu"], "suites": ["jammy"], "components": ["arc"]},
            **{"keyring": KEYRING, "sources": SOURCES, "fingerprints": [key.fingerprint]},
            "superseded": ["/etc/apt/sources.list.d/intel.list"],
        }
        self.write(
            SOURCES,
            "# Managed by Ansible (xpu.fleet).\nTypes: deb\nURIs: https://repository.example.com/ubuntu\n"
            f"Suites: jammy\nComponents: arc\nSigned-By: {KEYRING}\n",
        )
        self.write(KEYRING, key.binary)
        self.expected["repository"] = {
            "repositories": [definition],
            "absent": ["/etc/apt/apt.conf.d/51xpu-fleet-proxy"],
        }

    def _kernel(self) -> None:
        self.write("/proc/sys/kernel/osrelease", f"{KERNEL}\n")
        self.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
        self.write("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{KERNEL} root=/dev/vda1 ro\n")
        for path in (f"/boot/vmlinuz-{KERNEL}", f"/boot/initrd.img-{KERNEL}"):
            self.write(path, "kernel")
        entry = f"gnulinux-advanced-{UUID}>gnulinux-{KERNEL}-advanced-{UUID}"
        self.write("/boot/grub/grub.cfg", MENU.read_text().replace('set default="0"', f'set default="{entry}"'))
        self.write("/etc/default/grub", "GRUB_TIMEOUT=0\n")
        self.write(GRUB_SETTING, f'# Written by xpu.fleet; changes are overwritten.\nGRUB_DEFAULT="{entry}"\n')
        self.expected["kernel"] = {
            "release": KERNEL,
            "packages": {"linux-image-5.19.0-41-generic": "5.19.0-41.42~22.04.1"},
            "holds": ["linux-image-5.19.0-41-generic"],
            "metapackages": ["linux-generic-hwe-22.04"],
        }

    def _driver(self) -> None:
        build = f"/var/lib/dkms/intel-i915-dkms/1.23/{KERNEL}/x86_64"
        self.write(f"{build}/module/i915.ko", "module")
        self.at(f"/var/lib/dkms/intel-i915-dkms/kernel-{KERNEL}-x86_64").symlink_to(self.at(build))
        self.write(f"/lib/modules/{KERNEL}/updates/dkms/i915.ko", "module")
        self.write("/sys/module/i915/srcversion", "ABC123\n")
        self.expected["driver"] = {
            **{"module": "i915", "dkms": ["intel-i915-dkms"], "kernel": KERNEL, "bound": True},
            "packages": {"intel-opencl-icd": "23.17.26241.33-647~22.04"},
            "holds": ["intel-opencl-icd"],
            "files": self.file(PIN, "Package: intel-opencl-icd\nPin: version 23.17\n"),
        }

    def _access(self) -> None:
        me, mine = os.getuid(), os.getgid()
        self.write(
            "/etc/passwd",
            f"root:x:{me}:{mine}:root:/root:/bin/bash\nalice:x:7001:7001::/home/alice:/bin/bash\n"
            "xpuserve:x:7990:7990::/var/lib/xpuserve:/usr/sbin/nologin\n",
        )
        self.write(
            "/etc/group",
            f"root:x:{mine}:\nrender:x:7109:alice,xpuserve\nvideo:x:7044:alice,xpuserve\nxpuserve:x:7990:\nalice:x:7001:\n",
        )
        self.write(f"/proc/{PID}/status", "Name:\tpython\nGroups:\t7044 7109 7990 \n")
        self.expected["access"] = {
            "groups": ["render", "video"],
            "people": ["alice"],
            "service": {
                **{"name": "xpuserve", "home": "/var/lib/xpuserve", "shell": "/usr/sbin/nologin"},
                "groups": ["render", "video"],
            },
        }

    def _oneapi(self) -> None:
        self.write("/opt/intel/oneapi/setvars.sh", "export MKLROOT=/opt/intel/oneapi/mkl\n")
        self.write("/etc/xpuserve/oneapi.env", "# Managed.\nMKLROOT=/opt/intel/oneapi/mkl\n")
        self.expected["oneapi"] = {
            **{"script": "/opt/intel/oneapi/setvars.sh", "environment_file": "/etc/xpuserve/oneapi.env"},
            "packages": {"intel-oneapi-mkl": "2023.2.0-49495"},
            "holds": ["intel-oneapi-mkl"],
        }

    def _model(self) -> None:
        weights = self.write(f"{MODEL}/tiny.gguf", "GGUF weights")
        source = {"kind": "url", "location": "https://models.example.com/tiny.gguf", "sha256": "0" * 64}
        found = weights.stat()
        digest = hashlib.sha256(b"GGUF weights").hexdigest()
        entry = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": digest}
        manifest = {
            **{"identity": {"source": source, "code": False}, "format": "gguf", "revision": "", "digest": "d"},
            "files": {"tiny.gguf": entry},
        }
        self.write(f"{MODEL}/.xpu-manifest.json", json.dumps(manifest))
        self.expected["model"] = {"name": "tiny", "directory": MODEL, "source": source, "formats": ["gguf"]}

    def _service(self) -> None:
        values = {"port": 8000, "model": {"name": "tiny", "path": "", "format": "", "revision": ""}}
        revision = hashlib.sha256(b"d").hexdigest()
        weights = {"path": f"{MODEL}/tiny.gguf", "format": "gguf", "revision": revision}
        found = {**values, "model": {"name": "tiny", **weights}}
        self.write(SETTINGS, json.dumps(found))
        self.write(f"/proc/{PID}/environ", "HOME=/\0SYCL_CACHE_PERSISTENT=1\0MKLROOT=/opt/intel/oneapi/mkl\0")
        self.expected["service"] = {
            **{"template": "xpuserve", "instances": ["0"], "inputs": [SETTINGS, "/etc/xpuserve/*.env"]},
            "environment_files": ["/etc/xpuserve/oneapi.env", "/etc/xpuserve/stack.env"],
            "settings": {"path": SETTINGS, "values": values},
            "urls": [self.answers.url],
            "prompt": {
                **{"model": "tiny", "text": "What is the capital of France?"},
                **{"contains": "Paris", "seconds": 5, "tokens_per_second": 0.5},
            },
            "files": {
                **self.file("/etc/systemd/system/xpuserve@.service", "[Service]\nExecStart=/opt/xpu/xpuserve\n"),
                **self.file("/etc/xpuserve/stack.env", 'SYCL_CACHE_PERSISTENT="1"\n'),
                **self.file("/etc/xpuserve/api_keys", "a-key-of-sixteen-chars\n", "0640", "xpuserve"),
            },
        }
        if os.getuid() == 0:
            os.chown(self.at("/etc/xpuserve/api_keys"), 0, 7990)
        else:
            self.expected["service"]["files"]["/etc/xpuserve/api_keys"]["group"] = "root"
