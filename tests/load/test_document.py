"""What the OpenAPI document allows, and what it does not, sent to the real service: it fails at nothing, and answers as
it says there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
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


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_everything_is_answered_as_documented(document: Any, mode: Any) -> None:
    for found in document.get_all_operations():
        operation = found.ok()
        answered = 0
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: Any) -> None:
            nonlocal answered
            # A prompt that is too long, or what one engine has and another has not, is refused though it is allowed.
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            answered += response.status_code == 200

        ask()
        # What is refused alone would be answered as documented too.
        assert answered or mode is GenerationMode.NEGATIVE or not operation.body, operation.label
