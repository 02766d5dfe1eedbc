"""Engine openvino: OpenVINO GenAI's continuous-batching pipeline, on the CPU or an Intel GPU."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy
import openvino
import openvino_genai

from xpuserve.backends.base import Backend, EngineError, Tokenizer
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Message, Sampling
from xpuserve.settings import Settings


class OpenVINOTokenizer(Tokenizer):
    """The tokenizer that OpenVINO GenAI finds in a GGUF file or beside an OpenVINO model."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        # The library's tokenizer for GGUF keeps a text's first 8192 tokens and says nothing; find out.
        self._cut = 0
        kept = len(self.encode("a b " * context_length, special=False))
        self._cut = kept if kept < context_length else 0
        # -1: the model has no such token.
        self.bos_id = _present(tokenizer.get_bos_token_id())
        self.eos_id = _present(tokenizer.get_eos_token_id())

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).input_ids.data[0].tolist()
        if self._cut and len(ids) >= self._cut:
            raise PromptError(f"OpenVINO's tokenizer for this model takes fewer than {self._cut} tokens")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return str(self._tokenizer.decode(list(ids))) if ids else ""

    def render(self, messages: Sequence[Message]) -> Optional[str]:
        """See Tokenizer."""
        if not self._tokenizer.chat_template:
            return None
        history = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self._tokenizer.apply_chat_template(history, add_generation_prompt=True))
        except RuntimeError as error:
            raise PromptError(f"the model's chat template refuses these messages: {error}") from None


class OpenVINOBackend(Backend):
    """A GGUF file or an OpenVINO model in OpenVINO GenAI."""

    def __init__(self, settings: Settings, instance: int) -> None:
        self._settings = settings
        self._instance = instance
        self._ids = itertools.count()

    def load(self) -> None:
        """See Backend."""
        properties: dict[str, Any] = {}
        if self._settings.threads:
            properties["INFERENCE_NUM_THREADS"] = self._settings.threads
        if self._settings.device == "gpu":
            properties["CACHE_DIR"] = str(Path(self._settings.cache_dir) / "openvino")
        with self._openable() as path:
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(
                path, openvino_genai.SchedulerConfig(), self._device(), properties
            )
        self.tokenizer = OpenVINOTokenizer(self._pipeline.get_tokenizer(), self._settings.model.context_length)

    @contextmanager
    def _openable(self) -> Iterator[str]:
        """The model's path, as the library can open it.

        Its GGUF reader opens the file for writing, and the verified weights are not the service's to write: it gets a
        copy, for as long as it reads.
        """
        path = Path(self._settings.model.path)
        if self._settings.model.format != "gguf" or os.access(path, os.W_OK):
            yield str(path)
            return
        copies = Path(self._settings.cache_dir) / f"loading-{self._instance}"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir(parents=True)
        try:
            yield str(shutil.copyfile(path, copies / path.name))
        finally:
            shutil.rmtree(copies, ignore_errors=True)

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Generator[Optional[int], None, None]:
        """See Backend."""
        config = self._config(sampling)
        ids = openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))
        handle = self._pipeline.add_request(next(self._ids), ids, config)
        try:
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
                if not handle.can_read():
                    yield None
                while handle.can_read():
                    for output in handle.read().values():
                        for token in output.generated_ids:
                            if token in config.stop_token_ids:
                                return
                            yield token
            if handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
                raise EngineError("not enough memory for this prompt's cache")
        finally:
            # The pipeline drops a cancelled request in its next step.
            handle.cancel()
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()

    def _config(self, sampling: Sampling) -> Any:
        config = self._pipeline.get_config()
        config.max_new_tokens = sampling.max_tokens
        config.stop_token_ids = set() if sampling.ignore_eos else config.stop_token_ids | {config.eos_token_id}
        config.ignore_eos = sampling.ignore_eos
        config.repetition_penalty = sampling.repetition_penalty
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            # In 32 bits the least would be 0 and the greatest 1, which the library refuses.
            config.temperature = max(sampling.temperature, 1e-6)
            config.top_p = max(sampling.top_p, 1e-6)
            config.min_p = min(sampling.min_p, 1 - 1e-6)
            if sampling.top_k:
                config.top_k = sampling.top_k
            config.rng_seed = secrets.randbits(32) if sampling.seed is None else sampling.seed % 2**32
        return config

    def _device(self) -> str:
        if self._settings.device == "cpu":
            return "CPU"
        # OpenVINO counts integrated GPUs too; instances are for the cards. ZE_AFFINITY_MASK, where the driver
        # heeds it, leaves one.
        core = openvino.Core()
        gpus = [name for name in core.available_devices if name.startswith("GPU")]
        cards = [name for name in gpus if "dGPU" in core.get_property(name, "FULL_DEVICE_NAME")] or gpus
        if len(cards) > 1 and self._instance < len(cards):
            return str(cards[self._instance])
        if len(cards) == 1:
            return str(cards[0])
        raise EngineError(f"instance {self._instance} has no GPU: OpenVINO sees {', '.join(gpus) or 'none'}")


def _present(token_id: int) -> Optional[int]:
    return token_id if token_id >= 0 else None
