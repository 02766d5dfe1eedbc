"""Layer platform: machine, distribution and GPUs are those that the stack was chosen for."""

from __future__ import annotations

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpus import is_container
from ansible_collections.xpu.fleet.plugins.module_utils.system.os_release import system
from ansible_collections.xpu.fleet.plugins.module_utils.system.secure_boot import secure_boot


class PlatformAudit(LayerAudit):
    """Checks distribution, GPUs, Secure Boot, and that nothing interrupted dpkg."""

    name = "platform"
    keys = frozenset({"distribution", "release", "container", "secure_boot", "gpus"})

    def look(self, report: Report) -> None:
        """Check what the choice of the stack depends on."""
        with report.looking_at("distribution"):
            found = system(self.node.root)
            for key in ("distribution", "release"):
                if key in self.expected:
                    report.compare(key, self.expected[key], found[key])
        if "container" in self.expected:
            report.compare("container", bool(self.expected["container"]), is_container(self.node.root))
        if "secure_boot" in self.expected:
            report.compare("Secure Boot", bool(self.expected["secure_boot"]), secure_boot(self.node.root))
        if "gpus" in self.expected:
            with report.looking_at("GPUs"):
                self._gpus(report)
        with report.looking_at("dpkg"):
            self._dpkg(report)

    def _gpus(self, report: Report) -> None:
        there = {gpu.address: gpu.id for gpu in self.node.gpus}
        wanted = {gpu["address"]: gpu["id"] or "a GPU" for gpu in self.expected["gpus"]}
        for address in sorted({*there, *wanted}):
            report.compare(f"GPU at {address}", wanted.get(address, "none"), there.get(address, "none"))

    def _dpkg(self, report: Report) -> None:
        half = [
            f"{package.name} ({package.status})" for package in self.node.packages.values() if _half(package.status)
        ]
        report.compare("packages installed in part", [], half)
        updates = self.node.path("/var/lib/dpkg/updates")
        journal = sorted(path.name for path in updates.iterdir() if path.name.isdecimal()) if updates.is_dir() else []
        report.compare("interrupted work of dpkg", [], journal)


def _half(status: str) -> bool:
    return status not in ("installed", "triggers-awaited", "triggers-pending")
