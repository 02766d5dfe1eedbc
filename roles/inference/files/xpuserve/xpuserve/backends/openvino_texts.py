"""Embedding and rerank models in OpenVINO GenAI."""

from __future__ import annotations

import logging
import math
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Optional

import openvino_genai

from xpuserve.backends import memory
from xpuserve.engine.backend import EngineError, TextModels
from xpuserve.engine.runner import OutOfMemoryError
from xpuserve.text_models import TextModel

# Texts whose tokens are counted together, which is ten times faster than one by one, and their longest length in
# characters: the library pads all of them to the longest.
_BATCH, _SHORT = 64, 4096

log = logging.getLogger(__name__)


class TextTokenizers:
    """Count tokens. The pipelines have tokenizers of their own."""

    def __init__(self, models: Mapping[str, TextModel]) -> None:
        self._tokenizers: dict[str, Any] = {}
        for kind, model in models.items():
            options = {"add_second_input": True} if kind == "rerank" else {}
            # As for the chat model's tokenizer, more threads are not faster.
            self._tokenizers[kind] = openvino_genai.Tokenizer(str(model.path), INFERENCE_NUM_THREADS=1, **options)

    def count(self, texts: Sequence[str], query: Optional[str] = None) -> list[int]:
        """See TextModels."""
        tokenizer = self._tokenizers["embedding" if query is None else "rerank"]
        paired = query is not None and tokenizer.supports_paired_input()
        if query is not None and not paired:  # as the pipeline does
            texts = [query + text for text in texts]
        counts: list[int] = []
        for batch in _batches(texts):
            # One query for several texts writes beyond the library's memory (2026.4.1).
            before = ([query] * len(batch),) if paired else ()
            counts += tokenizer.encode(*before, batch, truncation=False).attention_mask.data.sum(1).tolist()
        return counts


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) == _BATCH or len(text) > _SHORT or len(batch[0]) > _SHORT):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


class OpenVINOTexts(TextModels):
    """The models on a device."""

    def __init__(self, models: Mapping[str, TextModel], device: str, properties: Mapping[str, Any]) -> None:
        """Load and try them; `properties` are the library's. Raises EngineError."""
        self._models = models
        if "embedding" in models:
            self._embedder = self._loaded(models["embedding"], self._embedding, device, properties)
        if "rerank" in models:
            self._ranker = self._loaded(models["rerank"], self._rerank, device, properties)

    @staticmethod
    def _embedding(model: TextModel, device: str, properties: Mapping[str, Any]) -> Any:
        poolings = openvino_genai.TextEmbeddingPipeline.PoolingType
        pooling = {"cls": poolings.CLS, "mean": poolings.MEAN, "last": poolings.LAST_TOKEN}[model.pooling]
        pipeline = openvino_genai.TextEmbeddingPipeline(str(model.path), device, pooling_type=pooling, **properties)
        (vector,) = pipeline.embed_documents(["Hello"])
        if not all(map(math.isfinite, vector)):
            raise RuntimeError("its embeddings are not numbers")
        return pipeline

    @staticmethod
    def _rerank(model: TextModel, device: str, properties: Mapping[str, Any]) -> Any:
        pipeline = openvino_genai.TextRerankPipeline(str(model.path), device, **properties)
        ((_number, score),) = pipeline.rerank("Hello", ["Hello"])
        if not math.isfinite(score):
            raise RuntimeError("its scores are not numbers")
        return pipeline

    @staticmethod
    def _loaded(model: TextModel, load: Callable[..., Any], device: str, properties: Mapping[str, Any]) -> Any:
        """A pipeline that computes something: on a GPU, it compiles its kernels with that."""
        began = time.monotonic()
        try:
            pipeline = load(model, device, properties)
        except RuntimeError as error:
            raise EngineError(f"{model.path}: OpenVINO GenAI cannot serve this model: {error}") from error
        log.info("model %s loaded in %.1f s", model.name, time.monotonic() - began)
        return pipeline

    @cached_property
    def _tokenizers(self) -> TextTokenizers:
        """Only a service without a process for its engine counts here."""
        return TextTokenizers(self._models)

    def count(self, texts: Sequence[str], query: Optional[str] = None) -> list[int]:
        """See TextModels."""
        return self._tokenizers.count(texts, query)

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """See TextModels."""
        # The library does not know on which side a tokenizer pads, which matters for the last token.
        alone = self._models["embedding"].pooling == "last"
        with _memory():
            parts = [[text] for text in texts] if alone else [list(texts)]
            vectors = [vector for part in parts for vector in self._embedder.embed_documents(part)]
        return [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]

    def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        """See TextModels."""
        scores: list[float] = []
        with _memory():
            for text in texts:  # one by one, for the reason in `count`
                ((_number, score),) = self._ranker.rerank(query, [text])
                scores.append(float(score))
        return scores


@contextmanager
def _memory() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if memory.is_exhausted(error):
            raise OutOfMemoryError(str(error).partition("\n")[0]) from None
        raise
