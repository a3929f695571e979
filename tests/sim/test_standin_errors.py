"""The stand-in's refusals against what the real vLLM says."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import RunningEngine, running_engine

CHAT = "/v1/chat/completions"
PLAIN = "/v1/completions"
LIMIT_TOKENS = 2048
OPTIONS = EngineOptions(model="tiny", speed_ratio=50.0, max_model_tokens=LIMIT_TOKENS)
BUSY = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)
BUSY_ERROR = {"message": BUSY, "type": "Service Unavailable", "param": None, "code": 503}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Return an HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    """Return a fast stand-in with vLLM's capture's length."""
    async with running_engine(OPTIONS) as running:
        yield running


async def refusal(
    http: aiohttp.ClientSession, engine: RunningEngine, path: str, data: bytes
) -> tuple[int, dict[str, Any]]:
    """Post a body that is refused; return status and error."""
    headers = {"Content-Type": "application/json"}
    async with http.post(engine.url + path, data=data, headers=headers) as response:
        body = await response.json()
        assert list(body) == ["error"]
        return response.status, body["error"]


def chat(**members: Any) -> dict[str, Any]:
    """Return a chat request body."""
    return {"messages": [{"role": "user", "content": "hello"}]} | members


TOO_LONG = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains at least "
    "2049 input tokens, which exceeds this limit even without any output tokens. Please reduce "
    "the length of the input prompt. (parameter=input_tokens, value=2049)"
)
TOO_MANY = (
    "max_tokens=5000 cannot be greater than max_model_len=2048. Please request fewer output "
    "tokens. (parameter=max_tokens, value=5000)"
)
NO_PROMPT = (
    "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)",
    "prompt",
)
NO_ROOM = ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens")
NO_MESSAGES = "Cannot apply chat template to an empty conversation. Provide at least one message."


@pytest.mark.parametrize(
    ("path", "body", "message", "param"),
    [
        (PLAIN, {"prompt": list(range(3000))}, TOO_LONG, "input_tokens"),
        (CHAT, chat(messages=[{"role": "user", "content": "x" * 9000}]), TOO_LONG, "input_tokens"),
        (PLAIN, {"prompt": list(range(3000)), "stream": True}, TOO_LONG, "input_tokens"),
        (PLAIN, {"prompt": list(range(LIMIT_TOKENS))}, *NO_ROOM),
        (CHAT, chat(max_tokens=0), *NO_ROOM),
        (
            CHAT,
            chat(max_tokens=-1),
            "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)",
            "max_tokens",
        ),
        (CHAT, chat(max_tokens=5000), TOO_MANY, "max_tokens"),
        (PLAIN, {"prompt": "a", "max_tokens": 5000}, TOO_MANY, "max_tokens"),
        (CHAT, chat(messages=[]), NO_MESSAGES, None),
        (PLAIN, {"max_tokens": 4}, *NO_PROMPT),
        (PLAIN, {"prompt": ""}, *NO_PROMPT),
        (
            CHAT,
            chat(temperature=-1),
            "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)",
            "temperature",
        ),
        (CHAT, chat(n=0), "n must be at least 1, got 0.", None),
        (CHAT, chat(n=2, temperature=0), "n must be 1 when using greedy sampling, got 2.", None),
        (
            CHAT,
            chat(stream_options={"include_usage": True}),
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
            "stream_options",
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_in_vllms_words(
    http: aiohttp.ClientSession,
    engine: RunningEngine,
    path: str,
    body: dict[str, Any],
    message: str,
    param: str | None,
) -> None:
    """The status is 400, for a stream too; message and param are the real ones."""
    status, error = await refusal(http, engine, path, json.dumps(body).encode())
    assert status == 400
    expected = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
    assert error == expected


def problem(kind: str, place: str, message: str, found: str) -> dict[str, Any]:
    """Return what the message lists of one problem."""
    return {"type": kind, "loc": place, "msg": message, "input": found}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b'{"model":"tiny",}',
            problem("json_invalid", "body.16", "JSON decode error", "<dict of 0 items>")
            | {"ctx": {"error": "Expecting property name enclosed in double quotes"}},
        ),
        (b"", problem("missing", "body", "Field required", "None")),
        (
            b'{"model":"tiny"}',
            problem("missing", "body.messages", "Field required", "<dict of 1 items>"),
        ),
        (
            b'{"messages":"hello"}',
            problem("list_type", "body.messages", "Input should be a valid list", "hello"),
        ),
        (
            b'{"messages":[],"max_tokens":"many"}',
            problem(
                "int_parsing",
                "body.max_tokens",
                "Input should be a valid integer, unable to parse string as an integer",
                "many",
            ),
        ),
        (
            b"[1,2]",
            problem(
                "model_attributes_type",
                "body",
                "Input should be a valid dictionary or object to extract fields from",
                "<list of 2 items>",
            ),
        ),
        (
            b'{"messages":[{"role":"user","content":"a"},{"role":7}]}',
            problem("string_type", "body.messages.1.role", "Input should be a valid string", "7"),
        ),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_with_its_place(
    http: aiohttp.ClientSession, engine: RunningEngine, data: bytes, expected: dict[str, Any]
) -> None:
    """The message says what is wrong, and param is where."""
    assert await refusal(http, engine, CHAT, data) == (
        400,
        {
            "message": f"1 validation error:\n  {expected}",
            "type": "Bad Request",
            "param": expected["loc"],
            "code": 400,
        },
    )


async def test_tokenize_wants_a_prompt_or_messages(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Without either, both are listed as missing."""
    status, error = await refusal(http, engine, "/tokenize", b'{"model":"tiny"}')
    names = ("body.prompt", "body.messages")
    lines = [problem("missing", name, "Field required", "<dict of 1 items>") for name in names]
    assert (status, error["param"]) == (400, "body.prompt")
    assert error["message"] == f"2 validation errors:\n  {lines[0]}\n  {lines[1]}"


DEEP = b'{"tools":' + b"[" * 100_000


@pytest.mark.parametrize("data", [b"\xff{}", DEEP, b"nonsense", b'{"prompt":[-1]}'])
async def test_nonsense_is_a_bad_request(
    http: aiohttp.ClientSession, engine: RunningEngine, data: bytes
) -> None:
    """Whatever the bytes, the answer is 400 and not a failure."""
    for path in (CHAT, PLAIN):
        status, error = await refusal(http, engine, path, data)
        assert (status, error["code"]) == (400, 400)


async def test_another_model_is_not_found(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """A model that is not served is 404 with the one that is."""
    body = json.dumps(chat(model="nope")).encode()
    status, error = await refusal(http, engine, CHAT, body)
    assert status == 404
    assert error == {
        "message": "The model `nope` does not exist. Valid aliases: tiny.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


async def test_only_json_is_taken(http: aiohttp.ClientSession, engine: RunningEngine) -> None:
    """A body of another content type is refused before it is read."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with http.post(engine.url + CHAT, data=b"{}", headers=headers) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    assert (error["message"], error["type"], error["param"]) == (text, "Bad Request", None)


async def test_a_wrong_path_or_method_has_a_detail(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """404 and 405 have no error object; 405 says what is allowed."""
    async with http.get(engine.url + "/nowhere") as response:
        assert (response.status, await response.json()) == (404, {"detail": "Not Found"})
    async with http.get(engine.url + CHAT) as response:
        assert (response.status, await response.json()) == (405, {"detail": "Method Not Allowed"})
        assert response.headers["Allow"] == "POST"


async def test_a_full_engine_answers_503_to_streams_too(http: aiohttp.ClientSession) -> None:
    """Running and waiting requests count; every refusal is counted and comes at once."""
    options = EngineOptions(speed_ratio=0.5, max_running_requests=1, max_unfinished_requests=2)
    async with running_engine(options) as engine:
        holders = [
            await http.post(engine.url + CHAT, json=chat(stream=True)) for _ in ("running", "waits")
        ]
        for path, body in ((CHAT, chat()), (PLAIN, {"prompt": "a"})):
            for streams in (False, True):
                data = json.dumps(body | {"stream": streams}).encode()
                assert await refusal(http, engine, path, data) == (503, BUSY_ERROR)
        async with http.get(engine.url + "/metrics") as response:
            page = await response.text()
        assert 'reason="max_num_queued_reqs"} 4.0' in page
        for holder in holders:
            holder.close()


async def test_streams_that_arrive_together_are_refused_in_the_stream() -> None:
    """Those that find room at their arrival but not at their start get 200, an error, [DONE]."""
    options = EngineOptions(speed_ratio=50.0, max_unfinished_requests=1)
    async with running_engine(options) as engine:
        host, port = engine.address.split(":")
        connections = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        for reader, writer in connections:
            writer.write(b"GET /health HTTP/1.1\r\nHost: e\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(chat(stream=True, max_tokens=3)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n"
        size = f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        for _, writer in connections:
            writer.write((head + size).encode() + body)
        answers = [(await reader.read()).decode() for reader, _ in connections]
        for _, writer in connections:
            writer.close()
    assert [answer.split(" ")[1] for answer in answers] == ["200"] * 3
    event = "data: " + json.dumps({"error": BUSY_ERROR}) + "\n\n"
    assert sorted(event in answer for answer in answers) == [False, True, True]
    assert all("data: [DONE]\n\n" in answer for answer in answers)
