"""What the OpenAPI document allows, and what it does not, sent to the real service: it fails at nothing, and answers as
it says there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.load.service import ENVIRONMENTS, Service

TEXT_MODELS = Path(__file__).resolve().parents[1] / "engine/text_models.py"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The document of a service with small models for texts, whose longest answer is short."""
    texts = tmp_path_factory.mktemp("texts")
    subprocess.run([ENVIRONMENTS["openvino"] / "bin/python", TEXT_MODELS, texts], check=True)
    more: dict[str, Any] = {"max_tokens_default": 4, "queue_requests": 64}
    more |= {"embedding_model": str(texts / "embed"), "rerank_model": str(texts / "rerank")}
    service = Service(tmp_path_factory.mktemp("service"), context_length=64, **more)
    with service.running() as client:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{client.port}/openapi.json")


def required(document: Any, operation: Any) -> list[str]:
    """The fields that a body of an operation must have."""
    (body,) = operation.body
    fields: list[str] = document.raw_schema["components"]["schemas"][body.resource_name].get("required", [])
    return fields


def simple(body: dict[str, Any], required: list[str], kept: int) -> dict[str, Any]:
    """A body with one of its optional fields and one short message: most others are refused by some field."""
    optional = sorted(body.keys() - required)
    names = {*required, *optional[kept % max(1, len(optional)) :][:1]}
    message = {"messages": [{"role": "user", "content": "Hi"}]} if "messages" in required else {}
    return {**{name: value for name, value in body.items() if name in names}, **message}


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_everything_is_answered_as_documented(document: Any, mode: Any) -> None:
    for found in document.get_all_operations():
        operation = found.ok()
        answered = 0
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong

        some = st.integers(0, 99) if mode is GenerationMode.POSITIVE and operation.body else st.nothing()

        @given(case=operation.as_strategy(generation_mode=mode), kept=st.none() | some)
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: Any, kept: Optional[int]) -> None:
            nonlocal answered
            if kept is not None:
                case.body = simple(case.body, required(document, case.operation), kept)
            # A prompt that is too long, or what one engine has and another has not, is refused though it is allowed.
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            answered += response.status_code == 200

        ask()
        # What is refused alone would be answered as documented too.
        assert answered or mode is GenerationMode.NEGATIVE or not operation.body, operation.label
