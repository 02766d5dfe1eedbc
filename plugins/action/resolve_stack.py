"""Action plugin: choose the stack of a node, on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    StackError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stacks import (
    NodeFacts,
    StackRequest,
    pinned_packages,
    resolve,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "stack": {"type": "str", "default": "auto"},
    "engine": {"type": "str", "default": ""},
    "device": {"type": "str", "default": ""},
    "oneapi_components": {"type": "list", "elements": "str", "default": []},
    "overrides": {"type": "dict", "default": {}},
    "ppa": {"type": "bool", "default": False},
    "dkms": {"type": "str", "default": "auto"},
    "lost_gpus": {"type": "list", "elements": "str", "default": []},
    "known_bad_accepted": {"type": "list", "elements": "str", "default": []},
    "gpus": {"type": "list", "elements": "dict", "required": True},
    "known": {"type": "list", "elements": "dict", "default": []},
    "served": {"type": "list", "elements": "str", "default": []},
    "integrated": {"type": "bool", "default": False},
    "uncovered": {"type": "list", "elements": "dict", "default": []},
    "container": {"type": "bool", "required": True},
    "secure_boot": {"type": "bool", "required": True},
    "distribution": {"type": "str", "required": True},
    "release": {"type": "str", "required": True},
    "codename": {"type": "str", "required": True},
    "kernel": {"type": "str", "required": True},
    "architecture": {"type": "str", "required": True},
}


class ActionModule(ActionBase):
    """Runs wholly on the controller."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resolved stack, or fail with the one message of a StackError."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _ignored, options = self.validate_argument_spec(argument_spec=OPTIONS)
        definitions = self._definitions(Path(options["directory"]))
        node = NodeFacts(
            distribution=options["distribution"],
            # Ansible's facts have Debian's point releases (12.5); stacks name the release.
            release=options["release"] if options["distribution"] == "Ubuntu" else options["release"].split(".")[0],
            codename=options["codename"],
            kernel=options["kernel"],
            architecture=options["architecture"],
            gpus=options["gpus"],
            container=options["container"],
            secure_boot=options["secure_boot"],
            known=options["known"],
            served=options["served"],
            integrated=options["integrated"],
            uncovered=options["uncovered"],
        )
        wish = StackRequest(
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
        try:
            stack = resolve(definitions, node, wish)
        except StackError as error:
            raise AnsibleActionFail(str(error)) from error
        requirements = Path(options["directory"]) / "requirements" / f"{stack['python']['requirements']}.txt"
        stack["python"]["requirements_file"] = str(requirements)
        facts = {"ansible_kernel": options["kernel"]}
        return {**result, "changed": False, "ansible_facts": facts, "stack": stack, "packages": pinned_packages(stack)}

    def _definitions(self, directory: Path) -> dict[str, dict[str, Any]]:
        definitions = {}
        for path in sorted(directory.glob("*.yml")):
            data = self._loader.load_from_file(str(path), cache="all")
            definitions[path.stem] = data["stack_definition"]
        if not definitions:
            raise AnsibleActionFail(f"There is no stack data in {directory}.")
        return definitions
