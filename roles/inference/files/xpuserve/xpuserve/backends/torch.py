"""Engine torch: current transformers on plain PyTorch, on the CPU or an Intel GPU (torch.xpu).

Low-bit formats come from ipex-llm 2.2.0, if installed; it needs transformers 4.37.
"""

from __future__ import annotations

import logging
from typing import Any, Optional

import torch
from transformers import AutoModelForCausalLM

from xpuserve.backends.families import unbatchable_reason
from xpuserve.backends.huggingface import ROOM, HFBackend, LlamaModel
from xpuserve.engine.backend import EngineError, Model
from xpuserve.settings import TORCH_NUMBERS

try:
    from transformers.cache_utils import Cache, DynamicLayer
except ImportError:  # before transformers 4.56
    DynamicLayer = None

log = logging.getLogger(__name__)


class TorchBackend(HFBackend):
    """A Hugging Face model, in 16 or 32 bits or in one of ipex-llm's low-bit formats."""

    def _load_model(self) -> Any:
        model = self._settings.model
        options = {"use_safetensors": True, "trust_remote_code": model.trust_remote_code}
        if model.low_bit in TORCH_NUMBERS:
            number = getattr(torch, TORCH_NUMBERS[model.low_bit])
            name = "dtype" if DynamicLayer else "torch_dtype"
            return AutoModelForCausalLM.from_pretrained(model.path, **{name: number}, **options)
        try:
            from ipex_llm.transformers import AutoModelForCausalLM as LowBit  # noqa: PLC0415 - few have it
        except ImportError as error:
            raise EngineError(
                f"model.low_bit {model.low_bit} needs ipex-llm, which is not installed ({error}); without it, use one "
                f"of {', '.join(filter(None, TORCH_NUMBERS))}"
            ) from None
        # Its own attention works only with its own cache; transformers' attention can be batched.
        return LowBit.from_pretrained(model.path, load_in_low_bit=model.low_bit, optimize_model=False, **options)

    def _rows(self) -> Optional[Model]:
        config = self._model.config
        reason = unbatchable_reason(type(self._model).__module__, config, self._settings.model.context_length)
        if reason:
            log.info("requests are served one at a time: %s", reason)
            return None
        return TorchLlama(self._model, self._stop_ids)

    def _read(self, ids: Any, state: dict[str, Any], *, every: bool = False) -> tuple[Any, dict[str, Any]]:
        mask = state["attention_mask"]
        output = self._model(input_ids=ids[:, state.pop("read", 0) :], **state, return_dict=True)
        if getattr(output, "past_key_values", None) is None:
            raise EngineError(f"{type(self._model).__name__} has no key-value cache, which engine torch needs")
        longer = torch.cat([mask, mask.new_ones((1, 1))], dim=-1)
        state = {**state, "attention_mask": longer, "past_key_values": output.past_key_values, "read": ids.shape[1]}
        return output.logits[0], state


class TorchLlama(LlamaModel):
    """The Llama family in transformers 4.37, whose cache is pairs, or from 4.56 on, whose cache is layers."""

    def _given(self, cache: Any, tokens: int) -> Any:
        if DynamicLayer is None:
            return cache
        pairs = cache or [(None, None)] * self._model.config.num_hidden_layers
        return Cache(layers=[_RoomyLayer(keys, values) for keys, values in pairs])

    def _returned(self, past: Any) -> Any:
        return past if DynamicLayer is None else [(layer.keys, layer.values) for layer in past.layers]


if DynamicLayer is not None:

    class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers carries no types that count here
        """A cache layer that leaves its input tensors unchanged."""

        def __init__(self, keys: Any, values: Any) -> None:
            super().__init__()
            self.keys, self.values = keys, values
            if keys is not None:
                self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            """See transformers' CacheLayerMixin. It copies only without room."""
            self.keys, self.values = _longer(self.keys, key_states), _longer(self.values, value_states)
            self.is_initialized = True
            return self.keys, self.values


def _longer(tensor: Any, more: Any) -> Any:
    """`tensor`, if any, extended by `more` columns: in the memory behind its last one, or in a new, larger one."""
    rows, heads, new, width = more.shape
    columns = 0 if tensor is None else tensor.shape[2]
    shape = (rows, heads, columns + new, width)
    if tensor is not None and tensor.stride(1) >= shape[2] * width:
        result = tensor.as_strided(shape, tensor.stride(), tensor.storage_offset())
    else:
        memory = torch.empty((rows, heads, shape[2] + ROOM, width), dtype=more.dtype, device=more.device)
        result = memory[:, :, : shape[2]]
        if tensor is not None:
            result[:, :, :columns] = tensor
    result[:, :, columns:] = more
    return result
