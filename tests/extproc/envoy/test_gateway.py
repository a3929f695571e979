"""What the configuration makes a real Envoy do."""

import asyncio
from pathlib import Path

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from yarl import URL

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.resources import Resources, ResourceSettings, build_resources
from heliostat_routing.events import AttemptFailed, AttemptStarted, Outcome, RequestMeasured

from .conftest import (
    BODY,
    BODY_LIMIT_BYTES,
    Gateway,
    Pick,
    answer_503,
    answer_json,
    answer_nothing,
    answer_overloaded_stream,
    answer_stream,
    close_silently,
    eventually,
    free_port,
)

pytestmark = pytest.mark.gateway


async def test_pick_is_honoured(gateway: Gateway) -> None:
    """A request goes to the endpoint that the router names, whichever it is."""
    engines = [await gateway.engine() for _ in range(3)]
    await gateway.publish(a=[engine.address for engine in engines])
    for engine in engines * 3:
        gateway.router.pick = Pick(engine.address)
        assert (await gateway.post()).body["served_by"] == engine.address


async def test_router_headers_do_not_reach_the_engine(gateway: Gateway) -> None:
    """The pool header is for the route alone."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    await gateway.post()
    assert wire.CLUSTER_HEADER not in engine.requests[0]


@pytest.mark.parametrize("failure", ["refuses", "closes", "503"])
async def test_failed_attempt_is_retried_on_the_next_endpoint(
    gateway: Gateway, failure: str
) -> None:
    """A refusal, a close before the headers and a 503 all move on, and the log says so."""
    good = await gateway.engine()
    bad = {
        "refuses": f"127.0.0.1:{free_port()}",
        "closes": (await gateway.engine(close_silently)).address,
        "503": (await gateway.engine(answer_503)).address,
    }[failure]
    await gateway.publish(a=[bad, good.address])
    gateway.router.pick = Pick(f"{bad},{good.address}")
    assert (await gateway.post()).body["served_by"] == good.address
    router = gateway.router
    await eventually(lambda: router.of(RequestMeasured) and len(router.of(AttemptStarted)))
    await eventually(lambda: router.of(AttemptStarted)[-1] == AttemptStarted(1, good.address))
    assert router.of(AttemptFailed) == [AttemptFailed(1, bad)]
    assert router.of(RequestMeasured)[0].endpoint == good.address
    assert router.of(RequestMeasured)[0].outcome is Outcome.SERVED


async def test_retry_carries_a_body_of_the_largest_size(gateway: Gateway) -> None:
    """The retry buffer holds whatever body was accepted."""
    dead, good = f"127.0.0.1:{free_port()}", await gateway.engine()
    await gateway.publish(a=[dead, good.address])
    gateway.router.pick = Pick(f"{dead},{good.address}")
    async with gateway.client.post(gateway.url(), data=b"x" * BODY_LIMIT_BYTES) as response:
        assert response.status == 200
    assert good.requests[0]["content-length"] == str(BODY_LIMIT_BYTES)


async def test_plain_answer_is_measured(gateway: Gateway) -> None:
    """The usage of an answer that is not streamed arrives, without a time to first token."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    await gateway.post()
    await eventually(lambda: gateway.router.of(RequestMeasured))
    measured = gateway.router.of(RequestMeasured)[0]
    assert (measured.prompt_tokens, measured.cached_tokens, measured.output_tokens) == (11, 8, 2)
    assert measured.ttft_seconds is None
    assert measured.duration_seconds > 0


async def test_streamed_answer_is_passed_on_at_once_and_measured(gateway: Gateway) -> None:
    """Each token reaches the client as it comes; first token and usage arrive with the log."""
    engine = await gateway.engine(answer_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    async with gateway.client.post(gateway.url(), json=BODY) as response:
        await eventually(lambda: gateway.router.of(AttemptStarted))
        engine.first_token.set()
        assert b'"content": "a"' in await response.content.readany()
        assert not gateway.router.of(RequestMeasured)
        engine.last_token.set()
        assert b"[DONE]" in await response.content.read()
    await eventually(lambda: gateway.router.of(RequestMeasured))
    measured = gateway.router.of(RequestMeasured)[0]
    assert (measured.prompt_tokens, measured.cached_tokens, measured.output_tokens) == (11, 8, 2)
    assert 0 < measured.ttft_seconds < measured.duration_seconds
    assert measured.outcome is Outcome.SERVED


async def test_time_to_first_token_waits_for_the_body_and_not_the_hold(gateway: Gateway) -> None:
    """It runs from the moment the request went upstream to the first byte of the body."""
    engine = await gateway.engine(answer_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address, hold=asyncio.Event())
    clock = asyncio.get_running_loop().time

    async def post() -> None:
        async with gateway.client.post(gateway.url(), json=BODY) as response:
            await response.read()

    request = asyncio.create_task(post())
    asked_at = clock()
    await eventually(lambda: gateway.router.held and clock() - asked_at > 0.5)
    gateway.router.pick.hold.set()
    await eventually(lambda: gateway.router.of(AttemptStarted))
    sent_at = clock()
    await eventually(lambda: clock() - sent_at > 0.1)
    engine.first_token.set()
    engine.last_token.set()
    await request
    await eventually(lambda: gateway.router.of(RequestMeasured))
    assert 0.1 < gateway.router.of(RequestMeasured)[0].ttft_seconds < 0.5


async def test_client_that_leaves_is_not_the_engines_fault(gateway: Gateway) -> None:
    """A disconnect in mid-stream is logged as the client's doing, and as no failed attempt."""
    engine = await gateway.engine(answer_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    engine.first_token.set()
    async with gateway.client.post(gateway.url(), json=BODY) as response:
        await response.content.readany()
        response.close()
    await eventually(lambda: gateway.router.of(RequestMeasured))
    assert gateway.router.of(RequestMeasured)[0].outcome is Outcome.CLIENT_ABORTED
    assert not gateway.router.of(AttemptFailed)
    engine.last_token.set()


async def test_a_connection_to_an_engine_that_says_nothing_is_probed(gateway: Gateway) -> None:
    """A node that is lost closes no connection: without probes its requests would wait for ever."""
    engine = await gateway.engine(answer_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    port = f":{int(engine.address.rpartition(':')[2]):04X}"

    def timers() -> list[str]:
        """Give the kernel's timer of each connection to the engine; 02 waits to probe."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return [line.split()[5][:2] for line in lines if line.split()[2].endswith(port)]

    async with gateway.client.post(gateway.url(), json=BODY):
        await eventually(lambda: timers() == ["02"])


async def test_empty_answer_is_a_failure(gateway: Gateway) -> None:
    """A 200 that ends without any output counts against its endpoint."""
    engine = await gateway.engine(answer_nothing)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    await gateway.post()
    await eventually(lambda: gateway.router.of(RequestMeasured))
    assert gateway.router.of(RequestMeasured)[0].outcome is Outcome.ENGINE_FAILED


async def test_a_stream_of_one_error_is_a_failure(gateway: Gateway) -> None:
    """What an overloaded vLLM sends after its 200 is not taken for a fast answer."""
    engine = await gateway.engine(answer_overloaded_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    async with gateway.client.post(gateway.url(), json=BODY) as response:
        body = await response.read()
    assert response.status == 200
    await eventually(lambda: gateway.router.of(RequestMeasured))
    measured = gateway.router.of(RequestMeasured)[0]
    assert measured.outcome is Outcome.ENGINE_FAILED
    assert measured.output_bytes == len(body)


async def test_all_attempts_failed(gateway: Gateway) -> None:
    """When nobody answers, the client gets an OpenAI-shaped 503 and each failure is reported."""
    dead = f"127.0.0.1:{free_port()}"
    await gateway.publish(a=[dead])
    gateway.router.pick = Pick(dead)
    answer = await gateway.post()
    assert (answer.status, answer.body["error"]["code"]) == (503, "endpoint-failed")
    assert answer.headers["retry-after"] == "1"
    await eventually(lambda: gateway.router.of(RequestMeasured))
    assert gateway.router.of(RequestMeasured)[0].outcome is Outcome.ENGINE_FAILED
    await eventually(lambda: gateway.router.of(AttemptFailed) == [AttemptFailed(1, dead)] * 3)


async def test_body_limit(gateway: Gateway) -> None:
    """A body of the limit passes; one more byte is a 413 in the API's shape."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    async with gateway.client.post(gateway.url(), data=b"x" * BODY_LIMIT_BYTES) as response:
        assert response.status == 200
    async with gateway.client.post(gateway.url(), data=b"x" * (BODY_LIMIT_BYTES + 1)) as response:
        assert response.status == 413
        assert response.content_type == "application/json"
        error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "request-too-large"


async def test_router_replies_pass_unchanged(gateway: Gateway) -> None:
    """Envoy rewrites its own errors only, not the router's with the same status."""
    await gateway.publish(a=[f"127.0.0.1:{free_port()}"])
    for status in (400, 404, 413, 429, 503):
        gateway.router.pick = Pick("", reject_status=status)
        answer = await gateway.post()
        assert (answer.status, answer.body) == (status, {"router": True})


async def test_pool_without_endpoints(gateway: Gateway) -> None:
    """A pool that is empty answers 503 in the API's shape."""
    await gateway.publish(a=[])
    answer = await gateway.post()
    assert (answer.status, answer.body["error"]["code"]) == (503, "no-endpoints")
    assert answer.headers["x-heliostat-reason"] == "no-endpoints"


async def test_client_cannot_steer(gateway: Gateway) -> None:
    """Routing, ticket and retry headers of a client are gone before the router sees them."""
    engine, other = await gateway.engine(), await gateway.engine()
    await gateway.publish(a=[engine.address], b=[other.address])
    gateway.router.pick = Pick(engine.address)
    forged = {
        wire.CLUSTER_HEADER: "pool:b",
        wire.TICKET_HEADER: "77",
        "X-Gateway-Destination-Endpoint": other.address,
        "x-gateway-destination-endpoint-subset": other.address,
        "x-envoy-max-retries": "9",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    answer = await gateway.post(headers=forged)
    assert answer.body["served_by"] == engine.address
    assert not {name.lower() for name in forged} & gateway.router.seen_headers[0].keys()
    await eventually(lambda: gateway.router.of(RequestMeasured))
    assert gateway.router.of(RequestMeasured)[0].ticket == 1


async def test_client_cannot_steer_past_a_dead_router(gateway: Gateway) -> None:
    """The same holds while requests go on without the router."""
    engine = await gateway.engine()
    outside = await gateway.engine()
    await gateway.publish(a=[engine.address])
    await gateway.stop_router()
    forged = {"x-gateway-destination-endpoint": outside.address, wire.CLUSTER_HEADER: "pool:a"}
    for _ in range(5):
        assert (await gateway.post(headers=forged)).body["served_by"] == engine.address


async def test_hold_longer_than_the_message_timeout(impatient_gateway: Gateway) -> None:
    """A router that asks for more time may hold a request, and the pick still counts."""
    gateway = impatient_gateway
    engines = [await gateway.engine() for _ in range(4)]
    await gateway.publish(a=[engine.address for engine in engines])
    clock = asyncio.get_running_loop().time
    started_at = clock()
    for engine in engines[:2]:
        gateway.router.pick = Pick(engine.address, hold=asyncio.Event())
        request = asyncio.create_task(gateway.post())
        held = gateway.router.tickets + 1
        await eventually(lambda held=held: gateway.router.held == held)
        await eventually(lambda: clock() - started_at > 0.5)
        gateway.router.pick.hold.set()
        assert (await request).body["served_by"] == engine.address


async def test_client_that_leaves_while_held_ends_the_call(gateway: Gateway) -> None:
    """The router learns at once that nobody waits any more."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address, hold=asyncio.Event())
    request = asyncio.create_task(gateway.post())
    await eventually(lambda: gateway.router.held)
    request.cancel()
    async with asyncio.timeout(0.5):
        await eventually(lambda: gateway.router.finished)
    assert not engine.requests


async def test_stream_outlives_the_router(gateway: Gateway) -> None:
    """A router that is killed in mid-stream takes no answer with it."""
    engine = await gateway.engine(answer_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    engine.first_token.set()
    async with gateway.client.post(gateway.url(), json=BODY) as response:
        await response.content.readany()
        await gateway.stop_router()
        engine.last_token.set()
        assert b"[DONE]" in await response.content.read()


async def test_one_pool_goes_on_without_the_router(gateway: Gateway) -> None:
    """With one pool Envoy balances by itself until the router is back, and then obeys it."""
    engines = [await gateway.engine() for _ in range(2)]
    await gateway.publish(a=[engine.address for engine in engines])
    await gateway.stop_router()
    assert (await gateway.post()).status == 200
    await gateway.start_router()
    gateway.router.pick = Pick(engines[1].address)
    await eventually(lambda: gateway.router.ads.connected)
    served_before = gateway.router.tickets

    async def routed() -> bool:
        answer = await gateway.post()
        return gateway.router.tickets > served_before and answer.body["served_by"] != ""

    async with asyncio.timeout(10):
        while not await routed():
            pass
    assert (await gateway.post()).body["served_by"] == engines[1].address


async def test_without_the_router_a_dead_engine_costs_no_request(gateway: Gateway) -> None:
    """It is the least loaded, so chance prefers it: no request is tried there twice."""
    engine, dead = await gateway.engine(), f"127.0.0.1:{free_port()}"
    await gateway.publish(a=[engine.address, dead])
    await gateway.stop_router()
    assert {(await gateway.post()).status for _ in range(60)} == {200}


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/metrics", "/v1/../metrics", "/"])
async def test_without_the_router_engines_are_asked_for_inference_alone(
    gateway: Gateway, path: str
) -> None:
    """What only an engine's operator may ask stays closed to clients, whoever is away."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    await gateway.stop_router()
    url = URL(f"http://127.0.0.1:{gateway.port}{path}", encoded=True)
    async with gateway.client.post(url, json=BODY) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "router-unavailable"
    assert not engine.requests


async def test_several_pools_wait_for_the_router(gateway: Gateway) -> None:
    """Only the router knows the pool of a model: without it the client is asked to retry."""
    await gateway.publish(a=[(await gateway.engine()).address], b=[])
    await gateway.stop_router()
    answer = await gateway.post()
    assert (answer.status, answer.body["error"]["code"]) == (503, "router-unavailable")
    assert answer.headers["x-heliostat-reason"] == "router-unavailable"
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/json"


async def test_updates_under_load_lose_nothing(gateway: Gateway) -> None:
    """Endpoints and pools come and go while requests flow; none fails, streams included."""
    stay, come, stream = (
        await gateway.engine(),
        await gateway.engine(answer_json),
        await gateway.engine(answer_stream),
    )
    await gateway.publish(a=[stay.address, stream.address])
    stream.first_token.set()
    gateway.router.pick = Pick(stream.address)
    async with gateway.client.post(gateway.url(), json=BODY) as response:
        await response.content.readany()
        gateway.router.pick = Pick(stay.address)
        stopping = asyncio.Event()

        async def load() -> list[int]:
            statuses = []
            while not stopping.is_set():
                statuses.append((await gateway.post()).status)
            return statuses

        clients = [asyncio.create_task(load()) for _ in range(4)]
        for _ in range(10):
            await gateway.publish(a=[stay.address, come.address], b=[come.address])
            await gateway.publish(a=[stay.address])
        stopping.set()
        statuses = [status for client in clients for status in await client]
        stream.last_token.set()
        assert b"[DONE]" in await response.content.read()
    assert len(statuses) > 20
    assert set(statuses) == {200}


async def test_refused_update_keeps_the_last_good_one(gateway: Gateway) -> None:
    """Envoy refuses endpoints that it cannot use; the good ones serve on, later ones too."""
    engine, later = await gateway.engine(), await gateway.engine()
    await gateway.publish(a=[engine.address])
    good = build_resources({"a": [engine.address]}, ResourceSettings())
    bad = ClusterLoadAssignment(cluster_name="pool:a")
    address = bad.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "not-an-address", 1
    name = wire.cluster_name("a")
    gateway.router.ads.offer(
        Resources(
            clusters=good.clusters,
            assignments={name: bad.SerializeToString()},
            routes=good.routes,
            addresses={name: frozenset({"not-an-address:1"})},
        )
    )
    await eventually(lambda: gateway.router.ads.refusals)
    gateway.router.pick = Pick(engine.address)
    assert (await gateway.post()).body["served_by"] == engine.address
    assert gateway.router.acked == {"a": {engine.address}}
    await gateway.publish(a=[later.address])
    gateway.router.pick = Pick(later.address)
    assert (await gateway.post()).body["served_by"] == later.address
    assert gateway.router.ads.refusals == 1
