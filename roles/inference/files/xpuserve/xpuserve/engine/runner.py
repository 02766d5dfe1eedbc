"""The requests on the device, stepped by the engine's thread, however an engine's library batches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple, Optional, Union

from xpuserve.engine.request import PromptTokens, Request, SamplingParams, Token

Tokens = Generator[Union[Token, PromptTokens, None], None, None]


class OutOfMemoryError(Exception):
    """The device's memory did not suffice; its former content is unchanged."""


class TooLargeError(Exception):
    """A request that can never be served, even alone; the message is for its client."""


class Output(NamedTuple):
    """A step's result for one request. An answer that ended or failed gets no further token. `prompt` are
    the prompt's next tokens, if their log probabilities are wanted; all come before the answer's second token.
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
    # Most requests on the device together.
    rows = 1

    @property
    def cache_usage(self) -> float:
        """The share of the key-value cache that requests on the device take, from 0 to 1, if known."""
        return 0.0

    @abstractmethod
    def fits(self, request: Request) -> bool:
        """Whether there is room for one more request, this one."""

    @abstractmethod
    def add(self, request: Request) -> None:
        """Take a request that fits. Raises TooLargeError if it never will."""

    @abstractmethod
    def drop(self, request: Request) -> None:
        """Drop a request, complete or not; its memory is free at the next step."""

    @property
    def stepped(self) -> bool:
        """Whether the last call of `step` made progress, and did not just wait."""
        return True

    @property
    def busy(self) -> bool:
        """Whether steps have to go on without any request."""
        return False

    @property
    def ahead(self) -> int:
        """Number of added requests that wait for their place on the device."""
        return 0

    def begun(self, request: Request) -> bool:
        """Whether an added request has its place on the device."""
        return True

    @property
    def source(self) -> int:
        """A descriptor that is readable when there are `results`, which another thread may take; -1 if only `step` has
        them.
        """
        return -1

    def results(self) -> Iterator[Output]:
        """The results that are there."""
        return iter(())

    @property
    def unsent(self) -> bool:
        """Whether `send` has something to do."""
        return False

    def send(self) -> None:  # noqa: B027 - most are where the results are
        """Send what was added and dropped to where the results come from; it may block."""

    @property
    def patience(self) -> Optional[float]:
        """Seconds within which results have to come; None if there is no such limit now."""
        return None

    def check(self) -> None:  # noqa: B027 - as above
        """Raise EngineLostError if there were none within that time."""

    def wake(self) -> None:  # noqa: B027 - most do not wait
        """Wake a step that waits: there is news for the engine's thread. On any thread."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Nothing more is requested of it."""

    @abstractmethod
    def step(self) -> Iterator[Output]:
        """Do the work between two checks of the clients' wishes, and yield the results.

        Requests may be dropped meanwhile.
        """


class OneAtATime(Runner):
    """Runs requests one after the other, through a function that yields the tokens of one answer."""

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
    """The tokens of one request on an idle `runner`; raises the error of the answer."""
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
