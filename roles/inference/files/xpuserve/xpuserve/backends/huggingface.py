"""The common part of engines on Hugging Face transformers, for all their versions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

import torch

from xpuserve.backends import memory, tokenizers
from xpuserve.engine import selftest
from xpuserve.engine.backend import Backend, EngineError, Model, Part, Tokenizer
from xpuserve.engine.grammar import Grammars
from xpuserve.engine.request import PromptTokens, SamplingParams, Token
from xpuserve.engine.runner import OneAtATime, OutOfMemoryError, Runner, Tokens
from xpuserve.engine.sampler import Sampler, told
from xpuserve.engine.scheduler import TOLD_TOKENS, Scheduler
from xpuserve.settings import Settings

# Rows of a batch if the settings give no number; on Arc, some kernels hang at 16.
ROWS = {"cpu": 16, "gpu": 8}
# Extra columns behind a batch's cache, so that not every step copies it to extend it.
ROOM = 256


class HFBackend(Backend):
    """A causal language model of transformers, with its own loop over tokens and sampling here."""

    offers = frozenset({"cache_salt", "logit_bias", "logprobs", "top_logprobs", "prompt_logprobs"})
    _grammars: Optional[Grammars] = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._device = "xpu" if settings.device == "gpu" else "cpu"

    def load(self) -> None:
        """See Backend."""
        if self._device == "xpu":
            self._find_gpu()
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        self._model = self._load_model().eval().to(self._device)
        self.tokenizer = self._load_tokenizer()
        self._stop_ids = _stop_ids(self._model.generation_config.eos_token_id, self.tokenizer.eos_id)
        self._grammars = Grammars.of(self.tokenizer, self._stop_ids)
        if self._grammars:
            self.offers |= {"structured_outputs", "grammar"}

    def second_tokenizer(self) -> Tokenizer:
        """See Backend. Tokenizers of transformers are not thread-safe."""
        return self._load_tokenizer()

    def _find_gpu(self) -> None:
        if not torch.xpu.is_available():
            raise EngineError("PyTorch sees no Intel GPU: check the driver, the render group and ZE_AFFINITY_MASK")

    @abstractmethod
    def _load_model(self) -> Any:
        """The model, in the CPU's memory."""

    def _load_tokenizer(self) -> Tokenizer:
        return tokenizers.load(self._settings)

    @abstractmethod
    def _rows(self) -> Optional[Model]:
        """The loaded model for batches, or None if its requests must be served one at a time."""

    @abstractmethod
    def _read(self, ids: Any, state: dict[str, Any], *, every: bool = False) -> tuple[Any, dict[str, Any]]:
        """Read the unread part of `ids`, [1, tokens]: returns the logits after its last or more, [tokens, vocabulary],
        and the state after it. With `every`, there are logits after each token.

        The first state has an attention mask alone; what else is in it is this function's.
        """

    def runner(self) -> Runner:
        """See Backend."""
        rows = self._settings.batch_requests or ROWS[self._settings.device]
        model = self._rows() if rows > 1 else None
        if model is None:
            return OneAtATime(self.generate)
        prefill_tokens, context_length = self._settings.prefill_tokens, self._settings.model.context_length
        served = selftest.Served(rows, self._batch_tokens(model, rows), prefill_tokens, context_length)
        if not selftest.agrees(self.generate, model, self.tokenizer, served):
            return OneAtATime(self.generate, "degraded")
        model.free()
        batch_tokens = self._batch_tokens(model, rows)  # the test has had the device's libraries take what they need
        return Scheduler(
            model,
            batch_requests=rows,
            batch_tokens=batch_tokens,
            prefill_tokens=prefill_tokens,
            grammars=self._grammars,
        )

    def _batch_tokens(self, model: Model, rows: int) -> int:
        most = rows * (self._settings.model.context_length + model.room)
        return self._settings.batch_tokens or max(1, min(most, model.cache_tokens()))

    def generate(self, prompt: Sequence[int], sampling: SamplingParams) -> Tokens:
        """See Backend."""
        choose = Sampler(sampling, prompt, self._stop_ids, self._grammars)
        ids = torch.tensor([list(prompt)], device=self._device)
        state: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": True}
        for turn in range(sampling.max_tokens):
            every = sampling.prompt_logprobs and turn == 0
            with _memory(), torch.inference_mode():
                logits, state = self._read(ids, state, every=every)
            if every:
                yield PromptTokens([Token(prompt[0])])
                for start in range(0, len(prompt) - 1, TOLD_TOKENS):
                    rows = logits[start : min(start + TOLD_TOKENS, len(prompt) - 1)]
                    tokens = prompt[start + 1 : start + 1 + TOLD_TOKENS]
                    yield PromptTokens(told(tokens, _numbers(rows), sampling.logprobs or 0))
            token = choose(_numbers(logits[-1]))
            if choose.ends(token.id):
                return
            yield token
            if choose.complete:
                return
            ids = torch.cat([ids, torch.tensor([[token.id]], device=self._device)], dim=-1)


class LlamaModel(Model):
    """A model of the Llama family: its layers in `model`, the projection to the vocabulary in `lm_head`.

    A cache is a pair of tensors [rows, heads, columns, width] for each layer. New columns may be written into the
    memory behind a tensor's last where its strides say that there is room: no two caches may share memory there.
    """

    room = ROOM

    def __init__(self, model: Any, stop_ids: set[int]) -> None:
        self._model = model
        self._device = model.device
        self.stop_ids = frozenset(stop_ids)

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """See Model."""
        with _memory(), torch.inference_mode():
            output = self._output(ids, positions, mask, cache)
            # Compute only the last token's logits of a prompt: the others cost as much as some layers.
            logits = self._model.lm_head(output.last_hidden_state[:, -1:])[:, -1]
            return _numbers(logits), self._returned(output.past_key_values)

    def every(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """See Model."""
        with _memory(), torch.inference_mode():
            output = self._output(ids, positions, mask, cache)
            return _numbers(self._model.lm_head(output.last_hidden_state)[0]), self._returned(output.past_key_values)

    def _output(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        return self._model.model(
            input_ids=torch.from_numpy(ids).to(self._device),
            position_ids=torch.from_numpy(positions).to(self._device),
            attention_mask=torch.from_numpy(mask).to(self._device),
            past_key_values=self._given(cache, ids.shape[1]),
            use_cache=True,
            return_dict=True,
        )

    @abstractmethod
    def _given(self, cache: Any, tokens: int) -> Any:
        """A cache, or None for new rows, in the library's form for reading `tokens` more of each row."""

    @abstractmethod
    def _returned(self, past: Any) -> Any:
        """The cache in the library's result."""

    def gather(self, parts: Sequence[Part], *, grows: bool) -> Any:
        """See Model."""
        with _memory(), torch.inference_mode():
            return [
                tuple(_gathered(parts, layer, kind, grows=grows) for kind in range(2))
                for layer in range(len(parts[0].cache))
            ]

    def cache_tokens(self) -> int:
        """See Model. Half of the free memory: a change of the batch is a copy."""
        config = self._model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        number = next(parameter for parameter in self._model.parameters() if parameter.is_floating_point())
        token = 2 * config.num_hidden_layers * heads * width * int(number.element_size())
        return int(_free_memory(self._device) // 2 // token)

    def free(self) -> None:
        """See Model."""
        if self._device.type == "xpu":
            torch.xpu.empty_cache()


def _gathered(parts: Sequence[Part], layer: int, kind: int, *, grows: bool) -> Any:
    columns = max(part.end - part.start for part in parts)
    first = parts[0].cache[layer][kind]
    _ignored, heads, _ignored, width = first.shape
    room = columns + (ROOM if grows else 0)
    rows = torch.empty((len(parts), heads, room, width), dtype=first.dtype, device=first.device)[:, :, :columns]
    for n, part in enumerate(parts):
        padding = columns - (part.end - part.start)
        rows[n, :, :padding] = 0
        rows[n, :, padding:] = part.cache[layer][kind][part.row, :, part.start : part.end]
    return rows


def _numbers(logits: Any) -> Any:
    """Logits as an array of 32-bit floats."""
    with _memory(), torch.inference_mode():
        return logits.float().cpu().numpy()


def _free_memory(device: Any) -> int:
    if device.type == "xpu":
        return int(torch.xpu.get_device_properties(device).total_memory * 0.95) - int(torch.xpu.memory_reserved(device))
    return memory.available()


@contextmanager
def _memory() -> Iterator[None]:
    """Detect lack of memory: PyTorch and its Intel extension report it in many ways."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if memory.is_exhausted(error):
            raise OutOfMemoryError(str(error).partition("\n")[0]) from None
        raise


def _stop_ids(*found: Any) -> set[int]:
    ids: set[int] = set()
    for item in found:
        ids.update(item if isinstance(item, list) else [] if item is None else [item])
    return ids
