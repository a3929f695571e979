"""The endpoint picker protocol 1.0, row by row, by a scripted gRPC peer: no Envoy takes part."""

import json
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from heliostat_extproc.ext_proc_wire import PROCESSOR_SERVICE
from heliostat_extproc.upb import ProcessingMode
from tests.gateway.conftest import BODY_LIMIT_BYTES, eventually
from tests.gateway.scripted_gateway import BUFFERED, STREAMED, Asked, Picker, picked, run_picker

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTS = {STREAMED: "request_headers", BUFFERED: "request_body"}
"""Mode -> the message that is answered with the pick."""
POOL = ("127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003")
"""Nobody answers there: a pool of the folder is ready as it is declared."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def picker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Picker]:
    async with run_picker(tmp_path_factory.mktemp("picker")) as running:
        await running.add_pool("m", *POOL, aliases=("nickname",), policy="RoundRobin")
        await running.add_pool("empty")
        yield running


@pytest.fixture(params=[STREAMED, BUFFERED], ids=["streamed", "buffered"])
def mode(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def chat(model: str, text: str = "Hello") -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()


async def begin(picker: Picker, mode: int, model: str = "m", **headers: object) -> Asked:
    """Ask for a model, the body as the mode has it."""
    asked = picker.ask()
    await asked.headers(mode=mode, **headers)
    if mode == BUFFERED:
        assert (await asked.read()).HasField("request_headers")
    await asked.body(chat(model))
    return asked


async def body_of(asked: Asked, part: str = "request_body", *, size: int) -> tuple[bytes, bool]:
    """Read streamed parts of so many bytes in all; say whether the last one ended the body."""
    found, ended = b"", False
    while len(found) < size or not size:
        streamed = getattr(await asked.read(), part).response.body_mutation.streamed_response
        assert len(streamed.body) <= 62_000
        assert not ended
        found, ended = found + streamed.body, streamed.end_of_stream
        if not size:
            break
    return found, ended


async def test_the_pick_is_in_header_and_metadata_alike(picker: Picker, mode: int) -> None:
    """One endpoint of the pool, and others of it in order for retries, each as ip:port."""
    asked = await begin(picker, mode)
    endpoints = picked(await asked.answer(), PARTS[mode])
    assert len(endpoints) >= 2
    assert len(set(endpoints)) == len(endpoints)
    assert set(endpoints) <= set(POOL)
    await asked.end()
    await picker.until_idle()


async def test_a_streamed_body_is_answered_once_it_is_whole(picker: Picker) -> None:
    """The pick comes first, then the same bytes in chunks of at most 62,000, the last marked."""
    content = chat("m", "x" * 300_000)
    asked = picker.ask()
    await asked.headers()
    for start in range(0, len(content), 65_536):
        await asked.body(content[start : start + 65_536], end=False)
    await asked.body(b"")
    assert picked(await asked.read(), "request_headers")
    assert await body_of(asked, size=len(content)) == (content, True)
    await asked.end()


async def test_trailers_end_a_streamed_body(picker: Picker) -> None:
    """No chunk is then marked as the last: the trailers' own answer ends the request."""
    asked = picker.ask()
    await asked.headers()
    await asked.body(chat("m"), end=False)
    await asked.trailers()
    assert picked(await asked.read(), "request_headers")
    assert await body_of(asked, size=len(chat("m"))) == (chat("m"), False)
    assert (await asked.read()).HasField("request_trailers")
    await asked.end()


async def test_a_gateway_that_does_not_tell_its_mode_streams(picker: Picker) -> None:
    """The protocol demands that mode, and old gateways do not say it."""
    asked = picker.ask()
    await asked.headers(mode=None)
    await asked.body(chat("m"))
    assert picked(await asked.read(), "request_headers")
    await asked.end()


@pytest.mark.parametrize("mode_", [ProcessingMode.STREAMED, ProcessingMode.BUFFERED_PARTIAL])
async def test_other_modes_are_refused(picker: Picker, mode_: int) -> None:
    """The status says which modes there are."""
    asked = picker.ask()
    await asked.headers(mode=mode_)
    assert await asked.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_alias_is_replaced_in_the_body(picker: Picker, mode: int) -> None:
    """The engine knows its model by one name; the length goes with it."""
    asked = await begin(picker, mode, "nickname")
    answer = await asked.answer()
    response = getattr(answer, PARTS[mode]).response
    lengths = {
        o.header.raw_value
        for o in response.header_mutation.set_headers
        if o.header.key == "content-length"
    }
    assert lengths == {str(len(chat("m"))).encode()}
    if mode == STREAMED:
        content, _ = await body_of(asked, size=len(chat("m")))
    else:
        content = response.body_mutation.body
    assert json.loads(content)["model"] == "m"
    await asked.end()


@pytest.mark.parametrize("subset", [[POOL[1]], POOL[1], f" {POOL[1]} , 10.9.9.9:1"])
async def test_only_the_subset_is_picked_from(picker: Picker, mode: int, subset: object) -> None:
    """It comes as a list or as one string, with addresses that are not of the pool too."""
    for _ in range(4):
        asked = await begin(picker, mode, subset=subset)
        assert picked(await asked.answer(), PARTS[mode]) == [POOL[1]]
        await asked.end()


@pytest.mark.parametrize("subset", [[], "", ["10.9.9.9:1"], [1, {}], 7, {"a": 1}])
async def test_a_subset_without_an_endpoint_gets_503(
    picker: Picker, mode: int, subset: object
) -> None:
    """Empty, foreign or no list at all: nothing outside of it is ever picked."""
    asked = await begin(picker, mode, subset=subset)
    immediate = (await asked.answer()).immediate_response
    assert immediate.status.code == 503
    assert await asked.read() is None


def error_headers(immediate: object) -> dict[str, str]:
    options = immediate.headers.set_headers  # type: ignore[attr-defined]
    return {option.header.key: option.header.raw_value.decode() for option in options}


async def test_a_pool_without_endpoints_gets_503(picker: Picker, mode: int) -> None:
    """With the reason in our words and in llm-d's."""
    asked = await begin(picker, mode, "empty")
    immediate = (await asked.answer()).immediate_response
    headers = error_headers(immediate)
    assert immediate.status.code == 503
    assert headers["x-heliostat-reason"] == "no-endpoints"
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert "retry-after" in headers


async def test_a_full_queue_gets_429_and_a_held_request_its_endpoint(
    picker: Picker, mode: int, engines
) -> None:
    """One request is held, the next has no place; when the engine is free the first one goes."""
    engine = await engines()
    engine.waiting_requests = 3
    model = f"busy-{mode}"
    await picker.add_pool(model, engine.address, queueLimit=1)
    await eventually(
        lambda: picker.endpoint(model, engine.address).waiting_requests == 3, "it was scraped"
    )
    first = await begin(picker, mode, model)
    await eventually(lambda: picker.view(model).queued == 1, "the first is held")
    second = await begin(picker, mode, model)
    immediate = (await second.answer()).immediate_response
    assert immediate.status.code == 429
    assert error_headers(immediate)["x-llm-d-request-dropped-reason"] == "rejected-saturated"
    if mode == STREAMED:
        await first.body(b"")  # some Envoys end a body twice
    engine.waiting_requests = 0
    assert picked(await first.answer(), PARTS[mode]) == [engine.address]
    await first.end()
    await picker.until_idle()


async def test_a_client_that_leaves_while_it_is_held_is_forgotten(picker: Picker, engines) -> None:
    """The end of the gateway's stream takes the request out of the queue."""
    engine = await engines()
    engine.waiting_requests = 3
    await picker.add_pool("left", engine.address)
    await eventually(
        lambda: picker.endpoint("left", engine.address).waiting_requests == 3, "it was scraped"
    )
    asked = await begin(picker, STREAMED, "left")
    await eventually(lambda: picker.view("left").queued == 1, "it is held")
    await asked.end()
    await eventually(lambda: picker.view("left").queued == 0, "it is not held any more")
    await picker.until_idle()


async def test_what_comes_after_the_end_of_a_body_is_passed_over(picker: Picker) -> None:
    """A second end of stream is no second request."""
    asked = picker.ask()
    await asked.headers(response_mode=STREAMED)
    await asked.body(chat("m"))
    await asked.body(b"")
    assert picked(await asked.read(), "request_headers")
    assert await body_of(asked, size=len(chat("m"))) == (chat("m"), True)
    await asked.response_headers()
    assert (await asked.read()).HasField("response_headers")
    await asked.end()


@pytest.mark.parametrize("response_mode", [STREAMED, ProcessingMode.STREAMED, BUFFERED])
async def test_answers_pass_unchanged(picker: Picker, mode: int, response_mode: int) -> None:
    """Each part as it comes: what is streamed both ways is given back, all else is let pass."""
    asked = await begin(picker, mode, response_mode=response_mode)
    assert picked(await asked.answer(), PARTS[mode])
    if mode == STREAMED:
        await body_of(asked, size=len(chat("m")))
    await asked.response_headers()
    assert (await asked.read()).HasField("response_headers")
    for content, end in ((b"data: 1\n\n", False), (b"y" * 100_000, False), (b"", True)):
        await asked.response_body(content, end=end)
        if response_mode == STREAMED:
            given = await body_of(asked, "response_body", size=len(content))
            assert given == (content, end)
        else:
            answer = await asked.read()
            assert answer.HasField("response_body")
            assert not answer.response_body.response.HasField("body_mutation")
    await asked.end()
    assert await asked.read() is None
    await picker.until_idle()


async def test_the_request_is_where_the_gateway_says_it_is_served(
    picker: Picker, mode: int
) -> None:
    """A retry of the gateway's moves it in the ledger; an address of nobody's moves nothing."""
    model, ports = f"moves-{mode}", (9021, 9022) if mode == STREAMED else (9023, 9024)
    await picker.add_pool(model, *(f"127.0.0.1:{port}" for port in ports), policy="RoundRobin")
    asked = await begin(picker, mode, model, response_mode=STREAMED)
    first, second = picked(await asked.answer(), PARTS[mode])
    if mode == STREAMED:
        await body_of(asked, size=len(chat(model)))
    assert picker.endpoint(model, first).inflight == 1
    await asked.response_headers(served=second)
    assert (await asked.read()).HasField("response_headers")
    assert picker.endpoint(model, first).inflight == 0
    assert picker.endpoint(model, second).inflight == 1
    await asked.end()
    await picker.until_idle()
    stray = await begin(picker, mode, model, response_mode=STREAMED)
    home = picked(await stray.answer(), PARTS[mode])[0]
    if mode == STREAMED:
        await body_of(stray, size=len(chat(model)))
    await stray.response_headers(served="198.51.100.1:1")
    assert (await stray.read()).HasField("response_headers")
    assert picker.endpoint(model, home).inflight == 1
    await stray.end()
    await picker.until_idle()


async def test_failures_that_the_gateway_shows_open_the_breaker(picker: Picker) -> None:
    """Two answers of 503 in a row are enough, and no access log is needed."""
    bad, good = "127.0.0.1:9011", "127.0.0.1:9012"
    await picker.add_pool("breaks", bad, good, policy="RoundRobin")
    for _ in range(2):
        asked = await begin(picker, STREAMED, "breaks", subset=[bad], response_mode=STREAMED)
        assert picked(await asked.read(), "request_headers") == [bad]
        await body_of(asked, size=len(chat("breaks")))
        await asked.response_headers("503")
        assert (await asked.read()).HasField("response_headers")
        await asked.end()
    await picker.until_idle()
    assert picker.endpoint("breaks", bad).breaker != "closed"
    assert picker.endpoint("breaks", good).breaker == "closed"


async def test_a_body_over_the_limit_gets_413(picker: Picker) -> None:
    """At the first chunk too many, whatever length was declared."""
    asked = picker.ask()
    await asked.headers()
    for _ in range(BODY_LIMIT_BYTES // 65_536 + 1):
        await asked.body(b"x" * 65_536, end=False)
    assert (await asked.read()).immediate_response.status.code == 413
    assert await asked.read() is None


async def test_paths_of_no_inference_are_answered_here(picker: Picker) -> None:
    """The list of models, health, and 404 for all else: no body is waited for."""
    for path, status in (("/v1/models", 200), ("/health", 200), ("/metrics", 404)):
        asked = picker.ask()
        await asked.headers(path, "GET", end=True)
        assert (await asked.read()).immediate_response.status.code == status


@pytest.mark.parametrize("script", ["body first", "headers twice", "response first", "nonsense"])
async def test_messages_that_make_no_sense_end_their_stream_alone(
    picker: Picker, script: str
) -> None:
    """The gateway is told, and the next request is served as any."""
    asked = picker.ask()
    if script == "body first":
        await asked.body(chat("m"))
    elif script == "headers twice":
        await asked.headers()
        await asked.headers()
    elif script == "response first":
        await asked.response_headers()
    else:
        await asked.trailers()
    assert await asked.code() is grpc.StatusCode.INVALID_ARGUMENT
    again = await begin(picker, STREAMED)
    assert picked(await again.read(), "request_headers")
    await again.end()
    await picker.until_idle()


async def test_health_is_told_by_the_protocols_names(picker: Picker) -> None:
    """Also by a watch; of a name that is none the status is NOT_FOUND."""
    stub = HealthStub(picker.channel)
    for service in ("", "liveness", "readiness", PROCESSOR_SERVICE):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        async for told in stub.Watch(request):
            assert told.status == health_pb2.HealthCheckResponse.SERVING
            break
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
