"""Replies, whole or streamed, in the format of OpenAI's completions and chat completions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple, Optional

from xpuserve.api import errors, sse
from xpuserve.dialects.base import ARGUMENTS, CALL, TEXT, THOUGHT, Part, Reader
from xpuserve.engine.request import Failed, TokenText

Tokens = Sequence[TokenText]
Object = dict[str, Any]
# A text that no chunk has by itself.
_MARK = uuid.uuid4().hex


class Asked(NamedTuple):
    """A reply's data from its request. `readers` are empty, or one for each choice, and `call_id` makes new ids."""

    id: str
    created: int
    model: str
    include_usage: bool = False
    readers: Sequence[Reader] = ()
    call_id: Callable[[], str] = str


class Choice(NamedTuple):
    """A complete answer."""

    text: str
    tokens: Tokens
    reason: str
    prompt: Tokens = ()


class TokenCounts:
    """Token counts of one reply. A prompt counts once, however many answers it gets."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.answers = 0

    def add(self, tokens: int) -> None:
        """Count an answer."""
        self.answers += tokens

    def as_dict(self) -> dict[str, int]:
        """The counts in OpenAI's format."""
        total = self.prompt + self.answers
        return {"prompt_tokens": self.prompt, "completion_tokens": self.answers, "total_tokens": total}


class Reply:
    """The JSON objects of a reply. It has one or several choices, numbered from 0; a stream's objects come in lists
    that are sent together.
    """

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"
    done = sse.DONE

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._common = {"id": f"{self.prefix}-{asked.id}", "created": asked.created, "model": asked.model}
        # A client that requests usage gets the field in every chunk, null in all but the last.
        self._usage: Object = {"usage": None} if asked.include_usage else {}
        self._around: dict[int, tuple[bytes, bytes]] = {}  # parts of a chunk before and after a choice's text

    def whole(self, choices: Sequence[Choice], usage: TokenCounts) -> Object:
        """The complete reply."""
        parts = [self._whole_choice(n, choice) for n, choice in enumerate(choices)]
        return {**self._common, "object": self.whole_object, "choices": parts, "usage": usage.as_dict()}

    def begin(self, choices: int) -> list[Object]:
        """The beginning of a stream."""
        return []

    def more(self, choice: int, text: str, tokens: Tokens) -> Sequence[sse.Piece]:
        """Some more text of a choice."""
        if tokens:
            return [self._chunk(self._choice(choice, self._some(text), None, tokens))]
        around = self._around.get(choice)
        if around is None:  # the constant parts are encoded once
            event = self.encode(self._chunk(self._choice(choice, self._some(_MARK), None)))
            before, behind = event.split(sse.encoded(_MARK))
            around = self._around[choice] = before, behind
        # A string's encoding as in sse.encoded(), without its choice of a type: this is each token's.
        return (b"%b%b%b" % (around[0], encode_basestring(text).encode(), around[1]),)

    def prompt(self, choice: int, tokens: Tokens) -> list[Object]:
        """The log probabilities of the next tokens of a choice's prompt."""
        return [self._chunk(self._choice(choice, self._some(""), None, tokens))]

    def end(self, choice: int, reason: str) -> list[Object]:
        """The end of a choice."""
        return [self._chunk(self._choice(choice, {"text": ""}, reason))]

    def close(self, usage: TokenCounts) -> list[Object]:
        """The end of a stream whose choices are complete: the token counts, if requested."""
        if not self._asked.include_usage:
            return []
        return [{**self._common, "object": self.chunk_object, "choices": [], "usage": usage.as_dict()}]

    def fail(self, event: Failed) -> list[Object]:
        """The end of a stream that failed."""
        return [errors.failure(event).body]

    @staticmethod
    def encode(data: Object) -> bytes:
        """An object as an event of the stream."""
        return sse.event(data)

    def _fed(self, choice: int, text: str) -> Sequence[Part]:
        """The parts of some more text of a choice; only text if no reader is set."""
        return self._asked.readers[choice].feed(text) if self._asked.readers else [Part(TEXT, text)]

    def _finished(self, choice: int) -> Sequence[Part]:
        """The parts that appear only at the end of a choice."""
        return self._asked.readers[choice].finish() if self._asked.readers else []

    def _some(self, text: str) -> Object:
        return {"text": text}

    def _chunk(self, choice: Object) -> Object:
        return {**self._common, "object": self.chunk_object, "choices": [choice], **self._usage}

    def _choice(self, index: int, text: Object, finish_reason: Optional[str], tokens: Tokens = ()) -> Object:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": index, **text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _whole_choice(self, index: int, choice: Choice) -> Object:
        return self._choice(index, {"text": choice.text}, choice.reason, choice.tokens)

    def _logprobs(self, tokens: Tokens) -> Object:
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            # Several tokens may have the same text; the likeliest counts. A prompt's first token has no probability.
            "top_logprobs": [dict(reversed(token.top)) or None for token in tokens] if tokens[-1].top else None,
            "text_offset": [token.offset for token in tokens],
        }


class EchoReply(Reply):
    """The same with each prompt's text and tokens before those of its answer."""

    def __init__(self, texts: Sequence[str], asked: Asked) -> None:
        super().__init__(asked)
        self._texts = texts

    def begin(self, choices: int) -> list[Object]:
        """See Reply."""
        return [self._chunk(self._choice(n, {"text": text}, None)) for n, text in enumerate(self._texts)]

    def more(self, choice: int, text: str, tokens: Tokens) -> Sequence[sse.Piece]:
        """See Reply."""
        return super().more(choice, text, self._behind(choice, tokens))

    def _whole_choice(self, index: int, choice: Choice) -> Object:
        tokens = [*choice.prompt, *self._behind(index, choice.tokens)]
        return super()._whole_choice(index, choice._replace(text=self._texts[index] + choice.text, tokens=tokens))

    def _behind(self, choice: int, tokens: Tokens) -> Tokens:
        """An answer's tokens, with offsets behind the prompt's text."""
        length = len(self._texts[choice])
        return [token._replace(offset=length + token.offset) for token in tokens]


class ChatReply(Reply):
    """The same for a chat."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        # For answers with a reader: the number of calls begun, and tokens that no chunk has reported yet.
        self._calls = [0] * len(asked.readers)
        self._untold: list[list[TokenText]] = [[] for _reader in asked.readers]

    def begin(self, choices: int) -> list[Object]:
        """See Reply."""
        opening = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk(self._choice(n, opening, None)) for n in range(choices)]

    def more(self, choice: int, text: str, tokens: Tokens) -> Sequence[sse.Piece]:
        """See Reply."""
        if not self._asked.readers:
            return super().more(choice, text, tokens)
        self._untold[choice] += tokens
        return self._read(choice, self._fed(choice, text))

    def end(self, choice: int, reason: str) -> list[Object]:
        """See Reply."""
        if not self._asked.readers:
            return [self._chunk(self._choice(choice, {"delta": {}}, reason))]
        chunks = self._read(choice, self._finished(choice))
        reason = ended(reason, self._calls[choice] > 0)
        return [*chunks, self._chunk(self._choice(choice, {"delta": {}}, reason, self._untold[choice]))]

    def _some(self, text: str) -> Object:
        return {"delta": {"content": text}}

    def _read(self, choice: int, parts: Sequence[Part]) -> list[Object]:
        chunks = []
        for part in parts:
            tokens, self._untold[choice] = self._untold[choice], []
            chunks.append(self._chunk(self._choice(choice, {"delta": self._delta(choice, part)}, None, tokens)))
        return chunks

    def _delta(self, choice: int, part: Part) -> Object:
        if part.kind == CALL:
            self._calls[choice] += 1
            call: Object = {"id": self._asked.call_id(), "type": "function"}
            call["function"] = {"name": part.text, "arguments": ""}
        elif part.kind == ARGUMENTS:
            call = {"function": {"arguments": part.text}}
        else:
            return {"content" if part.kind == TEXT else "reasoning_content": part.text}
        return {"tool_calls": [{"index": self._calls[choice] - 1, **call}]}

    def _whole_choice(self, index: int, choice: Choice) -> Object:
        if not self._asked.readers:
            message: Object = {"role": "assistant", "content": choice.text}
            return self._choice(index, {"message": message}, choice.reason, choice.tokens)
        turn = Turn([*self._fed(index, choice.text), *self._finished(index)], self._asked.call_id)
        message = {"role": "assistant", "content": turn.text or (None if turn.calls else "")}
        if turn.thought:
            message["reasoning_content"] = turn.thought
        if turn.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in turn.calls
            ]
        return self._choice(index, {"message": message}, ended(choice.reason, bool(turn.calls)), choice.tokens)

    def _logprobs(self, tokens: Tokens) -> Object:
        content = [
            {**_told(token.text, token.logprob), "top_logprobs": [_told(*other) for other in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class Turn:
    """An answer as its reader returned it."""

    def __init__(self, parts: Sequence[Part], call_id: Callable[[], str]) -> None:
        self.text = "".join(part.text for part in parts if part.kind == TEXT)
        self.thought = "".join(part.text for part in parts if part.kind == THOUGHT)
        self.calls: list[Called] = []
        for part in parts:
            if part.kind == CALL:
                self.calls.append(Called(call_id(), part.text))
            elif part.kind == ARGUMENTS:
                self.calls[-1].arguments += part.text


class Called:
    """A growing call of a tool."""

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments = ""


def ended(reason: str, called: bool) -> str:
    """The finish reason of OpenAI's API."""
    return "tool_calls" if called and reason == "stop" else reason


def _told(text: str, logprob: Optional[float]) -> Object:
    # Part of a character is U+FFFD; the tokenizers do not give its bytes.
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}
