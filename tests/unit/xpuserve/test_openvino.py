"""What the engine openvino makes of its library, without the library."""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Sampling


class Cutting:
    """Keeps the first tokens of a text, as the library's tokenizer for GGUF does."""

    chat_template = ""

    def __init__(self, kept: int) -> None:
        self._kept = kept

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        ids = MagicMock()
        ids.tolist.return_value = list(text.encode()[: self._kept])
        return SimpleNamespace(input_ids=SimpleNamespace(data=[ids]))

    def get_bos_token_id(self) -> int:
        return -1

    def get_eos_token_id(self) -> int:
        return 2


class Pipeline:
    """Takes two steps for a prompt, and then gives token 5 in each."""

    def __init__(self) -> None:
        self.steps = 0
        self.left = 0
        self.cancelled = False

    def get_config(self) -> Any:
        return SimpleNamespace(stop_token_ids={2}, eos_token_id=2)

    def add_request(self, *_: Any) -> Any:
        return self

    def has_non_finished_requests(self) -> bool:
        return not self.cancelled

    def step(self) -> None:
        self.steps += 1
        self.left = int(self.steps > 2)

    def can_read(self) -> bool:
        return self.left > 0

    def read(self) -> dict[int, Any]:
        self.left = 0
        return {0: SimpleNamespace(generated_ids=[5])}

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def backend() -> Iterator[Any]:
    with patch.dict(sys.modules, {name: MagicMock() for name in ("numpy", "openvino", "openvino_genai")}):
        yield importlib.import_module("xpuserve.backends.openvino")


def test_a_prompt_that_the_tokenizer_cuts_is_refused(backend: Any) -> None:
    tokenizer = backend.OpenVINOTokenizer(Cutting(20), 100)
    assert len(tokenizer.encode("x" * 19, special=False)) == 19
    with pytest.raises(PromptError, match="fewer than 20 tokens"):
        tokenizer.encode("x" * 60, special=False)


def test_a_tokenizer_that_cuts_beyond_the_context_is_no_trouble(backend: Any) -> None:
    tokenizer = backend.OpenVINOTokenizer(Cutting(200), 100)
    assert len(tokenizer.encode("x" * 300, special=False)) == 200  # refused for its length
    assert tokenizer.bos_id is None


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_request_can_be_cancelled_after_every_step(backend: Any, steps: int) -> None:
    engine = backend.OpenVINOBackend(SimpleNamespace(), 0)
    engine._pipeline = Pipeline()
    stream = engine.generate([1, 2, 3], Sampling(9))
    assert [next(stream) for _ in range(steps)] == [None, None, 5][:steps]
    stream.close()
    assert engine._pipeline.cancelled
    assert engine._pipeline.steps == steps


def test_every_way_of_sampling_reaches_the_library(backend: Any) -> None:
    engine = backend.OpenVINOBackend(SimpleNamespace(), 0)
    engine._pipeline = Pipeline()
    options: dict[str, Any] = {
        **{"temperature": 0.5, "top_p": 0.4, "top_k": 5, "min_p": 0.1, "ignore_eos": True},
        **{"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": -1.0},
    }
    config = engine._config(Sampling(9, seed=-1, **options))
    assert {name: getattr(config, name) for name in options} == options
    assert (config.max_new_tokens, config.stop_token_ids, config.do_sample) == (9, set(), True)
    assert config.rng_seed == 2**32 - 1
    config = engine._config(Sampling(9, temperature=5e-324, top_p=5e-324, min_p=1 - 1e-16))
    narrow = [struct.unpack("f", struct.pack("f", number))[0] for number in (config.temperature, config.top_p)]
    assert all(number > 0 for number in narrow)
    assert struct.unpack("f", struct.pack("f", config.min_p))[0] < 1
    config = engine._config(Sampling(9, temperature=0))
    assert (config.do_sample, config.stop_token_ids) == (False, {2})
