"""Whether the command line of a playbook run makes sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ansible import context
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display

# Ansible evaluates a play's hosts in its own process and each task of each node in another one, which inherits loaded
# modules. A module that is not loaded by then is loaded by each of them: a tenth of a second each time.
from ansible_collections.xpu.fleet.plugins.filter import audit, variables
from ansible_collections.xpu.fleet.plugins.module_utils.layers import NAMES
from ansible_collections.xpu.fleet.plugins.plugin_utils.command_line import problem
from ansible_collections.xpu.fleet.plugins.plugin_utils.core import require_core
from ansible_collections.xpu.fleet.plugins.plugin_utils.expectations import archive_sha256
from ansible_collections.xpu.fleet.plugins.plugin_utils.role_variables import variables_of
from ansible_collections.xpu.fleet.plugins.plugin_utils.stack_definitions import stack_definitions
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables import names, specs

LOADED = (
    *(audit, variables, names.unknown(["xpu"]), specs.fleet_options(), variables_of("defaults"), variables_of("vars")),
    *(archive_sha256("inference/files/xpuserve", "xpuserve"), stack_definitions(specs.COLLECTION / "roles/stack/vars")),
)


def checked_run(hosts: str, groups: Mapping[str, Sequence[str]], tags: Sequence[str] = NAMES) -> str:
    """Return the given pattern of hosts.

    Ends Ansible with status 2 and one message if the run would do nothing, or fail in its middle: ``--tags`` that
    the playbook does not know (``tags`` are the known ones) or that choose nothing, ``--start-at-task`` and ``--step``,
    mistakes in the inventory's files, and no host in the inventory (``groups``). If another playbook
    imports this one, only the last is checked: its tags may be for other plays.
    """
    # A playbook runs this first: an ansible-core that is too old for the collection ends the run here.
    require_core()
    listing = any(context.CLIARGS.get(option) for option in ("syntax", "listtags", "listtasks", "listhosts"))
    why = problem(context.CLIARGS, tags) or ("" if listing else _no_host(hosts, groups))
    if why:
        _end(why)
    return hosts


def _no_host(hosts: str, groups: Mapping[str, Sequence[str]]) -> str:
    if not groups.get("all"):
        return "The inventory has no host. Check the warnings above and the path after -i."
    if hosts == "all":
        return ""
    inventory = InventoryManager(DataLoader(), parse=False)
    for group, members in groups.items():
        inventory.add_group(group)
        for host in members:
            inventory.add_host(host, group=group)
    if inventory.get_hosts(hosts):
        return ""
    named = ", ".join(sorted(group for group in groups if group != "ungrouped"))
    return f"No host matches xpu_hosts ({hosts!r}). Groups of the inventory: {named}."


def _end(message: str) -> NoReturn:
    Display().error(message, wrap_text=False)
    # No callback is loaded yet, so there is no other way to end a play with a status.
    raise SystemExit(2)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {"checked_run": checked_run}
