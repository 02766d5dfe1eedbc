"""Engine openvino's use of its library, without the library."""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional
from unittest.mock import MagicMock, patch

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import TinyTokenizer, request
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Request, SamplingParams, Token
from xpuserve.engine.runner import OutOfMemoryError, Output, TooLargeError
from xpuserve.structured import StructuredOutput


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


class Handle:
    """A request in the pipeline: it takes two steps for a prompt, and then gives `token` in each, four times."""

    def __init__(self, prompt: list[int], status: str, ignore_eos: bool = False) -> None:
        self.prompt = prompt
        self.token = 5
        self.ends = not ignore_eos
        self.steps = 0
        self.status = status
        self.unread: list[int] = []
        self.cancelled = False

    def step(self) -> None:
        self.steps += 1
        if self.steps > 2 and self.status != "IGNORED":
            self.unread.append(2 if self.steps == 7 and self.ends else self.token)

    def can_read(self) -> bool:
        return bool(self.unread)

    def read(self) -> dict[int, Any]:
        ids, self.unread = self.unread, []
        return {0: SimpleNamespace(generated_ids=ids, generated_log_probs=[-0.5 if self.ends else -0.01 * self.steps])}

    def get_status(self) -> str:
        return self.status

    def cancel(self) -> None:
        self.cancelled = True


class Config(SimpleNamespace):
    """The library's defaults."""

    def __init__(self, **options: Any) -> None:
        nothing: dict[str, Any] = {"stop_token_ids": set(), "eos_token_id": -1, "stop_strings": set(), "num_beams": 1}
        super().__init__(**{**nothing, "top_k": 2**64 - 1, "min_new_tokens": 0, **options})


REFUSED = [999]


class Pipeline:
    """Frees cancelled requests in its next step."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.statuses: list[str] = []
        self.error: Optional[Exception] = None
        self.crowd = 100  # requests with which it goes wrong

    def get_config(self) -> Any:
        return Config(stop_token_ids={2}, eos_token_id=2, top_k=20, stop_strings={"\n"}, num_beams=4, min_new_tokens=3)

    def get_metrics(self) -> Any:
        return SimpleNamespace(cache_usage=12.5, kv_cache_size_in_bytes=8 * 32 * 100)

    def add_request(self, number: int, ids: Any, config: Any) -> Any:
        (prompt,) = ids.tolist()
        if prompt == REFUSED:
            raise RuntimeError("no such token")
        self.handles.append(Handle(prompt, self.statuses.pop(0) if self.statuses else "RUNNING", config.ignore_eos))
        return self.handles[-1]

    def has_non_finished_requests(self) -> bool:
        return bool(self.handles)

    def step(self) -> None:
        if self.error:
            raise self.error
        self.handles = [handle for handle in self.handles if not handle.cancelled]
        for handle in self.handles:
            handle.token = 5 if len(self.handles) < self.crowd else 6
            handle.step()


@pytest.fixture
def backend() -> Iterator[Any]:
    with patch.dict(sys.modules, {name: MagicMock() for name in ("openvino", "openvino_genai")}):
        module = importlib.import_module("xpuserve.backends.openvino")
        module.openvino.Tensor = lambda ids: ids
        library: Any = module.openvino_genai
        library.GenerationConfig = Config
        library.StructuredOutputConfig = SimpleNamespace
        library.GenerationStatus.IGNORED, library.GenerationStatus.FINISHED = "IGNORED", "FINISHED"
        yield module


def test_a_prompt_that_the_tokenizer_cuts_is_refused(backend: Any) -> None:
    tokenizer = backend.OpenVINOTokenizer(Cutting(20), 100)
    assert len(tokenizer.encode("x" * 19, special=False)) == 19
    with pytest.raises(PromptError, match="fewer than 20 tokens"):
        tokenizer.encode("x" * 60, special=False)


def test_a_tokenizer_that_cuts_beyond_the_context_is_no_trouble(backend: Any) -> None:
    tokenizer = backend.OpenVINOTokenizer(Cutting(200), 100)
    assert len(tokenizer.encode("x" * 300, special=False)) == 200  # refused for its length
    assert tokenizer.bos_id is None


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
def runner(backend: Any, pipeline: Pipeline) -> Any:
    return backend.PipelineRunner(pipeline, 2, 32, 256)


def test_requests_share_the_pipelines_steps(runner: Any, pipeline: Pipeline) -> None:
    first, second = request([1, 2]), request([3], logprobs=0)
    runner.add(first)
    assert runner.fits(second)
    assert list(runner.step()) == []
    runner.add(second)
    assert not runner.fits(request([4]))
    assert list(runner.step()) == []
    assert list(runner.step()) == [Output(first, [Token(5)])]
    assert list(runner.step()) == [Output(first, [Token(5)]), Output(second, [Token(5, -0.5)])]
    list(runner.step())
    list(runner.step())
    assert next(runner.step()) == Output(first, [], ended=True)
    assert runner.cache_usage == 0.125
    runner.drop(first)
    assert runner.cache_usage == 0.125
    runner.drop(second)
    assert runner.cache_usage == 0  # though the library has not counted since


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_request_can_be_cancelled_after_every_step(runner: Any, pipeline: Pipeline, steps: int) -> None:
    gone = request([1, 2, 3])
    runner.add(gone)
    for _ in range(steps):
        list(runner.step())
    runner.drop(gone)
    runner.drop(gone)
    assert runner.fits(request([1]))
    assert list(runner.step()) == []
    assert not pipeline.has_non_finished_requests()


def test_a_prompt_without_room_for_its_cache_fails_alone(runner: Any, pipeline: Pipeline) -> None:
    pipeline.statuses = ["IGNORED"]
    large, small = request([1]), request([2])
    runner.add(large)
    runner.add(small)
    outputs = [output for _ in range(3) for output in runner.step()]
    assert [output.request for output in outputs if isinstance(output.error, OutOfMemoryError)][:1] == [large]
    assert outputs[-1] == Output(small, [Token(5)])


def test_an_answer_that_the_library_ends_by_itself_is_over(runner: Any, pipeline: Pipeline) -> None:
    each = request([1])
    runner.add(each)
    outputs = [output for _ in range(3) for output in runner.step()]
    pipeline.handles[0].status = "FINISHED"
    outputs += runner.step()
    pipeline.handles.clear()
    assert [*outputs, *runner.step()] == [Output(each, [Token(5)]), Output(each, [Token(5)]), Output(each, ended=True)]


def of(client: str, prompt: list[int]) -> Request:
    each = request(prompt)
    each.client = client
    return each


def passed(pipeline: Pipeline) -> list[list[int]]:
    """The prompts that the pipeline has."""
    return [handle.prompt for handle in pipeline.handles]


def test_one_client_s_prompts_fill_a_step(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 8, 32, prefill_tokens=4)
    for prompt in ([1, 1], [2], [3, 3], [4], [5]):
        runner.add(request(prompt))
    list(runner.step())
    assert passed(pipeline) == [[1, 1], [2], [3, 3]]  # of the third one token is left
    list(runner.step())
    assert passed(pipeline) == [[1, 1], [2], [3, 3], [4], [5]]


def test_a_long_prompt_is_read_before_others_are_passed(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 8, 32, prefill_tokens=4)
    runner.add(request([1] * 12))
    runner.add(request([2]))
    for _ in range(3):
        list(runner.step())
        assert passed(pipeline) == [[1] * 12]
    list(runner.step())
    assert passed(pipeline) == [[1] * 12, [2]]


def test_what_is_left_of_several_prompts_counts_together(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 8, 32, prefill_tokens=4)
    for prompt in ([1] * 3, [2] * 9, [3]):
        runner.add(request(prompt))
    for _ in range(3):  # 12 tokens are read
        list(runner.step())
        assert passed(pipeline) == [[1] * 3, [2] * 9]


def test_a_dropped_prompt_does_not_count(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 8, 32, prefill_tokens=4)
    gone = request([1] * 12)
    runner.add(gone)
    runner.add(request([2]))
    list(runner.step())
    runner.drop(gone)
    list(runner.step())
    assert passed(pipeline) == [[2]]


def test_the_client_with_the_fewest_requests_is_next(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 8, 32, prefill_tokens=1)
    runner.add(of("many", [1]))
    for _ in range(3):
        list(runner.step())
    for client, prompt in (("many", [2]), ("few", [3])):
        runner.add(of(client, prompt))
    list(runner.step())
    assert passed(pipeline) == [[1], [3]]


def test_each_client_of_several_has_one_prompt_unread(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 8, 32, prefill_tokens=256)
    runner.add(of("many", [1]))
    list(runner.step())
    for client, prompt in (("many", [2]), ("many", [3]), ("few", [4]), ("few", [5])):
        runner.add(of(client, prompt))
    list(runner.step())
    assert passed(pipeline) == [[1], [4]]  # the first is unread still
    list(runner.step())
    assert passed(pipeline) == [[1], [4]]
    list(runner.step())
    assert passed(pipeline) == [[1], [4], [2]]
    list(runner.step())
    assert passed(pipeline) == [[1], [4], [2], [5]]


def test_a_request_that_the_pipeline_refuses_fails_alone(runner: Any, pipeline: Pipeline) -> None:
    refused, good = request(REFUSED), request([1])
    runner.add(refused)
    runner.add(good)
    outputs = [output for _ in range(3) for output in runner.step()]
    assert [(output.request, str(output.error)) for output in outputs] == [(refused, "no such token"), (good, "None")]


def test_a_request_that_is_dropped_before_the_pipeline_has_it_never_gets_there(
    backend: Any, pipeline: Pipeline
) -> None:
    runner = backend.PipelineRunner(pipeline, 2, 32, prefill_tokens=2)
    long, gone = request([1] * 3), request([2])
    runner.add(long)
    runner.add(gone)
    list(runner.step())
    assert not runner.fits(request([3]))
    runner.drop(gone)
    assert runner.fits(request([3]))
    list(runner.step())
    assert passed(pipeline) == [[1] * 3]


def test_a_prompt_that_the_pipeline_does_not_have_outlives_a_step_that_fails(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 2, 32, prefill_tokens=2)
    lost, later = request([1] * 3), request([2])
    runner.add(lost)
    runner.add(later)
    pipeline.error = RuntimeError("device lost")
    assert [output.request for output in runner.step()] == [lost]
    pipeline.error = None
    assert [output for _ in range(3) for output in runner.step()] == [Output(later, [Token(5)])]


def test_a_step_that_fails_ends_all_requests_and_the_next_is_served(runner: Any, pipeline: Pipeline) -> None:
    requests = [request([1]), request([2])]
    for each in requests:
        runner.add(each)
    pipeline.error = RuntimeError("device lost")
    assert [output.request for output in runner.step() if output.error] == requests
    pipeline.error = None
    later = request([3])
    runner.add(later)
    outputs = [output for _ in range(3) for output in runner.step()]
    assert outputs == [Output(later, [Token(5)])]


def test_a_step_without_memory_tells_all_to_come_back(runner: Any, pipeline: Pipeline) -> None:
    """The library takes requests of a step that failed to be in it still, and goes on with none of them."""
    requests = [request([1]), request([2])]
    for each in requests:
        runner.add(each)
    pipeline.error = RuntimeError("Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc")
    outputs = list(runner.step())
    assert [output.request for output in outputs] == requests
    assert {type(output.error) for output in outputs} == {OutOfMemoryError}


def test_no_more_runs_than_the_cache_has_room_for(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 32, 32, 256, 100)
    assert runner.batch_tokens == 128
    first, second = request([1] * 32, 32), request([2], 32)  # 2 blocks each
    runner.add(first)
    assert runner.fits(second)
    runner.add(second)
    assert not runner.fits(request([3], 1))
    runner.drop(first)
    assert runner.fits(request([3] * 60, 4))
    assert not runner.fits(request([3] * 60, 5))


def test_what_is_larger_than_the_whole_cache_is_refused_at_once(backend: Any, pipeline: Pipeline) -> None:
    runner = backend.PipelineRunner(pipeline, 1, 32, 256, 128)
    runner.add(request([1]))
    large = request([1] * 100, 29)
    assert runner.fits(large)
    with pytest.raises(TooLargeError, match="129 tokens together, but the server has room for 128"):
        runner.add(large)


def settings_of(**more: Any) -> Any:
    """Settings of a GPU for one request at a time."""
    return SimpleNamespace(**{"batch_requests": 1, "batch_tokens": 0, "prefill_tokens": 256, "device": "gpu", **more})


class Core:
    """Sees a GPU with a megabyte of memory, if it says so."""

    available_devices = ("CPU", "GPU")
    tells = True

    def get_property(self, device: str, name: str) -> Any:
        assert device == "GPU"
        if name == "GPU_DEVICE_TOTAL_MEM_SIZE" and not self.tells:
            raise RuntimeError("unsupported property")
        return {"GPU_DEVICE_TOTAL_MEM_SIZE": 10**6, "FULL_DEVICE_NAME": "Intel(R) Arc(TM) (dGPU)"}[name]


@pytest.mark.parametrize(
    ("device", "wanted", "limit"), [("cpu", 0, 5000), ("cpu", 640, 640), ("gpu", 0, 2500), ("gpu", 640, 640)]
)
def test_a_cache_has_a_limit_by_itself(backend: Any, pipeline: Pipeline, device: str, wanted: int, limit: int) -> None:
    backend.openvino.Core = Core
    model = SimpleNamespace(path="without-weights")
    settings = settings_of(batch_tokens=wanted, device=device, model=model)
    engine = backend.OpenVINOBackend(settings, 0)
    engine._pipeline = pipeline
    with patch.object(backend.memory, "available", lambda: 10**6):
        assert engine.runner().batch_tokens == limit
    pipeline.step()
    assert pipeline.handles == []


@pytest.mark.parametrize("name", ["", "model.gguf"])
def test_the_weights_of_a_gpu_are_not_free(backend: Any, tmp_path: Path, name: str) -> None:
    backend.openvino.Core = Core
    (tmp_path / (name or "openvino_model.bin")).write_bytes(bytes(200_000))
    (tmp_path / "openvino_model.xml").write_bytes(bytes(1000))
    settings = SimpleNamespace(device="gpu", model=SimpleNamespace(path=str(tmp_path / name)))
    assert backend.OpenVINOBackend(settings, 0)._free_memory() == 800_000


def test_the_cache_of_a_gpu_that_does_not_say_how_much_memory_it_has_has_no_limit(
    backend: Any, pipeline: Pipeline, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.openvino.Core = Core
    monkeypatch.setattr(Core, "tells", False)
    engine = backend.OpenVINOBackend(settings_of(), 0)
    engine._pipeline = pipeline
    assert engine.runner().batch_tokens == 0
    assert "no limit" in caplog.text


@pytest.mark.parametrize(
    ("rows", "crowd", "batching"), [(6, 100, "on"), (6, 5, "degraded"), (6, 6, "degraded"), (1, 2, "off")]
)
def test_whether_a_batch_answers_as_one_alone_is_found_out(
    backend: Any, pipeline: Pipeline, rows: int, crowd: int, batching: str
) -> None:
    pipeline.crowd = crowd
    engine = backend.OpenVINOBackend(settings_of(batch_requests=rows), 0)
    engine._pipeline, engine.tokenizer, engine._free_memory = pipeline, TinyTokenizer(), lambda: 10**9
    runner = engine.runner()
    assert runner.batching == batching
    pipeline.step()
    assert pipeline.handles == []
    for _ in range(rows if batching == "on" else 1):
        assert runner.fits(request([1]))
        runner.add(request([1]))
    assert not runner.fits(request([1]))


def test_every_way_of_sampling_reaches_the_library(backend: Any) -> None:
    engine = backend.PipelineRunner(Pipeline(), 8, 32, 256)
    options: dict[str, Any] = {
        **{"temperature": 0.5, "top_p": 0.4, "top_k": 5, "min_p": 0.1, "ignore_eos": True},
        **{"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": -1.0},
    }
    config = engine._config(SamplingParams(9, seed=-1, **options))
    assert {name: getattr(config, name) for name in options} == options
    assert (config.max_new_tokens, config.stop_token_ids, config.do_sample) == (9, set(), True)
    assert config.rng_seed == 2**32 - 1
    config = engine._config(SamplingParams(9, temperature=5e-324, top_p=5e-324, min_p=1 - 1e-16))
    narrow = [struct.unpack("f", struct.pack("f", number))[0] for number in (config.temperature, config.top_p)]
    assert all(number > 0 for number in narrow)
    assert struct.unpack("f", struct.pack("f", config.min_p))[0] < 1
    config = engine._config(SamplingParams(9, temperature=0))
    assert (config.do_sample, config.stop_token_ids) == (False, {2})


def test_the_form_and_the_ends_of_an_answer_reach_the_library(backend: Any) -> None:
    form = StructuredOutput("choice", '["Paris"]')
    sampling = SamplingParams(9, min_tokens=3, stop_token_ids=(7,), structured=form)
    config = backend.PipelineRunner(Pipeline(), 8, 32, 256)._config(sampling)
    assert (config.min_new_tokens, config.stop_token_ids) == (3, {2, 7})
    assert config.structured_output_config.grammar == 'root ::= "Paris"'


def test_what_the_model_s_own_configuration_says_of_sampling_does_not_count(backend: Any) -> None:
    config = backend.PipelineRunner(Pipeline(), 8, 32, 256)._config(SamplingParams(9, top_k=0))
    assert (config.top_k, config.stop_strings, config.num_beams, config.min_new_tokens) == (2**64 - 1, set(), 1, 0)
    assert (config.eos_token_id, config.stop_token_ids) == (2, {2})


def test_how_much_the_pipeline_takes(backend: Any) -> None:
    settings = SimpleNamespace(
        batch_requests=0, batch_tokens=1001, prefill_tokens=100, device="gpu", prefix_cache_by_client=False
    )
    config = backend.OpenVINOBackend(settings, 0)._scheduler()
    assert (config.max_num_seqs, config.max_num_batched_tokens, config.num_kv_blocks) == (32, 132, 63)
    assert config.enable_prefix_caching is True
    settings.batch_requests, settings.prefix_cache_by_client = 4, True
    assert backend.OpenVINOBackend(settings, 0)._scheduler().enable_prefix_caching is False
    assert backend.OpenVINOBackend(settings, 0)._scheduler().max_num_seqs == 4
