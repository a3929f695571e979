"""A recorded log replays to the same commands."""

import json
import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import Dispatch, Forward
from heliostat_routing.errors import RecordingError
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    EndpointLearned,
    EngineMetrics,
    Event,
    ForwardRefused,
    ForwardTurnedAway,
    MetricsScraped,
    Outcome,
    PeerLost,
    PeerSettings,
    PeersUpdated,
    PoolLearned,
    PoolRemoved,
    PoolUpdated,
    PrefixesKnown,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    SiblingGone,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
    Tick,
)
from heliostat_routing.learned import LineSamples, TokenSamples
from heliostat_routing.recording import decode_event, encode_step, replay
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName, PoolSettings

ENDPOINTS = (
    EndpointSettings("10.0.0.1:8000", adapters=frozenset({"b", "a"})),
    EndpointSettings("10.0.0.2:8000"),
    EndpointSettings("10.0.0.3:8000", EndpointPhase.DRAINING),
)


def busy_hour(policy: PolicyName) -> list[tuple[float, Event]]:
    """Events of every kind, in a seeded order."""
    dice = random.Random(7)
    pool = PoolSettings(policy=policy, prefill_tokens_per_second=300.0, queue_limit=20)
    peers = PeersUpdated((PeerSettings("west", 0.1), PeerSettings("east", 0.2)))
    events: list[tuple[float, Event]] = [(0.0, PoolUpdated("p", pool, ENDPOINTS)), (0.0, peers)]
    now = 0.0
    for ticket in range(300):
        now += dice.expovariate(2.0)
        prompt = tuple(dice.randrange(1, 4) * 2**61 + number for number in range(dice.randrange(9)))
        size = 600 * len(prompt) + 9
        origin = dice.choice([None, None, "west"])
        events.append((now, RequestArrived(ticket, "p", prompt, size, 64, None, 0, origin, 2.0)))
        address = dice.choice(ENDPOINTS).address
        scraped = EngineMetrics(
            dice.randrange(5), dice.randrange(2), 0.5, ticket, 9, 9, 9, 9, ticket, 4096
        )
        region = dice.choice(["west", "east"])
        capacity = PoolCapacity(
            dice.randrange(3), 9, dice.randrange(3), 0.5, 1.0, dice.random(), 300.0, 4096
        )
        ended = dice.randrange(ticket + 1)
        later: list[Event] = [
            Tick(),
            MetricsScraped(address, scraped),
            ScrapeFailed(address),
            AttemptFailed(ticket, address),
            AttemptStarted(ticket, address),
            RequestFinished(ended),
            RequestMeasured(ended, address, Outcome.SERVED, 0.2, 2.0, 300, 128, 40),
            RegionStateReceived(region, "w", (("p", capacity),), ticket // 8, 0.1),
            ForwardRefused(ticket, region),
            ForwardRefused(ended, region),
        ]
        events += [(now, event) for event in dice.sample(later, 5)]
        theirs = RequestArrived(ticket, "p", prompt, size, 64)
        line = LineSamples(25.0, 9000.0, 30.0, 6e6, 2e4)
        heard: list[Event] = [
            SiblingSent("r2", theirs, address, 0.005),
            SiblingTold("r2", AttemptStarted(ended, address)),
            SiblingTold("r2", RequestFinished(ended)),
            SiblingTold("r2", RequestMeasured(ended, address, Outcome.SERVED, 0.2, 2.0, 300)),
            SiblingQueues("r2", (SiblingQueue("p", 2, 1.5, ((address, 0.5),)),)),
            SiblingQueues("r2", ()),
            PrefixesKnown(address, prompt, 3.0),
            PoolLearned("p", line, line, TokenSamples(30.0, 4e4, 1e4, 150.0, 3.0), 0.2, 900.0),
            EndpointLearned(address, line, 0.02),
        ]
        events += [(now, event) for event in dice.sample(heard, 2)]
    events += [
        (now, SiblingGone("r2")),
        (now, PeerLost("east")),
        (now, ForwardTurnedAway("west/r")),
        (now, RequestArrived(10**6, "p", (), 100)),
        (now, DispatchFailed(10**6, ("10.0.0.1:8000", "10.0.0.2:8000"))),
    ]
    events.append((now + 1, PoolRemoved("p")))
    return events


@pytest.mark.parametrize("policy", list(PolicyName))
def test_a_recording_replays_to_identical_commands(policy: PolicyName) -> None:
    """Through JSON and back, every step gives the commands that were recorded."""
    router = Router()
    recorded = [
        json.dumps(encode_step(now, event, router.handle(event, now)))
        for now, event in busy_hour(policy)
    ]
    steps = list(replay(json.loads(line) for line in recorded))
    assert [(step.now, step.event) for step in steps] == busy_hour(policy)
    assert sum(bool(step.recorded) for step in steps) > 100
    assert {type(event) for _, event in busy_hour(policy)} == set(get_args(Event))
    if policy is PolicyName.HELIOSTAT:
        kinds = [command["type"] for step in steps for command in step.recorded]
        assert kinds.count("Forward") > 20
    for step in steps:
        assert json.loads(json.dumps(step.replayed)) == step.recorded


def test_a_dispatch_carries_its_explanation_into_the_recording() -> None:
    """The recording tells why, not only where."""
    router = Router()
    router.handle(PoolUpdated("p", PoolSettings(), ENDPOINTS), 0.0)
    event = RequestArrived(1, "p", (1, 2), 1024)
    (command,) = router.handle(event, 1.0)
    assert isinstance(command, Dispatch)
    encoded = encode_step(1.0, event, [command])["commands"][0]["explanation"]
    assert encoded["winner"] == command.endpoints[0]
    assert encoded["candidates"][0]["uncached_tokens"] == 256


def test_a_forward_carries_its_explanation_into_the_recording() -> None:
    """The recording tells which regions and endpoints were compared."""
    router = Router()
    capacity = PoolCapacity(1, 1, 0, 0.1, 1.0, 0.0, 1000.0, 10_000)
    router.handle(PoolUpdated("p", PoolSettings(), ()), 0.0)
    router.handle(PeersUpdated((PeerSettings("west", 0.1),)), 0.0)
    router.handle(RegionStateReceived("west", "w", (("p", capacity),), 0), 0.0)
    event = RequestArrived(1, "p", (1, 2), 1024)
    (command,) = router.handle(event, 0.5)
    assert isinstance(command, Forward)
    encoded = json.loads(json.dumps(encode_step(0.5, event, [command])))["commands"][0]
    assert encoded["type"] == "Forward"
    assert (encoded["ticket"], encoded["region"], encoded["hold_seconds"]) == (1, "west", 0.1)
    assert encoded["explanation"]["winner"] == "region/west"
    assert encoded["explanation"]["candidates"][0]["network_seconds"] == 0.101


EVENTS = st.one_of([st.from_type(event) for event in get_args(Event)])


@settings(deadline=None, derandomize=True)
@given(EVENTS.filter(lambda event: "nan" not in repr(event)))
def test_every_event_survives_a_recording(event: Event) -> None:
    """Whatever an event says, it is the same after it has been a line of JSON."""
    line = json.dumps(encode_step(0.0, event, []))
    assert decode_event(json.loads(line)["event"]) == event


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"now": 0, "event": {"type": "Nonsense"}, "commands": []},
        {"now": 0, "event": {"type": "Tick", "x": 1}, "commands": []},
        {"now": 0, "event": {"type": "PoolSettings"}, "commands": []},
    ],
)
def test_a_line_that_is_no_step_is_refused(line: dict[str, object]) -> None:
    """What the recorder did not write is an error with a name."""
    with pytest.raises(RecordingError):
        list(replay([line]))
