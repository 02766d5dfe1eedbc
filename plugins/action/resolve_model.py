"""Action plugin: choose a node's weights, on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.model.catalogue import (
    Catalogue,
    ModelError,
    ModelRequest,
    Target,
    resolve,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stack.node import described

REQUEST: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "catalogue": {"type": "dict", "required": True},
    "engines": {"type": "dict", "required": True},
    "bits_per_weight": {"type": "dict", "required": True},
    "source": {"type": "dict", "default": {}},
    "revision": {"type": "str", "default": ""},
    "low_bit": {"type": "str", "default": ""},
    "context_length": {"type": "int", "default": 0},
    "trust_remote_code": {"type": "bool", "default": False},
    "engine": {"type": "str", "required": True},
    "device": {"type": "str", "required": True},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "request": {"type": "dict", "required": True, "options": REQUEST},
    "gpus": {"type": "list", "elements": "dict", "default": []},
    "memory_mb": {"type": "int", "default": 0},
}


class ActionModule(ActionBase):
    """Runs only on the controller."""

    _requires_connection = False
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the plan as ``model``, or fail with the message of a ModelError."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _ignored, options = self.validate_argument_spec(argument_spec=OPTIONS)
        request = options["request"]
        try:
            plan = resolve(
                Catalogue(
                    engines=request["engines"],
                    bits_per_weight=request["bits_per_weight"],
                    models=request["catalogue"],
                ),
                ModelRequest(
                    name=request["name"],
                    source=request["source"],
                    revision=request["revision"],
                    low_bit=request["low_bit"],
                    context_length=request["context_length"],
                    trust_remote_code=request["trust_remote_code"],
                ),
                _target(options),
            )
        except ModelError as error:
            raise AnsibleActionFail(f"Model: {error}.") from error
        location = plan["source"]["location"]
        if plan["source"]["kind"] == "controller_path" and not Path(location).exists():
            raise AnsibleActionFail(f"Model: there is no {location} on the controller (model_source.controller_path).")
        return {**result, "changed": False, "model": plan}


def _target(options: dict[str, Any]) -> Target:
    """The available memory: of each GPU, the smallest first, or of the machine."""
    request = options["request"]
    if request["device"] != "gpu":
        return Target(request["engine"], request["device"], options["memory_mb"] * 1024**2, "the node")
    known = [gpu for gpu in options["gpus"] if int(gpu.get("memory_bytes", 0)) > 0]
    if not known:
        return Target(request["engine"], "gpu")
    cards = sorted((int(gpu["memory_bytes"]), described(gpu)) for gpu in known)
    memory, smallest = cards[0]
    return Target(request["engine"], "gpu", memory, smallest, [(card, size) for size, card in cards[1:]])
