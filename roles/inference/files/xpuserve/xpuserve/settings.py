"""The service's configuration file: its keys, their types, and valid combinations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xpuserve import text_models, weights
from xpuserve.sampling import SamplingDefaults

# The queue's limits, in requests and in tokens of their prompts.
QUEUE_REQUESTS, QUEUE_TOKENS = 32, 65536
# A step takes seconds at most, except one that compiles a GPU's kernels.
STALL_SECONDS = 300

# Low-bit formats of BigDL-LLM 2.4.0 by device. Its CPU code raises for the others at the first token.
BIGDL_FORMATS = {
    "cpu": ["sym_int4", "asym_int4", "sym_int5", "asym_int5", "sym_int8", "fp16"],
    "gpu": [
        *("sym_int4", "asym_int4", "sym_int5", "asym_int5", "sym_int8", "fp16"),
        *("nf3", "nf4", "fp4", "fp8", "mixed_4bit"),
    ],
}
# Layers of these widths get BigDL's fp16 kernel, which exists for GPUs only.
BIGDL_FP16_GPU_WIDTHS = {4096, 11008}
# The only kind of tokenizer (byte-level BPE) that OpenVINO GenAI 2026.4 makes from a GGUF file.
OPENVINO_GGUF_TOKENIZER = "gpt2"
# Precisions of engine torch, by model.low_bit; by default that of the training of current models.
TORCH_NUMBERS = {"": "bfloat16", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# Formats that ipex-llm 2.2.0 adds to that.
IPEX_LLM_FORMATS = {
    "cpu": ["sym_int4", "asym_int4", "sym_int5", "asym_int5", "sym_int8"],
    "gpu": [*("sym_int4", "asym_int4", "sym_int5", "asym_int5", "sym_int8"), *("nf3", "nf4", "fp4", "fp6", "fp8")],
}
# model.low_bit by engine and device; engine openvino takes a model unchanged.
LOW_BIT_FORMATS = {
    "bigdl": BIGDL_FORMATS,
    "torch": {device: [*TORCH_NUMBERS, *formats] for device, formats in IPEX_LLM_FORMATS.items()},
}
WEIGHT_FORMATS = {
    "openvino": ("gguf", "openvino"),
    "bigdl": ("safetensors", "low_bit"),
    "torch": ("safetensors",),
}


class SettingsError(Exception):
    """The configuration is invalid; the message names the file and each wrong key."""


class ModelSettings(BaseModel):
    """The served model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(min_length=1)
    path: str = Field(min_length=1)
    format: Literal["gguf", "safetensors", "low_bit", "openvino"]
    low_bit: str = ""
    prompt_format: Literal["tokenizer", "llama-2", "chatglm2"] = "tokenizer"
    context_length: int = Field(ge=16)  # tokens of prompt and answer together
    trust_remote_code: bool = False
    revision: str = ""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> ModelSettings:
        if self.trust_remote_code and not self.revision:
            raise ValueError("trust_remote_code runs the model's own code: set revision to pin it")
        return self


class Settings(BaseModel):
    """config.json."""

    model_config = ConfigDict(strict=True, extra="forbid")

    engine: Literal["openvino", "bigdl", "torch"]
    device: Literal["cpu", "gpu"]
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    hosts: list[str] = []  # more allowed names in a Host header, if the service listens on a loopback address
    cors_origins: list[str] = []  # web pages whose scripts may send requests; "*" for all
    connections: int = Field(default=4096, ge=1)  # concurrent ones; those that are idle longest make room for others
    client_connections: int = Field(default=0, ge=0)  # the same for one address; 0 is no separate limit
    agent_port: int = Field(default=0, ge=0, le=65535)  # port for gateways that read an instance's load; 0 for none
    api_keys_file: str = ""  # clients' keys, one a line; without a file, everyone is served
    tls_certificate: str = ""  # PEM file of a certificate and its chain; without one, HTTP is unencrypted
    tls_key: str = ""  # PEM file of its key
    metrics_key: bool = False  # whether metrics need a key too, if there are keys
    model: ModelSettings
    embedding_model: str = ""  # directory of a model in OpenVINO's format; none without
    embedding_pooling: Literal["auto", "cls", "mean", "last"] = "auto"  # auto: as its 1_Pooling/config.json says
    rerank_model: str = ""  # directory of a cross-encoder in OpenVINO's format; none without
    cache_dir: str = Field(min_length=1)
    engine_process: bool = True  # whether the engine has a separate process; without, its end is the service's
    threads: int = Field(default=0, ge=0)  # CPU threads of the engine; 0 leaves it to the engine
    max_tokens_default: int = Field(default=0, ge=0)  # of a request without a limit; 0 is the rest of the context
    sampling_defaults: SamplingDefaults = SamplingDefaults()
    warm_up: bool = True
    request_timeout: int = Field(default=600, ge=0)  # seconds for a whole answer, waiting included; 0 is no limit
    queue_requests: int = Field(default=QUEUE_REQUESTS, ge=1)  # waiting requests; more are refused
    client_batch_requests: int = Field(
        default=0, ge=0
    )  # of one client on the device; 0: 3 in 4 with several keys, or all
    client_batch_tokens: int = Field(default=0, ge=0)  # of those requests, prompts and longest answers; 0 is no limit
    priorities: bool = False  # whether clients may give a request low priority
    stall_timeout: int = Field(
        default=STALL_SECONDS, ge=1
    )  # seconds without a completed step, after which the engine counts as hung
    start_timeout: int = Field(default=3600, ge=1)  # time limit in seconds for loading, quantising and compiling
    stop_timeout: int = Field(default=60, ge=1)  # seconds for answers in progress when the service stops
    queue_tokens: int = Field(default=QUEUE_TOKENS, ge=1)  # of waiting prompts
    batch_requests: int = Field(default=0, ge=0)  # requests on the device together; 0 leaves it to the engine
    batch_tokens: int = Field(default=0, ge=0)  # of their key-value caches together; 0 leaves it to the engine
    prefix_cache_by_client: bool = False  # whether clients do not share cached prompts
    prefill_tokens: int = Field(default=256, ge=1)  # of prompts read in one step beside running answers

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Settings:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together: set both or neither")
        return self

    @model_validator(mode="after")
    def _text_models_have_an_engine_and_names(self) -> Settings:
        paths = [path for path in (self.embedding_model, self.rerank_model) if path]
        if paths and self.engine != "openvino":
            raise ValueError(f"embedding_model and rerank_model are for engine openvino, not {self.engine}")
        names = [self.model.name, *(Path(path).name for path in paths)]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two models have the same name: {', '.join(names)}; embedding_model and rerank_model are named as "
                "their directories are"
            )
        return self

    @model_validator(mode="after")
    def _engine_reads_the_format(self) -> Settings:
        formats = WEIGHT_FORMATS[self.engine]
        if self.model.format not in formats:
            raise ValueError(f"engine {self.engine} reads {' or '.join(formats)} models, not {self.model.format}")
        low_bit = self.model.low_bit
        if self.engine == "openvino":
            if low_bit:
                raise ValueError("model.low_bit is for engines bigdl and torch; openvino cannot convert a model")
            return self
        known = LOW_BIT_FORMATS[self.engine]
        if low_bit not in known["gpu"]:
            raise ValueError(f"model.low_bit {low_bit!r} is unknown; known formats: {_names(known['gpu'])}")
        if low_bit not in known[self.device]:
            raise ValueError(
                f"device {self.device} cannot run model.low_bit {low_bit}; it runs: {_names(known[self.device])}"
            )
        return self


def load(path: Path) -> Settings:
    """Load and validate a configuration file. Raises SettingsError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON: {error}") from None
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False, include_input=False)]
        raise SettingsError(f"{path}: {'; '.join(problems)}") from None


def check_model(settings: Settings) -> weights.Weights:
    """Check the model's files, without loading them. Raises SettingsError."""
    model = settings.model
    try:
        found = weights.inspect(Path(model.path))
        text_models.of(settings)
    except weights.WeightsError as error:
        raise SettingsError(str(error)) from None
    if found.format != model.format:
        raise SettingsError(f"{model.path} has a {found.format} model, but model.format says {model.format}")
    if found.low_bit and found.low_bit != model.low_bit:
        raise SettingsError(f"{model.path} was converted to {found.low_bit}, but model.low_bit says {model.low_bit}")
    if found.context_length and model.context_length > found.context_length:
        raise SettingsError(
            f"model.context_length is {model.context_length}, but the model's maximum is {found.context_length}"
        )
    if found.format == "gguf" and found.tokenizer != OPENVINO_GGUF_TOKENIZER:
        raise SettingsError(
            f"{model.path} has a tokenizer of kind {found.tokenizer or 'none'}, but OpenVINO reads only "
            f"{OPENVINO_GGUF_TOKENIZER} from a GGUF file: use a model in OpenVINO's own format"
        )
    fp16_on_cpu = (settings.engine, settings.device, model.low_bit) == ("bigdl", "cpu", "fp16")
    if fp16_on_cpu and found.widths & BIGDL_FP16_GPU_WIDTHS:
        raise SettingsError("device cpu cannot run model.low_bit fp16 for this model: BigDL supports it only on GPUs")
    return found


def _names(formats: list[str]) -> str:
    return ", ".join(filter(None, formats))


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = item["msg"].replace("Value error, ", "")
    return f"{where}: {message}" if where else message
