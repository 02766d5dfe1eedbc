"""The settings of a node's layers are read as the roles would read them, without secrets."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from ansible_collections.xpu.fleet.tests.unit.playbook_run import inventory, playbook


def test_defaults_and_a_nodes_own_values_are_there_and_secrets_are_not(tmp_path: Path) -> None:
    read = "{{ query('xpu.fleet.layer_settings', 'model', 'service') | first | to_json }}"
    task = {"name": "Show", "ansible.builtin.debug": {"msg": "told {{ read }} end"}, "vars": {"read": read}}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    given = {
        "inference_port": 9000,
        "inference_api_keys": ["x" * 16],
        "model_token": "hf_x",
        "python_runtime_index_url": "http://p",
    }
    run = playbook(str(tmp_path / "play"), "-i", inventory(tmp_path, {"a": {**given, "stack_resolved": {}}}))
    assert run.status == 0, run.output
    told = json.loads(json.loads('"' + run.output.partition('"msg": "told ')[2].partition(' end"')[0] + '"'))
    assert (told["inference_port"], told["inference_host"], told["model_index_url"]) == (9000, "127.0.0.1", "http://p")
    assert not {"inference_api_keys", "model_token", "gpu_driver_reboot"} & set(told)
