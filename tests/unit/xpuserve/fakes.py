"""A model that says what a test wants, with no engine library."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

from xpuserve.api.completer import Limits
from xpuserve.engine.backend import Backend, EngineError, EngineLostError, TextModels, Tokenizer
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import PLAIN, ChatOptions, Message, SamplingParams, Token
from xpuserve.engine.runner import OutOfMemoryError, Tokens
from xpuserve.text_models import TextModel

MODEL = "fake-1b"
CONTEXT = 64
LIMITS = Limits(CONTEXT, max_tokens_default=40)
EMBEDDING, RERANK = (TextModel(name, Path("/x"), 100) for name in ("fake-embedding", "fake-rerank"))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class ByteTokenizer(Tokenizer):
    """One token a UTF-8 byte; 256 is BOS, 257 is EOS. Like Llama's, it puts BOS before a text by itself."""

    bos_id = 256
    eos_id = 257

    def __init__(self) -> None:
        self.template = "{}"

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [self.bos_id] * special + list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(n for n in ids if n < 256).decode("utf-8", "replace")

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        if messages[-1].role != "user":
            raise PromptError("the template wants a question")
        return self.template.format(messages[-1].content) if self.template else None


class FakeBackend(Backend):
    """Answers with `answer`, byte by byte. A prompt holding CRASH fails; one holding WAIT goes on until let; one
    holding EXIT ends the engine's thread, as a library can that calls exit().
    """

    def __init__(self) -> None:
        self.answer = "Paris is the capital of France."
        self.load_error: Optional[BaseException] = None
        self.may_load = threading.Event()
        self.may_load.set()
        self.may_answer = threading.Event()
        self.answering = threading.Event()
        self.closed = threading.Event()
        self.seen: list[tuple[str, SamplingParams]] = []
        self.threads: set[str] = set()
        self.fake_tokenizer = ByteTokenizer()

    def load(self) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.may_load.wait(60)
        if self.load_error:
            raise self.load_error
        self.tokenizer = self.fake_tokenizer

    def generate(self, prompt: Sequence[int], sampling: SamplingParams) -> Tokens:
        self.threads.add(threading.current_thread().name)
        text = self.tokenizer.decode(prompt)
        self.seen.append((text, sampling))
        self.tokens = 0
        try:
            for n, token in enumerate(self.answer.encode()[: sampling.max_tokens]):
                if n == 3 and "CRASH" in text:
                    raise EngineError("out of memory")
                if n == 1 and "EXIT" in text:
                    raise SystemExit
                if "EARLY" in text:
                    raise EngineError("out of memory")
                if n == 1 and "PARTS" in text:
                    yield None
                if n == 2 and "WAIT" in text:
                    self.answering.set()
                    assert self.may_answer.wait(60)
                self.tokens += 1
                yield Token(token)
        finally:
            self.closed.set()


class FakeTexts(TextModels):
    """A text has a token for each byte. Its vector is its length and its first byte; it is as relevant to a query as it
    has letters of it. One holding WAIT takes until it may be done; CRASH, FULL and LOST fail.
    """

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.answering = threading.Event()
        self.seen: list[list[str]] = []  # computed together

    def count(self, texts: Sequence[str], query: Optional[str] = None) -> list[int]:
        return [len((query or "").encode()) + len(text.encode()) for text in texts]

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        self._compute(texts)
        return [struct.pack("<2f", len(text), ord(text[0])) for text in texts]

    def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        self._compute(texts)
        return [len(set(query) & set(text)) / len(set(query)) for text in texts]

    def _compute(self, texts: Sequence[str]) -> None:
        self.seen.append(list(texts))
        for word, error in (("CRASH", ValueError), ("FULL", OutOfMemoryError), ("LOST", EngineLostError)):
            if any(word in text for text in texts):
                raise error("it went wrong")
        if any("WAIT" in text for text in texts):
            self.answering.set()
            assert self.may_answer.wait(60)
