"""Layer access: people and the service may use the GPUs, and so may the service's running process."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode, User
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.audit.service import unit_names

_OPENS = "opens for reading and writing"


class AccessAudit(LayerAudit):
    """Groups, their members, and whether the devices open."""

    name = "access"
    keys = frozenset({"groups", "people", "service", "devices"})

    def look(self, report: Report) -> None:
        """Check accounts, the service's processes and the devices."""
        groups = self.expected.get("groups", ())
        for group in groups:
            report.compare(f"group {group}", "present", "present" if group in self.node.groups else "absent")
        for person in self.expected.get("people", ()):
            user = self.node.users.get(person)
            # Accounts missing from /etc/passwd come from a directory service, whose groups are not in /etc/group.
            listed = user.groups if user else {name for name, (_gid, who) in self.node.groups.items() if person in who}
            for group in groups:
                report.compare(f"{person} in group {group}", "member", "member" if group in listed else "not a member")
        service = self.expected.get("service")
        if service:
            self._service(report, service)

    def _service(self, report: Report, service: Mapping[str, Any]) -> None:
        name = service["name"]
        user = self.node.users.get(name)
        if user is None:
            report.absent(f"user {name}")
            return
        for attribute in ("home", "shell"):
            if attribute in service:
                report.compare(f"{attribute} of {name}", service[attribute], getattr(user, attribute))
        for group in service.get("groups", ()):
            there = group in user.groups
            report.compare(f"{name} in group {group}", "member", "member" if there else "not a member")
        if "groups" in service:
            report.compare(f"other groups of {name}", [], sorted(user.groups - {name, *service["groups"]}))
        for unit in unit_names(self.node.expected.get("service")):
            with report.looking_at(f"groups of {unit}"):
                self._process(report, unit, user, service.get("groups", ()))
        for device in self.expected.get("devices", ()):
            with report.looking_at(f"{device} as {name}"):
                self._device(report, device, name, user)

    def _process(self, report: Report, unit: str, user: User, groups: Any) -> None:
        """Compare the groups of the running process: it keeps those that its user had when it started."""
        pid = self.node.units([unit])[unit].get("MainPID", "0")
        status = self.node.text(f"/proc/{pid}/status") if pid != "0" else None
        if status is None:
            return  # layer service says that it does not run
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        numbers = {int(number) for number in lines.get("Groups", "").split()}
        wanted = {group: self.node.groups.get(group, (-1, frozenset()))[0] for group in groups}
        for group, number in wanted.items():
            found = "member" if number in numbers else "not a member"
            report.compare(f"process of {unit} in group {group}", "member", found)
        names = {number: group for group, (number, _ignored) in self.node.groups.items()}
        others = {names.get(number, str(number)) for number in numbers - {user.gid, *wanted.values()}}
        report.compare(f"other groups of the process of {unit}", [], sorted(others))

    def _device(self, report: Report, device: str, name: str, user: User) -> None:
        if not self.node.exists(device):
            report.absent(device)
        elif not self.node.by_root:
            report.not_seen(f"{device} as {name}", "only root can check as another user")
        else:
            report.compare(f"{device} as {name}", _OPENS, _opens(self.node, device, user))


def _opens(node: AuditedNode, device: str, user: User) -> str:
    """Open a device as a user, in a separate process, and return the outcome."""
    groups = [node.groups[group][0] for group in sorted(user.groups)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(user.gid)
            os.setuid(user.uid)
            os.close(os.open(node.path(device), os.O_RDWR))
            os.write(writing, _OPENS.encode())
        except OSError as error:
            # Access is checked before the driver: layer driver reports a device without one.
            nobody_there = error.errno in (errno.ENXIO, errno.ENODEV)
            os.write(writing, (_OPENS if nobody_there else str(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return said
