"""Engine bigdl: BigDL-LLM 2.4.0 on transformers 4.31, on the CPU or an Intel GPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Optional

import torch

from xpuserve import weights
from xpuserve.backends import instructions
from xpuserve.backends.huggingface import HFBackend, LlamaModel
from xpuserve.engine.backend import Model

WEIGHTS_FILE = "model.safetensors"


class BigDLBackend(HFBackend):
    """A Hugging Face model in one of BigDL-LLM's low-bit formats."""

    def _find_gpu(self) -> None:
        import intel_extension_for_pytorch  # noqa: F401, PLC0415 - adds torch.xpu

        super()._find_gpu()

    def _load_model(self) -> Any:
        if self._device == "cpu":
            instructions.use_widest()
        model = self._load_low_bit() if self._settings.model.format == "low_bit" else self._quantise()
        _apply_rope_theta(model)
        return model

    def convert(self, output: Path) -> None:
        """Write the model in its low-bit format to `output`, a new directory, from which it loads fast."""
        partial = output.with_name(f".{output.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._quantise().save_low_bit(str(partial), safe_serialization=True, max_shard_size="10000GB")
        for file in weights.companions(Path(self._settings.model.path)):
            if not (partial / file.name).exists():
                shutil.copyfile(file, partial / file.name)
        for file in partial.iterdir():
            file.chmod(0o644)
        weights.publish(partial, output)

    def _rows(self) -> Optional[Model]:
        llama = type(self._model).__name__ == "LlamaForCausalLM"
        return BigDLLlama(self._model, self._stop_ids) if llama else None

    def _read(self, ids: Any, state: dict[str, Any], *, every: bool = False) -> tuple[Any, dict[str, Any]]:
        # prepare_inputs_for_generation and _update_model_kwargs_for_generation are how every transformers model,
        # ChatGLM2's own code too, says what it wants as input for the next token.
        inputs = self._model.prepare_inputs_for_generation(ids, **state)
        if every and "return_last_logit" in inputs:  # ChatGLM2's
            inputs["return_last_logit"] = False
        output = self._model(**inputs, return_dict=True)
        state = self._model._update_model_kwargs_for_generation(output, state, is_encoder_decoder=False)
        return output.logits[0], state

    def _quantise(self) -> Any:
        from bigdl.llm.transformers import AutoModelForCausalLM  # noqa: PLC0415 - after IPEX, which it patches

        return AutoModelForCausalLM.from_pretrained(
            self._settings.model.path,
            load_in_low_bit=self._settings.model.low_bit,
            optimize_model=False,
            use_safetensors=True,
            trust_remote_code=self._settings.model.trust_remote_code,
        )

    def _load_low_bit(self) -> Any:
        from bigdl.llm.transformers import AutoModelForCausalLM, model  # noqa: PLC0415 - as above

        path = Path(self._settings.model.path)
        # BigDL looks for a pickle; convert() writes safetensors, which transformers reads just as well.
        model.extract_local_archive_file = lambda *args: (str(path / WEIGHTS_FILE), False)
        return AutoModelForCausalLM.load_low_bit(
            str(path), optimize_model=False, trust_remote_code=self._settings.model.trust_remote_code
        )


class BigDLLlama(LlamaModel):
    """The Llama of transformers 4.31, as it is or with the attention that BigDL puts in its place.

    BigDL's attention writes new columns into the room behind a cache's last.
    """

    def _given(self, cache: Any, tokens: int) -> Any:
        return cache and [(_with_room(k, tokens), _with_room(v, tokens)) for k, v in cache]

    def _returned(self, past: Any) -> Any:
        return past


def _with_room(tensor: Any, tokens: int) -> Any:
    """The tensor, or a copy without room where BigDL would write `tokens` more columns behind it and has no room.

    It looks only whether there is room for one.
    """
    columns, width = tensor.shape[2:]
    room = tensor.stride(1) // width - columns
    return tensor.contiguous() if 0 < room < tokens else tensor


def _apply_rope_theta(model: Any) -> None:
    """Rebuild the rotary tables of Llama models from the config's rope_theta, which transformers 4.31 ignores."""
    theta = getattr(model.config, "rope_theta", None)
    for module in model.modules():
        # Tables for scaled positions are subclasses, and theirs start from it too.
        if theta and any(base.__name__ == "LlamaRotaryEmbedding" for base in type(module).__mro__):
            module.base = theta
            exponents = torch.arange(0, module.dim, 2, dtype=torch.float32) / module.dim
            module.inv_freq = 1.0 / theta**exponents
            module._set_cos_sin_cache(module.max_seq_len_cached, device="cpu", dtype=torch.float32)
