#!/usr/bin/python
"""Ansible module: finish an interrupted dpkg or apt run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dpkg_repair
short_description: Finish an installation that was interrupted
version_added: "1.0.0"
description:
  - Looks whether dpkg was interrupted, packages are installed in part, or dependencies are not met; then configures
    what is unpacked, and lets apt correct what is left. Of kernels that are installed in part, depmod lists the
    modules again before that.
  - Packages that are whole are never removed for that. It is an error where apt would do so, or where something is
    still broken in the end.
author: The xpu.fleet developers (@xpu-fleet)
options:
  lock_timeout:
    description: Seconds to wait for another program that installs packages.
    type: int
    default: 600
attributes:
  check_mode:
    description: Reports what is broken, repairs nothing.
    support: full
  diff_mode:
    description: Shows what is broken.
    support: full
"""

EXAMPLES = r"""
- name: Ensure an interrupted installation is complete
  xpu.fleet.dpkg_repair:
"""

RETURN = r"""
broken:
  description: What was found broken, a sentence each.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.xpu.fleet.plugins.module_utils.system.python_version import require_python  # noqa: E402

require_python()

import re  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (  # noqa: E402
    release_of,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (  # noqa: E402
    apt_get,
    broken,
    simulate,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    UPDATES,
    installed_packages,
    wait_for_others,
    without_lists,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (  # noqa: E402
    CommandError,
    complaints,
    result_of,
    run,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

ROOT = Path("/")
_MAKE_LOG = re.compile(r"(?P<path>/var/lib/dkms/(?P<module>[\w.+-]+)/\S*make\.log)")
_BUILT_FOR = re.compile(r"(?:on|for) kernel:? (?P<release>\d[\w.+-]*)")


def repair(lock_timeout: int) -> None:
    """Configure unpacked packages, then let apt correct the rest. Raises CommandError."""
    # Configuring a kernel makes its initramfs. depmod does not flush its lists of the kernel's modules: after a power
    # cut they may be empty although the modules' package is configured, and the initramfs would not find its root.
    for release in sorted({release_of(name) for name in _partial()} - {""}):
        if (ROOT / "lib/modules" / release / "kernel").is_dir():
            result_of(["depmod", release])
    # It fails if a package needs one that is not unpacked yet: apt brings that.
    configured = result_of(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"])
    options = ["--fix-broken", "--no-install-recommends", "install"]
    simulation = simulate(options)
    partial = _partial()
    whole = [name for name in simulation.removed if name not in partial]
    if whole:
        raise CommandError(f"apt would remove {', '.join(whole)} to correct dependencies; decide that by hand")
    try:
        apt_get(options, lock_timeout)
        lost = without_lists(run(["dpkg", "--audit"], statuses=(0, 1)))
        if lost:
            apt_get(["install", "--reinstall", "--no-install-recommends", *lost], lock_timeout)
    except CommandError as error:
        if configured.status:
            output = configured.output + configured.error
            advice = module_advice(output)
            raise CommandError(f"dpkg --configure -a failed: {complaints(output)}; {error}{advice}") from error
        raise


def module_advice(output: str) -> str:
    """Return advice about modules that DKMS could not build, "" if dpkg failed at something else."""
    failed: dict[tuple[str, str], str] = {}
    for log in _MAKE_LOG.finditer(output):
        # Kernels of earlier, successful builds are named further up.
        kernels = _BUILT_FOR.findall(output, 0, log.start())
        failed.setdefault((log["module"], kernels[-1] if kernels else "that kernel"), log["path"])
    if not failed:
        return ""
    told = " and ".join(
        f"DKMS module {module} does not build for {release} (see {log} on the node)"
        for (module, release), log in failed.items()
    )
    settings = ", ".join(dict.fromkeys(f"/etc/dkms/{module}.conf" for module, _release in failed))
    return (
        f" - {told}: remove the headers of that kernel, or the module, or limit it to another kernel with "
        f"BUILD_EXCLUSIVE_KERNEL in {settings}"
    )


def _partial() -> set[str]:
    return {name for name, package in installed_packages().items() if package.status != "installed"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"lock_timeout": {"type": "int", "default": 600}}, supports_check_mode=True)
    try:
        found = broken(ROOT / UPDATES)
        if found and not module.check_mode and wait_for_others(ROOT, module.params["lock_timeout"]):
            found = broken(ROOT / UPDATES)  # apparent damage may have been another process's work in progress
        if found and not module.check_mode:
            repair(module.params["lock_timeout"])
            left = broken(ROOT / UPDATES)
            if left:
                raise CommandError(f"packages are still broken: {'; '.join(left)}")
    except (FleetError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(found),
        broken=found,
        diff={
            "before_header": "broken packages",
            "after_header": "broken packages",
            "before": "".join(f"{line}\n" for line in found),
            "after": "",
        },
    )


if __name__ == "__main__":
    main()
