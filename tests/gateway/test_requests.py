"""What clients get through a real Envoy: answers, retries, and every error with its code."""

import asyncio

import pytest
from prometheus_client import generate_latest

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]


async def test_a_request_is_served_and_accounted_for(gateway, engines):
    """The engine gets the body as it was; afterwards nothing is in flight."""
    engine = await engines()
    await gateway.add_pool("plain", engine.address)
    reply = await gateway.chat("plain", temperature=0.5)
    assert (reply.status, reply.body["served_by"]) == (200, engine.address)
    assert engine.last_body["temperature"] == 0.5
    assert "x-heliostat-cluster" not in engine.last_headers
    await gateway.until_idle()


async def test_an_alias_reaches_the_engine_under_the_name_it_knows(gateway, engines):
    """The body is rewritten, its length with it."""
    engine = await engines()
    await gateway.add_pool("canonical", engine.address, aliases=("nickname-for-canonical",))
    assert (await gateway.chat("nickname-for-canonical")).status == 200
    assert engine.last_body["model"] == "canonical"


async def test_models_lists_every_name(gateway, engines):
    """Names and aliases of all pools, as OpenAI lists them."""
    engine = await engines()
    await gateway.add_pool("listed", engine.address, aliases=("listed-alias",))
    async with gateway.client.get(gateway.url + "/v1/models") as response:
        listing = await response.json()
    assert {"listed", "listed-alias"} <= {card["id"] for card in listing["data"]}


async def test_malformed_json_is_400(gateway):
    """A body that is not JSON never reaches an engine."""
    reply = await gateway.post(b'{"model": ')
    assert (reply.status, reply.code) == (400, "malformed-request")
    assert reply.headers["x-heliostat-reason"] == "malformed-request"


async def test_an_unknown_model_is_404(gateway):
    """The error names the model."""
    reply = await gateway.chat("no-such-model")
    assert (reply.status, reply.code) == (404, "unknown-model")
    assert "no-such-model" in reply.body["error"]["message"]


async def test_an_unknown_path_is_404_and_a_wrong_method_405(gateway):
    """Paths and methods have codes of their own."""
    assert (await gateway.post({}, "/v2/chat")).code == "unknown-path"
    async with gateway.client.get(gateway.url + "/v1/chat/completions") as response:
        assert response.status == 405
        assert (await response.json())["error"]["code"] == "method-not-allowed"


async def test_a_pool_without_endpoints_is_503(gateway):
    """A model whose pool is empty is there, only not now."""
    await gateway.add_pool("empty")
    reply = await gateway.chat("empty")
    assert (reply.status, reply.code) == (503, "no-endpoints")
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(gateway, chunked):
    """Whether its length is declared or not."""
    content = b'{"model":"m","prompt":"' + b"x" * (3 * 512 * 1024) + b'"}'

    async def chunks():
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    url = gateway.url + "/v1/completions"
    data = chunks() if chunked else content
    async with gateway.client.post(url, data=data) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request-too-large"


async def test_a_full_queue_is_429(gateway, engines):
    """One request may be held; the next is told to come back."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("full", engine.address, queueLimit=1)
    await gateway.until_waiting("full", 1)
    held = asyncio.create_task(gateway.chat("full"))
    await gateway.until_queued("full", 1)
    reply = await gateway.chat("full")
    assert (reply.status, reply.code) == (429, "queue-full")
    assert int(reply.headers["retry-after"]) >= 1
    engine.waiting_requests = 0
    assert (await held).status == 200


async def test_a_held_request_whose_deadline_passes_is_503(gateway, engines):
    """No engine became free in time."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("late", engine.address, queueTimeout="300ms")
    await gateway.until_waiting("late", 1)
    reply = await gateway.chat("late")
    assert (reply.status, reply.code) == (503, "deadline-passed")
    assert engine.served == 0


async def test_a_held_request_outlives_envoys_message_timeout(gateway, engines):
    """A hold longer than Envoy's own patience still ends with the pick."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("patient", engine.address)
    await gateway.until_waiting("patient", 1)
    held = asyncio.create_task(gateway.chat("patient"))
    await gateway.until_queued("patient", 1)
    done, _ = await asyncio.wait([held], timeout=1.5)
    assert not done
    engine.waiting_requests = 0
    assert (await held).body["served_by"] == engine.address


async def test_a_client_that_leaves_the_queue_is_forgotten(gateway, engines):
    """Its request is not dispatched when an endpoint frees."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("left", engine.address)
    await gateway.until_waiting("left", 1)
    request = asyncio.create_task(gateway.chat("left"))
    await gateway.until_queued("left", 1)
    request.cancel()
    await gateway.until_idle()
    engine.waiting_requests = 0
    await gateway.until_waiting("left", 0)
    assert (engine.served, engine.aborted) == (0, 0)


async def test_a_client_that_leaves_its_stream_frees_the_engine(gateway, engines, eventually):
    """The engine aborts, and the ledger is back to nothing."""
    engine = await engines()
    engine.release.clear()
    await gateway.add_pool("stream", engine.address)
    body = {"model": "stream", "messages": [], "stream": True}
    async with gateway.client.post(gateway.url + "/v1/chat/completions", json=body) as response:
        assert b"one" in await response.content.readuntil(b"\n\n")
        assert gateway.view("stream").inflight == 1
    await gateway.until_idle()
    await eventually(lambda: engine.aborted == 1, "the engine has aborted")


async def test_a_refused_request_is_retried_on_the_next_endpoint(gateway, engines, refusing_engine):
    """No client sees that an endpoint is gone."""
    engine = await engines()
    addresses = (refusing_engine, engine.address)
    await gateway.add_pool("refused", *addresses, policy="RoundRobin")
    replies = [await gateway.chat("refused") for _ in range(4)]
    assert {(r.status, r.body["served_by"]) for r in replies} == {(200, engine.address)}
    await gateway.until_idle()


async def test_an_engine_that_dies_before_its_headers_is_retried(gateway, engines, dying_engine):
    """What no byte has been answered to may be asked of another endpoint."""
    engine = await engines()
    await gateway.add_pool("dies", dying_engine, engine.address, policy="RoundRobin")
    replies = [await gateway.chat("dies") for _ in range(4)]
    assert {(r.status, r.body["served_by"]) for r in replies} == {(200, engine.address)}
    await gateway.until_idle()


async def test_clients_cannot_choose_the_endpoint_or_the_pool(gateway, engines):
    """Headers that steer are stripped from what clients send."""
    chosen, other = await engines(), await engines()
    await gateway.add_pool("steered", chosen.address)
    await gateway.add_pool("elsewhere", other.address)
    headers = {
        "x-gateway-destination-endpoint": other.address,
        "x-heliostat-cluster": "pool:elsewhere",
    }
    body = {"model": "steered", "messages": []}
    url = gateway.url + "/v1/chat/completions"
    async with gateway.client.post(url, json=body, headers=headers) as response:
        assert (await response.json())["served_by"] == chosen.address


async def test_the_admin_interface_shows_what_happened(gateway, engines, eventually):
    """Requests are counted by pool and outcome; pools are shown as the core sees them."""
    engine = await engines()
    await gateway.add_pool("counted", engine.address)
    await gateway.chat("counted")
    await gateway.until_idle()
    admin = gateway.router.admin_url
    count = 'heliostat_router_requests_total{outcome="served",pool="counted"} 1.0'
    await eventually(
        lambda: count in generate_latest(gateway.router.telemetry.registry).decode(),
        "the request is counted as served",
    )
    async with gateway.client.get(f"{admin}/metrics") as response:
        page = await response.text()
    assert count in page
    assert "heliostat_router_envoy_refused_updates_total 0.0" in page
    async with gateway.client.get(f"{admin}/pools") as response:
        pools = {pool["pool"]: pool for pool in (await response.json())["pools"]}
    assert pools["counted"]["endpoints"][0]["address"] == engine.address
    async with gateway.client.get(f"{admin}/readyz") as response:
        assert response.status == 200
