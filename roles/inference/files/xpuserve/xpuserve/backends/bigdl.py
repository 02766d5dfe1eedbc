"""Engine bigdl: BigDL-LLM 2.4.0 on transformers 4.31, on the CPU or an Intel GPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import torch
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from xpuserve import weights
from xpuserve.backends import instructions
from xpuserve.backends.base import Backend, EngineError, Model, Part, Tokenizer
from xpuserve.engine import selftest
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Message, Sampling, Token
from xpuserve.engine.runner import OneAtATime, OutOfMemoryError, Runner, Tokens
from xpuserve.engine.sampler import Sampler
from xpuserve.engine.scheduler import Scheduler
from xpuserve.settings import Settings

WEIGHTS_FILE = "model.safetensors"
# What a converted model takes over from its source as it is: the tokenizer, and a model's own code.
_KEPT_FILES = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "chat_template.jinja", "*.py")
# How PyTorch and its Intel extension say that memory does not suffice.
_OUT_OF_MEMORY = (
    *("out of memory", "out of device memory", "out_of_device_memory", "out_of_host_memory", "out_of_resources"),
    *("can't allocate memory", "not enough memory", "failed to allocate"),
)
# Rows of a batch where the settings do not say how many; on Arc, some kernels hang at 16.
ROWS = {"cpu": 16, "gpu": 8}
# Columns that a batch's cache has behind its last: BigDL makes them itself otherwise, with one more copy.
ROOM = 256


class HFTokenizer(Tokenizer):
    """A transformers tokenizer. transformers 4.31 knows no chat templates, so they are rendered here."""

    def __init__(self, tokenizer: Any, template: Optional[str]) -> None:
        self._tokenizer = tokenizer
        self.bos_id = tokenizer.bos_token_id
        self.eos_id = tokenizer.eos_token_id
        self._template = None
        if template is not None:
            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            environment.globals["raise_exception"] = _refuse
            self._template = environment.from_string(template)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer."""
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Message]) -> Optional[str]:
        """See Tokenizer."""
        if self._template is None:
            return None
        try:
            return self._template.render(
                messages=[{"role": message.role, "content": message.content} for message in messages],
                add_generation_prompt=True,
                bos_token=self._tokenizer.bos_token or "",
                eos_token=self._tokenizer.eos_token or "",
            )
        except TemplateError as error:
            raise PromptError(f"the model's chat template refuses these messages: {error}") from None


class BigDLBackend(Backend):
    """A Hugging Face model in one of BigDL-LLM's low-bit formats."""

    offers = frozenset({"logit_bias", "logprobs", "top_logprobs"})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._device = "xpu" if settings.device == "gpu" else "cpu"

    def load(self) -> None:
        """See Backend."""
        if self._device == "xpu":
            import intel_extension_for_pytorch  # noqa: F401, PLC0415 - adds torch.xpu

            if not torch.xpu.is_available():
                raise EngineError("PyTorch sees no Intel GPU: check the driver, the render group and ZE_AFFINITY_MASK")
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        if self._device == "cpu":
            instructions.use_widest()
        model = self._load_low_bit() if self._settings.model.format == "low_bit" else self._quantise()
        _apply_rope_theta(model)
        self._model = model.eval().to(self._device)
        self._load_tokenizer()
        self._stop_ids = _stop_ids(self._model.generation_config.eos_token_id, self.tokenizer.eos_id)

    def convert(self, output: Path) -> None:
        """Write the model in its low-bit format to `output`, a new directory, from which it loads fast."""
        partial = output.with_name(f".{output.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._quantise().save_low_bit(str(partial), safe_serialization=True, max_shard_size="10000GB")
        source = Path(self._settings.model.path)
        for pattern in _KEPT_FILES:
            for file in source.glob(pattern):
                shutil.copyfile(file, partial / file.name)
        for file in partial.iterdir():
            file.chmod(0o644)
        weights.publish(partial, output)

    def runner(self) -> Runner:
        """See Backend."""
        rows = self._settings.batch_rows or ROWS[self._settings.device]
        if rows == 1 or type(self._model).__name__ != "LlamaForCausalLM":
            return OneAtATime(self.generate)
        model = LlamaModel(self._model, self._stop_ids)
        if not selftest.agrees(self.generate, model, self.tokenizer):
            return OneAtATime(self.generate, "degraded")
        most = rows * self._settings.model.context_length
        return Scheduler(
            model,
            rows=rows,
            cache_tokens=self._settings.cache_tokens or max(1, min(most, model.cache_tokens())),
            prefill_tokens=self._settings.prefill_tokens,
        )

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Tokens:
        """See Backend."""
        choose = Sampler(sampling, prompt)
        stop_ids = set() if sampling.ignore_eos else self._stop_ids
        ids = torch.tensor([list(prompt)], device=self._device)
        state: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": True}
        for _ in range(sampling.max_tokens):
            with _memory():
                token, state = self._step(ids, state, choose)
            if token.id in stop_ids:
                return
            yield token
            ids = torch.cat([ids, torch.tensor([[token.id]], device=self._device)], dim=-1)

    def _step(self, ids: Any, state: dict[str, Any], choose: Sampler) -> tuple[Token, dict[str, Any]]:
        # prepare_inputs_for_generation and _update_model_kwargs_for_generation are how every transformers model,
        # ChatGLM2's own code too, says what it wants as input for the next token.
        with torch.inference_mode():
            inputs = self._model.prepare_inputs_for_generation(ids, **state)
            output = self._model(**inputs, return_dict=True)
            state = self._model._update_model_kwargs_for_generation(output, state, is_encoder_decoder=False)
            return choose(output.logits[0, -1].float().cpu().numpy()), state

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

    def _load_tokenizer(self) -> None:
        from transformers import AutoTokenizer  # noqa: PLC0415 - as above

        path = Path(self._settings.model.path)
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=self._settings.model.trust_remote_code)
        file = path / "chat_template.jinja"
        template = file.read_text(encoding="utf-8") if file.is_file() else tokenizer.init_kwargs.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = {item["name"]: item["template"] for item in template}.get("default")
        self.tokenizer = HFTokenizer(tokenizer, template)


class LlamaModel(Model):
    """The Llama of transformers 4.31, as it is or with the attention that BigDL puts in its place.

    A cache is a pair of tensors [rows, heads, columns, width] for each layer. BigDL's attention writes new columns into
    the memory behind a tensor's last where its strides say that there is room: no two caches may share memory there.
    """

    def __init__(self, model: Any, stop_ids: set[int]) -> None:
        self._model = model
        self._device = model.device
        self.stop_ids = frozenset(stop_ids)

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """See Model."""
        tokens = ids.shape[1]
        with _memory(), torch.inference_mode():
            output = self._model.model(
                input_ids=torch.from_numpy(ids).to(self._device),
                position_ids=torch.from_numpy(positions).to(self._device),
                attention_mask=torch.from_numpy(mask).to(self._device),
                past_key_values=cache and [(_with_room(k, tokens), _with_room(v, tokens)) for k, v in cache],
                use_cache=True,
                return_dict=True,
            )
            # Of a prompt, only the last token's logits are wanted: the others cost as much as some layers.
            logits = self._model.lm_head(output.last_hidden_state[:, -1:])[:, -1]
            return logits.float().cpu().numpy(), output.past_key_values

    def gather(self, parts: Sequence[Part], *, grows: bool) -> Any:
        """See Model."""
        with _memory(), torch.inference_mode():
            return [
                tuple(_gathered(parts, layer, kind, grows=grows) for kind in range(2))
                for layer in range(len(parts[0].cache))
            ]

    def cache_tokens(self) -> int:
        """See Model. Half of what is free: a change of the batch is a copy."""
        config = self._model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = config.hidden_size // config.num_attention_heads
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
    _, heads, _, width = first.shape
    room = columns + (ROOM if grows else 0)
    rows = torch.empty((len(parts), heads, room, width), dtype=first.dtype, device=first.device)[:, :, :columns]
    for n, part in enumerate(parts):
        padding = columns - (part.end - part.start)
        rows[n, :, :padding] = 0
        rows[n, :, padding:] = part.cache[layer][kind][part.row, :, part.start : part.end]
    return rows


def _with_room(tensor: Any, tokens: int) -> Any:
    """The tensor, or a copy without room where BigDL would write `tokens` more columns behind it and has no room.

    It looks only whether there is room for one.
    """
    columns, width = tensor.shape[2:]
    room = tensor.stride(1) // width - columns
    return tensor.contiguous() if 0 < room < tokens else tensor


def _free_memory(device: Any) -> int:
    if device.type == "xpu":
        return int(torch.xpu.get_device_properties(device).total_memory * 0.95) - int(torch.xpu.memory_reserved(device))
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, kib = line.partition(":")
        if name == "MemAvailable":
            return int(kib.split()[0]) * 1024
    raise EngineError("/proc/meminfo does not say how much memory is available")


@contextmanager
def _memory() -> Iterator[None]:
    """Tell where memory does not suffice: PyTorch and its Intel extension say it in many ways."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise OutOfMemoryError(str(error).partition("\n")[0]) from None
        raise


def _apply_rope_theta(model: Any) -> None:
    """Rebuild the rotary tables of Llama models from the config's rope_theta, which transformers 4.31 ignores."""
    theta = getattr(model.config, "rope_theta", None)
    for module in model.modules():
        if theta and type(module).__name__ == "LlamaRotaryEmbedding":
            module.base = theta
            exponents = torch.arange(0, module.dim, 2, dtype=torch.float32) / module.dim
            module.inv_freq = 1.0 / theta**exponents
            module._set_cos_sin_cache(module.max_seq_len_cached, device="cpu", dtype=torch.float32)


def _stop_ids(*found: Any) -> set[int]:
    ids: set[int] = set()
    for item in found:
        ids.update(item if isinstance(item, list) else [] if item is None else [item])
    return ids


def _refuse(message: str) -> None:
    raise TemplateError(message)
