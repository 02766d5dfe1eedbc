"""What the engine's thread steps: the requests on the device, however an engine's library batches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Union

from xpuserve.engine.request import PromptTokens, Request, SamplingParams, Token

Tokens = Generator[Union[Token, PromptTokens, None], None, None]


class OutOfMemoryError(Exception):
    """The device's memory did not suffice; what was on the device before is as it was."""


class TooLargeError(Exception):
    """A request that can never be served, whatever else is on the device; the message is for its client."""


@dataclass(frozen=True)
class Output:
    """What a step gave one request. An answer that the model ended, or that failed, gets no further token. `prompt` are
    the prompt's next tokens, where it is asked how likely they are; all of them come before the answer's second token.
    """

    request: Request
    tokens: Sequence[Token] = ()
    ended: bool = False
    error: Optional[Exception] = None
    prompt: Sequence[Token] = ()


class Runner(ABC):
    """The requests on the device. Only the engine's thread calls it."""

    # on: requests share the steps; off: one at a time; degraded: one at a time because the truth test failed.
    batching = "on"
    # Requests that may be on the device together.
    rows = 1

    @property
    def cache_usage(self) -> float:
        """How much of the key-value cache requests on the device take, from 0 to 1, where that is known."""
        return 0.0

    @abstractmethod
    def fits(self, request: Request) -> bool:
        """Whether there is room for one more request, and this one."""

    @abstractmethod
    def add(self, request: Request) -> None:
        """Take a request that fits; raises TooLargeError where it never will."""

    @abstractmethod
    def drop(self, request: Request) -> None:
        """A request is over, its answer complete or not; what it held is free at the next step."""

    @property
    def stepped(self) -> bool:
        """Whether the last call of `step` got on with the work, and did not just wait."""
        return True

    @property
    def busy(self) -> bool:
        """Whether steps are to go on though no request is there."""
        return False

    def begun(self, request: Request) -> bool:
        """Whether a request that was added has its place on the device."""
        return True

    def wake(self) -> None:  # noqa: B027 - most do not wait
        """There is something new for the engine's thread: a step that waits returns. On any thread."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Nothing more is asked of it."""

    @abstractmethod
    def step(self) -> Iterator[Output]:
        """Do as much as may pass between two looks at what clients want, and give out what came of it.

        Requests are dropped while this goes on.
        """


class OneAtATime(Runner):
    """Requests one after the other, through a function that yields the tokens of one answer."""

    def __init__(self, generate: Callable[[Sequence[int], SamplingParams], Tokens], batching: str = "off") -> None:
        self._generate = generate
        self._request: Optional[Request] = None
        self.batching = batching

    def fits(self, request: Request) -> bool:
        """See Runner."""
        return self._request is None

    def add(self, request: Request) -> None:
        """See Runner."""
        self._request = request
        self._stream = self._generate(request.prompt, request.sampling)

    def drop(self, request: Request) -> None:
        """See Runner."""
        self._request = None
        self._stream.close()

    def step(self) -> Iterator[Output]:
        """See Runner."""
        request = self._request
        if request is None:
            return
        try:
            token = next(self._stream)
        except StopIteration:
            yield Output(request, ended=True)
        except Exception as error:
            yield Output(request, error=error)
        else:
            if isinstance(token, PromptTokens):
                yield Output(request, prompt=token.tokens)
            else:
                yield Output(request, () if token is None else (token,))


def run_single(runner: Runner, prompt: Sequence[int], sampling: SamplingParams) -> list[int]:
    """The tokens that `runner`, which has nothing else to do, answers; raises what the answer fails with."""
    request = Request("", list(prompt), sampling, deliver=lambda event: None)
    runner.add(request)
    tokens: list[int] = []
    ended = False
    try:
        while not ended and len(tokens) < sampling.max_tokens:
            for output in runner.step():
                if output.error:
                    raise output.error
                tokens += [token.id for token in output.tokens]
                ended = output.ended
    finally:
        runner.drop(request)
    return tokens[: sampling.max_tokens]
