#!/usr/bin/python
"""Ansible module: restore the packages of a rollback record."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_restore
short_description: Restore the packages of a rollback record
version_added: "1.0.0"
description:
  - Reads what M(xpu.fleet.package_record) wrote down. Packages that were not there are purged, others get their version
    back in the same transaction of apt, then their hold and whether they were installed by hand. The record goes last,
    so that a run which was cut off is finished by the next.
  - What came along with the packages goes with them where nothing else needs it. What was there before stays.
  - apt is asked first. It is an error, and nothing changes, where anything else would have to go.
  - The repositories that this collection added offer no versions here, so that a package gets the distribution's again.
    Where its version is not offered any more, the next newer one is taken; RV(notes) say so. One that would bring a
    kernel which was not there is left alone.
  - Without a record nothing is done.
author: The xpu.fleet developers (@xpu-fleet)
options:
  record:
    description: Names of the rollback records, the one that was begun last first.
    type: list
    elements: str
    required: true
  lock_timeout:
    description: Seconds to wait for another program that installs packages.
    type: int
    default: 600
  directory:
    description: Where records are kept.
    type: path
    default: /var/lib/xpu-fleet/found
attributes:
  check_mode:
    description: Asks apt and says what would be done.
    support: full
  diff_mode:
    description: Shows the packages that differ, as they are and as they were found.
    support: full
"""

EXAMPLES = r"""
- name: Remove the driver
  xpu.fleet.package_restore:
    record: driver
"""

RETURN = r"""
recorded:
  description: Names of the records that exist.
  type: list
  elements: str
  returned: success
removed:
  description: Packages that are purged.
  type: list
  elements: str
  returned: success
installed:
  description: Packages that are installed at another version, as apt takes them on its command line.
  type: list
  elements: str
  returned: success
notes:
  description: What could not be brought back as it was, one sentence each.
  type: list
  elements: str
  returned: success
"""

import tempfile  # noqa: E402
from collections.abc import Iterable, Mapping  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (  # noqa: E402
    release_of,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (  # noqa: E402
    FormerApt,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    Version,
    mark,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import (  # noqa: E402
    OWN_HEADER,
    PackageState,
    Record,
    RecordError,
    installed,
    read_record,
    record_path,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

ROOT = Path("/")
_TRANSACTION = (
    *("install", "--yes", "--purge", "--no-install-recommends"),
    *("--allow-downgrades", "--allow-change-held-packages"),
)
Packages = Mapping[str, PackageState]


@dataclass
class Plan:
    """The steps that bring packages back to their former state."""

    remove: list[str] = field(default_factory=list)
    #: Package to version.
    install: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def arguments(self) -> list[str]:
        """Return the plan as arguments of apt-get."""
        return [f"{name}={version}" for name, version in self.install.items()] + [f"{name}-" for name in self.remove]


class Apt(FormerApt):
    """apt as it was before this collection."""

    def __init__(self, directory: Path, lock_timeout: int) -> None:
        super().__init__(directory, _is_own, lock_timeout)

    def removals(self, plan: Plan, *, sweep: bool = False) -> list[str]:
        """Return what the plan would remove, with ``sweep`` also what nothing needs then. Raises CommandError."""
        needs = ["AutoRemove::SuggestsImportant", "AutoRemove::RecommendsImportant"]
        options = [f"-oAPT::{name}=false" for name in needs] + ["-oAPT::Get::AutomaticRemove=true"] if sweep else []
        return list(self.simulate([*_TRANSACTION, *options, *plan.arguments()]).removed)

    def arrivals(self, plan: Plan) -> list[str]:
        """Return what the plan would install. Raises CommandError."""
        return list(self.simulate([*_TRANSACTION, *plan.arguments()]).installed)


def merge(records: Iterable[Record], now: Packages) -> dict[str, PackageState]:
    """Return the packages' states before the first of several records, the last one first."""
    found: dict[str, PackageState] = {}
    for record in records:
        if record.before is not None:
            record.settle(now, cut_off=True)
        found.update(record.packages)
    return found


def plan_for(found: Packages, now: Packages, available: Mapping[str, list[str]]) -> Plan:
    """Return the plan, without packages that nothing needs afterwards."""
    plan = Plan()
    for name, was in sorted(found.items()):
        present = now_of(now, name)
        if was.version and was.version != present.version:
            _bring_back(plan, name, was, present, available.get(name, []))
        elif not was.version and ((present.settings and not was.settings) or (present.version and not was.along)):
            plan.remove.append(name)
    return plan


def _bring_back(plan: Plan, name: str, was: PackageState, present: PackageState, offered: list[str]) -> None:
    version = nearest(was.version, offered)
    if version not in ("", present.version):
        plan.install[name] = version
    if version != was.version:
        after = f"comes at {version}" if version else f"stays as it is ({present})"
        plan.notes.append(f"{name} was {was.version}, which no repository offers now; it {after}.")


def leave_kernels(plan: Plan, apt: Apt, found: Packages, now: Packages) -> None:
    """Remove from the plan what would install a kernel that has never run here. Raises RecordError."""
    for name, version in list(plan.install.items()):
        if version == found[name].version:
            continue
        arriving = [other for other in apt.arrivals(Plan(install={name: version})) if release_of(other)]
        unknown = [other for other in arriving if not (now_of(now, other).version or now_of(found, other).version)]
        if unknown:
            del plan.install[name]
            plan.notes = [note for note in plan.notes if not note.startswith(f"{name} was ")]
            plan.notes.append(
                f"{name} was {found[name].version}, which no repository offers now; version {version} would also "
                f"install {', '.join(unknown)}, so it stays as it is ({now_of(now, name)})."
            )


def nearest(version: str, offered: list[str]) -> str:
    """Return the version itself, the next newer available one, the newest older one, or ""."""

    newer = sorted((other for other in offered if Version(other) >= Version(version)), key=Version)
    return newer[0] if newer else max(offered, key=Version, default="")


def complete(plan: Plan, apt: Apt, found: Packages, now: Packages) -> None:
    """Add packages that nothing needs any more. Raises RecordError if one of them has to stay."""
    # A package that came along and that a person has requested since is theirs.
    along = {
        n for n, was in found.items() if not was.version and was.along and (was.manual or not now_of(now, n).manual)
    }
    if along & now.keys():
        plan.remove += sorted(along.intersection(apt.removals(plan, sweep=True)) - set(plan.remove))
    if not plan.arguments():
        return
    kept = sorted(set(apt.removals(plan)) - set(plan.remove))
    if kept:
        raise RecordError(
            f"To remove {', '.join(plan.remove) or 'nothing'}, apt would also remove {', '.join(kept)}, which was not"
            " brought along. Nothing was changed. Remove it first, or roll back the layer that brought it."
        )


def now_of(now: Packages, name: str) -> PackageState:
    """Return the state of a package."""
    return now.get(name, PackageState())


def marks(found: Packages, now: Packages) -> dict[str, list[str]]:
    """Return the calls of apt-mark that restore the packages' marks."""
    calls: dict[str, list[str]] = {"auto": [], "manual": [], "unhold": [], "hold": []}
    for name, was in sorted(found.items()):
        present = now_of(now, name)
        if not present.version:
            continue
        if was.version and present.manual != was.manual:
            calls["manual" if was.manual else "auto"].append(name)
        if present.held != was.held:
            calls["hold" if was.held else "unhold"].append(name)
    return {verb: names for verb, names in calls.items() if names}


def _is_own(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(OWN_HEADER)


def _listing(states: Packages, names: Iterable[str]) -> str:
    return "".join(f"{name}: {now_of(states, name)}\n" for name in sorted(names))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "record": {"type": "list", "elements": "str", "required": True},
            "lock_timeout": {"type": "int", "default": 600},
            "directory": {"type": "path", "default": "/var/lib/xpu-fleet/found"},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    try:
        records = {name: read_record(directory, name) for name in module.params["record"]}
        present = {name: record for name, record in records.items() if record is not None}
        nothing: dict[str, Any] = {"changed": False, "removed": [], "installed": [], "notes": []}
        answer = _restore(module, present, directory) if present else nothing
    except FleetError as error:
        module.fail_json(msg=str(error))
    notes = [f"There is no rollback record {name}: its packages stay." for name in records if name not in present]
    module.exit_json(**{**answer, "recorded": list(present), "notes": answer["notes"] + notes})


def _restore(module: AnsibleModule, records: Mapping[str, Record], directory: Path) -> dict[str, Any]:
    now = installed()
    found = merge(records.values(), now)
    with tempfile.TemporaryDirectory(prefix="xpu-fleet-apt-") as scratch:
        apt = Apt(Path(scratch), module.params["lock_timeout"])
        lost = [name for name, was in found.items() if was.version and was.version != now_of(now, name).version]
        plan = plan_for(found, now, apt.available(lost))
        leave_kernels(plan, apt, found, now)
        complete(plan, apt, found, now)
        calls = marks(found, now)
        if not module.check_mode:
            if plan.arguments():
                apt.carry_out([*_TRANSACTION, *plan.arguments()])
            for verb, names in marks(found, installed()).items():
                mark(verb, names, ROOT, module.params["lock_timeout"])
            for name in records:
                record_path(directory, name).unlink()
    touched = {*plan.remove, *plan.install, *(name for names in calls.values() for name in names)}
    after = {**found, **{name: PackageState() for name in plan.remove}}
    return {
        "changed": True,
        "removed": plan.remove,
        "installed": [f"{name}={version}" for name, version in plan.install.items()],
        "notes": plan.notes,
        "diff": {
            "before_header": "packages",
            "after_header": "packages",
            "before": _listing(now, touched),
            "after": _listing(after, touched),
        },
    }


if __name__ == "__main__":
    main()
