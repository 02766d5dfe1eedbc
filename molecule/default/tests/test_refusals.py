"""Bad input is refused with one clear error before anything changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

testinfra_hosts = ["ansible://arc"]

MIRROR_THAT_IS_NOT = "http://127.0.0.1:9/graphics/ubuntu"


def overrides(host: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """The node's own overrides with more laid over them; extra variables replace a mapping as a whole."""

    def lay_over(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        for key, value in more.items():
            base[key] = lay_over(base.get(key, {}), value) if isinstance(value, dict) else value
        return base

    return lay_over(copy.deepcopy(host.ansible.get_variables()["xpu_stack_overrides"]), changes)


STACK_CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "fingerprint": (
        {"repositories": {"graphics": {"fingerprints": ["0" * 40]}}},
        ["0" * 40, "intel-graphics.key"],
    ),
    "pins": (
        {"driver": {"packages": {"level-zero": "9.9-1", "libmfx1": "8.8-1"}}},
        ["level-zero", "9.9-1", "libmfx1", "8.8-1"],
    ),
    "mirror": ({"repositories": {"graphics": {"uris": [MIRROR_THAT_IS_NOT]}}}, [MIRROR_THAT_IS_NOT]),
    "unknown-key": ({"pyhton": {}}, ["xpu_stack_overrides.pyhton", "python"]),
    "wrong-type": ({"driver": {"packages": {"level-zero": 1.11}}}, ["level-zero", "must be a string"]),
}

CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown-stack": ({"xpu_stack": "arc-648"}, ["arc-648", "arc-647, cpu, datacenter-682, native"]),
    "stack-of-other-gpus": ({"xpu_stack": "datacenter-682"}, ["8086:56a0", "Ubuntu 22.04", "not arc"]),
    "engine": ({"xpu_engine": "vllm"}, ["vllm", "bigdl"]),
    "people": ({"xpu_users": ["nobody-here", "nor-here"]}, ["nobody-here", "nor-here"]),
    "unknown-model": ({"model_name": "gpt-5"}, ["gpt-5", "llama-2-7b-chat"]),
    "missing-path": ({"model_source": {"path": "/srv/no-such-model"}}, ["/srv/no-such-model"]),
    "gated": ({"model_name": "llama-2-7b-chat", "model_source": {}, "model_token": ""}, ["llama-2-7b-chat", "token"]),
    "too-large": (
        {"xpu_device": "gpu", "model_name": "llama-2-13b-chat", "model_low_bit": "fp16", "model_token": "x"},
        ["llama-2-13b-chat", "GiB"],
    ),
    "unknown-low-bit": ({"model_low_bit": "sym_int3"}, ["sym_int3", "sym_int4"]),
    "refused-low-bit": ({"model_low_bit": "nf4"}, ["nf4", "cpu"]),
    "port": ({"inference_port": 22}, ["22", "sshd"]),
    "type-port": ({"inference_port": "many"}, ["inference_port", "many"]),
    "type-users": ({"render_access_users": {"a": 1}}, ["render_access_users"]),
    "type-proxy": ({"xpu_proxy": ["a"]}, ["stack_proxy must be a string, but is a list"]),
    "type-flag": ({"python_runtime_no_index": "perhaps"}, ["python_runtime_no_index"]),
    # The engine for the GPU is not there yet and would need room; what is there already needs none.
    "disk": ({"xpu_device": "gpu", "python_runtime_minimum_free_bytes": 10**16}, ["/opt/xpu/engines/bigdl-gpu", "GB"]),
    "digest": (
        {"model_source": {"url": "{{ rig.mirror }}/models/SmolLM2-135M-Instruct.Q4_1.gguf", "sha256": "0" * 64}},
        ["0" * 64],
    ),
}


def refuse(site: Any, host: Any, variables: dict[str, Any], said: list[str], *, late: bool = False) -> None:
    """Run site.yml and expect one failure that says all of ``said``, and no change.

    The checks of the first play refuse, not what would stumble ``late`` in the second.
    """
    run = site(variables)
    assert run.status != 0, run.output
    assert run.output.count("FAILED!") + run.output.count("[ERROR]: Task failed") >= 1, run.output
    for words in said:
        assert words in run.output, run.output
    assert run.changed == 0, run.output
    assert "PLAY [Check every node before anything changes]" in run.output
    assert ("PLAY [Provision the nodes]" in run.output) is late, run.output
    assert host.service("xpuserve@0").is_running


@pytest.mark.parametrize("case", sorted(STACK_CASES))
def test_a_stack_that_cannot_work_is_refused(site: Any, host: Any, case: str) -> None:
    changes, said = STACK_CASES[case]
    refuse(site, host, {"xpu_stack_overrides": overrides(host, changes)}, said)


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_wrong_variable_is_refused(site: Any, host: Any, case: str) -> None:
    variables, said = CASES[case]
    # What a download is worth is known once it is there.
    refuse(site, host, variables, said, late=case == "digest")


def test_pickled_weights_are_refused(site: Any, host: Any) -> None:
    model = "/srv/pickled"
    host.check_output(f"mkdir -p {model} && echo '{{}}' > {model}/config.json && touch {model}/pytorch_model.bin")
    refuse(site, host, {"model_source": {"path": model}}, [model, "pickle", "safetensors"])
