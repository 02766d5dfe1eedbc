#!/usr/bin/python
"""Ansible module: repair a kernel after an interrupted installation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_repair
short_description: Repair a kernel's files before its boot
version_added: "1.0.0"
description:
  - Compares the files of a kernel's packages with their checksums and installs damaged packages again; makes depmod's
    lists of its modules where they are missing or empty, and the initramfs where it is missing or empty or has none of
    these modules.
  - Packages that are not installed are left to others.
author: The xpu.fleet developers (@xpu-fleet)
options:
  release:
    description: Kernel release, as C(uname -r) says it.
    type: str
    required: true
  packages:
    description: Names of its packages with their versions.
    type: dict
    required: true
  lock_timeout:
    description: Seconds to wait for another program that installs packages.
    type: int
    default: 600
attributes:
  check_mode:
    description: Reports what is damaged, repairs nothing.
    support: full
  diff_mode:
    description: Shows what is damaged.
    support: full
"""

EXAMPLES = r"""
- name: Ensure the kernel's files are complete
  xpu.fleet.kernel_repair:
    release: 6.8.0-31-generic
    packages:
      linux-image-6.8.0-31-generic: 6.8.0-31.31
"""

RETURN = r"""
damaged:
  description: What was found damaged, a sentence each.
  type: list
  elements: str
  returned: success
"""

import re  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (  # noqa: E402
    apt_get,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    damaged_files,
    installed_packages,
    mark,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (  # noqa: E402
    CommandError,
    result_of,
    run,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

ROOT = Path("/")
#: depmod's files that modprobe reads. depmod does not flush them: after a power cut they may be empty.
LISTS = ("modules.dep", "modules.dep.bin", "modules.alias", "modules.alias.bin")


class InstalledKernel:
    """The files of an installed kernel release."""

    def __init__(self, release: str, packages: Mapping[str, str], root: Path) -> None:
        installed = installed_packages()
        self._root = root
        self._release = release
        #: With their installed versions: this module does not touch others.
        self._packages = {name: installed[name].version for name in packages if name in installed}
        self._held = [name for name in self._packages if installed[name].held]
        self._modules = root / "lib/modules" / release
        self._initramfs = root / "boot" / f"initrd.img-{release}"

    def repair(self, *, check: bool, lock_timeout: int) -> list[str]:
        """Repair everything unless in check mode; return what was damaged."""
        if not self._packages:
            return []
        files = self._damaged_packages()
        found = [f"{name} has damaged files: {', '.join(paths[:5])}" for name, paths in files.items()]
        if files and not check:
            again = [f"{name}={self._packages[name]}" for name in files]
            apt_get(
                ["install", "--reinstall", "--no-install-recommends", "--allow-change-held-packages", *again],
                lock_timeout,
            )
            # apt changes a held package if the command names it.
            held = [name for name in self._held if name in files]
            if held:
                mark("hold", held, self._root, lock_timeout)
            self._expect_nothing(
                [f"{name}: {', '.join(paths[:5])}" for name, paths in self._damaged_packages().items()]
            )
        modules = self._modules_problem()
        if modules and not check:
            run(["depmod", self._release])
            self._expect_nothing(self._modules_problem())
        initramfs = self._initramfs_problem()
        if not initramfs and modules:
            initramfs = [f"{self._initramfs.name} was created with incomplete module lists"]
        if initramfs and not check:
            run(["update-initramfs", "-u" if self._initramfs.exists() else "-c", "-k", self._release])
            self._expect_nothing(self._initramfs_problem())
        return found + modules + initramfs

    def _expect_nothing(self, problems: list[str]) -> None:
        if problems:
            raise CommandError(f"kernel {self._release} is still damaged: {'; '.join(problems)}")

    def _damaged_packages(self) -> dict[str, list[str]]:
        # With damage the status is 0 or 1, depending on dpkg's version.
        files = {name: damaged_files(run(["dpkg", "--verify", name], statuses=(0, 1))) for name in self._packages}
        return {name: paths for name, paths in files.items() if paths}

    def _modules_problem(self) -> list[str]:
        if not (self._modules / "kernel").is_dir():
            return []
        lists = [self._modules / name for name in LISTS]
        lost = [path.name for path in lists if not path.is_file() or not path.stat().st_size]
        return [f"missing or empty for {self._release}: {', '.join(lost)}"] if lost else []

    def _initramfs_problem(self) -> list[str]:
        name = self._initramfs.name
        if not self._initramfs.is_file() or not self._initramfs.stat().st_size:
            return [f"{name} is missing or empty"]
        listing = result_of(["lsinitramfs", str(self._initramfs)])
        if listing.status == 127:
            return []  # another program than initramfs-tools made it
        if listing.status:
            return [f"{name} cannot be read"]
        # An initramfs made without depmod's lists has modules.builtin and the like, and no module.
        if not re.search(rf"lib/modules/{re.escape(self._release)}/\S+\.ko\b", listing.output):
            return [f"{name} has no modules of {self._release}"]
        return []


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str", "required": True},
            "packages": {"type": "dict", "required": True},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    parameters: dict[str, Any] = module.params
    try:
        kernel = InstalledKernel(parameters["release"], parameters["packages"], ROOT)
        damaged = kernel.repair(check=module.check_mode, lock_timeout=parameters["lock_timeout"])
    except (FleetError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(damaged),
        damaged=damaged,
        diff={
            "before_header": f"damage of kernel {parameters['release']}",
            "after_header": f"damage of kernel {parameters['release']}",
            "before": "".join(f"{line}\n" for line in damaged),
            "after": "",
        },
    )


if __name__ == "__main__":
    main()
