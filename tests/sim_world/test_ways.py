"""What the network adds to a request that has the world to itself."""

import pytest

from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.world.records import Record
from heliostat_sim.world.settings import SignalSettings, WorldSettings

from .small_world import (
    ROUND_TRIPS,
    WITHIN_SECONDS,
    Once,
    Scripted,
    arrivals,
    prefill_seconds,
    scripted,
    settings_of,
    world_of,
)

PROMPT_TOKENS, OUTPUT_TOKENS = 300, 11
DECODE_SECONDS = (OUTPUT_TOKENS - 1) * 0.05
US_EU, EU_ASIA = ROUND_TRIPS[frozenset(("us", "eu"))], ROUND_TRIPS[frozenset(("eu", "asia"))]


def lone_record(settings: WorldSettings, region: str, balancer: object) -> Record:
    """What becomes of one request of a region."""
    session = Once(prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    world = world_of(settings, arrivals((5.0, region, session)), balancer)  # type: ignore[arg-type]
    (record,) = world.run().requests
    assert session.answers == 1
    return record


def check(record: Record, network_seconds: float) -> None:
    """The first token took the engine's time and the network's, the last one the decoding more."""
    assert record.ttft_seconds == pytest.approx(network_seconds + prefill_seconds(PROMPT_TOKENS))
    took_seconds = record.ended_at - record.sent_at
    assert took_seconds == pytest.approx((record.ttft_seconds or 0.0) + DECODE_SECONDS)


def test_a_lone_prompt_takes_its_prefill() -> None:
    """The engine alone takes a millisecond for each token of the prompt."""
    assert prefill_seconds(PROMPT_TOKENS) == pytest.approx(0.3)


@pytest.mark.parametrize("policy", [PolicyName.HELIOSTAT, PolicyName.SKYLB, PolicyName.GKE])
def test_a_request_inside_its_region_pays_for_two_short_ways(policy: PolicyName) -> None:
    """Client to gateway and gateway to engine, there and back."""
    record = lone_record(settings_of({"us": 1, "eu": 1}), "eu", policy)
    assert (record.served_in, record.forwarded) == ("eu", False)
    check(record, 2 * WITHIN_SECONDS)


@pytest.mark.parametrize("policy", [PolicyName.HELIOSTAT, PolicyName.ROUND_ROBIN])
def test_a_request_through_the_only_gateway_pays_for_both_legs(policy: PolicyName) -> None:
    """From eu to the gateway in us, and from there to the engine in eu: the long way twice."""
    record = lone_record(settings_of({"us": 0, "eu": 1}, single_gateway="us"), "eu", policy)
    assert (record.served_in, record.forwarded) == ("eu", False)
    check(record, 2 * US_EU)


def test_a_forwarded_request_pays_for_the_way_between_the_gateways() -> None:
    """Client, ingress, peer and engine: two short ways and the long one."""
    record = lone_record(
        settings_of({"us": 1, "eu": 1, "asia": 1}), "eu", scripted([], forwards_to="asia")
    )
    assert (record.served_in, record.forwarded) == ("asia", True)
    check(record, 2 * WITHIN_SECONDS + EU_ASIA)


@pytest.mark.parametrize("policy", [PolicyName.HELIOSTAT, PolicyName.SKYLB])
def test_a_region_without_engines_forwards(policy: PolicyName) -> None:
    """The policies that forward do so at once, to a region that says that it has room."""
    record = lone_record(settings_of({"us": 0, "eu": 1}), "us", policy)
    assert (record.served_in, record.forwarded) == ("eu", True)
    check(record, 2 * WITHIN_SECONDS + US_EU)


def probe_at(settings: WorldSettings, at: float) -> tuple[float, bool]:
    """When the answer to a probe comes, and whether it has metrics."""
    answers: list[tuple[float, bool]] = []

    class Prober(Scripted):
        def start(self) -> None:
            port = self.port
            engine = port.engines[0]
            port.call_at(
                at,
                lambda: port.probe(engine, lambda m: answers.append((port.now, m is not None))),
            )

    world_of(settings, arrivals(), Prober).run()
    (answer,) = answers
    return answer


def test_a_probe_takes_a_round_trip() -> None:
    """There and back inside the region."""
    assert probe_at(settings_of({"us": 1}), 1.0) == (pytest.approx(1.0 + WITHIN_SECONDS), True)


def test_scrapes_can_be_late() -> None:
    """The delay of the signals is added to the way back."""
    settings = settings_of({"us": 1}, signals=SignalSettings(scrape_delay_seconds=2.0))
    assert probe_at(settings, 1.0) == (pytest.approx(3.0 + WITHIN_SECONDS), True)


def test_scrapes_can_be_lost() -> None:
    """A lost one comes as an error, not as silence."""
    settings = settings_of({"us": 1}, signals=SignalSettings(scrape_loss_ratio=1.0))
    assert probe_at(settings, 1.0) == (pytest.approx(1.0 + WITHIN_SECONDS), False)


def test_messages_take_one_way() -> None:
    """What a gateway tells a region is heard half a round trip later, and is counted."""
    made: list[Scripted] = []
    world = world_of(settings_of({"us": 1, "eu": 1}), arrivals(), scripted(made))
    world.loop.at(1.0, lambda: made[0].port.tell("eu", "hello"))
    records = world.run()
    assert made[1].times("message us hello") == [pytest.approx(1.0 + US_EU / 2)]
    assert records.messages == 1
