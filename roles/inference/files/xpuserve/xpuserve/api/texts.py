"""Embeddings, in OpenAI's format, and rerank, in the format of Jina, Cohere and vLLM."""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional, Union

from fastapi import Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from xpuserve.api import errors
from xpuserve.api.answer import Answer, client_of
from xpuserve.api.completer import Limits
from xpuserve.api.conversation import Text
from xpuserve.api.errors import APIError
from xpuserve.api.schema import first_not_offered, name_not_offered
from xpuserve.engine.loop import Engine
from xpuserve.engine.queue import QueueFullError
from xpuserve.engine.texts import TextJob, TextsFailedError
from xpuserve.text_models import TextModel

MAX_TEXTS = 2048  # in one request, as in OpenAI's API
# Vectors written to a response before other requests get their turn: as JSON, one takes up to a millisecond.
_WRITTEN = 16

# As schema.NOT_OFFERED.
NOT_OFFERED_EMBEDDINGS: dict[str, tuple[Any, ...]] = {
    "dimensions": (),
    "truncate_prompt_tokens": (),
    "truncate": (False,),
    "prompt_name": (),
}
NOT_OFFERED_RERANK: dict[str, tuple[Any, ...]] = {
    "max_tokens_per_doc": (),
    "max_chunks_per_doc": (),
    "rank_fields": (["text"],),
    "truncate_prompt_tokens": (),
}


def _inputs(value: Any) -> Any:
    """Validate texts to embed."""
    items = value if isinstance(value, list) else [value]
    _number(items)
    if any(isinstance(item, (int, list)) for item in items):
        raise ValueError("token ids are not supported; send text (in LangChain: check_embedding_ctx_length=False)")
    if not all(isinstance(item, str) for item in items):
        raise ValueError("it must be a string, or a list of strings")
    return value


def _documents(value: Any) -> Any:
    """Validate documents."""
    if isinstance(value, list):
        _number(value)
    return value


def _number(items: list[Any]) -> None:
    if not items:
        raise ValueError("the list is empty")
    if len(items) > MAX_TEXTS:
        raise ValueError(f"there are {len(items)} texts, and {MAX_TEXTS} is the maximum in one request")


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("the text is empty")
    return value


_Filled = Annotated[Text, Field(json_schema_extra={"minLength": 1}), AfterValidator(_not_empty)]


class EmbeddingsRequest(BaseModel):
    """The body of /v1/embeddings."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra=name_not_offered(NOT_OFFERED_EMBEDDINGS))

    model: Optional[Text] = Field(default=None, description="the embedding model, if omitted")
    input: Annotated[
        Union[_Filled, Annotated[list[_Filled], Field(min_length=1, max_length=MAX_TEXTS)]], BeforeValidator(_inputs)
    ]
    encoding_format: Optional[Literal["float", "base64"]] = Field(
        default=None, description="float by default; base64 is of little-endian 32-bit floats"
    )


class Document(BaseModel):
    """A text to compare with a query."""

    model_config = ConfigDict(strict=True)

    text: _Filled


class RerankRequest(BaseModel):
    """The body of /v1/rerank."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra=name_not_offered(NOT_OFFERED_RERANK))

    model: Optional[Text] = Field(default=None, description="the rerank model, if omitted")
    query: _Filled
    documents: Annotated[
        list[Union[_Filled, Document]], Field(min_length=1, max_length=MAX_TEXTS), BeforeValidator(_documents)
    ]
    top_n: Optional[int] = Field(default=None, ge=1, description="all documents, if omitted")
    return_documents: Optional[bool] = Field(default=None, description="true by default")

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


@dataclass(frozen=True)
class _Kind:
    """What a model is for: its request's path, and the variable that sets it."""

    path: str
    setting: str


KINDS = {
    "embedding": _Kind("/v1/embeddings", "inference_embedding_model"),
    "rerank": _Kind("/v1/rerank", "inference_rerank_model"),
}


class TextCompleter:
    """Answers such requests with the models for them."""

    def __init__(self, engine: Engine, model: str, limits: Limits, models: Mapping[str, TextModel]) -> None:
        """`model` is the chat model's name; `models` are by kind: embedding, rerank."""
        self._engine = engine
        self._chat_model = model
        self._limits = limits
        self._models = models
        # Requests in order, as for prompts, but beside those.
        self._counter = ThreadPoolExecutor(1, "counter")

    async def embeddings(self, body: EmbeddingsRequest, http: Request) -> Response:
        """The embeddings of texts. Raises APIError."""
        model = self._model("embedding", body.model, first_not_offered(body.model_extra or {}, NOT_OFFERED_EMBEDDINGS))
        texts, where = ([body.input], "input") if isinstance(body.input, str) else (body.input, "input.{}")
        job = await self._done(model, http, texts, where)
        written = []
        for number, vector in enumerate(job.results):
            value = base64.b64encode(vector).decode("ascii") if body.encoding_format == "base64" else _floats(vector)
            written.append(json.dumps({"object": "embedding", "index": number, "embedding": value}))
            if number % _WRITTEN == _WRITTEN - 1:
                await asyncio.sleep(0)
        more = json.dumps({"model": model.name, "usage": _usage(job)})
        content = f'{{"object": "list", "data": [{", ".join(written)}], {more[1:]}'
        return Response(content, media_type="application/json")

    async def rerank(self, body: RerankRequest, http: Request) -> Response:
        """The documents that are most relevant to a query, the best first. Raises APIError."""
        model = self._model("rerank", body.model, first_not_offered(body.model_extra or {}, NOT_OFFERED_RERANK))
        texts = body.texts
        job = await self._done(model, http, texts, "documents.{}", body.query)
        best = sorted(range(len(texts)), key=lambda number: -job.results[number])[: body.top_n]
        results: list[dict[str, Any]] = [{"index": n, "relevance_score": job.results[n]} for n in best]
        if body.return_documents is not False:
            for result in results:
                result["document"] = {"text": texts[result["index"]]}
        content = {"id": http.state.request_id, "model": model.name, "results": results, "usage": _usage(job)}
        return Response(json.dumps(content), media_type="application/json")

    def _model(self, kind: str, name: Optional[str], refused: Optional[str]) -> TextModel:
        model, which = self._models.get(kind), KINDS[kind]
        if model is None:
            message = f"this server has no {kind} model; its operator can set one with {which.setting}"
            raise APIError(404, message, param="model", code="model_not_found")
        if name not in (None, model.name):
            others = {each.name: other for other, each in self._models.items()} | {self._chat_model: "chat"}
            what = f"{name!r} is this server's {others[name]} model" if name in others else f"unknown model {name!r}"
            message = f"{what}; for {which.path} it has {model.name!r}"
            raise APIError(404, message, param="model", code="model_not_found")
        if refused:
            raise errors.unsupported(refused, "this server does not support it")
        return model

    async def _done(
        self, model: TextModel, http: Request, texts: list[str], where: str, query: Optional[str] = None
    ) -> TextJob:
        """A job with the results of texts; `where` is the place of one of them in the request. Raises APIError."""
        if not self._engine.serving:
            raise errors.not_ready()
        queue, answer = self._engine.texts, Answer(self._engine, http, self._limits.request_timeout)
        low = self._limits.low_priority(http)
        job: Optional[TextJob] = None
        try:
            with queue.place(answer.client):  # before the tokenizer has work with it
                loop = asyncio.get_running_loop()
                lengths = await answer.result(loop.run_in_executor(self._counter, queue.count, texts, query))
            for number, length in enumerate(lengths):
                if length > model.max_tokens:
                    raise errors.text_too_long(model.max_tokens, length, where.format(number), with_query=bool(query))
            job = TextJob(http.state.request_id, texts, lengths, query, low_priority=low, **client_of(http))
            queue.submit(job)
            await answer.result(asyncio.wrap_future(job.future))
        except QueueFullError:
            raise errors.busy(self._engine.retry_after) from None
        except TextsFailedError as error:
            raise errors.failure(error.event) from None
        finally:
            answer.close()
            if job:
                queue.cancel(job)
        return job


def _floats(vector: bytes) -> list[float]:
    return array("f", vector).tolist()


def _usage(job: TextJob) -> dict[str, int]:
    tokens = sum(job.lengths)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
