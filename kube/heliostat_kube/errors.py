"""What can go wrong between us and the API server, told apart by what the caller can do."""

import json
from typing import Any


class KubeError(Exception):
    """The API server refused or could not be asked.

    status -- the HTTP status; 0 where no answer came at all
    reason -- the server's CamelCase word (`NotFound`, `AlreadyExists`, `Invalid`, ...)
    message -- one sentence for people
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class NotFoundError(KubeError):
    """The object, its namespace, or its whole resource (a CRD not installed) does not exist."""


class ConflictError(KubeError):
    """The object exists already, was changed by another, or is not the one meant (its uid)."""


class ForbiddenError(KubeError):
    """The credentials are not accepted (401) or do not allow this (403)."""


class NamespaceTerminatingError(ForbiddenError):
    """The namespace is being deleted: nothing can be made in it any more."""


class InvalidError(KubeError):
    """The server will not take this object, however often it is sent (400, 422)."""


class ExpiredError(KubeError):
    """The resource version or the continue token is too old (410): list again."""


class UnavailableError(KubeError):
    """No answer, or none for now (429, 5xx): the same request may succeed later."""


class ConfigurationError(Exception):
    """Neither a kubeconfig nor a service account tells where the API server is."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ExpiredError,
    422: InvalidError,
    429: UnavailableError,
}


def parse_error(status: int, body: bytes) -> KubeError:
    """Translate an HTTP answer that is not a success; the body is a Status or anything else."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    answer = parsed if isinstance(parsed, dict) else {}
    text = body[:200].decode(errors="replace").strip()
    return error_of_status({**answer, "code": status, "message": answer.get("message") or text})


def error_of_status(answer: dict[str, Any]) -> KubeError:
    """Translate a `Status` object, as it comes in answers and in watches."""
    code = answer.get("code")
    status = code if isinstance(code, int) else 500
    kind = _BY_STATUS.get(status, UnavailableError if status >= 500 else KubeError)
    if kind is ForbiddenError and "NamespaceTerminating" in _causes(answer):
        kind = NamespaceTerminatingError
    reason = str(answer.get("reason") or f"HTTP{status}")
    message = str(answer.get("message") or "the API server gave no message")
    return kind(status, reason, message)


def _causes(answer: dict[str, Any]) -> list[Any]:
    """Give the reasons in the `details` of a `Status`."""
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return [cause.get("reason") for cause in causes or () if isinstance(cause, dict)]
