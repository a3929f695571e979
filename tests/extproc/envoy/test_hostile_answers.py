"""Whatever an engine answers, Envoy lives, and the next request is served."""

import asyncio
import json
from contextlib import suppress

import aiohttp
import pytest

from heliostat_routing.events import Outcome, RequestMeasured

from .conftest import BODY, Behaviour, Engine, Gateway, Pick, answer_json, eventually

pytestmark = pytest.mark.gateway

OK = "HTTP/1.1 200 OK\r\n"
CHUNKED = OK + "transfer-encoding: chunked\r\n\r\n"
PROBLEM = {"message": "no room", "type": "ServerError", "param": None}

EVENTS = {
    "number": "1",
    "negative": "-1.5",
    "string": '"x"',
    "null": "null",
    "true": "true",
    "array": "[1, [2]]",
    "nothing": "",
    "truncated": '{"choices": [{"del',
    "no text": b"\xff\xfe\x00",
    "surrogate": '{"choices": "\\ud800"}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "megabytes": '{"choices": "' + "x" * 3_000_000 + '"}',
    "usage of another type": '{"usage": 1}',
    "impossible usage": '{"usage": {"prompt_tokens": -1, "completion_tokens": 1e308}}',
    "vast usage": '{"usage": {"prompt_tokens": 18446744073709551615, "prompt_tokens_details": 7}}',
    "null error": '{"error": null}',
    "a text that speaks of errors": json.dumps({"text": '\ndata: {"error": {"code": 503}}\n'}),
}

ERRORS = {
    "openai": (json.dumps({"error": {**PROBLEM, "code": 503}}), Outcome.ENGINE_FAILED),
    "the client's": (json.dumps({"error": {**PROBLEM, "code": 400}}), Outcome.REFUSED),
    "compact": ('{"error":{"message":"x","code":503}}', Outcome.ENGINE_FAILED),
    "a word": ('{"error": "x"}', Outcome.ENGINE_FAILED),
    "no code": ('{"error": {"code": null}}', Outcome.ENGINE_FAILED),
    "no number": ('{"error": {"code": "nan"}}', Outcome.ENGINE_FAILED),
    "vast code": ('{"error": {"code": 9999999999999999999999}}', Outcome.ENGINE_FAILED),
    "long": (
        json.dumps({"error": {**PROBLEM, "message": "x" * 100_000, "code": 400}}),
        Outcome.REFUSED,
    ),
    "anthropic": (
        '{"type":"error","error":{"type":"internal_error","message":"x"}}',
        Outcome.ENGINE_FAILED,
    ),
    "anthropic, the client's": (
        '{"type":"error","error":{"type":"invalid_request_error","message":"x"}}',
        Outcome.REFUSED,
    ),
}

ANSWERS = {
    "another protocol": "SSH-2.0-OpenSSH_9\r\n",
    "no headers": "<html>hello</html>",
    "binary": bytes(range(256)) * 10,
    "half a line": "HTTP/1.1 20",
    "half a head": OK + "content-le",
    "status 0": "HTTP/1.1 000 x\r\ncontent-length: 2\r\n\r\n{}",
    "upgrade": "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nxxxx",
    "redirect": "HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "only interim": "HTTP/1.1 100 Continue\r\n\r\n",
    "interim flood": "HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000,
    "body too short": OK + "content-length: 100\r\n\r\n{}",
    "negative length": OK + "content-length: -1\r\n\r\n{}",
    "vast length": OK + "content-length: 18446744073709551615\r\n\r\n{}",
    "two lengths": OK + "content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length and chunks": OK
    + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "unknown coding": OK + "transfer-encoding: gzip\r\n\r\n{}",
    "no chunk": CHUNKED + "zz\r\n{}\r\n0\r\n\r\n",
    "vast chunk": CHUNKED + "ffffffffffffffffff\r\n{}",
    "cut chunk": CHUNKED + "5\r\n{}",
    "trailer flood": CHUNKED
    + "2\r\n{}\r\n0\r\n"
    + "".join(f"x-{n}: y\r\n" for n in range(20_000))
    + "\r\n",
    "header flood": OK
    + "".join(f"x-{n}: y\r\n" for n in range(20_000))
    + "content-length: 2\r\n\r\n{}",
    "endless header": OK + "x: " + "y" * 5_000_000,
    "nul in a header": OK + "x: \x00\r\ncontent-length: 2\r\n\r\n{}",
    "pseudo-header": OK + ":status: 500\r\ncontent-length: 2\r\n\r\n{}",
}


def stream_of(*events: str | bytes, split_bytes: int | None = None) -> Behaviour:
    """Answer with these events, in pieces of this size, and close."""
    data = b"".join(
        b"data: " + (event if isinstance(event, bytes) else event.encode()) + b"\n\n"
        for event in events
    )
    size = split_bytes or len(data)

    async def answer(writer: asyncio.StreamWriter, engine: Engine) -> None:
        writer.write((OK + "content-type: text/event-stream\r\nconnection: close\r\n\r\n").encode())
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    return answer


def raw(answer: str | bytes) -> Behaviour:
    """Answer these bytes and close."""

    async def write(writer: asyncio.StreamWriter, engine: Engine) -> None:
        writer.write(answer if isinstance(answer, bytes) else answer.encode())
        await writer.drain()
        writer.close()

    return write


async def measured(gateway: Gateway) -> RequestMeasured:
    """Send a request, take whatever comes, and give what the log says of it."""
    headers = {"connection": "close"}
    with suppress(aiohttp.ClientError):
        async with gateway.client.post(
            gateway.url(), json=BODY, headers=headers, allow_redirects=False
        ) as response:
            await response.content.read()
    ticket, events = gateway.router.tickets, gateway.router.events

    def found() -> list[RequestMeasured]:
        return [e for e in events if isinstance(e, RequestMeasured) and e.ticket == ticket]

    await eventually(found)
    return found()[0]


async def test_no_event_of_a_stream_ends_envoy(gateway: Gateway) -> None:
    """Scalars, depth, size and nonsense pass; none is taken for an error of the engine's."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    for name, event in EVENTS.items():
        engine.behaviour = stream_of(event, "[DONE]")
        assert (await measured(gateway)).outcome is Outcome.SERVED, name
    assert gateway.envoy.restarts == 0


async def test_an_error_in_a_stream_is_seen_however_it_comes(gateway: Gateway) -> None:
    """Of each shape, first or last, whole or in pieces, its code is what counts."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    token = json.dumps({"choices": [{"delta": {"content": "a"}}]})
    for name, (event, outcome) in ERRORS.items():
        for split_bytes in (None, 7 if len(event) < 1000 else 5000):
            engine.behaviour = stream_of(token, event, "[DONE]", split_bytes=split_bytes)
            assert (await measured(gateway)).outcome is outcome, name


async def test_no_answer_ends_envoy_or_spoils_the_next_request(gateway: Gateway) -> None:
    """What is no answer is the engine's failure, and its next one is served."""
    bad, good = await gateway.engine(), await gateway.engine()
    await gateway.publish(a=[bad.address, good.address])
    for name, answer in ANSWERS.items():
        bad.behaviour = raw(answer)
        gateway.router.pick = Pick(bad.address)
        told = await measured(gateway)
        assert told.outcome is Outcome.ENGINE_FAILED or told.endpoint == good.address, name
        bad.behaviour = answer_json
        assert (await gateway.post()).body["served_by"] == bad.address, name
    assert gateway.envoy.restarts == 0
