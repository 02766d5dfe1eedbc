"""The sampling of requests that do not specify it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import CONTEXT, MODEL, FakeBackend
from fastapi.testclient import TestClient
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.engine.loop import Engine
from xpuserve.sampling import FALLBACK, SamplingDefaults, defaults

MODEL_SAYS = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "do_sample": True, "eos_token_id": [1, 2]}


def chosen(tmp_path: Path, model: Any, **operator: Any) -> dict[str, Any]:
    """The defaults where the model and the operator say this."""
    if model is not None:
        (tmp_path / "generation_config.json").write_text(model if isinstance(model, str) else json.dumps(model))
    return defaults(SamplingDefaults(**operator), tmp_path)


def test_the_operator_comes_before_the_model(tmp_path: Path) -> None:
    assert chosen(tmp_path, MODEL_SAYS, temperature=0.1, min_p=0.2) == {
        "temperature": 0.1,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.2,
    }


@pytest.mark.parametrize("model", [None, {}, {"eos_token_id": 2, "top_k": None}, "[1]", "{", {"temperature": "hot"}])
def test_where_nobody_says_anything_unlikely_tokens_do_not_come(tmp_path: Path, model: Any) -> None:
    assert chosen(tmp_path, model) == FALLBACK
    assert chosen(tmp_path, model, temperature=1.0) == {"temperature": 1.0}


def test_what_a_model_says_that_no_request_may_ask_for_is_left_out(tmp_path: Path) -> None:
    assert chosen(tmp_path, {**MODEL_SAYS, "temperature": 99, "top_k": 1.5}) == {"top_p": 0.95}


def test_a_gguf_file_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    assert defaults(SamplingDefaults(), file) == FALLBACK


def test_the_request_comes_before_all(engine: Engine, backend: FakeBackend) -> None:
    limits = Limits(CONTEXT, 0, sampling={"temperature": 0.5, "top_k": 20, "min_p": 0.1})
    client = TestClient(create_app(engine, MODEL, limits))
    body = {"model": MODEL, "prompt": "Where?", "top_k": -1, "min_p": 0}
    assert client.post("/v1/completions", json=body).status_code == 200
    sampling = backend.seen[0][1]
    assert (sampling.temperature, sampling.top_k, sampling.min_p, sampling.top_p) == (0.5, 0, 0, 1)


def test_an_answer_may_use_the_rest_of_the_context(engine: Engine, backend: FakeBackend) -> None:
    client = TestClient(create_app(engine, MODEL, Limits(CONTEXT, 0)))
    assert client.post("/v1/completions", json={"model": MODEL, "prompt": "Where?"}).status_code == 200
    assert backend.seen[0][1].max_tokens == CONTEXT - len("Where?") - 1  # and its BOS
