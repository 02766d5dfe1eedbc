"""The HTTP interface."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, Optional

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from xpuserve.api import document, errors, page
from xpuserve.api.anthropic import AnthropicReply, CountRequest, MessagesRequest
from xpuserve.api.auth import RequireKey
from xpuserve.api.completer import Completer, Limits
from xpuserve.api.errors import APIError
from xpuserve.api.observe import Observe
from xpuserve.api.origin import KnownHost, OnlyJSON
from xpuserve.api.responses import ResponsesReply, ResponsesRequest
from xpuserve.api.schema import ChatRequest, CompletionRequest
from xpuserve.api.texts import KINDS, EmbeddingsRequest, RerankRequest, TextCompleter
from xpuserve.api.tokens import DetokenizeRequest, TokenizeRequest
from xpuserve.engine.loop import Engine
from xpuserve.keys import Keys
from xpuserve.metrics import CONTENT_TYPE
from xpuserve.settings import QUEUE_TOKENS, STALL_SECONDS
from xpuserve.text_models import TextModel

# Largest body: more than any text of as many tokens as the context has, or, where texts can be embedded, as the queue
# has by default. A long token has four letters, and JSON may write each of them in six bytes. Without a limit, one
# client could take all memory, and the tokenizer's time, from the others.
BODY_BYTES, BODY_BYTES_PER_TOKEN = 65536, 24


def create_app(
    engine: Engine,
    model: str,
    limits: Limits,
    keys: Optional[Keys] = None,
    *,
    stall_timeout: float = STALL_SECONDS,
    hosts: Optional[Collection[str]] = None,
    origins: Sequence[str] = (),
    metrics_key: bool = False,
    texts: Optional[Mapping[str, TextModel]] = None,
) -> FastAPI:
    """The web application in front of `engine`.

    Without `keys`, it serves everyone; with them and `metrics_key`, metrics need one too. `hosts` are
    the accepted names in Host headers; None for any. `origins` are the web pages whose scripts may send requests. An
    engine with work that completes no step for `stall_timeout` is unhealthy. `texts` are the models for embedding and
    rerank.
    """
    texts = texts or {}
    body_tokens = max(limits.context_length, QUEUE_TOKENS if texts else 0)
    handlers: dict[Any, Any] = {
        StarletteHTTPException: errors.on_http_error,
        RequestValidationError: errors.on_invalid,
    }
    layers = [
        Middleware(Observe, metrics=engine.metrics),
        *([Middleware(KnownHost, known=hosts)] if hosts is not None else []),
        *([Middleware(CORSMiddleware, **_cors(origins))] if origins else []),
        *([Middleware(RequireKey, keys=keys, metrics_open=not metrics_key)] if keys else []),
        Middleware(OnlyJSON),
        Middleware(BodyLimit, limit=BODY_BYTES + BODY_BYTES_PER_TOKEN * body_tokens),
    ]
    app = FastAPI(title="xpuserve", docs_url=None, redoc_url=None, exception_handlers=handlers, middleware=layers)
    paths = {each.name: KINDS[kind].path for kind, each in texts.items()}
    completer = Completer(engine, model, limits, paths)
    document.complete(app, model, {kind: each.name for kind, each in texts.items()})
    page.add(app)

    _add_probes(app, engine, stall_timeout)
    lengths = {model: limits.context_length, **{each.name: each.max_tokens for each in texts.values()}}
    _add_models(app, completer, lengths)
    _add_texts(app, TextCompleter(engine, model, limits, texts), texts)

    @app.post("/v1/chat/completions", responses=document.completion(document.ChatCompletion))
    async def chat_completions(body: ChatRequest, http: Request) -> Response:
        """Continue a conversation."""
        return await completer.chat(body, http)

    @app.post("/v1/completions", responses=document.completion(document.Completion))
    async def completions(body: CompletionRequest, http: Request) -> Response:
        """Continue a text, or several."""
        return await completer.text(body, http)

    @app.post("/v1/responses", responses=document.completion(document.ResponsesAnswer))
    async def responses(body: ResponsesRequest, http: Request) -> Response:
        """Continue a conversation, in the shape of OpenAI's Responses. Nothing is stored."""
        refused = body.not_offered()
        if refused:
            raise errors.unsupported(refused, "this server does not support it")
        return await completer.chat(as_chat(body.as_chat()), http, partial(ResponsesReply, body), "input")

    @app.post(errors.ANTHROPIC, responses=document.anthropic(document.completion(document.AnthropicAnswer)))
    async def messages(body: MessagesRequest, http: Request) -> Response:
        """Continue a conversation, in the shape of Anthropic's Messages."""
        return await completer.chat(as_chat(body.as_chat()), http, AnthropicReply)

    @app.post(f"{errors.ANTHROPIC}/count_tokens", responses=document.anthropic(document.tokens()))
    async def count_tokens(body: CountRequest, http: Request) -> document.AnthropicCount:
        """How many tokens such a conversation has."""
        chat = as_chat({**body.as_chat(), "max_completion_tokens": None})
        return document.AnthropicCount(input_tokens=len(await completer.prompt(chat, http)))

    @app.post("/tokenize", responses=document.tokens())
    async def tokenize(body: TokenizeRequest, http: Request) -> document.Tokens:
        """The token ids of a text, or of a conversation as the model gets it."""
        completer.check_model(body.model)
        if body.messages:
            ids = await completer.prompt(ChatRequest(messages=body.messages), http)
        else:
            special = body.add_special_tokens is not False
            work = partial(engine.encoder.encode_text, body.prompt or "", special=special)
            ids = await completer.in_turn(work, http)
        return document.Tokens(count=len(ids), max_model_len=limits.context_length, tokens=ids)

    @app.post("/detokenize", responses=document.tokens())
    async def detokenize(body: DetokenizeRequest, http: Request) -> document.DetokenizedText:
        """The text of token ids, without special tokens."""
        completer.check_model(body.model)
        work = partial(engine.encoder.decode, body.tokens)
        return document.DetokenizedText(prompt=await completer.in_turn(work, http, "tokens"))

    @app.get("/tokenizer_info", responses=document.tokens())
    async def tokenizer_info(http: Request) -> document.TokenizerInfo:
        """The tokens around a text, and the model's chat template."""
        begin, end, template = await completer.in_turn(engine.encoder.tokenizer_info, http)
        context = limits.context_length
        return document.TokenizerInfo(
            bos_token=begin, eos_token=end, chat_template=template or None, model_max_length=context
        )

    return app


def _add_models(app: FastAPI, completer: Completer, lengths: Mapping[str, int]) -> None:
    """Add the pages about models; `lengths` are their maximum tokens by name, the chat model's first."""
    created = int(time.time())
    cards = {name: document.ModelCard(id=name, created=created, max_model_len=most) for name, most in lengths.items()}

    @app.get("/v1/models", responses={**document.KEY_NEEDED, **document.FAILED})
    async def models() -> document.Models:
        """The models that are served, the chat model first."""
        return document.Models(data=list(cards.values()))

    @app.get("/v1/models/{name:path}", responses={**document.KEY_NEEDED, **document.UNKNOWN_MODEL, **document.FAILED})
    async def one_model(name: str) -> document.ModelCard:
        """The model of that name."""
        if name not in cards:
            completer.check_model(name)
        return cards[name]


def _add_texts(app: FastAPI, completer: TextCompleter, models: Mapping[str, TextModel]) -> None:
    """Add the pages of models for texts. Without its model, a page says that, and is not in the document."""

    @app.post(
        KINDS["embedding"].path,
        responses=document.texts(document.Embeddings),
        include_in_schema="embedding" in models,
    )
    async def embeddings(body: EmbeddingsRequest, http: Request) -> Response:
        """The embedding of each text."""
        return await completer.embeddings(body, http)

    @app.post(KINDS["rerank"].path, responses=document.texts(document.Ranking), include_in_schema="rerank" in models)
    async def rerank(body: RerankRequest, http: Request) -> Response:
        """The documents in the order of their relevance to a query."""
        return await completer.rerank(body, http)


def _add_probes(app: FastAPI, engine: Engine, stall_timeout: float) -> None:
    """Add pages about the service's state."""

    def trouble() -> str:
        if not engine.alive:
            return "the engine's thread ended"
        if engine.trouble:
            return f"{engine.trouble}; it is started again"
        stalled = engine.stalled_seconds
        return f"the engine has work, but no step ended for {stalled:.0f} s" if stalled > stall_timeout else ""

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


def _cors(origins: Sequence[str]) -> dict[str, Any]:
    """Rights of scripts of these pages: any header, as clients send many, but no cookies."""
    exposed = ["X-Request-Id", "Retry-After"]
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["*"],
        "expose_headers": exposed,
    }


def as_chat(body: dict[str, Any]) -> ChatRequest:
    """A chat made from a request in another format. Raises APIError."""
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise errors.invalid(problem["loc"], problem, body) from None


class BodyLimit:
    """Stops reading a request's body when it gets too long."""

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


def _status(text: str, status: int) -> Response:
    return JSONResponse({"status": text}, status)
