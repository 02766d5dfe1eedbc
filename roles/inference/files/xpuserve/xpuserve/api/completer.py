"""Turns requests for completions into responses, in any format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from xpuserve import ebnf, structured
from xpuserve.api import errors, sse
from xpuserve.api.answer import Answer, Events
from xpuserve.api.errors import APIError
from xpuserve.api.observe import CLIENT_LEFT
from xpuserve.api.plan import Plan, plan
from xpuserve.api.replies import Asked, ChatReply, Choice, EchoReply, Reply, TokenCounts
from xpuserve.api.schema import ChatRequest, CompletionBase, CompletionRequest
from xpuserve.dialects.base import Reader
from xpuserve.engine.loop import Engine
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.queue import QueueFullError
from xpuserve.engine.request import Failed, Finished, Piece, TokenText

T = TypeVar("T")
Ids = list[int]
# Seconds on the device, or of waiting, after which a stream's headers are sent before its first token. Until
# then an error has an HTTP status, and a gateway can retry with another instance.
BEGUN_SECONDS, WAITING_SECONDS = 1.0, 15.0
# Messages for features that this engine lacks.
_NOT_OFFERED = {"prompt_logprobs": "this server's engine has logprobs of the answer's tokens alone"}


@dataclass(frozen=True)
class Limits:
    """Limits of a request, in tokens; `context_length` is for prompt and answer together."""

    context_length: int
    max_tokens_default: int  # 0 is the rest of the context
    sampling: Optional[Mapping[str, Any]] = None  # for requests without such a field
    by_client: bool = False  # whether only its own client may reuse a cached prompt
    priorities: bool = False  # whether a client may give a request low priority (X-Priority: batch)
    request_timeout: float = 0  # seconds for a whole answer, waiting included; 0 is no limit

    def low_priority(self, http: Request) -> bool:
        """Whether a request has low priority."""
        return self.priorities and http.headers.get("x-priority", "").lower() == "batch"


@dataclass
class Order:
    """The work for a request. `encode` gives the token ids of each of its prompts, from its field `where`."""

    body: CompletionBase
    encode: Sequence[Callable[[], Ids]]
    where: str
    continues: bool  # the answers continue the texts of their prompts
    form: Optional[structured.Asked] = None
    plan: Optional[Plan] = None  # of a chat
    echoes: Sequence[str] = field(default=())


class Completer:
    """Answers requests with the one model."""

    def __init__(self, engine: Engine, model: str, limits: Limits, others: Mapping[str, str]) -> None:
        """`others` are the names of models for other paths, with that path."""
        self._engine = engine
        self._others = others
        self._model = model
        self._limits = limits
        # Requests in order, without those whose client left: requests that have not begun here can be cancelled.
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._checker = ThreadPoolExecutor(1, "checker")

    async def chat(
        self, body: ChatRequest, http: Request, reply: Callable[[Asked], Reply] = ChatReply, field: str = "messages"
    ) -> Response:
        """Answer a conversation; `field` is its place in the request."""
        self._check(body)
        messages = [message.as_message() for message in body.messages]
        try:
            planned = plan(body, self._engine.dialect, self._engine.offers)
            form = await self._checked(planned)
        except structured.StructuredOutputError as error:
            raise APIError(400, str(error), param=error.where) from None
        encode = partial(self._engine.encoder.encode_chat, messages, planned.options)
        order = Order(body, [encode], field, planned.options.continues, form, planned)
        return await self._complete(order, http, reply)

    async def text(self, body: CompletionRequest, http: Request) -> Response:
        """Continue one text or several."""
        self._check(body)
        try:
            form = body.structured
            if form:
                await self._check_form(form)
        except structured.StructuredOutputError as error:
            raise APIError(400, str(error), param=error.where) from None
        encode = [
            partial(self._engine.encoder.encode_text, prompt)
            if isinstance(prompt, str)
            else partial(self._known, prompt)
            for prompt in body.prompts
        ]
        order = Order(body, encode, "prompt", continues=True, form=form)
        if body.echo:
            texts = await self.in_turn(partial(self._texts, body), http)
            return await self._complete(order, http, partial(EchoReply, texts))
        return await self._complete(order, http, Reply)

    async def prompt(self, body: ChatRequest, http: Request) -> Ids:
        """The token ids of a conversation. Raises APIError."""
        self.check_model(body.model)
        planned = plan(body, self._engine.dialect, ())
        messages = [message.as_message() for message in body.messages]
        return await self.in_turn(
            partial(self._engine.encoder.encode_chat, messages, planned.options), http, "messages"
        )

    async def in_turn(self, work: Callable[[], T], http: Request, where: str = "prompt") -> T:
        """Run the tokenizer for the request's field `where`, in turn. Raises APIError."""
        self._check_ready()
        answer = Answer(self._engine, http, self._limits.request_timeout)
        try:
            return (await self._encoded([work], 1, answer, where))[0]
        finally:
            answer.close()

    def check_model(self, name: Optional[str]) -> None:
        """Refuse every model but the served one, which a request may omit."""
        if name not in (None, self._model):
            what = f"model {name!r} is for {self._others[name]}" if name in self._others else f"unknown model {name!r}"
            message = f"{what}; this server has {self._model!r}"
            raise APIError(404, message, param="model", code="model_not_found")

    async def _complete(self, order: Order, http: Request, reply_type: Callable[[Asked], Reply]) -> Response:
        """Answer one request."""
        body = order.body
        missing = [each for each in sorted(body.wants(order.form).items()) if each[0] not in self._engine.offers]
        if missing:
            name, where = missing[0]
            raise errors.unsupported(where, _NOT_OFFERED.get(name, "this server's engine does not support it"))
        self._check_ready()
        answer = Answer(self._engine, http, self._limits.request_timeout)
        try:
            prompts = await self._encoded(order.encode, body.answers, answer, order.where)
            choices, defaults = [], self._limits.sampling or {}
            for prompt in prompts:
                limit = self._max_tokens(len(prompt), body.max_completion_tokens or body.max_tokens, order.where)
                if (body.min_tokens or 0) > limit:
                    message = f"min_tokens is {body.min_tokens}, but the answer has at most {limit} tokens"
                    raise APIError(400, message, param="min_tokens")
                choices += [(prompt, body.sampling(limit, n, defaults, order.form)) for n in range(body.answers)]
            readers = self._readers(order, prompts[0])
            low = self._limits.low_priority(http)
            markers = order.plan.markers if order.plan else ()
            salt = f"{answer.client if self._limits.by_client else ''}\n{body.cache_salt or ''}"
            answer.submit(choices, continues=order.continues, markers=markers, low_priority=low, salt=salt)
            # Until then an error can still have an HTTP status.
            first = await answer.first(*((BEGUN_SECONDS, WAITING_SECONDS) if body.stream else ()))
            if isinstance(first, Failed):
                raise errors.failure(first)
        except BaseException:
            answer.close()
            raise
        call_id = self._engine.dialect.call_id
        asked = Asked(http.state.request_id, int(time.time()), self._model, body.include_usage, readers, call_id)
        reply = reply_type(asked)
        usage = TokenCounts(sum(map(len, prompts)))
        if body.stream:
            return sse.EventStream(answer, _Encoder(len(choices), reply, usage).encode, reply.done)
        return await _whole(answer, len(choices), reply, usage)

    def _check(self, body: CompletionBase) -> None:
        self.check_model(body.model)
        refused = body.not_offered()
        if refused:
            raise errors.unsupported(refused, "this server does not support it")

    def _check_ready(self) -> None:
        if not self._engine.serving:
            raise errors.not_ready()

    async def _checked(self, planned: Plan) -> Optional[structured.Asked]:
        """The validated form of a chat's answer. Raises StructuredOutputError."""
        if planned.form:
            try:
                await self._check_form(planned.form)
            except structured.StructuredOutputError:
                # An optional tool is no reason to refuse a chat.
                if not planned.loose:
                    raise
                await self._check_form(planned.loose)
                return planned.loose
        return planned.form

    async def _check_form(self, form: structured.Asked) -> None:
        """Refuse a form that would harm an engine. Raises StructuredOutputError."""
        await asyncio.get_running_loop().run_in_executor(self._checker, self._check_now, form)

    def _check_now(self, form: structured.Asked) -> None:
        structured.check(form)
        if "grammar" not in self._engine.offers and "structured_outputs" in self._engine.offers:
            try:
                ebnf.grammar(form.output)
            except structured.StructuredOutputError as error:
                raise error.within(form.where) from None

    async def _encoded(self, encode: Sequence[Callable[[], T]], answers: int, answer: Answer, field: str) -> list[T]:
        loop = asyncio.get_running_loop()
        try:
            with self._engine.places(len(encode) * answers, answer.client):  # before the tokenizer has work with it
                return await answer.result(loop.run_in_executor(self._encoder, lambda: [each() for each in encode]))
        except QueueFullError:
            raise errors.busy(self._engine.retry_after) from None
        except PromptError as error:
            raise APIError(400, str(error), param=field) from None

    def _known(self, prompt: Ids) -> Ids:
        """A prompt in token ids, all known to the model. Raises PromptError."""
        self._engine.encoder.decode(prompt)
        return prompt

    def _texts(self, body: CompletionRequest) -> list[str]:
        """The texts of a request's prompts, repeated for each answer."""
        texts = [prompt if isinstance(prompt, str) else self._engine.encoder.decode(prompt) for prompt in body.prompts]
        return [text for text in texts for _answer in range(body.answers)]

    def _readers(self, order: Order, prompt: Ids) -> list[Reader]:
        if not order.plan:
            return []
        begun = order.plan.options.thinks and self._engine.encoder.begins_thought(prompt)
        found = [order.plan.reader(begun=begun) for _answer in range(order.body.answers)]
        return [reader for reader in found if reader]

    def _max_tokens(self, prompt: int, wanted: Optional[int], field: str) -> int:
        if prompt == 0:
            raise APIError(400, "the prompt is empty", param=field)
        room = self._limits.context_length - prompt
        if room < 1 or (wanted or 1) > room:
            raise errors.too_long(self._limits.context_length, prompt, wanted, "max_tokens" if room > 0 else field)
        return wanted or min(self._limits.max_tokens_default or room, room)


async def _whole(answer: Answer, choices: int, reply: Reply, usage: TokenCounts) -> Response:
    texts, reasons = [""] * choices, [""] * choices
    tokens: list[list[TokenText]] = [[] for _turn in range(choices)]
    prompts: list[list[TokenText]] = [[] for _turn in range(choices)]
    async for events in answer.events():
        for n, event in events:
            if isinstance(event, Failed):
                raise errors.failure(event)
            if isinstance(event, Piece):
                texts[n] += event.text
                tokens[n] += event.tokens
                prompts[n] += event.prompt
            else:
                reasons[n] = event.reason
                usage.add(event.tokens)
    if not all(reasons):
        return Response(status_code=CLIENT_LEFT)  # nobody reads this
    return JSONResponse(reply.whole([Choice(*each) for each in zip(texts, tokens, reasons, prompts)], usage))


class _Encoder:
    """Encodes the events of an answer as those of a stream."""

    def __init__(self, choices: int, reply: Reply, usage: TokenCounts) -> None:
        self._unfinished = choices
        self._reply = reply
        self._usage = usage
        self._before: Sequence[sse.Piece] = reply.begin(choices)

    def encode(self, events: Events) -> bytes:
        """What is sent for these events."""
        reply = self._reply
        pieces, self._before = [*self._before], ()
        for n, event in events:
            if isinstance(event, Piece):
                pieces += reply.prompt(n, event.prompt) if event.prompt else reply.more(n, event.text, event.tokens)
            elif isinstance(event, Finished):
                self._usage.add(event.tokens)
                self._unfinished -= 1
                pieces += [*reply.end(n, event.reason), *(() if self._unfinished else reply.close(self._usage))]
            else:
                pieces += reply.fail(event)
        return b"".join([each if isinstance(each, bytes) else reply.encode(each) for each in pieces])
