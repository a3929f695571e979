"""What breaks in a world, who notices, and how it comes back."""

import pytest

from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.request import Ending
from heliostat_sim.world.settings import Fault, FaultKind

from .small_world import (
    ROUND_TRIPS,
    WITHIN_SECONDS,
    Once,
    Scripted,
    arrivals,
    check_books,
    prefill_seconds,
    scripted,
    settings_of,
    world_of,
)

WAY = WITHIN_SECONDS / 2
US_EU = ROUND_TRIPS[frozenset(("us", "eu"))]


def test_an_engine_death_cuts_its_streams_and_clients_ask_again() -> None:
    """The client hears of it after the way back, waits, and is served by another engine."""
    faults = (Fault(FaultKind.ENGINE, 5.5, 60.0, "us", engine=0),)
    made: list[Scripted] = []
    session = Once(prompt_tokens=200, output_tokens=100)
    settings = settings_of({"us": 2}, faults=faults, health_seconds=0.5)
    world = world_of(settings, arrivals((5.0, "us", session)), scripted(made))
    (record,) = world.run().requests
    assert (record.attempts, record.ending, session.answers) == (1, Ending.SERVED, 1)
    assert world.records.sent == 1
    again_at = 5.5 + WAY + settings.retry_seconds
    first_token_at = again_at + 2 * WITHIN_SECONDS + prefill_seconds(200)
    assert record.ttft_seconds == pytest.approx(first_token_at - 5.0)
    assert made[0].times("finished")[0] == 5.5
    assert made[0].times("request") == pytest.approx([5.0 + WAY, again_at + WAY])


def test_requests_that_meet_a_dead_engine_are_placed_anew() -> None:
    """Until discovery notices, the gateway hears a round trip later and goes on; nobody is cut."""
    faults = (Fault(FaultKind.ENGINE, 5.0, 60.0, "us", engine=0),)
    made: list[Scripted] = []
    settings = settings_of({"us": 2}, faults=faults, health_seconds=2.0)
    (record,) = world_of(settings, arrivals((6.9, "us", Once())), scripted(made)).run().requests
    failures = made[0].times("failed us-0")
    assert failures[:2] == pytest.approx([6.9 + WAY + n * WITHIN_SECONDS for n in (1, 2)])
    assert failures[-1] <= 7.0 + WITHIN_SECONDS, "then discovery has dropped the engine"
    assert (record.attempts, record.ending) == (0, Ending.SERVED)


def test_discovery_drops_engines_late_and_returns_them_at_once() -> None:
    """A dead engine stays listed for the health check's time, a mended one is back at once."""
    made: list[Scripted] = []
    faults = (Fault(FaultKind.ENGINE, 5.0, 10.0, "us", engine=1),)
    settings = settings_of({"us": 2}, faults=faults, health_seconds=3.0)
    world_of(settings, arrivals(), scripted(made)).run()
    assert made[0].seen == [
        (0.0, "start"),
        (8.0, "engines us-0"),
        (15.0, "engines us-0,us-1"),
    ]


def test_a_mended_engine_has_an_empty_cache() -> None:
    """What it held before its death is computed again."""
    faults = (Fault(FaultKind.ENGINE, 10.0, 5.0, "us"),)
    sessions = [Once(7), Once(7), Once(7)]
    demand = arrivals(*zip((1.0, 5.0, 20.0), ("us",) * 3, sessions, strict=True))
    records = world_of(settings_of({"us": 1}, faults=faults), demand, scripted([])).run()
    assert [record.cached_tokens > 0 for record in records.requests] == [False, True, False]


def test_a_gateway_restart_loses_its_queue_but_not_its_streams() -> None:
    """Who waits at the router must ask again; who has an engine notices nothing."""
    faults = (Fault(FaultKind.GATEWAY, 5.5, 2.0, "us"),)
    made: list[Scripted] = []

    def make(port: GatewayPort) -> Scripted:
        made.append(Scripted(port, held=() if made else (2,)))
        return made[-1]

    streaming, waiting = Once(1, output_tokens=100, user=1), Once(2, user=2)
    demand = arrivals((5.0, "us", streaming), (5.1, "us", waiting))
    world = world_of(settings_of({"us": 1}, faults=faults), demand, make)
    records = world.run()
    by_length = {record.output_tokens: record for record in records.requests}
    assert by_length[100].attempts == 0
    assert by_length[100].ended_at < 11
    assert by_length[20].attempts >= 1
    assert len(made) == 2
    assert made[1].times("start") == [7.5]
    assert len(made[1].times("finished")) == 1, "the new router knows its own request alone"
    assert (streaming.answers, waiting.answers) == (1, 1)
    check_books(world, [streaming, waiting])


def test_no_forward_crosses_a_cut_link() -> None:
    """It comes back to its ingress after a round trip, and is served there."""
    faults = (Fault(FaultKind.LINK, 5.0, 10.0, "us", other_region="eu"),)
    made: list[Scripted] = []
    sessions = [Once(1), Once(2), Once(3)]
    demand = arrivals(*zip((4.0, 6.0, 16.0), ("us",) * 3, sessions, strict=True))
    settings = settings_of({"us": 1, "eu": 1}, faults=faults)
    records = world_of(settings, demand, scripted(made, forwards_to="eu")).run()
    assert [record.served_in for record in records.requests] == ["eu", "us", "eu"]
    assert [record.forwarded for record in records.requests] == [True, False, True]
    assert made[0].times("sent-back eu") == [pytest.approx(6.0 + WAY + US_EU)]
    during = records.requests[1].ttft_seconds
    assert during == pytest.approx(US_EU + 2 * WITHIN_SECONDS + prefill_seconds(200))


def test_nothing_is_told_over_a_cut_link() -> None:
    """Messages are lost while the link is cut, in both directions."""
    made: list[Scripted] = []
    faults = (Fault(FaultKind.LINK, 5.0, 10.0, "us", other_region="eu"),)
    world = world_of(settings_of({"us": 1, "eu": 1}, faults=faults), arrivals(), scripted(made))
    for at in (4.0, 6.0, 16.0):
        world.loop.at(at, lambda at=at: made[0].port.tell("eu", at))
        world.loop.at(at, lambda at=at: made[1].port.tell("us", at))
    world.run()
    for balancer, sender in ((made[0], "eu"), (made[1], "us")):
        heard = [what for _, what in balancer.seen if what.startswith("message")]
        assert heard == [f"message {sender} 4.0", f"message {sender} 16.0"]


def test_clients_of_a_lost_region_go_to_the_nearest_and_come_back() -> None:
    """eu is nearer to us than asia is; once us is mended its clients are served there again."""
    faults = (Fault(FaultKind.REGION, 10.0, 20.0, "us"),)
    sessions = [Once(number, output_tokens=40) for number in range(45)]
    demand = arrivals(*((1.0 + number, "us", s) for number, s in enumerate(sessions)))
    settings = settings_of({"us": 2, "eu": 2, "asia": 2}, faults=faults)
    world = world_of(settings, demand, scripted([]))
    records = world.run().requests
    assert len(records) == len(sessions)
    cut = [record for record in records if record.attempts]
    assert cut, "streams were cut"
    assert all(7 < record.sent_at < 10.5 for record in cut)
    for record in records:
        lost = record in cut or 10 <= record.sent_at < 30
        assert record.served_in == ("eu" if lost else "us"), record
    check_books(world, sessions)


def test_a_slow_engine_takes_longer() -> None:
    """At half its speed a lone request takes twice as long, and as before once that is over."""
    faults = (Fault(FaultKind.SLOW, 5.0, 10.0, "us", speed_ratio=0.5),)
    sessions = [Once(1), Once(2), Once(3)]
    demand = arrivals(*zip((1.0, 7.0, 20.0), ("us",) * 3, sessions, strict=True))
    records = world_of(settings_of({"us": 1}, faults=faults), demand, scripted([])).run()
    alone = prefill_seconds(200)
    expected = [2 * WITHIN_SECONDS + alone * factor for factor in (1, 2, 1)]
    assert [record.ttft_seconds for record in records.requests] == pytest.approx(expected)
