"""Everything that goes wrong, told in OpenAI's shape."""

from __future__ import annotations

from typing import Any, Optional

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from xpuserve.engine.request import Failed

RETRY_SECONDS = "5"  # for a service that starts
NO_JSON_OBJECT = "the body must be a JSON object, of type application/json"
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


def failure(event: Failed) -> APIError:
    """What the client is told where the engine gave no answer."""
    status, headers = {
        "shutting_down": (503, {"Retry-After": RETRY_SECONDS}),
        "engine_restarting": (503, {"Retry-After": RETRY_SECONDS}),
        "out_of_memory": (503, {"Retry-After": RETRY_SECONDS}),
        "request_too_large": (400, None),
        # OpenAI's client would try again, which makes a server that is too slow slower.
        "deadline_exceeded": (504, {"x-should-retry": "false"}),
    }.get(event.code, (500, None))
    kind = SERVER_ERROR if status >= 500 else CLIENT_ERROR
    return APIError(status, event.message, kind, code=event.code, headers=headers)


def busy(seconds: int) -> APIError:
    """What the client is told where too much waits."""
    headers = {"Retry-After": str(seconds)}
    return APIError(429, "too much waits; try again later", "rate_limit_error", code="queue_full", headers=headers)


async def on_http_error(http: Request, error: Exception) -> Response:
    """Answer a refusal, ours or the framework's."""
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - what the handler is registered for
    body = error.body if isinstance(error, APIError) else error_body(str(error.detail), CLIENT_ERROR)
    return JSONResponse(body, error.status_code, error.headers)


async def on_invalid(http: Request, error: Exception) -> Response:
    """Answer a body that is not what it must be."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return JSONResponse(error_body("the body is not JSON", CLIENT_ERROR, code="invalid_json"), 400)
    param = _param(problem["loc"][1:], error.body)
    text = problem["msg"].replace("Value error, ", "")
    message = f"{param}: {text}" if param else NO_JSON_OBJECT
    return JSONResponse(error_body(message, CLIENT_ERROR, param=param), 400)


def _param(location: tuple[Any, ...], body: Any) -> Optional[str]:
    """Where in the body the problem is: `location` without the kinds that a field could also have been."""
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
