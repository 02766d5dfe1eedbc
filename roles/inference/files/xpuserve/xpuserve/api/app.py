"""The HTTP interface."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Optional

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from xpuserve.api import sse
from xpuserve.api.auth import RequireKey
from xpuserve.api.schema import ChatReply, ChatRequest, CompletionBase, CompletionRequest, Reply, error_body
from xpuserve.engine import request as engine_request
from xpuserve.engine.loop import Engine, QueueFullError
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Event, Failed, Finished, Piece, Sampling
from xpuserve.keys import Keys

# What a body may be long: far more than any text of as many tokens as the context has. Without a limit, one client
# takes the memory, and the tokenizer's time, from all.
BODY_BYTES, BODY_BYTES_PER_TOKEN = 65536, 32

CLIENT_ERROR, SERVER_ERROR = "invalid_request_error", "server_error"


class APIError(HTTPException):
    """A refusal in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = CLIENT_ERROR,
        *,
        param: Optional[str] = None,
        code: Optional[str] = None,
        headers: Optional[dict[str, str]] = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.body = error_body(message, kind, param=param, code=code)


def create_app(
    engine: Engine, *, model: str, context_length: int, max_tokens_default: int, keys: Optional[Keys] = None
) -> FastAPI:
    """The web application in front of `engine`. `context_length` is in tokens, prompt and answer together.

    Without `keys`, everyone who reaches it is served.
    """
    handlers: dict[Any, Any] = {
        StarletteHTTPException: _on_http_error,
        RequestValidationError: _on_invalid,
        Exception: _on_bug,
    }
    guards = [Middleware(RequireKey, keys=keys)] if keys else []
    app = FastAPI(title="xpuserve", docs_url=None, redoc_url=None, exception_handlers=handlers, middleware=guards)
    created = int(time.time())
    card = {"id": model, "object": "model", "created": created, "owned_by": "xpuserve"}

    app.add_middleware(BodyLimit, limit=BODY_BYTES + BODY_BYTES_PER_TOKEN * context_length)

    @app.get("/health")
    async def health() -> Response:
        """Whether the process and its engine are alive."""
        return _status("ok", 200) if engine.alive else _status("the engine's thread has ended", 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether requests are answered: the model is loaded and warm."""
        return _status("ready", 200) if engine.ready and engine.alive else _status("loading", 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        """The model of that name."""
        _check_model(name)
        return card

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, http: Request) -> Response:
        """Continue a conversation."""
        messages = [message.as_message() for message in body.messages]
        max_tokens = body.max_completion_tokens or body.max_tokens
        return await complete(body, http, ChatReply, lambda: engine.encode_chat(messages), max_tokens)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, http: Request) -> Response:
        """Continue a text."""
        return await complete(body, http, Reply, lambda: engine.encode_text(body.prompt), body.max_tokens)

    async def complete(
        body: CompletionBase,
        http: Request,
        reply_type: type[Reply],
        encode: Callable[[], list[int]],
        max_tokens: Optional[int],
    ) -> Response:
        _check_model(body.model)
        if not (engine.ready and engine.alive):
            retry = {"Retry-After": "5"}
            raise APIError(503, "the model is not ready yet", SERVER_ERROR, code="not_ready", headers=retry)
        try:
            prompt = await run_in_threadpool(encode)
        except PromptError as error:
            raise APIError(400, str(error), param="messages") from None
        if not prompt:
            raise APIError(400, "the prompt is empty", param="prompt")
        sampling = Sampling(
            max_tokens=_max_tokens(len(prompt), max_tokens),
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            stop=body.stops(),
        )
        reply = reply_type(f"cmpl-{uuid.uuid4().hex}", int(time.time()), model)
        answer = Answer(engine, http, prompt, sampling)
        # Nothing is sent before the engine has begun: until then an error can still be an HTTP status.
        first = await answer.first()
        if isinstance(first, Failed):
            answer.close()
            raise _failure(first)
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            events = sse.stream(_chunks(answer, reply, include_usage))
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        return await _whole(answer, reply)

    def _check_model(name: str) -> None:
        if name != model:
            raise APIError(404, f"there is no model {name!r}; this is {model!r}", param="model", code="model_not_found")

    def _max_tokens(prompt: int, wanted: Optional[int]) -> int:
        room = context_length - prompt
        if room < 1 or (wanted or 1) > room:
            raise APIError(
                400,
                f"the model's context is {context_length} tokens, but the prompt has {prompt}"
                + (f" and max_tokens is {wanted}" if wanted else ""),
                param="max_tokens" if room > 0 else "messages",
                code="context_length_exceeded",
            )
        return wanted or min(max_tokens_default, room)

    return app


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


class Answer:
    """The events of one request, from the engine's thread to the web server's loop.

    The request is cancelled as soon as the client is gone.
    """

    def __init__(self, engine: Engine, http: Request, prompt: list[int], sampling: Sampling) -> None:
        """Queue the request; raises APIError (429) when too many wait."""
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Optional[Event]] = asyncio.Queue()
        self._first: list[Optional[Event]] = []
        self._http = http
        self._engine = engine

        def deliver(event: Event) -> None:
            with suppress(RuntimeError):  # the server has stopped, and its loop with it
                loop.call_soon_threadsafe(self._queue.put_nowait, event)

        self.request = engine_request.Request(uuid.uuid4().hex, prompt, sampling, deliver)
        try:
            engine.submit(self.request)
        except QueueFullError:
            raise APIError(
                429,
                "too many requests are waiting; try again later",
                "rate_limit_error",
                code="queue_full",
                headers={"Retry-After": "1"},
            ) from None
        self._watcher = asyncio.create_task(self._watch())

    async def first(self) -> Optional[Event]:
        """The first event, which `events` gives out again; None if the client left before it."""
        try:
            self._first = [await self._queue.get()]
        except asyncio.CancelledError:
            self.close()
            raise
        return self._first[0]

    async def events(self) -> AsyncIterator[Event]:
        """All events up to the last, or up to where the client left."""
        try:
            while True:
                event = self._first.pop() if self._first else await self._queue.get()
                if event is None:
                    return
                yield event
                if not isinstance(event, Piece):
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Nothing more is wanted of this request."""
        self._watcher.cancel()
        self._engine.cancel(self.request)

    async def _watch(self) -> None:
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._engine.cancel(self.request)
        self._queue.put_nowait(None)

    def usage(self, tokens: int) -> dict[str, int]:
        """Token counts in OpenAI's shape."""
        prompt = len(self.request.prompt)
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


async def _whole(answer: Answer, reply: Reply) -> Response:
    text = ""
    async for event in answer.events():
        if isinstance(event, Piece):
            text += event.text
        elif isinstance(event, Finished):
            return JSONResponse(reply.whole(text, event.reason, answer.usage(event.tokens)))
        else:
            raise _failure(event)
    return Response(status_code=499)  # nobody is there to read it


async def _chunks(answer: Answer, reply: Reply, include_usage: bool) -> AsyncIterator[dict[str, Any]]:
    for chunk in reply.first_chunks():
        yield chunk
    async for event in answer.events():
        if isinstance(event, Piece):
            yield reply.chunk(event.text)
        elif isinstance(event, Finished):
            yield reply.chunk(None, event.reason)
            if include_usage:
                yield reply.usage_chunk(answer.usage(event.tokens))
        else:
            yield _failure(event).body


def _failure(event: Failed) -> APIError:
    status = 503 if event.code == "shutting_down" else 500
    return APIError(status, event.message, SERVER_ERROR, code=event.code)


def _status(text: str, status: int) -> Response:
    return JSONResponse({"status": text}, status)


async def _on_http_error(http: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - what the handler is registered for
    body = error.body if isinstance(error, APIError) else error_body(str(error.detail), CLIENT_ERROR)
    return JSONResponse(body, error.status_code, error.headers)


async def _on_invalid(http: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return JSONResponse(error_body("the body is not JSON", CLIENT_ERROR, code="invalid_json"), 400)
    param = ".".join(str(part) for part in problem["loc"][1:])
    message = f"{param}: {problem['msg']}" if param else "the body must be a JSON object, of type application/json"
    return JSONResponse(error_body(message, CLIENT_ERROR, param=param or None), 400)


async def _on_bug(http: Request, error: Exception) -> Response:
    return JSONResponse(error_body("internal error", SERVER_ERROR, code="internal_error"), 500)
