"""Errors of the stand-in, with the bodies that vLLM gives them."""

import json
from http import HTTPStatus

import msgspec

OVERLOADED_MESSAGE = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)

ENGINE_DEAD_MESSAGE = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class ApiError(Exception):
    """An answer other than 200: its status and vLLM's error body."""

    def __init__(
        self, status: HTTPStatus, message: str, *, kind: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self._content = {
            "error": {
                "message": message,
                "type": kind or status.phrase,
                "param": param,
                "code": status.value,
            }
        }

    @property
    def body(self) -> bytes:
        """The body of an answer of its own."""
        return msgspec.json.encode(self._content)

    @property
    def named_body(self) -> bytes:
        """The same as Anthropic's clients know it, for their API."""
        error = self._content["error"]
        told = {"type": error["type"], "message": error["message"]}
        return msgspec.json.encode({"type": "error", "error": told})

    @property
    def event(self) -> bytes:
        """The server-sent event in a stream that has begun; vLLM spaces its JSON there."""
        return b"data: " + json.dumps(self._content).encode() + b"\n\n"


def invalid_request(message: str, param: str | None = None, value: object = None) -> ApiError:
    """Return the 400 of a request that was understood but cannot be served.

    The message ends in the parameter and, unless it is None, its value.
    """
    if param is not None:
        shown = "" if value is None else f", value={value}"
        message = f"{message} (parameter={param}{shown})"
    return ApiError(HTTPStatus.BAD_REQUEST, message, kind="BadRequestError", param=param)


def unreadable_request(message: str, param: str | None = None) -> ApiError:
    """Return the 400 of a body that is not JSON or has members of the wrong type."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param)


def unknown_model(model: str, served: str) -> ApiError:
    """Return the 404 of a model that is not served here."""
    return ApiError(
        HTTPStatus.NOT_FOUND,
        f"The model `{model}` does not exist. Valid aliases: {served}.",
        kind="NotFoundError",
        param="model",
    )


def overloaded() -> ApiError:
    """Return the 503 of a full queue."""
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, OVERLOADED_MESSAGE)


def engine_dead() -> ApiError:
    """Return the 500 of an engine that ends: it finishes what it has and takes nothing new."""
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, ENGINE_DEAD_MESSAGE)
