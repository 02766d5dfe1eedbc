"""All errors, in OpenAI's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from xpuserve.engine.request import Failed

RETRY_SECONDS = "5"  # for a service that is starting
NO_JSON_OBJECT = "the body must be a JSON object, of type application/json"
# The path of Anthropic's API, and its error types by HTTP status.
ANTHROPIC = "/v1/messages"
_ANTHROPIC_KINDS = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
CLIENT_ERROR, SERVER_ERROR = "invalid_request_error", "server_error"


class APIError(HTTPException):
    """A refusal."""

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


def error_body(message: str, kind: str, *, param: Optional[str] = None, code: Optional[str] = None) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def unsupported(param: str, why: str) -> APIError:
    """The refusal of a request for an unsupported feature."""
    return APIError(400, f"{param}: {why}", param=param, code="unsupported_parameter")


def too_long(context: int, prompt: int, wanted: Optional[int], param: str) -> APIError:
    """The refusal of a prompt, or answer, that does not fit.

    In OpenAI's words: clients look for them, and shorten the conversation.
    """
    said = f"This model's maximum context length is {context} tokens. However, "
    if param == "max_tokens":
        said += (
            f"you requested {prompt + (wanted or 0)} tokens ({prompt} in the messages, {wanted} in the completion). "
        )
        said += "Please reduce the length of the messages or completion."
    else:
        said += f"your messages resulted in {prompt} tokens. Please reduce the length of the messages."
    return APIError(400, said, param=param, code="context_length_exceeded")


def text_too_long(most: int, length: int, param: str, *, with_query: bool) -> APIError:
    """The refusal of a text that an embedding or rerank model cannot read as a whole."""
    both = " with the query" if with_query else ""
    message = f"This model's maximum context length is {most} tokens. However, {param}{both} has {length} tokens."
    return APIError(400, message, param=param, code="context_length_exceeded")


def not_ready() -> APIError:
    """The refusal of a request while the model is loaded."""
    headers = {"Retry-After": RETRY_SECONDS}
    return APIError(503, "the model is not ready yet", SERVER_ERROR, code="not_ready", headers=headers)


def failure(event: Failed) -> APIError:
    """The error of an engine that gave no answer."""
    status, headers = {
        "shutting_down": (503, {"Retry-After": RETRY_SECONDS}),
        "engine_restarting": (503, {"Retry-After": RETRY_SECONDS}),
        "out_of_memory": (503, {"Retry-After": RETRY_SECONDS}),
        "request_too_large": (400, None),
        # OpenAI's client would retry, which makes an overloaded server slower.
        "deadline_exceeded": (504, {"x-should-retry": "false"}),
    }.get(event.code, (500, None))
    kind = SERVER_ERROR if status >= 500 else CLIENT_ERROR
    return APIError(status, event.message, kind, code=event.code, headers=headers)


def busy(seconds: int) -> APIError:
    """The refusal when the queue is full."""
    headers = {"Retry-After": str(seconds)}
    return APIError(429, "the queue is full; try again later", "rate_limit_error", code="queue_full", headers=headers)


def answer(path: str, status: int, body: dict[str, Any], headers: Optional[Mapping[str, str]] = None) -> JSONResponse:
    """A refusal, in the format of the requested API."""
    return JSONResponse(anthropic_body(status, body) if path.startswith(ANTHROPIC) else body, status, headers)


def anthropic_body(status: int, body: dict[str, Any]) -> dict[str, Any]:
    """An error in OpenAI's format, converted to Anthropic's."""
    kind = _ANTHROPIC_KINDS.get(status, "api_error" if status >= 500 else CLIENT_ERROR)
    message = body["error"]["message"]
    if body["error"]["code"] == "context_length_exceeded":
        message = f"prompt is too long: {message}"  # Anthropic's clients look for it
    return {"type": "error", "error": {"type": kind, "message": message}}


async def on_http_error(http: Request, error: Exception) -> Response:
    """Answer a refusal of this service or of the framework."""
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - what the handler is registered for
    body = error.body if isinstance(error, APIError) else error_body(str(error.detail), CLIENT_ERROR)
    return answer(http.url.path, error.status_code, body, error.headers)


async def on_invalid(http: Request, error: Exception) -> Response:
    """Answer an invalid body."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = _clearest(error.errors())
    if problem["type"] == "json_invalid":
        return answer(http.url.path, 400, error_body("the body is not JSON", CLIENT_ERROR, code="invalid_json"))
    return answer(http.url.path, 400, invalid(problem["loc"][1:], problem, error.body).body)


def _clearest(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The clearest message about the first wrong field: each allowed form of the field gives a message of its own."""
    first = [problem for problem in problems if problem["loc"][:2] == problems[0]["loc"][:2]]
    return max(first, key=lambda problem: (problem["type"] == "value_error", len(problem["loc"])))


def invalid(location: tuple[Any, ...], problem: Mapping[str, Any], body: Any) -> APIError:
    """The refusal of an invalid body."""
    param = _param(location, body)
    text = problem["msg"].replace("Value error, ", "")
    if param is None and isinstance(body, dict):
        return APIError(400, text)
    return APIError(400, f"{param}: {text}" if param else NO_JSON_OBJECT, param=param)


def _param(location: tuple[Any, ...], body: Any) -> Optional[str]:
    """The place of the problem in the body: `location` without the kinds that a field may have."""
    names = []
    for part in location:
        if isinstance(body, dict) and (part in body or part == location[-1]):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int):
            body = body[part]
        else:
            continue
        names.append(str(part))
    return ".".join(names) or None
