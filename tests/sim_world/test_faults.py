"""What breaks in a world, who notices, and how it comes back."""

from typing import Any

import pytest

from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.request import Ending, Request
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings

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
TIMEOUT_SECONDS = 1.0
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
    """It comes back to its ingress after the connect time-out, and is served there."""
    faults = (Fault(FaultKind.LINK, 5.0, 10.0, "us", other_region="eu"),)
    made: list[Scripted] = []
    sessions = [Once(1), Once(2), Once(3)]
    demand = arrivals(*zip((3.0, 6.0, 16.0), ("us",) * 3, sessions, strict=True))
    settings = settings_of({"us": 1, "eu": 1}, faults=faults)
    records = world_of(settings, demand, scripted(made, forwards_to="eu")).run()
    assert [record.served_in for record in records.requests] == ["eu", "us", "eu"]
    assert [record.forwarded for record in records.requests] == [True, False, True]
    assert made[0].times("sent-back eu") == [pytest.approx(6.0 + WAY + TIMEOUT_SECONDS)]
    during = records.requests[1].ttft_seconds
    assert during == pytest.approx(TIMEOUT_SECONDS + 2 * WITHIN_SECONDS + prefill_seconds(200))


def test_a_refusal_that_is_under_way_at_the_cut_comes_late() -> None:
    """The ingress learns of it by the connect time-out, and serves the request itself."""

    class Refusing(Scripted):
        def on_request(self, request: Request) -> None:
            if request.forwarded:
                self.port.send_back(request)
            else:
                self.port.forward(request, "eu")

    made: list[Refusing] = []

    def make(port: GatewayPort) -> Refusing:
        made.append(Refusing(port))
        return made[-1]

    refused_at = 5.0 + WAY + US_EU / 2
    faults = (Fault(FaultKind.LINK, refused_at + 0.01, 10.0, "us", other_region="eu"),)
    settings = settings_of({"us": 1, "eu": 1}, faults=faults)
    (record,) = world_of(settings, arrivals((5.0, "us", Once())), make).run().requests
    assert made[0].times("sent-back eu") == [pytest.approx(refused_at + TIMEOUT_SECONDS)]
    assert (record.attempts, record.served_in) == (0, "us")


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


def test_a_slow_engine_stays_slow_where_it_restarts() -> None:
    """A death and return within the fault leave the speed as it was."""
    faults = (
        Fault(FaultKind.SLOW, 5.0, 30.0, "us", speed_ratio=0.5),
        Fault(FaultKind.ENGINE, 6.0, 2.0, "us"),
    )
    demand = arrivals((20.0, "us", Once()))
    (record,) = world_of(settings_of({"us": 1}, faults=faults), demand, scripted([])).run().requests
    assert record.ttft_seconds == pytest.approx(2 * WITHIN_SECONDS + 2 * prefill_seconds(200))


def test_a_cut_link_breaks_off_forwarded_requests() -> None:
    """Its client asks again after the way back; the peer's engine computes no further."""
    faults = (Fault(FaultKind.LINK, 6.0, 30.0, "us", other_region="eu"),)
    made: list[Scripted] = []
    session = Once(output_tokens=200)
    settings = settings_of({"us": 1, "eu": 1}, faults=faults)
    world = world_of(settings, arrivals((5.0, "us", session)), scripted(made, forwards_to="eu"))
    (record,) = world.run().requests
    assert (record.attempts, record.served_in, session.answers) == (1, "us", 1)
    assert [balancer.times("finished")[:1] for balancer in made] == [[6.0], [6.0]]
    check_books(world, [session])


@pytest.mark.parametrize(("cut", "attempts"), [("eu", 1), ("asia", 0)])
def test_a_cut_link_breaks_off_streams_from_engines_beyond_it(cut: str, attempts: int) -> None:
    """Where one gateway serves all regions; streams over other links go on."""
    faults = (Fault(FaultKind.LINK, 6.0, 5.0, "us", other_region=cut),)
    made: list[Scripted] = []
    settings = settings_of({"us": 0, "eu": 1, "asia": 1}, faults=faults, single_gateway="us")
    session = Once(output_tokens=100)
    world = world_of(settings, arrivals((5.0, "us", session)), scripted(made))
    (record,) = world.run().requests
    assert (record.attempts, record.served_in, session.answers) == (attempts, "eu", 1)
    failures = made[0].times("failed eu-0")
    first_at = 6.0 + WAY + settings.retry_seconds + WAY + TIMEOUT_SECONDS
    assert failures[:1] == ([pytest.approx(first_at)] if attempts else [])
    check_books(world, [session])


def test_a_probe_across_a_cut_link_times_out() -> None:
    """It is answered by an error once the connect time-out is over."""
    faults = (Fault(FaultKind.LINK, 5.0, 10.0, "us", other_region="eu"),)
    made: list[Scripted] = []
    settings = settings_of({"us": 0, "eu": 1}, faults=faults, single_gateway="us")
    world = world_of(settings, arrivals(), scripted(made))
    answers: list[tuple[float, bool]] = []

    def probe() -> None:
        port = made[0].port
        port.probe(port.engines[0], lambda got: answers.append((port.now, got is not None)))

    for at in (6.0, 16.0):
        world.loop.at(at, probe)
    world.run()
    assert answers == [(pytest.approx(7.0), False), (pytest.approx(16.0 + US_EU), True)]


def test_a_link_that_is_cut_twice_is_whole_after_both_are_mended() -> None:
    """The end of the shorter cut leaves the longer one."""
    faults = (
        Fault(FaultKind.LINK, 5.0, 10.0, "us", other_region="eu"),
        Fault(FaultKind.LINK, 6.0, 2.0, "eu", other_region="us"),
    )
    world = world_of(settings_of({"us": 1, "eu": 1}, faults=faults), arrivals(), scripted([]))
    seen: list[bool] = []
    for at in (4.0, 9.0, 16.0):
        world.loop.at(at, lambda: seen.append(world.network.reaches("us", "eu")))
    world.run()
    assert seen == [True, False, True]


def test_the_work_of_a_dead_engine_counts_once() -> None:
    """Faults that overlap, and an end of the world while it is dead, add nothing to its totals."""
    faults = (
        Fault(FaultKind.ENGINE, 20.0, 60.0, "us"),
        Fault(FaultKind.REGION, 30.0, 60.0, "us"),
    )
    session = Once(output_tokens=20)
    settings = settings_of({"us": 1}, faults=faults)
    records = world_of(settings, arrivals((5.0, "us", session)), scripted([])).run()
    assert (records.prefill_tokens, records.generated_tokens) == (200, 20)


def test_what_overlapping_faults_have_mended_is_not_mended_again() -> None:
    """Engine and router go on with their requests when the longer fault ends too."""
    faults = (
        Fault(FaultKind.ENGINE, 5.0, 20.5, "us"),
        Fault(FaultKind.GATEWAY, 5.0, 20.5, "us"),
        Fault(FaultKind.REGION, 6.0, 4.0, "us"),
    )
    made: list[Scripted] = []
    session = Once(output_tokens=200)
    settings = settings_of({"us": 1}, faults=faults)
    world = world_of(settings, arrivals((22.0, "us", session)), scripted(made))
    (record,) = world.run().requests
    assert (record.attempts, record.ending) == (0, Ending.SERVED)
    assert [balancer.times("start") for balancer in made] == [[0.0], [10.0]]
    check_books(world, [session])


def test_an_engine_that_is_back_soon_is_scraped_by_one_loop() -> None:
    """However often it left and came, an idle engine is scraped as seldom as before."""
    faults = tuple(Fault(FaultKind.ENGINE, at, 0.5, "us") for at in (10.0, 12.0, 14.0))
    settings = settings_of({"us": 1}, faults=faults, health_seconds=0.1)
    world = world_of(settings, arrivals(), PolicyName.HELIOSTAT)
    (gateway,) = world.all_gateways()
    probed: list[float] = []
    probe = gateway.probe

    def count(*arguments: Any) -> None:
        probed.append(gateway.now)
        probe(*arguments)

    gateway.probe = count  # type: ignore[method-assign]
    world.run()
    assert len([at for at in probed if at >= 20.0]) in range(11, 17)


def test_a_message_counts_for_each_gateway_that_it_goes_to() -> None:
    """A region's two routers are told twice."""
    regions = (RegionSettings("us", 1), RegionSettings("eu", 1, gateways=2))
    made: list[Scripted] = []
    world = world_of(settings_of({}, regions=regions), arrivals(), scripted(made))
    world.loop.at(1.0, lambda: made[0].port.tell("eu", "hello"))
    assert world.run().messages == 2
    assert [len(balancer.times("message us hello")) for balancer in made] == [0, 1, 1]
