"""Layer driver: the kernel's modules are built, loaded and bound to every GPU, and user-space packages are there."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.combination import REFUSE, Situation
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.known_bad import found


class DriverAudit(LayerAudit):
    """DKMS, the loaded module, and what drives the GPUs."""

    name = "driver"
    keys = frozenset({"module", "dkms", "kernel", "bound", "stack", "known_bad_accepted"})

    def look(self, report: Report) -> None:
        """Check modules and GPUs."""
        for module in self.expected.get("dkms", ()):
            with report.looking_at(f"DKMS module {module}"):
                self._built(report, module)
        if self.expected.get("bound"):
            if self.expected.get("dkms"):
                with report.looking_at("loaded module"):
                    self._loaded(report, self.expected["module"])
            with report.looking_at("GPUs"):
                self._bound(report)
        if self.expected.get("stack"):
            with report.looking_at("known-bad combinations"):
                self._known_bad(report, self.expected["stack"])

    def _built(self, report: Report, module: str) -> None:
        """Read DKMS's own tree: a link names the build installed for a kernel."""
        kernel = self.expected["kernel"]
        what = f"DKMS module {module} for {kernel}"
        tree = self.node.path(f"/var/lib/dkms/{module}")
        builds = [path for path in sorted(tree.glob(f"kernel-{kernel}-*")) if path.is_dir()]
        if not builds:
            report.absent(what, "installed")
            return
        built = sorted((builds[0] / "module").glob("*.ko*"))
        missing = [path.name for path in built if not self._installed(kernel, path)]
        found = "built without a module" if not built else f"not in place: {', '.join(missing)}"
        report.compare(what, "installed", "installed" if built and not missing else found)

    def _installed(self, kernel: str, built: Path) -> bool:
        """Find a module where DKMS puts it; either of the two may be compressed."""
        name = built.name.partition(".ko")[0]
        modules = self.node.path(f"/lib/modules/{kernel}")
        return any(any((modules / place).glob(f"{name}.ko*")) for place in ("updates/dkms", "updates", "extra"))

    def _loaded(self, report: Report, module: str) -> None:
        loaded = self.node.first_line(f"/sys/module/{module}/srcversion")
        if not loaded:
            report.absent(f"loaded module {module}", "loaded")
            return
        status, output, error = self.node.run(["modinfo", "-F", "srcversion", module])
        if status:
            raise OSError(f"modinfo failed: {error.strip()}")
        report.compare(f"loaded module {module}", f"source version {output.strip()}", f"source version {loaded}")

    def _bound(self, report: Report) -> None:
        wanted = self.expected.get("module", "")
        for gpu in self.node.gpus:
            found = gpu.driver or "none"
            report.compare(f"driver of the GPU at {gpu.address}", wanted or gpu.driver or "one of the kernel", found)
            node = "there" if gpu.render_node and self.node.path(gpu.render_node).exists() else "absent"
            report.compare(f"render node of the GPU at {gpu.address}", "there", node)
            if not gpu.driver:
                report.compare(f"obstacle for a driver at GPU {gpu.address}", [], gpu.blocked)
            elif gpu.blocked:
                report.notes.append(
                    f"GPU at {gpu.address}: at the next boot no driver can bind: {'; '.join(gpu.blocked)}"
                )

    def _known_bad(self, report: Report, stack: str) -> None:
        """Compare cards, kernel and packages with known-bad combinations: refused before a change, drift here."""
        situation = Situation(
            [gpu.as_dict() for gpu in self.node.gpus],
            self.node.running_kernel,
            {name: package.version for name, package in self.node.packages.items()},
            stack,
            accepted=self.expected.get("known_bad_accepted", ()),
        )
        there = found(situation)
        report.compare("known-bad combinations", [], [str(entry) for entry in there if entry.effect == REFUSE])
        report.notes += [str(entry) for entry in there if entry.effect != REFUSE]
