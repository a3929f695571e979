"""What a request leaves behind: counts, a line of the access log, and why it went where it went."""

import asyncio
import json

import pytest
import pytest_asyncio

from heliostat_extproc.observing.metric_list import METRICS

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lines(tmp_path_factory):
    """Where the module's gateway writes its access log."""
    return tmp_path_factory.mktemp("log") / "access.jsonl"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(start_gateway, lines):
    """The module's gateway, which writes an access log."""
    async with start_gateway(access_log=lines) as running:
        yield running


def sample(gateway, name: str, **labels: str) -> float:
    """What a metric says now; 0 where there is no such series."""
    return gateway.router.telemetry.registry.get_sample_value(name, labels) or 0.0


async def stories(gateway, **query: str | int) -> list[dict]:
    """What the admin port tells of requests."""
    async with gateway.client.get(f"{gateway.router.admin_url}/requests", params=query) as response:
        return (await response.json())["requests"]


async def logged(lines, pool: str, eventually, count: int = 1) -> list[dict]:
    """The lines of a pool, once there are so many."""

    def read() -> list[dict]:
        text = lines.read_text() if lines.exists() else ""
        found = [json.loads(line) for line in text.splitlines()]
        return [line for line in found if line["pool"] == pool]

    await eventually(lambda: len(read()) >= count, f"{count} lines of {pool}")
    return read()


async def stream(gateway, pool: str, **headers: str) -> dict[str, str]:
    """Ask for a stream, read it to the end, and give the answer's headers."""
    body = {"model": pool, "messages": [{"role": "user", "content": "Secret words"}]}
    url = gateway.url + "/v1/chat/completions"
    async with gateway.client.post(
        url,
        json={**body, "stream": True, "stream_options": {"include_usage": True}},
        headers=headers,
    ) as response:
        assert response.status == 200
        await response.read()
        return {key.lower(): value for key, value in response.headers.items()}


async def test_a_served_stream_is_counted_with_its_times_and_tokens(gateway, engines, eventually):
    """It counts once it is served, with what Envoy has measured and the engine has told."""
    engine = await engines()
    await gateway.add_pool("counted-stream", engine.address)
    await stream(gateway, "counted-stream")
    of_pool = {"pool": "counted-stream"}
    name = "heliostat_router_requests_total"
    await eventually(lambda: sample(gateway, name, outcome="served", **of_pool), "counted")
    for histogram in (
        "time_to_first_token_seconds",
        "request_duration_seconds",
        "time_per_output_token_seconds",
    ):
        assert sample(gateway, f"heliostat_router_{histogram}_count", **of_pool) == 1, histogram
        assert 0 <= sample(gateway, f"heliostat_router_{histogram}_sum", **of_pool) < 5
    assert sample(gateway, "heliostat_router_prompt_tokens_total", **of_pool) == 5
    assert sample(gateway, "heliostat_router_output_tokens_total", **of_pool) == 2


async def test_times_count_from_the_whole_request_and_with_the_wait(gateway, engines, eventually):
    """A request that is held has the wait in its time to first token."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("waited", engine.address)
    await gateway.until_waiting("waited", 1)
    asked = asyncio.create_task(stream(gateway, "waited"))
    await gateway.until_queued("waited", 1)
    (open_story,) = await stories(gateway, most=1)
    assert open_story["outcome"] is None
    assert open_story["steps"][-1]["step"] == "held"
    await asyncio.wait([asked], timeout=0.3)
    engine.waiting_requests = 0
    await asked
    total = "heliostat_router_requests_total"
    await eventually(lambda: sample(gateway, total, outcome="served", pool="waited"), "counted")
    held = sample(gateway, "heliostat_router_queue_wait_seconds_sum", pool="waited")
    ttft = sample(gateway, "heliostat_router_time_to_first_token_seconds_sum", pool="waited")
    whole = sample(gateway, "heliostat_router_request_duration_seconds_sum", pool="waited")
    assert 0.3 <= held <= ttft <= whole


async def test_a_retry_is_counted_and_told(gateway, engines, eventually):
    """The log names who has answered, the story both attempts."""
    engine, failing = await engines(), await engines()
    failing.overloaded = True
    await gateway.add_pool("retried", failing.address, engine.address, policy="RoundRobin")
    for number in range(2):
        await stream(gateway, "retried", **{"x-request-id": f"retried-{number}"})
    total = "heliostat_router_requests_total"
    await eventually(
        lambda: sample(gateway, total, outcome="served", pool="retried") == 2, "both counted"
    )
    assert sample(gateway, "heliostat_router_retries_total", pool="retried") == 1
    assert sample(gateway, "heliostat_router_failed_attempts_total", pool="retried") == 1
    told = [(await stories(gateway, id=f"retried-{n}"))[0] for n in range(2)]
    (retried,) = [story for story in told if story["retries"]]
    assert retried["endpoint"] == engine.address
    steps = [(step["step"], step.get("endpoint")) for step in retried["steps"]]
    assert steps.index(("attempt-failed", failing.address)) < steps.index(
        ("attempt-started", engine.address)
    )


@pytest.mark.parametrize(
    ("body", "outcome", "status"),
    [
        ({"model": "nobody-serves-this"}, "unknown-model", 404),
        ({"model": 7}, "malformed-request", 400),
    ],
)
async def test_what_is_refused_is_counted_by_its_reason(gateway, eventually, body, outcome, status):
    """No label holds what the client has sent."""
    labels = {"outcome": outcome, "pool": ""}
    before = sample(gateway, "heliostat_router_requests_total", **labels)
    assert (await gateway.post(body)).status == status
    await eventually(
        lambda: sample(gateway, "heliostat_router_requests_total", **labels) == before + 1,
        "counted by its reason",
    )


async def test_the_request_id_is_given_kept_and_returned(gateway, engines):
    """A client's own id comes back as it was, also where it looks like Envoy's."""
    engine = await engines()
    await gateway.add_pool("named", engine.address)
    own = "11111111-2222-4333-8444-555555555555"
    assert (await stream(gateway, "named", **{"x-request-id": own}))["x-request-id"] == own
    assert engine.last_headers["x-request-id"] == own
    given = (await gateway.chat("named")).headers["x-request-id"]
    assert len(given) == 36
    refused = await gateway.chat("nobody-serves-this-either")
    assert (await stories(gateway, id=refused.headers["x-request-id"]))[0]["outcome"] == (
        "unknown-model"
    )


async def test_a_request_is_explained_by_its_candidates(gateway, engines, eventually):
    """Every candidate has its costs and a verdict, and one of them has won."""
    first, second = await engines(), await engines()
    await gateway.add_pool("explained", first.address, second.address)
    await gateway.until_waiting("explained", 0)
    request_id = (await stream(gateway, "explained"))["x-request-id"]
    await gateway.until_idle()
    (story,) = await stories(gateway, id=request_id)
    (decision,) = [step for step in story["steps"] if step["step"] == "dispatched"]
    assert {c["endpoint"] for c in decision["candidates"]} == {first.address, second.address}
    (winner,) = [c for c in decision["candidates"] if c["verdict"] == "won"]
    assert winner["endpoint"] == decision["winner"] == decision["endpoints"][0]
    terms = ("wait", "prefill", "network", "burden", "spread", "egress")
    assert winner["cost_seconds"] == pytest.approx(
        sum(winner[f"{term}_seconds"] for term in terms), abs=1e-5
    )


async def test_the_access_log_has_a_line_a_request_without_its_words(
    gateway, engines, lines, eventually
):
    """It names who served it and what it took; neither prompt nor key is in it."""
    engine = await engines()
    await gateway.add_pool("logged", engine.address)
    await gateway.until_waiting("logged", 0)
    headers = {"x-request-id": "logged-1", "authorization": "Bearer sk-secret"}
    await stream(gateway, "logged", **headers)
    (line,) = await logged(lines, "logged", eventually)
    expected = {
        "request_id": "logged-1",
        "model": "logged",
        "endpoint": engine.address,
        "outcome": "served",
        "status": 200,
        "rule": "least-cost",
        "prompt_tokens": 5,
        "output_tokens": 2,
        "retries": 0,
    }
    assert expected.items() <= line.items()
    assert 0 < line["ttft_seconds"] <= line["total_seconds"] < 5
    text = lines.read_text()
    assert "Secret" not in text
    assert "sk-secret" not in text


async def test_a_client_that_leaves_is_counted_as_such(gateway, engines, eventually):
    """While it waits in the queue, and while its answer runs."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("leaves", engine.address)
    await gateway.until_waiting("leaves", 1)
    waiting = asyncio.create_task(gateway.chat("leaves"))
    await gateway.until_queued("leaves", 1)
    waiting.cancel()
    name, labels = "heliostat_router_requests_total", {"outcome": "client-left", "pool": "leaves"}
    await eventually(lambda: sample(gateway, name, **labels) == 1, "left the queue")
    engine.waiting_requests = 0
    engine.release.clear()
    await gateway.until_waiting("leaves", 0)
    running = asyncio.create_task(gateway.chat("leaves"))
    await eventually(lambda: gateway.view("leaves").inflight == 1, "it runs")
    running.cancel()
    await eventually(lambda: sample(gateway, name, **labels) == 2, "left its answer")


async def test_what_is_scraped_is_what_is_listed(gateway):
    """Names, types and texts; without peers and tenants theirs alone are missing."""
    families = gateway.router.telemetry.registry.collect()
    scraped = {
        (f"{f.name}_total" if f.type == "counter" else f.name, f.type, f.documentation)
        for f in families
    }
    listed = {(metric.name, metric.kind.value, metric.text) for metric in METRICS}
    assert scraped <= listed
    absent = {name.removeprefix("heliostat_router_") for name, _, _ in listed - scraped}
    assert all(name.startswith(("peer_", "region_", "tenant_")) for name in absent), absent
