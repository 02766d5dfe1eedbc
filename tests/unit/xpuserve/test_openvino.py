"""What the engine openvino makes of its library, without the library."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from xpuserve.engine.prompts import PromptError


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
