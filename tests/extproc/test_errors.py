"""Errors for clients: every reason has a status, a body that both APIs know and its own code."""

import json
import re
from pathlib import Path

import pytest

from heliostat_extproc.envoy.local_replies import local_reply_config
from heliostat_extproc.errors import Reason, answer_for_core, error_answer
from heliostat_extproc.ext_proc_wire import error_response
from heliostat_extproc.upb import ProcessingResponse
from heliostat_routing.commands import EvictReason, RejectReason

ANTHROPIC_TYPES = (
    *("invalid_request_error", "authentication_error", "permission_error", "not_found_error"),
    *("request_too_large", "rate_limit_error", "api_error", "overloaded_error", "timeout_error"),
)
STATUSES = {
    Reason.MALFORMED_REQUEST: 400,
    Reason.UNSUPPORTED: 400,
    Reason.UNKNOWN_MODEL: 404,
    Reason.UNKNOWN_PATH: 404,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.REQUEST_TOO_LARGE: 413,
    Reason.HEADERS_TOO_LARGE: 431,
    Reason.UNSUPPORTED_ENCODING: 415,
    Reason.NOT_IMPLEMENTED: 501,
    Reason.CLIENT_TOO_SLOW: 408,
    Reason.QUEUE_FULL: 429,
    Reason.NO_ENDPOINTS: 503,
    Reason.DEADLINE_PASSED: 503,
    Reason.ENDPOINT_FAILED: 503,
    Reason.ROUTER_UNAVAILABLE: 503,
    Reason.OVERLOADED: 503,
    Reason.SHUTTING_DOWN: 503,
    Reason.TIMED_OUT: 504,
    Reason.RESIDENCY: 421,
    Reason.UNAUTHENTICATED: 401,
    Reason.UNKNOWN_TENANT: 403,
    Reason.RATE_LIMITED: 429,
    Reason.INFLIGHT_LIMITED: 429,
    Reason.NOT_A_PEER: 403,
    Reason.NOT_SERVED_FOR_PEERS: 503,
}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_its_status_body_and_headers(reason: Reason) -> None:
    """A client can act on status, code, header and, where it may try again, Retry-After."""
    answer = error_answer(reason, "detail")
    response = ProcessingResponse.FromString(error_response(answer)).immediate_response
    headers = {o.header.key: o.header.raw_value.decode() for o in response.headers.set_headers}
    body = json.loads(response.body)
    error = body["error"]
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    assert error["type"] in ANTHROPIC_TYPES
    assert response.status.code == answer.status == STATUSES[reason]
    assert error["code"] == headers["x-heliostat-reason"] == reason.value
    assert set(error) == {"message", "type", "param", "code"}
    assert "detail" in error["message"]
    assert headers["content-type"] == "application/json"
    assert ("retry-after" in headers) == (answer.status in (429, 503, 504))


def test_the_documentation_lists_each_reason_with_its_status() -> None:
    """docs/errors.md is complete, and promises nothing else."""
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((reason.value, str(STATUSES[reason])) for reason in Reason)


def test_envoy_answers_as_the_router_does() -> None:
    """Each of Envoy's own errors has the status, body and headers of its reason."""
    for mapper in local_reply_config().mappers:
        headers = {option.header.key: option.header.value for option in mapper.headers_to_add}
        answer = error_answer(Reason(headers["x-heliostat-reason"]))
        assert (mapper.status_code, mapper.body.inline_string.encode()) == (
            answer.status,
            answer.body,
        )
        assert headers.get("retry-after") == (
            None if answer.retry_after_seconds is None else str(answer.retry_after_seconds)
        )


@pytest.mark.parametrize("reason", [*RejectReason, *EvictReason])
def test_each_refusal_of_the_core_has_an_answer(reason: RejectReason | EvictReason) -> None:
    """The core cannot refuse a request in a way that a client would not understand."""
    assert answer_for_core(reason, 2.2).status in (404, 429, 503)


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    """Retry-After is rounded up."""
    assert answer_for_core(RejectReason.QUEUE_FULL, 2.2).retry_after_seconds == 3
    assert answer_for_core(RejectReason.QUEUE_FULL, 0.0).retry_after_seconds == 1
    assert answer_for_core(RejectReason.UNKNOWN_POOL, 5.0).retry_after_seconds is None
