"""The stand-in's HTTP side against what the real vLLM says."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from heliostat_sim.standin.options import DEFAULT_MODEL, EngineOptions
from heliostat_sim.standin.server import RunningEngine, running_engine

FAST = EngineOptions(speed_ratio=50.0)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Return an HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    """Return a fast stand-in."""
    async with running_engine(FAST) as running:
        yield running


def chat(text: str = "hello there", **members: Any) -> dict[str, Any]:
    """Return a chat request body."""
    body = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": text}]}
    return body | {"max_tokens": 5} | members


async def post(
    http: aiohttp.ClientSession, engine: RunningEngine, path: str, body: object
) -> tuple[int, Any]:
    """Post JSON; return status and JSON."""
    async with http.post(engine.url + path, json=body) as response:
        return response.status, await response.json(content_type=None)


async def stream(
    http: aiohttp.ClientSession, engine: RunningEngine, path: str, body: dict[str, Any]
) -> list[Any]:
    """Post a streaming request; return its events, [DONE] as a string."""
    async with http.post(engine.url + path, json=body | {"stream": True}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        events = (await response.text()).split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    data = [event.removeprefix("data: ") for event in events]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


async def metric(http: aiohttp.ClientSession, engine: RunningEngine, name: str) -> float:
    """Return a sample of /metrics by its name, or by its name and some labels."""
    async with http.get(engine.url + "/metrics") as response:
        page = await response.text()
    name, _, label = name.partition("|")
    pattern = rf"^{re.escape(name)}\{{[^}}]*{re.escape(label)}[^}}]*\}} (\S+)$"
    found = re.search(pattern, page, re.MULTILINE)
    assert found, name
    return float(found[1])


async def until(
    http: aiohttp.ClientSession,
    engine: RunningEngine,
    name: str,
    accept: Callable[[float], bool],
    deadline_seconds: float = 5.0,
) -> None:
    """Wait until a metric is accepted."""
    async with asyncio.timeout(deadline_seconds):
        while not accept(await metric(http, engine, name)):
            continue


async def test_a_chat_stream_has_vllms_chunks(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Role, then one token a chunk, the reason with the last, usage on demand, [DONE]."""
    body = chat(stream_options={"include_usage": True})
    role, *tokens, usage, done = await stream(http, engine, "/v1/chat/completions", body)
    assert done == "[DONE]"
    head = ["id", "object", "created", "model", "choices"]
    assert list(role) == [*head, "prompt_token_ids", "prompt_text"]
    assert role["object"] == "chat.completion.chunk"
    assert role["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    choices = [chunk["choices"][0] for chunk in tokens]
    assert [list(choice) for choice in choices] == [
        *[["index", "delta", "logprobs", "finish_reason", "token_ids"]] * 4,
        ["index", "delta", "logprobs", "finish_reason", "stop_reason", "token_ids"],
    ]
    assert [len(choice["delta"]["content"]) for choice in choices] == [4] * 5
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["length"]
    assert usage["choices"] == []
    assert list(usage) == [*head, "usage", "system_fingerprint"]
    assert {tuple(chunk) for chunk in tokens} == {tuple(head)}
    assert usage["usage"]["completion_tokens"] == 5
    details = {"cached_tokens": 0, "created_cache_tokens": 0}
    assert usage["usage"]["prompt_tokens_details"] == details
    assert {chunk["id"] for chunk in (role, *tokens, usage)} == {role["id"]}
    assert role["id"].startswith("chatcmpl-")


async def test_a_completion_stream_has_vllms_chunks(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Plain completions stream text without a role chunk, and no usage unasked."""
    *tokens, done = await stream(
        http, engine, "/v1/completions", {"prompt": "once upon", "max_tokens": 3}
    )
    assert done == "[DONE]"
    assert [chunk["object"] for chunk in tokens] == ["text_completion"] * 3
    keys = ["index", "text", "logprobs", "finish_reason", "stop_reason"]
    assert list(tokens[0]["choices"][0]) == [*keys, "prompt_token_ids", "token_ids"]
    assert tokens[-1]["choices"][0]["finish_reason"] == "length"
    assert ["system_fingerprint" in chunk for chunk in tokens] == [False, False, True]
    assert "usage" not in tokens[-1]


async def test_usage_comes_with_every_chunk_on_demand(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Continuous usage counts one token a chunk; the last chunk has the details."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = chat(stream_options=options)
    *chunks, last, _ = await stream(http, engine, "/v1/chat/completions", body)
    prompt = last["usage"]["prompt_tokens"]
    assert [chunk["usage"] for chunk in chunks] == [
        {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
            "completion_tokens_details": None,
        }
        for output in range(6)
    ]
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_whole_answers_have_vllms_members(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Bodies, choices and usage have the members of their endpoint, empty ones included."""
    _, answer = await post(http, engine, "/v1/chat/completions", chat("word " * 20))
    head = ["id", "object", "created", "model", "choices", "service_tier", "system_fingerprint"]
    transfers = ["kv_transfer_params", "ec_transfer_params", "metrics"]
    prompt = ["prompt_logprobs", "prompt_token_ids", "prompt_text"]
    assert list(answer) == [*head, "usage", *prompt, *transfers]
    assert set(answer["choices"][0]) == {
        *("index", "message", "logprobs", "finish_reason", "stop_reason"),
        *("token_ids", "routed_experts"),
    }
    tokens = answer["usage"]["prompt_tokens"]
    assert answer["usage"] == {
        "prompt_tokens": tokens,
        "total_tokens": tokens + 5,
        "completion_tokens": 5,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "created_cache_tokens": tokens // 16 * 16,
            "multimodal_tokens": None,
        },
        "completion_tokens_details": None,
    }
    assert re.fullmatch(r"vllm-0\.32\.0-[0-9a-f]{8}", answer["system_fingerprint"])
    _, again = await post(http, engine, "/v1/chat/completions", chat("word " * 20))
    assert again["usage"]["prompt_tokens_details"]["created_cache_tokens"] == 0
    assert again["system_fingerprint"] == answer["system_fingerprint"]
    _, plain = await post(http, engine, "/v1/completions", {"prompt": "once upon"})
    assert list(plain) == [*head, "usage", *transfers]
    assert plain["usage"]["prompt_tokens_details"]["created_cache_tokens"] is None
    assert plain["usage"]["completion_tokens"] == 16


async def test_output_is_cut_at_what_the_prompt_leaves(http: aiohttp.ClientSession) -> None:
    """A limit beyond the room is no error: the answer ends at the model's length."""
    body = {"prompt": list(range(1900)), "max_tokens": 2000, "ignore_eos": True}
    async with running_engine(EngineOptions(speed_ratio=1e4, max_model_tokens=2000)) as engine:
        status, answer = await post(http, engine, "/v1/completions", body)
        assert status == 200
        assert answer["usage"]["total_tokens"] == 2000
        assert answer["choices"][0]["finish_reason"] == "length"


async def test_streamed_and_whole_answers_say_the_same(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """The same prompt gives the same text and usage either way."""
    path = "/v1/chat/completions"
    _, whole = await post(http, engine, path, chat(max_tokens=None))
    _, *chunks, usage, _ = await stream(
        http, engine, path, chat(max_tokens=None, stream_options={"include_usage": True})
    )
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == len(chunks)
    assert whole["object"] == "chat.completion"


async def test_the_next_turn_finds_the_assistants_words_in_the_cache(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """A conversation sent back hits everything up to the last full block."""
    path = "/v1/chat/completions"
    _, first = await post(http, engine, path, chat(max_tokens=100, ignore_eos=True))
    messages = [
        *chat()["messages"],
        first["choices"][0]["message"],
        {"role": "user", "content": "and then?"},
    ]
    _, second = await post(http, engine, path, chat(messages=messages))
    known = first["usage"]["total_tokens"] - 1
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == known // 16 * 16


async def test_headers_come_on_acceptance_and_a_disconnect_aborts_in_time(
    http: aiohttp.ClientSession,
) -> None:
    """The headers precede the first token; a client that leaves frees its place, uncounted."""
    running = "vllm:num_requests_running"
    async with running_engine(EngineOptions(speed_ratio=0.1)) as engine:
        response = await http.post(engine.url + "/v1/chat/completions", json=chat(stream=True))
        assert response.status == 200
        await until(http, engine, running, lambda value: value == 1)
        assert await metric(http, engine, "vllm:generation_tokens_total") == 0
        response.close()
        await until(http, engine, running, lambda value: value == 0, deadline_seconds=0.3)
        assert await metric(http, engine, "vllm:request_success_total|abort") == 0
        assert await metric(http, engine, "vllm:prompt_tokens_total") == 0


async def test_an_aborted_request_counts_its_tokens_but_not_itself(
    http: aiohttp.ClientSession,
) -> None:
    """Prompt tokens count after the prefill and output tokens as they come; no end counts."""
    generated = "vllm:generation_tokens_total"
    async with running_engine(EngineOptions(speed_ratio=5.0)) as engine:
        body = {"prompt": list(range(64)), "max_tokens": 2000, "ignore_eos": True, "stream": True}
        response = await http.post(engine.url + "/v1/completions", json=body)
        await until(http, engine, generated, lambda value: value >= 3)
        assert await metric(http, engine, "vllm:prompt_tokens_total") == 64
        response.close()
        await until(http, engine, "vllm:num_requests_running", lambda value: value == 0)
        for reason in ("stop", "length", "abort", "error", "repetition"):
            ended = f'vllm:request_success_total|finished_reason="{reason}"'
            assert await metric(http, engine, ended) == 0
        assert await metric(http, engine, "vllm:e2e_request_latency_seconds_count") == 0


async def test_a_disconnect_aborts_a_request_that_does_not_stream(
    http: aiohttp.ClientSession,
) -> None:
    """Nobody waits for the answer, so nothing is computed for it."""
    running = "vllm:num_requests_running"
    async with running_engine(EngineOptions(speed_ratio=0.1)) as engine:
        call = asyncio.ensure_future(post(http, engine, "/v1/chat/completions", chat()))
        await until(http, engine, running, lambda value: value == 1)
        call.cancel()
        await until(http, engine, running, lambda value: value == 0, deadline_seconds=0.3)


async def test_metrics_have_vllms_names_and_labels(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """What a router reads from vLLM is there, with values that follow the requests."""
    for _ in range(2):
        await post(http, engine, "/v1/completions", {"prompt": list(range(64)), "max_tokens": 4})
    label = f'engine="0",model_name="{DEFAULT_MODEL}"'
    expected = {
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "kv_cache_usage_perc": 0,
        "prefix_cache_queries_total": 128,
        "prefix_cache_hits_total": 48,
        "prompt_tokens_total": 128,
        "prompt_tokens_cached_total": 48,
        'prompt_tokens_by_source_total|source="local_compute"': 80,
        'prompt_tokens_by_source_total|source="local_cache_hit"': 48,
        'prompt_tokens_by_source_total|source="external_kv_transfer"': 0,
        "generation_tokens_total": 8,
        "num_preemptions_total": 0,
        "time_to_first_token_seconds_count": 2,
        "inter_token_latency_seconds_count": 6,
        "e2e_request_latency_seconds_count": 2,
        "request_queue_time_seconds_count": 2,
        "request_prefill_time_seconds_count": 2,
        "request_decode_time_seconds_count": 2,
        "request_inference_time_seconds_count": 2,
    }
    for name, value in expected.items():
        sample = f"vllm:{name}" if "|" in name else f"vllm:{name}|{label}"
        assert await metric(http, engine, sample) == value, name
    for reason in ("capacity", "deferred"):
        assert await metric(http, engine, f"vllm:num_requests_waiting_by_reason|{reason}") == 0
    assert await metric(http, engine, 'vllm:request_success_total|finished_reason="length"') == 2
    for reason in ("max_num_queued_reqs", "max_num_queued_tokens"):
        rejected = f'vllm:admission_rejections_total|reason="{reason}"'
        assert await metric(http, engine, rejected) == 0
    lag = "heliostat_standin_event_loop_lag_seconds"
    assert 0 <= await metric(http, engine, f'{lag}|quantile="0.99"') < 1


async def test_kv_usage_leaves_the_null_block_out(http: aiohttp.ClientSession) -> None:
    """The cache has one block more than can be used, and usage is a share of the usable."""
    options = EngineOptions(kv_tokens=100 * 16, speed_ratio=0.5)
    async with running_engine(options) as engine:
        config = 'vllm:cache_config_info|kv_cache_size_tokens="1616",num_gpu_blocks="101"'
        assert await metric(http, engine, config) == 1
        body = {"prompt": list(range(60)), "max_tokens": 100, "stream": True}
        response = await http.post(engine.url + "/v1/completions", json=body)
        usage = "vllm:kv_cache_usage_perc"
        await until(http, engine, usage, lambda value: value > 0)
        assert await metric(http, engine, usage) == 4 / 100
        response.close()


async def test_tokenize_counts_what_usage_counts(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """A chat and its tokens agree, and the ids are a prompt with the same cache entries."""
    text = "a question of some length " * 8
    body = {"messages": chat(text)["messages"]}
    _, tokenized = await post(http, engine, "/tokenize", body)
    assert list(tokenized) == ["count", "max_model_len", "tokens", "token_strs"]
    _, answer = await post(http, engine, "/v1/chat/completions", chat(text))
    assert answer["usage"]["prompt_tokens"] == tokenized["count"] == len(tokenized["tokens"])
    _, repeated = await post(http, engine, "/v1/completions", {"prompt": tokenized["tokens"]})
    cached = repeated["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == (tokenized["count"] - 1) // 16 * 16
    _, plain = await post(http, engine, "/tokenize", {"prompt": "12345"})
    assert plain["count"] == 2


async def test_models_health_and_version_answer(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """The served model is listed with its length and permissions; health is 200 and empty."""
    async with http.get(engine.url + "/v1/models") as response:
        (card,) = (await response.json())["data"]
    assert (card["id"], card["max_model_len"]) == (DEFAULT_MODEL, 28_000)
    assert card["permission"][0]["object"] == "model_permission"
    for path in ("/health", "/ping"):
        async with http.get(engine.url + path) as response:
            assert (response.status, await response.read()) == (200, b"")
    async with http.get(engine.url + "/version") as response:
        assert await response.json() == {"version": "0.32.0"}


async def test_a_large_body_is_read(http: aiohttp.ClientSession) -> None:
    """Megabytes of prompt are accepted up to the model's length."""
    options = EngineOptions(profile="h100-llama-8b", kv_tokens=2_000_000, speed_ratio=1e6)
    async with running_engine(options) as engine:
        _, answer = await post(http, engine, "/v1/chat/completions", chat("x" * 6_000_000))
        assert answer["usage"]["prompt_tokens"] > 1_500_000
