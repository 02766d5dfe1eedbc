"""The HTTP interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from xpuserve import ebnf, structured
from xpuserve.api import document, errors, page, sse
from xpuserve.api.answer import Answer
from xpuserve.api.auth import RequireKey
from xpuserve.api.errors import SERVER_ERROR, APIError
from xpuserve.api.observe import CLIENT_LEFT, Observe
from xpuserve.api.origin import KnownHost, OnlyJSON
from xpuserve.api.schema import ChatReply, ChatRequest, CompletionBase, CompletionRequest, Reply
from xpuserve.engine.loop import Engine, QueueFullError
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Failed, Finished, Piece, TokenText
from xpuserve.keys import Keys
from xpuserve.metrics import CONTENT_TYPE
from xpuserve.settings import STALL_SECONDS

# What a body may be long: more than any text of as many tokens as the context has. A token is four letters where it is
# long, and JSON may write each of them in six bytes. Without a limit, one client takes the memory, and the tokenizer's
# time, from all.
BODY_BYTES, BODY_BYTES_PER_TOKEN = 65536, 24


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, in tokens; `context_length` is of prompt and answer together."""

    context_length: int
    max_tokens_default: int  # 0 is the rest of the context
    sampling: Optional[Mapping[str, Any]] = None  # for fields that a request leaves out
    by_client: bool = False  # whether a cached prompt is for its own client alone
    priorities: bool = False  # whether a client may say that a request waits until no other does (X-Priority: batch)
    request_timeout: float = 0  # seconds for a whole answer, waiting included; 0 is no limit


def create_app(
    engine: Engine,
    model: str,
    limits: Limits,
    keys: Optional[Keys] = None,
    *,
    stall_timeout: float = STALL_SECONDS,
    hosts: Optional[Collection[str]] = None,
    metrics_key: bool = False,
) -> FastAPI:
    """The web application in front of `engine`.

    Without `keys`, everyone who reaches it is served; with them and `metrics_key`, metrics need one too. `hosts` are
    the names that it may be asked under; None for any. An engine that ends no step for `stall_timeout` though it has
    work is not healthy.
    """
    handlers: dict[Any, Any] = {
        StarletteHTTPException: errors.on_http_error,
        RequestValidationError: errors.on_invalid,
    }
    layers = [
        Middleware(Observe, metrics=engine.metrics),
        *([Middleware(KnownHost, known=hosts)] if hosts is not None else []),
        *([Middleware(RequireKey, keys=keys, metrics_open=not metrics_key)] if keys else []),
        Middleware(OnlyJSON),
        Middleware(BodyLimit, limit=BODY_BYTES + BODY_BYTES_PER_TOKEN * limits.context_length),
    ]
    app = FastAPI(title="xpuserve", docs_url=None, redoc_url=None, exception_handlers=handlers, middleware=layers)
    completer = Completer(engine, model, limits)
    card = document.ModelCard(id=model, created=int(time.time()))
    document.complete(app, model)
    page.add(app)

    def trouble() -> str:
        if not engine.alive:
            return "the engine's thread has ended"
        if engine.trouble:
            return f"{engine.trouble}; it is started again"
        stalled = engine.stalled_seconds
        return f"the engine has work, and no step has ended for {stalled:.0f} s" if stalled > stall_timeout else ""

    @app.get("/health", responses=document.PROBE)
    async def health() -> Response:
        """Whether the process and its engine are alive, and the engine gets on with its work."""
        problem = trouble()
        return _status(problem or "ok", 503 if problem else 200)

    @app.get("/ready", responses=document.READY)
    async def ready() -> Response:
        """Whether requests are answered: the model is loaded and warm, and the engine healthy."""
        problem = trouble() or ("" if engine.ready else "loading")
        content = {"status": problem or "ready", "batching": engine.batching or None}
        return JSONResponse(content, 503 if problem else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def counted() -> Response:
        """What the service counted since it started, for Prometheus."""
        return Response(engine.counted(), media_type=CONTENT_TYPE)

    @app.get("/v1/models", responses={**document.KEY_NEEDED, **document.FAILED})
    async def models() -> document.Models:
        """The one model that is served."""
        return document.Models(data=[card])

    @app.get("/v1/models/{name:path}", responses={**document.KEY_NEEDED, **document.UNKNOWN_MODEL, **document.FAILED})
    async def one_model(name: str) -> document.ModelCard:
        """The model of that name."""
        completer.check_model(name)
        return card

    @app.post("/v1/chat/completions", responses=document.completion(document.ChatCompletion))
    async def chat_completions(body: ChatRequest, http: Request) -> Response:
        """Continue a conversation."""
        messages = [message.as_message() for message in body.messages]
        return await completer.complete(body, http, ChatReply, [partial(engine.encode_chat, messages)])

    @app.post("/v1/completions", responses=document.completion(document.Completion))
    async def completions(body: CompletionRequest, http: Request) -> Response:
        """Continue a text, or several."""
        return await completer.complete(body, http, Reply, [partial(engine.encode_text, text) for text in body.prompts])

    return app


class Completer:
    """Turns requests for completions into responses."""

    def __init__(self, engine: Engine, model: str, limits: Limits) -> None:
        self._engine = engine
        self._model = model
        self._limits = limits
        # In the order in which they came, and none whose client has left: what has not begun here can be cancelled.
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._checker = ThreadPoolExecutor(1, "checker")

    async def complete(
        self,
        body: CompletionBase,
        http: Request,
        reply_type: type[Reply],
        encode: Sequence[Callable[[], list[int]]],
    ) -> Response:
        """Answer one request; `encode` gives the token ids of each of its prompts."""
        self.check_model(body.model)
        refused = body.not_offered()
        if refused:
            raise APIError(
                400, f"{refused}: this server does not offer it", param=refused, code="unsupported_parameter"
            )
        await self._check_form(body)
        missing = [field for name, field in sorted(body.wants.items()) if name not in self._engine.offers]
        if missing:
            message = f"{missing[0]}: this server's engine does not offer it"
            raise APIError(400, message, param=missing[0], code="unsupported_parameter")
        if not self._engine.serving:
            retry = {"Retry-After": errors.RETRY_SECONDS}
            raise APIError(503, "the model is not ready yet", SERVER_ERROR, code="not_ready", headers=retry)
        field = "messages" if reply_type is ChatReply else "prompt"
        answer = Answer(self._engine, http, self._limits.request_timeout)
        try:
            prompts = await self._encoded(encode, body.answers, answer, field)
            choices = []
            for prompt in prompts:
                limit = self._max_tokens(len(prompt), body.max_completion_tokens or body.max_tokens, field)
                choices += [(prompt, body.sampling(limit, n, self._limits.sampling or {})) for n in range(body.answers)]
            low = self._limits.priorities and http.headers.get("x-priority", "").lower() == "batch"
            salt = f"{answer.client if self._limits.by_client else ''}\n{body.cache_salt or ''}"
            answer.submit(choices, continues=reply_type is not ChatReply, low_priority=low, salt=salt)
            # Nothing is sent before the engine has begun: until then an error can still be an HTTP status.
            first = await answer.first()
            if isinstance(first, Failed):
                raise errors.failure(first)
        except BaseException:
            answer.close()
            raise
        reply = reply_type(http.state.request_id, int(time.time()), self._model, include_usage=body.include_usage)
        usage = TokenCounts(sum(map(len, prompts)))
        if body.stream:
            return sse.EventStream(_chunks(answer, len(choices), reply, usage, body.include_usage))
        return await _whole(answer, len(choices), reply, usage)

    def check_model(self, name: str) -> None:
        """Refuse all models but one."""
        if name != self._model:
            message = f"there is no model {name!r}; this is {self._model!r}"
            raise APIError(404, message, param="model", code="model_not_found")

    async def _check_form(self, body: CompletionBase) -> None:
        """Refuse a form of the answer that no engine should see."""
        try:
            wanted = body.structured
            if wanted:
                await asyncio.get_running_loop().run_in_executor(self._checker, self._check, wanted)
        except structured.StructuredOutputError as error:
            raise APIError(400, str(error), param=error.where) from None

    def _check(self, wanted: structured.Asked) -> None:
        structured.check(wanted)
        if "grammar" not in self._engine.offers and "structured_outputs" in self._engine.offers:
            try:
                ebnf.grammar(wanted.output)
            except structured.StructuredOutputError as error:
                raise error.within(wanted.where) from None

    async def _encoded(
        self, encode: Sequence[Callable[[], list[int]]], answers: int, answer: Answer, field: str
    ) -> list[list[int]]:
        loop = asyncio.get_running_loop()
        try:
            with self._engine.places(len(encode) * answers, answer.client):  # before the tokenizer has work with it
                return await answer.result(loop.run_in_executor(self._encoder, lambda: [each() for each in encode]))
        except QueueFullError:
            raise errors.busy(self._engine.retry_after) from None
        except PromptError as error:
            raise APIError(400, str(error), param=field) from None

    def _max_tokens(self, prompt: int, wanted: Optional[int], field: str) -> int:
        if prompt == 0:
            raise APIError(400, "the prompt is empty", param=field)
        room = self._limits.context_length - prompt
        if room < 1 or (wanted or 1) > room:
            raise APIError(
                400,
                f"the model's context is {self._limits.context_length} tokens, but the prompt has {prompt}"
                + (f" and max_tokens is {wanted}" if wanted else ""),
                param="max_tokens" if room > 0 else field,
                code="context_length_exceeded",
            )
        return wanted or min(self._limits.max_tokens_default or room, room)


class BodyLimit:
    """Stops reading a request's body where it gets too long."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        size = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise APIError(413, f"the body is larger than {self._limit} bytes", code="body_too_large")
            return message

        await self._app(scope, limited, send)


class TokenCounts:
    """Token counts of one reply. A prompt counts once, however many answers it gets."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt
        self._answers = 0

    def add(self, tokens: int) -> None:
        """Count an answer."""
        self._answers += tokens

    def as_dict(self) -> dict[str, int]:
        """The counts in OpenAI's shape."""
        total = self._prompt + self._answers
        return {"prompt_tokens": self._prompt, "completion_tokens": self._answers, "total_tokens": total}


async def _whole(answer: Answer, choices: int, reply: Reply, usage: TokenCounts) -> Response:
    texts, reasons = [""] * choices, [""] * choices
    tokens: list[list[TokenText]] = [[] for _turn in range(choices)]
    async for events in answer.events():
        for n, event in events:
            if isinstance(event, Failed):
                raise errors.failure(event)
            if isinstance(event, Piece):
                texts[n] += event.text
                tokens[n] += event.tokens
            else:
                reasons[n] = event.reason
                usage.add(event.tokens)
    if not all(reasons):
        return Response(status_code=CLIENT_LEFT)  # nobody reads this
    return JSONResponse(reply.whole(list(zip(texts, tokens, reasons)), usage.as_dict()))


async def _chunks(
    answer: Answer, choices: int, reply: Reply, usage: TokenCounts, include_usage: bool
) -> AsyncGenerator[list[sse.Piece], None]:
    """The chunks of a stream; those in one list are sent together."""
    opening: list[sse.Piece] = [*reply.first_chunks(choices)]
    async for events in answer.events():
        chunks, opening = opening, []
        for n, event in events:
            if isinstance(event, Failed):
                yield [*chunks, errors.failure(event).body]
                return
            if isinstance(event, Finished):
                usage.add(event.tokens)
                chunks.append(reply.chunk(n, None, event.reason))
            elif event.tokens:
                chunks.append(reply.chunk(n, event.text, tokens=event.tokens))
            else:
                chunks.append(reply.text_chunk(n, event.text))
        yield chunks
    if include_usage:
        yield [reply.usage_chunk(usage.as_dict())]


def _status(text: str, status: int) -> Response:
    return JSONResponse({"status": text}, status)
