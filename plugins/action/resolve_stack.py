"""Action plugin: choose the stack of a node, on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.answer import AnswerError, admitted_gpus
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import INTEGRATED
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    StackError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stacks import (
    NodeFacts,
    StackRequest,
    pinned_packages,
    resolve,
)
from ansible_collections.xpu.fleet.plugins.plugin_utils.door import look
from ansible_collections.xpu.fleet.plugins.plugin_utils.stack_definitions import stack_definitions
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.check import Check
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import options_of, roles

OPTIONS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "root": {"type": "path", "default": "/"},
    "stack": {"type": "str", "default": "auto"},
    "engine": {"type": "str", "default": ""},
    "device": {"type": "str", "default": ""},
    "oneapi_components": {"type": "list", "elements": "str", "default": []},
    "overrides": {"type": "dict", "default": {}},
    "ppa": {"type": "bool", "default": False},
    "dkms": {"type": "str", "default": "auto"},
    "lost_gpus": {"type": "list", "elements": "str", "default": []},
    "known_bad_accepted": {"type": "list", "elements": "str", "default": []},
    "known": {"type": "list", "elements": "dict", "default": []},
    "postponed": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """Reads the node's GPUs, and chooses."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resolved stack, or fail with one message that says what to change."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _ignored, options = self.validate_argument_spec(argument_spec=OPTIONS)
        found, failure = look(self, "gpu_info", task_vars, {"root": options["root"]})
        if failure:
            return {**result, **failure}
        try:
            node = _node_facts(admitted_gpus(found), options["known"])
            stack = resolve(stack_definitions(Path(options["directory"]).resolve()), node, _request(options))
        except AnswerError as error:
            raise AnsibleActionFail(
                f"The node's answer is malformed: {error}. The node may be damaged or compromised: check it."
            ) from error
        except StackError as error:
            raise AnsibleActionFail(str(error)) from error
        requirements = Path(options["directory"]) / "requirements" / f"{stack['python']['requirements']}.txt"
        stack["python"]["requirements_file"] = str(requirements)
        if options["postponed"]:
            self._check({**(task_vars or {}), "stack_resolved": stack})
        facts = {"ansible_kernel": node.kernel}
        return {**result, "changed": False, "ansible_facts": facts, "stack": stack, "packages": pinned_packages(stack)}

    def _check(self, variables: dict[str, Any]) -> None:
        """Refuse variables whose templates need the stack if they are of no use with it."""
        check = Check(variables, self._templar.copy_with_new_env(available_variables=variables).template)
        check.values(options_of(roles()))
        if check.problems:
            raise AnsibleActionFail(" ".join(check.problems))


def _node_facts(found: dict[str, Any], known: list[dict[str, Any]]) -> NodeFacts:
    """The node's facts from module gpu_info's present and earlier results."""
    system = found["system"]
    return NodeFacts(
        distribution=system["distribution"],
        # Debian names point releases (12.5); stacks name the release.
        release=system["release"] if system["distribution"] == "Ubuntu" else system["release"].split(".")[0],
        codename=system["codename"],
        kernel=system["kernel"],
        architecture=system["architecture"],
        gpus=found["gpus"] + found["lent"],
        container=found["container"],
        secure_boot=found["secure_boot"],
        known=known,
        served=found["served"],
        integrated=any(gpu["family"] == INTEGRATED for gpu in found["others"]),
        uncovered=[gpu for gpu in found["others"] if gpu["uncovered"]],
    )


def _request(options: dict[str, Any]) -> StackRequest:
    return StackRequest(
        stack=options["stack"],
        engine=options["engine"],
        device=options["device"],
        oneapi_components=options["oneapi_components"],
        overrides=options["overrides"],
        ppa=options["ppa"],
        dkms=options["dkms"],
        lost_gpus=options["lost_gpus"],
        known_bad_accepted=options["known_bad_accepted"],
    )
