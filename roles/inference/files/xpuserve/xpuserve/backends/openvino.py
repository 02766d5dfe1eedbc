"""Engine openvino: OpenVINO GenAI's continuous-batching pipeline, on the CPU or an Intel GPU."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy
import openvino
import openvino_genai

from xpuserve import ebnf, text_models
from xpuserve.backends import memory
from xpuserve.backends.openvino_texts import OpenVINOTexts
from xpuserve.engine import selftest
from xpuserve.engine.backend import Backend, EngineError, Tokenizer
from xpuserve.engine.prompts import PromptError, for_template
from xpuserve.engine.request import PLAIN, ChatOptions, Message, Request, SamplingParams, Token
from xpuserve.engine.runner import OutOfMemoryError, Output, Runner, TooLargeError, run_single
from xpuserve.settings import Settings

# Requests in the pipeline if the settings give no number.
ROWS = 32
# Tokens in a block of the library's key-value cache.
BLOCK_TOKENS = {"cpu": 32, "gpu": 16}
# Size of the part of a GGUF file with its metadata: the largest vocabularies, with their merges, take some 20 MB.
GGUF_METADATA_BYTES = 2**26
# The share of free memory for the cache: growing copies it.
CACHE_SHARE = 1 / 2

log = logging.getLogger(__name__)


class OpenVINOTokenizer(Tokenizer):
    """OpenVINO GenAI's tokenizer from a GGUF file or beside an OpenVINO model.

    Two threads may share it: in the library every call takes a separate inference request from a queue.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        # The library's tokenizer for GGUF silently truncates a text to 8192 tokens; detect that.
        self._cut = 0
        kept = len(self.encode("a b " * context_length, special=False))
        self._cut = kept if kept < context_length else 0
        # -1: the model has no such token.
        self.bos_id = _present(tokenizer.get_bos_token_id())
        self.eos_id = _present(tokenizer.get_eos_token_id())
        self.template = tokenizer.chat_template

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).input_ids.data[0].tolist()
        if self._cut and len(ids) >= self._cut:
            raise PromptError(f"OpenVINO's tokenizer for this model takes fewer than {self._cut} tokens")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return str(self._tokenizer.decode(list(ids))) if ids else ""

    def pieces(self) -> Sequence[bytes]:
        """See Tokenizer."""
        vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        pieces = [b""] * (1 + max(vocabulary.values(), default=-1))
        for piece, number in vocabulary.items():
            pieces[number] = piece
        return pieces

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        """See Tokenizer."""
        if not self.template:
            return None
        history = [for_template(message, self.template) for message in messages]
        more: dict[str, Any] = {"tools": list(options.tools)} if options.tools else {}
        if options.template:
            more["extra_context"] = dict(options.template)
        try:
            return str(self._tokenizer.apply_chat_template(history, add_generation_prompt=True, **more))
        except RuntimeError as error:
            raise PromptError(f"the model's chat template refuses these messages: {error}") from None


class OpenVINOBackend(Backend):
    """A GGUF file or an OpenVINO model in OpenVINO GenAI."""

    # The library reports only the chosen token's probability, takes no bias, and its grammars are made here.
    offers = frozenset({"logprobs", "structured_outputs"})

    def __init__(self, settings: Settings, instance: int) -> None:
        self._settings = settings
        self._instance = instance
        self._text_bytes = 0  # weights of the models for texts

    def load(self) -> None:
        """See Backend."""
        if self._settings.prefix_cache_by_client:  # nothing is shared, as a salt requires
            self.offers |= {"cache_salt"}
        properties: dict[str, Any] = {}
        if self._settings.threads:
            properties["INFERENCE_NUM_THREADS"] = self._settings.threads
        if self._settings.device == "gpu":
            properties["CACHE_DIR"] = str(Path(self._settings.cache_dir) / "openvino")
        with _openable(self._settings, f"loading-{self._instance}") as path:
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(
                path, self._scheduler(), self._device(), properties
            )
        self.tokenizer = OpenVINOTokenizer(self._pipeline.get_tokenizer(), self._settings.model.context_length)
        if models := text_models.of(self._settings):
            self.texts = OpenVINOTexts(models, self._device(), properties)
            self._text_bytes = sum(model.bytes for model in models.values())

    def _scheduler(self) -> Any:
        config = openvino_genai.SchedulerConfig()
        config.max_num_seqs = self._settings.batch_requests or ROWS
        config.max_num_batched_tokens = self._settings.prefill_tokens + config.max_num_seqs
        # The library cannot separate clients: prompts that must not be shared are not kept.
        config.enable_prefix_caching = not self._settings.prefix_cache_by_client
        # Without a size, the cache grows with what runs at a time, which the runner limits, and former conversations
        # stay in what it has. With one, they would stay until all of it is taken.
        config.num_kv_blocks = -(-self._settings.batch_tokens // BLOCK_TOKENS[self._settings.device])
        return config

    def runner(self) -> Runner:
        """See Backend."""
        rows, block = self._settings.batch_requests or ROWS, BLOCK_TOKENS[self._settings.device]
        reads = self._settings.prefill_tokens
        runner = PipelineRunner(self._pipeline, rows, block, reads, self._settings.batch_tokens)
        free = 0 if self._settings.batch_tokens else self._free_memory()
        if free:
            token = runner.token_bytes()
            runner.batch_tokens = int(free * CACHE_SHARE / token) if token else 0
            log.info("the cache holds up to %d tokens of %d bytes", runner.batch_tokens, token)
        if rows > 1 and not selftest.runs_agree(runner, self.tokenizer, rows):
            runner.serve_alone()
        return runner

    def _free_memory(self) -> int:
        """Bytes free on the device beside the weights; 0 if unknown."""
        if self._settings.device == "cpu":
            return memory.available()
        try:
            total = int(openvino.Core().get_property(self._device(), "GPU_DEVICE_TOTAL_MEM_SIZE"))
        except RuntimeError as error:
            log.warning("OpenVINO reports no GPU memory size, so the cache has no limit: %s", error)
            return 0
        # GPU_MEMORY_STATISTICS covers one Core, and the pipeline's own is not accessible: the weights
        # count with the size of their files.
        path = Path(self._settings.model.path)
        weights = sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.bin")))
        return max(0, total - weights - self._text_bytes)

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
        raise EngineError(f"instance {self._instance} has no GPU; OpenVINO sees {', '.join(gpus) or 'none'}")


def load_tokenizer(settings: Settings, instance: int) -> Tokenizer:
    """The tokenizer without the model. If the library needs a copy of a GGUF file, only its beginning is copied."""
    with _openable(settings, f"tokenizer-{instance}", GGUF_METADATA_BYTES) as path:
        # More threads do not make a prompt's or a token's conversion faster.
        tokenizer = openvino_genai.Tokenizer(path, INFERENCE_NUM_THREADS=1)
    return OpenVINOTokenizer(tokenizer, settings.model.context_length)


@contextmanager
def _openable(settings: Settings, name: str, most: int = 0) -> Iterator[str]:
    """A model path that the library can open.

    Its GGUF reader opens the file for writing, and the service may not write the verified weights: it gets a copy,
    while it reads. The copy has the file's length, and with `most` only so many of its bytes.
    """
    path = Path(settings.model.path)
    if settings.model.format != "gguf" or os.access(path, os.W_OK):
        yield str(path)
        return
    copies = Path(settings.cache_dir) / name
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    try:
        copy = copies / path.name
        if most:
            with path.open("rb") as source, copy.open("wb") as target:
                target.write(source.read(most))
                target.truncate(path.stat().st_size)
        else:
            shutil.copyfile(path, copy)
        yield str(copy)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _present(token_id: int) -> Optional[int]:
    return token_id if token_id >= 0 else None


class PipelineRunner(Runner):
    """The requests in a pipeline, which does the batching itself.

    It reads prompts in the order in which they are passed to it. So it gets no more of them than it reads in a step:
    that of the client with the fewest requests there is next, and a client among several has one there unread.
    """

    def __init__(
        self, pipeline: Any, batch_requests: int, block: int, prefill_tokens: int, batch_tokens: int = 0
    ) -> None:
        """At most `batch_requests` at a time, whose caches, in blocks of so many tokens, hold `batch_tokens` together;
        0 is no limit. `prefill_tokens` of prompts are read in a step.
        """
        self._pipeline = pipeline
        self._batch_requests = self.rows = batch_requests
        self._block = block
        self._prefill_tokens = prefill_tokens
        self.batch_tokens = -(-batch_tokens // block) * block  # as the library has it
        self._ids = itertools.count()
        self._added: dict[Request, Any] = {}  # not passed to the pipeline yet: the library's sampling settings
        self._handles: dict[Request, tuple[Any, Any]] = {}  # in the pipeline, and their sampling settings
        self._unread: dict[Request, int] = {}  # about so many tokens of prompts that the pipeline has to read
        self.batching = "on" if batch_requests > 1 else "off"

    def serve_alone(self) -> None:
        """From now on, run one request at a time: the truth test failed."""
        self._batch_requests = self.rows = 1
        self.batching = "degraded"

    @property
    def cache_usage(self) -> float:
        """See Runner."""
        # The library counts before it frees ended requests: after the last one, some would stay counted forever.
        return float(self._pipeline.get_metrics().cache_usage) / 100 if self._handles else 0.0

    def fits(self, request: Request) -> bool:
        """See Runner. It reserves room for requests to grow: the library ends those without room."""
        tokens = self._tokens(request)
        if self._is_too_large(tokens):
            return True  # add() refuses it
        others = (*self._handles, *self._added)
        room = not self.batch_tokens or tokens + sum(map(self._tokens, others)) <= self.batch_tokens
        return room and len(others) < self._batch_requests

    def _tokens(self, request: Request) -> int:
        """A request's size in the cache, in whole blocks."""
        return -(-_size(request) // self._block) * self._block

    def _is_too_large(self, tokens: int) -> bool:
        return bool(self.batch_tokens) and tokens > self.batch_tokens

    def token_bytes(self) -> int:
        """Cache memory per token, measured with a request of one token; 0 if the library does not tell."""
        run_single(self, [0], SamplingParams(max_tokens=1, temperature=0))
        metrics = self._pipeline.get_metrics()  # of the step, whatever was freed since
        return int(metrics.kv_cache_size_in_bytes * metrics.cache_usage / 100 / self._block)

    def add(self, request: Request) -> None:
        """See Runner."""
        if self._is_too_large(self._tokens(request)):
            raise TooLargeError(
                f"prompt and answer may have {_size(request)} tokens together, but the server has room for "
                f"{self.batch_tokens}: reduce max_tokens"
            )
        self._added[request] = self._config(request.sampling)

    def drop(self, request: Request) -> None:
        """See Runner. The pipeline frees a cancelled request in its next step."""
        self._added.pop(request, None)
        self._unread.pop(request, None)
        if request in self._handles:
            self._handles.pop(request)[0].cancel()

    def _pass(self) -> Iterator[Output]:
        """Pass prompts to the pipeline; yields those that it refuses."""
        while self._added and sum(self._unread.values()) < self._prefill_tokens:
            several = len({each.client for each in (*self._handles, *self._added)}) > 1
            reading = {each.client for each in self._unread} if several else ()
            may = [each for each in self._added if each.client not in reading]
            if not may:
                return
            rows = Counter(each.client for each in self._handles)
            request = min(may, key=lambda each: rows[each.client])
            config = self._added.pop(request)
            ids = openvino.Tensor(numpy.array([request.prompt], dtype=numpy.int64))
            try:
                self._handles[request] = self._pipeline.add_request(next(self._ids), ids, config), config
                self._unread[request] = len(request.prompt)
            except Exception as error:
                yield Output(request, error=error)

    def _note_read(self) -> None:
        """Count what the pipeline has read in a step: prompts in their order, as the library does not tell."""
        left = self._prefill_tokens
        for request, tokens in self._unread.items():
            self._unread[request] = max(0, tokens - left)
            left = max(0, left - tokens)

    def step(self) -> Iterator[Output]:
        """See Runner."""
        yield from self._pass()
        try:
            if self._pipeline.has_non_finished_requests():
                self._pipeline.step()
        except Exception as error:
            # The library cannot continue any of them: it considers them in a step still.
            if memory.is_exhausted(error):
                error = OutOfMemoryError(str(error).partition("\n")[0])
            for request in list(self._handles):
                self.drop(request)
                yield Output(request, error=error)
        self._note_read()
        for request, (handle, config) in list(self._handles.items()):
            tokens, ended = _read(handle, config)
            if tokens or ended:
                self._unread.pop(request, None)
                yield Output(request, tokens, ended)
            elif handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
                yield Output(request, error=OutOfMemoryError("the prompt's cache does not fit"))
            elif handle.get_status() == openvino_genai.GenerationStatus.FINISHED:
                yield Output(request, ended=True)  # for an unexpected reason; nothing would ever come

    def _config(self, sampling: SamplingParams) -> Any:
        # From the model's generation_config.json, use only the end-of-answer tokens: the request sets the rest.
        model, config = self._pipeline.get_config(), openvino_genai.GenerationConfig()
        config.max_new_tokens = sampling.max_tokens
        config.eos_token_id = model.eos_token_id
        config.stop_token_ids = set() if sampling.ignore_eos else model.stop_token_ids | {model.eos_token_id}
        config.stop_token_ids |= set(sampling.stop_token_ids)
        config.ignore_eos = sampling.ignore_eos
        config.min_new_tokens = sampling.min_tokens
        if sampling.structured:
            grammar = ebnf.grammar(sampling.structured)
            config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=grammar)
        config.logprobs = int(sampling.logprobs is not None)
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


def _size(request: Request) -> int:
    """The largest number of tokens of a request."""
    return len(request.prompt) + request.sampling.max_tokens


def _read(handle: Any, config: Any) -> tuple[list[Token], bool]:
    """The new tokens of an answer, and whether the model ended it."""
    tokens: list[Token] = []
    while handle.can_read():
        for output in handle.read().values():
            for token, logprob in zip(output.generated_ids, output.generated_log_probs):
                if token in config.stop_token_ids:
                    return tokens, True
                tokens.append(Token(token, logprob if config.logprobs else None))
    return tokens, False
