"""Layer kernel: the stack's kernel runs, is the default and stays it; no newer kernel waits to replace it."""

from __future__ import annotations

import os

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.boot.boot import (
    Boot,
    BootState,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import (
    BLOCK,
    DROP_IN,
    MENU,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import Span, superfluous


class KernelAudit(LayerAudit):
    """Checks the running kernel, GRUB's next boots, and packages that would change them."""

    name = "kernel"
    keys = frozenset({"release", "metapackages", "purge", "at_least", "before"})

    def look(self, report: Report) -> None:
        """Check the running kernel, its files, GRUB and the other kernels."""
        if "at_least" in self.expected:
            self._in_range(report, Span(self.expected["at_least"], self.expected.get("before", "")))
            return
        release = self.expected["release"]
        report.compare("running kernel", release, self.node.running_kernel)
        for path in (f"/boot/vmlinuz-{release}", f"/boot/initrd.img-{release}"):
            with report.looking_at(path):
                there = self.node.path(path)
                report.compare(path, "a file", "a file" if there.is_file() and there.stat().st_size else "absent")
        with report.looking_at("GRUB"):
            self._grub(report, release)
        with report.looking_at("other kernels"):
            self._others(report, release)

    def _in_range(self, report: Report, span: Span) -> None:
        """Check the running kernel and GRUB's next one against the range, and whether a trial is open."""
        running, wanted = self.node.running_kernel, str(span)
        report.compare("running kernel", wanted, wanted if span.has(running) else running)
        with report.looking_at("GRUB"):
            if not self._can_read_grub(report):
                return
            boot = Boot(self.node.root, self.node.run)
            facts = boot.facts()
            if facts["default"]:
                default = facts["default"]
                report.compare("GRUB's default", wanted, wanted if span.has(default) else default)
            if facts["next"]:
                report.compare("kernel for the next boot alone", "none", facts["next"])
            report.compare("trial of a kernel", "none", facts["trial"].get("explanation", "none"))
            booted = "not since its trial" if facts["default_untried"] else "booted"
            report.compare("boot of GRUB's default as such", "booted", booted)
            pinned = facts["own"] and facts["follows"] and span.has(running)
            report.compare("kernel that GRUB boots", "the newest", running if pinned else "the newest")

    def _can_read_grub(self, report: Report) -> bool:
        for path in (MENU, BLOCK):
            if self.node.path(path).exists() and not os.access(self.node.path(path), os.R_OK):
                report.not_seen("GRUB's default", f"/{path} can only be read by root")
                return False
        return True

    def _grub(self, report: Report, release: str) -> None:
        if not self._can_read_grub(report):
            return
        boot = Boot(self.node.root, self.node.run)
        facts = boot.facts()
        if report.compare("GRUB's default", release, facts["default"] or boot.grub.menu_problem or "unknown"):
            # The right release does not suffice: a recovery entry starts no service, and the first entry soon changes.
            found, wanted = _settled(boot.state()), _settled(boot.want_default(release, 0, confirm=False))
            for what, text in wanted.items():
                report.compare(what, text or "none", found[what] or "none")
        # An entry that boots no kernel (firmware settings, a memory test) keeps the node away as well.
        following = facts["next"] or boot.grub.block.variables.get("next_entry") or "none"
        report.compare("kernel for the next boot alone", "none", following)
        report.compare("trial of a kernel", "none", facts["trial"].get("explanation", "none"))
        booted = "not since its trial" if facts["default_untried"] else "booted"
        report.compare("boot of GRUB's default as such", "booted", booted)

    def _others(self, report: Report, release: str) -> None:
        packages, following = self.node.packages, self.expected.get("metapackages", [])
        if self.expected.get("purge", True):
            protected = [release, self.node.running_kernel]
            newer = superfluous(packages, release, following, protected)
            report.compare("newer kernels and their metapackages", [], newer)
        else:
            loose = [name for name in following if name in packages and not packages[name].held]
            report.compare("packages that would install newer kernels", [], loose)


def _settled(state: BootState) -> dict[str, str]:
    """Return what keeps a kernel GRUB's default, by its name in the audit."""
    return {
        "GRUB's default entry": state.default or "",
        "panic= of GRUB's default": state.panic,
        f"content of /{DROP_IN}": state.drop_in,
        "kernels whose initramfs is not in GRUB's menu": ", ".join(state.lacking),
    }
