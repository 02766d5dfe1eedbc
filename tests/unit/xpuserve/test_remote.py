"""Messages between the service and its engine's process, and that process's reactions."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import TinyModel, expected
from xpuserve import backends
from xpuserve.backends import tokenizers
from xpuserve.engine.channel import MOST_BYTES, Channel, ChannelError
from xpuserve.engine.messages import Add, Drop, Load, Ready, RemoteError, Result, Status, Step, decode, encode
from xpuserve.engine.remote import RemoteRunner
from xpuserve.engine.request import Request, SamplingParams, Token
from xpuserve.engine.runner import OutOfMemoryError, TooLargeError
from xpuserve.engine.scheduler import Scheduler
from xpuserve.engine.worker import Worker

PARAMS = SamplingParams(9, seed=-1, stop=("a", "b"), logit_bias=((5, 1.5), (7, -100.0)), logprobs=3)
MESSAGES = [
    Load({"engine": "openvino"}, 3),
    Add(7, [1, 2, 3], PARAMS),
    Add(7, [1, 2, 3], PARAMS, "salt", "client"),
    Drop(7),
    Status("loading the model"),
    Ready("on", 32, ["logprobs"]),
    Step(),
    Step((Result(7, (Token(5),)), Result(8, (Token(6, -1.5, ((6, -1.5), (9, -2.0))),), cached=16)), (7, 8), 0.25, 3),
    Step((), (), 0.25, 3, (7, 5, 8, 6)),
    Step((Result(9, ended=True),)),
    Step((Result(9, prompt=(Token(5), Token(6, -1.5, ((6, -1.5), (9, -2.0))))),)),
]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(end, 5) for end in socket.socketpair())
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel], message: Any) -> None:
    ends[0].send(encode(message))
    assert [decode(array) for array in ends[1].receive() or ()] == [message]


def test_a_step_s_single_tokens_come_first_unless_that_would_change_the_order() -> None:
    cached, more = Result(7, (Token(5),), cached=16), Result(7, (Token(6),))
    others = [Result(1, (Token(5, -1.5),)), Result(2, (Token(5), Token(6))), Result(3, ended=True), cached, more]
    plain = [Result(8, (Token(5),)), Result(9, (Token(6),)), Result(9, (Token(7),))]
    assert Step.of([*others, *plain], [7], 0.25, 3) == Step(others, [7], 0.25, 3, [8, 5, 9, 6, 9, 7])


@pytest.mark.parametrize("error", [OutOfMemoryError("full"), TooLargeError("ask for less"), ValueError("bad")])
def test_an_error_arrives_as_what_it_means(ends: tuple[Channel, Channel], error: Exception) -> None:
    ends[0].send(encode(Step([Result(1, error=error)])))
    step = decode((ends[1].receive() or [])[0])
    assert isinstance(step, Step)
    found = step.results[0].error
    assert str(found) == str(error)
    if isinstance(error, ValueError):
        assert isinstance(found, RemoteError)
        assert found.kind == "ValueError"
    else:
        assert type(found) is type(error)


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    """However they are cut on the way, and though one of them is larger than the socket's buffer."""
    sent = [["n", n, "x" * (n % 7 * 50000)] for n in range(30)]
    sender = threading.Thread(target=lambda: list(map(ends[0].send, sent)))
    sender.start()
    got: list[Any] = []
    while len(got) < len(sent):
        got += ends[1].receive(5) or ()
    sender.join()
    assert got == sent
    assert ends[1].receive(0) == []


def test_the_end_of_a_channel_is_told_after_what_came_before(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(["last"])
    ends[0].close()
    assert ends[1].receive() == [["last"]]
    assert ends[1].receive() is None


def test_what_is_no_message_is_refused_and_not_kept() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall((MOST_BYTES + 1).to_bytes(4, "big"))
        with pytest.raises(ChannelError, match="a message of"):
            Channel(other).receive()
        with pytest.raises(ChannelError, match="a message of"):
            Channel(other).send(["x" * MOST_BYTES])


@pytest.mark.parametrize("data", [b"", b"[1", b"\xff"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(len(data).to_bytes(4, "big") + data)
        with pytest.raises(ChannelError, match=f"a message of {len(data)} bytes that is no JSON"):
            Channel(other).receive()


def test_an_end_that_does_not_read_is_not_waited_for_longer_than_it_may_take() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(ChannelError, match="timed out"):
        channel = Channel(one, 0.05)
        while True:
            channel.send(["x" * 10000])


class Asking:
    """A worker in a thread, and the service's end of its channel."""

    def __init__(self, ends: tuple[Channel, Channel], model: TinyModel) -> None:
        self.channel = ends[0]
        runner = Scheduler(model, batch_requests=2, batch_tokens=10**6, prefill_tokens=16)
        self.worker = Worker(runner, ends[1])
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self.tokens: dict[int, list[int]] = {}
        self.over: dict[int, Any] = {}
        self.began: list[int] = []
        self.heard = 0

    def _run(self) -> None:
        with suppress(ChannelError):  # at the end the service is gone
            self.worker.run()

    def add(self, number: int, prompt: list[int], most: int, client: str = "") -> None:
        sampling = SamplingParams(most, temperature=0, ignore_eos=True)
        self.channel.send(encode(Add(number, prompt, sampling, client=client)))

    def read(self) -> None:
        messages = self.channel.receive(5)
        assert messages
        for array in messages:
            step = decode(array)
            assert isinstance(step, Step)
            self.began += step.began
            self.heard = step.heard
            for number, token in zip(step.tokens[::2], step.tokens[1::2]):
                self.tokens.setdefault(number, []).append(token)
            for result in step.results:
                self.tokens.setdefault(result.id, []).extend(token.id for token in result.tokens)
                self.over[result.id] = result.ended or result.error


@pytest.fixture
def asking(ends: tuple[Channel, Channel]) -> Iterator[Asking]:
    asking = Asking(ends, TinyModel())
    yield asking
    asking.channel.close()
    asking.thread.join(60)
    assert not asking.thread.is_alive()


PROMPT = [5, 6, 7]


def test_a_worker_answers_in_turn_and_lets_go_of_what_has_its_tokens(asking: Asking) -> None:
    for number in range(5):
        asking.add(number, [*PROMPT, number + 1], 6)
    while sum(map(len, asking.tokens.values())) < 30:
        asking.read()
    assert asking.began == list(range(5))
    for number, tokens in asking.tokens.items():
        assert tokens[: len(expected([*PROMPT, number + 1], 6))] == expected([*PROMPT, number + 1], 6)
    wait_for(lambda: not asking.worker._ids and not asking.worker._runner._rows)  # type: ignore[attr-defined]


def test_a_worker_forgets_what_nobody_wants(asking: Asking) -> None:
    for number in range(4):
        asking.add(number, [*PROMPT, number + 1], 10**4)
    while asking.began != [0, 1]:
        asking.read()
    for number in (2, 3, 0):  # two that wait, and one on the device
        asking.channel.send(encode(Drop(number)))
    asking.add(9, PROMPT, 3)
    while len(asking.tokens.get(9, ())) < 3:
        asking.read()
    assert asking.began == [0, 1, 9]
    asking.channel.send(encode(Drop(1)))
    wait_for(lambda: not asking.worker._ids and not asking.worker._waiting)


def test_a_worker_tells_clients_apart(asking: Asking) -> None:
    asking.add(0, PROMPT, 10**4, "one")
    asking.add(1, PROMPT, 10**4, "other")
    while asking.began != [0, 1]:
        asking.read()
    assert [request.client for request in asking.worker._ids] == ["one", "other"]
    for number in range(2):
        asking.channel.send(encode(Drop(number)))
    wait_for(lambda: not asking.worker._ids)


def test_a_worker_says_that_it_has_read_what_nobody_waits_for(asking: Asking) -> None:
    asking.channel.send(encode(Drop(5)))
    while asking.heard != 1:
        asking.read()


def test_what_fails_in_a_worker_is_told(asking: Asking) -> None:
    asking.worker._runner._model.poison = 39  # type: ignore[attr-defined]
    asking.add(1, [39, 39], 3)
    while 1 not in asking.over:
        asking.read()
    assert isinstance(asking.over[1], RemoteError)
    assert asking.over[1].kind == "IndexError"


def test_a_request_goes_to_the_process_with_its_client_and_is_over_with_its_last_token() -> None:
    told: list[Any] = []
    settings = SimpleNamespace(stall_timeout=5)
    backend = SimpleNamespace(
        _settings=settings, tell=told.append, received=lambda: [Step((), (0,), 0.0, 1, (0, 5, 0, 6))]
    )
    runner = RemoteRunner(backend, Ready("on", 32, []))  # type: ignore[arg-type]
    request = Request("", [1], SamplingParams(2), lambda event: None, client="one", salt="salt")
    runner.add(request)
    runner.send()
    assert [output.tokens for output in runner.results()] == [(Token(5),), (Token(6),)]
    runner.drop(request)
    runner.send()
    runner.close()
    assert told == [Add(0, [1], SamplingParams(2), "salt", "one")]
    assert not runner.busy


def test_an_idle_process_takes_no_cache() -> None:
    """It frees the last answer's after the step that ended it, and then nobody waits for a step."""
    steps = [Step((), (0,), 0.25, 1, (0, 5)), Step((Result(0, ended=True),), (), 0.25, 1)]
    backend = SimpleNamespace(_settings=SimpleNamespace(stall_timeout=5), received=lambda: [steps.pop(0)])
    runner = RemoteRunner(backend, Ready("on", 32, []))  # type: ignore[arg-type]
    runner.add(Request("", [1], SamplingParams(9), lambda event: None))
    assert runner.ahead == 1
    taken = []
    while runner.busy:
        list(runner.results())
        taken.append(runner.cache_usage)
    runner.close()
    assert taken == [0.25, 0.0]


def test_a_tokenizer_is_loaded_without_pytorch_which_the_next_engine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(tokenizers, "load", lambda settings: seen.append(os.environ.get("USE_TORCH")))
    backends._load_tokenizer(SimpleNamespace(engine="bigdl"), 0)  # type: ignore[arg-type]
    assert seen == ["0"]
    assert "USE_TORCH" not in os.environ
