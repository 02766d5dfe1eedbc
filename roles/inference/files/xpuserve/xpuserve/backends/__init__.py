"""One module for each engine library; only the chosen engine's library is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xpuserve import text_models

if TYPE_CHECKING:
    from xpuserve.engine.backend import Backend, Tokenizer
    from xpuserve.engine.remote import RemoteBackend
    from xpuserve.engine.remote_texts import Count
    from xpuserve.settings import Settings


def create(settings: Settings, instance: int) -> Backend:
    """The backend of `settings.engine`, not loaded yet; `instance` selects the GPU if several are visible."""
    if settings.engine == "openvino":
        from xpuserve.backends.openvino import OpenVINOBackend  # noqa: PLC0415

        return OpenVINOBackend(settings, instance)
    if settings.engine == "torch":
        from xpuserve.backends.torch import TorchBackend  # noqa: PLC0415

        return TorchBackend(settings)
    from xpuserve.backends.bigdl import BigDLBackend  # noqa: PLC0415

    return BigDLBackend(settings)


def remote(settings: Settings, instance: int, command: Sequence[str]) -> RemoteBackend:
    """The same in a separate process, which `command` starts."""
    from xpuserve.engine.remote import RemoteBackend  # noqa: PLC0415

    load = partial(_load_tokenizer, settings, instance)
    shared = settings.engine == "openvino"  # those of transformers are not made for two threads
    counts = partial(_load_counts, settings) if settings.embedding_model or settings.rerank_model else None
    second = None if shared else load
    return RemoteBackend(command, settings, instance, tokenizer=load, second_tokenizer=second, counts=counts)


def _load_counts(settings: Settings) -> Count:
    from xpuserve.backends.openvino_texts import TextTokenizers  # noqa: PLC0415

    return TextTokenizers(text_models.of(settings)).count


def _load_tokenizer(settings: Settings, instance: int) -> Tokenizer:
    if settings.engine == "openvino":
        from xpuserve.backends import openvino  # noqa: PLC0415

        return openvino.load_tokenizer(settings, instance)
    from xpuserve.backends import tokenizers  # noqa: PLC0415

    # transformers imports PyTorch otherwise, and tokenizers need none; the engine's process, which inherits this, does.
    os.environ["USE_TORCH"] = "0"
    try:
        return tokenizers.load(settings)
    finally:
        del os.environ["USE_TORCH"]
