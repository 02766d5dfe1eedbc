"""One answer in progress: tokens in, events for the client out."""

from __future__ import annotations

import logging
import time
from typing import Optional

from xpuserve.engine.detokenizer import Detokenizer
from xpuserve.engine.messages import RemoteError
from xpuserve.engine.request import Failed, Finished, Piece, Request, Token, TokenText
from xpuserve.engine.runner import OutOfMemoryError, Output, TooLargeError
from xpuserve.logs import fields
from xpuserve.metrics import Metrics

log = logging.getLogger(__name__)


class Generation:
    """The answer to a request that is on the device."""

    def __init__(
        self, request: Request, text: Detokenizer, metrics: Metrics, prompt: Optional[Detokenizer] = None
    ) -> None:
        """`prompt` makes the text of the prompt's tokens, if the request wants their log probabilities."""
        self.request = request
        self._prompt = prompt
        self._prompt_offset = 0
        self._text = text
        self._metrics = metrics
        # Tokens whose text is not given out yet, and the length of the text with theirs and without.
        self._held: list[TokenText] = []
        self._offset = 0
        self._given = 0

    def take(self, output: Output, gaps: list[float]) -> Optional[str]:
        """Give out a step's result; returns the reason why the answer ended, None if it continues.

        The seconds between its tokens are added to `gaps`.
        """
        if output.error:
            return self.fail(output.error)
        if output.prompt and self._prompt:
            told = tuple([self._of_prompt(token, self._prompt) for token in output.prompt])
            self.request.deliver(Piece("", prompt=told))
        times, text = self.request.times, self._text
        for token in output.tokens:
            now = time.monotonic()
            if times.tokens:
                gaps.append(now - times.last)
            else:
                times.first = now
                self._metrics.first_token(self.request)
            times.last = now
            times.tokens += 1
            if token.logprob is not None:
                self._hold(token)
            if piece := text.push(token.id):
                self._deliver(piece)
            if text.stopped:
                return self._finish("stop")
            if times.tokens >= self.request.sampling.max_tokens:
                return self._finish("length")
        return self._finish("stop") if output.ended else None

    def fail(self, error: Exception) -> str:
        """End the answer incomplete; returns the reason."""
        if isinstance(error, OutOfMemoryError):
            log.warning("out of memory: %s", error, extra=fields(request_id=self.request.id))
            message = "not enough device memory for this request; try again later"
            self.request.deliver(Failed(message, "out_of_memory"))
        elif isinstance(error, TooLargeError):
            self.request.deliver(Failed(str(error), "request_too_large"))
        else:
            remote = isinstance(error, RemoteError)  # its process has logged its stack
            log.error("request failed", exc_info=None if remote else error, extra=fields(request_id=self.request.id))
            kind = error.kind if isinstance(error, RemoteError) else type(error).__name__
            self.request.deliver(Failed(f"the engine failed: {kind}"))
        return "error"

    def _finish(self, reason: str) -> str:
        rest = self._text.finish()
        self._given += len(rest)
        if self._text.stopped:
            reason = "stop"
            self._held = [token for token in self._held if token.offset < self._given]  # not of the stop sequence
        if rest or self._held:
            self.request.deliver(Piece(rest, tuple(self._held)))
        self.request.deliver(Finished(reason, self.request.times.tokens))
        return reason

    def _of_prompt(self, token: Token, prompt: Detokenizer) -> TokenText:
        told = _told(token, prompt, self._prompt_offset)
        prompt.push(token.id)
        self._prompt_offset += len(told.text.rstrip("\ufffd"))
        return told

    def _hold(self, token: Token) -> None:
        self._offset = max(self._offset, self._given)  # the text may end with bytes that are no character
        self._held.append(_told(token, self._text, self._offset))
        self._offset += len(self._held[-1].text.rstrip("\ufffd"))

    def _deliver(self, text: str) -> None:
        self._given += len(text)
        ready: tuple[TokenText, ...] = ()
        if self._held:
            ready = tuple([token for token in self._held if token.offset < self._given])
            self._held = self._held[len(ready) :]
        self.request.deliver(Piece(text, ready))


def _told(token: Token, text: Detokenizer, offset: int) -> TokenText:
    """The next token of a text, for the client, at that offset."""
    own, *others = text.each([token.id, *(each for each, _ignored in token.top)])
    top = tuple((other, chance) for other, (_ignored, chance) in zip(others, token.top))
    return TokenText(own, token.logprob, top, offset)
