"""Bad input is refused with one clear error before anything changes.

One run of site.yml covers all cases: each is a separate host in an inventory, with the node's address and variables,
and the case's mistake.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

testinfra_hosts = ["ansible://arc"]

PICKLED = "/srv/pickled"
MIRROR_THAT_IS_NOT = "http://127.0.0.1:9/graphics/ubuntu"


def overrides(variables: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The node's own overrides merged with more; extra variables replace a mapping as a whole."""

    def lay_over(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        for key, value in more.items():
            base[key] = lay_over(base.get(key, {}), value) if isinstance(value, dict) else value
        return base

    return lay_over(copy.deepcopy(variables["xpu_stack_overrides"]), changes)


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
    "unknown-stack": ({"xpu_stack": "arc-648"}, ["arc-648", "arc-647, cpu, datacenter-2523, datacenter-682, native"]),
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
    "type-proxy": ({"xpu_proxy": ["a"]}, ["xpu_proxy must be a string, but is a list"]),
    "type-flag": ({"python_runtime_no_index": "perhaps"}, ["python_runtime_no_index"]),
    # The engine for the GPU is not installed and would need space; the present one needs none.
    "disk": ({"xpu_device": "gpu", "python_runtime_minimum_free_bytes": 10**16}, ["/opt/xpu/engines/bigdl-gpu", "GB"]),
    "digest": (
        {"model_source": {"url": "{{ rig.mirror }}/models/SmolLM2-135M-Instruct.Q4_1.gguf", "sha256": "0" * 64}},
        ["0" * 64],
    ),
    "pickle": ({"model_source": {"path": PICKLED}}, [PICKLED, "pickle", "safetensors"]),
}
#: Refused in the second play: a download can be judged only after it.
LATE = {"digest"}


@dataclass(frozen=True)
class Refusals:
    """The result of one run for every case."""

    output: str

    def of(self, case: str, late: bool) -> str:
        """All failures of a case, on one line; "" if it did not fail in that play."""
        first, _, second = self.output.partition("PLAY [Ensure the nodes are in order]")
        blocks = re.findall(
            rf"^fatal: \[{re.escape(case)}\]: FAILED! => *\n((?:[ \t]+.*\n|\n(?=[ \t]))+)",
            second if late else first,
            re.M,
        )
        return " ".join(" ".join(blocks).split())

    def counts(self, case: str) -> dict[str, int]:
        """The recap of a case."""
        recap = re.search(rf"^{re.escape(case)} +: (.*)$", self.output.rpartition("PLAY RECAP")[2], re.M)
        assert recap, self.output
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", recap[1])}


@pytest.fixture(scope="module")
def refusals(host: Any, node: str, site_with: Any, tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """A run of site.yml over all cases at once."""
    host.check_output(f"mkdir -p {PICKLED} && echo '{{}}' > {PICKLED}/config.json && touch {PICKLED}/pytorch_model.bin")
    inventory = tmp_path_factory.mktemp("refusals") / "hosts.json"
    known = json.loads(
        subprocess.run(
            [str(Path(sys.executable).with_name("ansible-inventory")), "--host", node],
            env={**os.environ, "ANSIBLE_INVENTORY": os.environ["MOLECULE_INVENTORY_FILE"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    cases = {case: {"xpu_stack_overrides": overrides(known, changes)} for case, (changes, _) in STACK_CASES.items()}
    cases.update({case: changes for case, (changes, _) in CASES.items()})
    hosts = {case: {**known, **wrong} for case, wrong in cases.items()}
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    run = site_with(inventory)(None, "--forks", "6")
    assert run.status != 0, run.output
    return Refusals(run.output)


def refuse(refusals: Refusals, case: str, said: list[str]) -> None:
    """Expect that a case failed once, with these words, and changed nothing."""
    failure = refusals.of(case, case in LATE)
    assert failure, refusals.output
    for words in said:
        assert words in failure, failure
    counts = refusals.counts(case)
    assert (counts["failed"], counts["changed"]) == (1, 0), counts


@pytest.mark.parametrize("case", sorted(STACK_CASES))
def test_a_stack_that_cannot_work_is_refused(refusals: Refusals, case: str) -> None:
    refuse(refusals, case, STACK_CASES[case][1])


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_wrong_variable_is_refused(refusals: Refusals, case: str) -> None:
    refuse(refusals, case, CASES[case][1])


def test_the_service_ran_on(refusals: Refusals, host: Any) -> None:
    assert refusals.output
    assert host.service("xpuserve@0").is_running
