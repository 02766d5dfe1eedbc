#!/usr/bin/python
"""Ansible module: finish what an interrupted dpkg or apt left."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dpkg_repair
short_description: Finish an installation that was interrupted
version_added: "1.0.0"
description:
  - Looks whether dpkg was interrupted, packages are installed in part, or dependencies are not met; then configures
    what is unpacked, and lets apt correct what is left. Of kernels that are installed in part, depmod lists the
    modules anew before that.
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
    description: Looks and says what is broken, mends nothing.
    support: full
  diff_mode:
    description: Shows what is broken.
    support: full
"""

EXAMPLES = r"""
- name: Finish what an interrupted installation left
  xpu.fleet.dpkg_repair:
"""

RETURN = r"""
broken:
  description: What was found broken, a sentence each.
  type: list
  elements: str
  returned: success
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.kernels import (  # noqa: E402
    CommandError,
    apt,
    complaints,
    installed_packages,
    release_of,
    result_of,
    run,
    simulated,
    unfinished,
    wait_for_others,
    without_lists,
)

ROOT = Path("/")


def broken(root: Path) -> list[str]:
    """Return what is broken, a sentence each."""
    updates = root / "var/lib/dpkg/updates"
    found = []
    if updates.is_dir() and any(path.name.isdecimal() for path in updates.iterdir()):
        found.append("dpkg was interrupted")
    audit = result_of(["dpkg", "--audit"])
    packages = unfinished(audit.stdout)
    if packages:
        found.append(f"not installed completely: {', '.join(packages)}")
    elif audit.returncode > 1:
        found.append(f"dpkg --audit failed: {complaints(audit.stdout + audit.stderr)}")
    # Without its locks: whoever holds them is waited for only where something has to be done.
    check = result_of(["apt-get", "-q", "-o", "Debug::NoLocking=1", "check"])
    if check.returncode:
        found.append(f"apt-get check failed: {complaints(check.stdout + check.stderr)}")
    return found


def repair(lock_timeout: int) -> None:
    """Configure what is unpacked, then let apt correct the rest. Raises CommandError."""
    # To configure a kernel makes its initramfs. depmod does not flush its lists of the kernel's modules: after a power
    # cut they may be empty although the modules' package is configured, and the initramfs would not find its root.
    for release in sorted({release_of(name) for name in _partial()} - {""}):
        if (ROOT / "lib/modules" / release / "kernel").is_dir():
            result_of(["depmod", release])
    # It fails where a package waits for one that is not unpacked yet: apt brings that.
    configured = result_of(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"])
    options = ["--fix-broken", "--no-install-recommends", "install"]
    simulation = simulated(run(["apt-get", "-q", "--simulate", *options]))
    partial = _partial()
    whole = [name for name in simulation.removed if name not in partial]
    if whole:
        raise CommandError(f"apt would remove {', '.join(whole)} to correct dependencies; somebody has to decide that")
    try:
        apt(options, lock_timeout)
        lost = without_lists(run(["dpkg", "--audit"], statuses=(0, 1)))
        if lost:
            apt(["install", "--reinstall", "--no-install-recommends", *lost], lock_timeout)
    except CommandError as error:
        if configured.returncode:
            said = complaints(configured.stdout + configured.stderr)
            raise CommandError(f"dpkg --configure -a failed: {said}; {error}") from error
        raise


def _partial() -> set[str]:
    return {name for name, package in installed_packages().items() if package.status != "installed"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"lock_timeout": {"type": "int", "default": 600}}, supports_check_mode=True)
    try:
        found = broken(ROOT)
        if found and not module.check_mode and wait_for_others(ROOT, module.params["lock_timeout"]):
            found = broken(ROOT)  # what looked broken may have been work under way
        if found and not module.check_mode:
            repair(module.params["lock_timeout"])
            left = broken(ROOT)
            if left:
                raise CommandError(f"packages are still broken: {'; '.join(left)}")
    except (CommandError, OSError) as error:
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
