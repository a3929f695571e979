"""Whatever breaks whenever, no request is lost and none is answered twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.world.request import Ending
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings, SignalSettings

from .small_world import Once, arrivals, check_books, settings_of, world_of

REGIONS = {"us": 2, "eu": 1, "asia": 1}
LAST_SECONDS = 30.0
"""By then everything is mended."""

instants = st.floats(0.0, 20.0).map(lambda at: round(at, 3))
spans = st.floats(0.001, 10.0).map(lambda seconds: round(seconds, 3))


@st.composite
def timelines(draw: st.DrawFn) -> tuple[Fault, ...]:
    """Faults that may overlap."""
    faults: list[Fault] = []
    for kind in draw(st.lists(st.sampled_from(list(FaultKind)), max_size=6)):
        region = draw(st.sampled_from(list(REGIONS)))
        engine = draw(st.integers(0, REGIONS[region] - 1))
        others = [name for name in REGIONS if name != region]
        fault = Fault(
            kind,
            draw(instants),
            draw(spans),
            region,
            other_region=draw(st.sampled_from(others)),
            engine=engine,
            speed_ratio=draw(st.sampled_from([0.2, 0.5, 3.0])),
        )
        faults.append(fault)
    return tuple(faults)


requests = st.lists(
    st.tuples(
        instants,
        st.sampled_from(list(REGIONS)),
        st.integers(0, 4),
        st.integers(1, 900),
        st.integers(1, 60),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("policy", [PolicyName.HELIOSTAT, PolicyName.SKYLB])
@settings(max_examples=25, deadline=None)
@given(
    faults=timelines(), asked=requests, gateways=st.integers(1, 2), loss=st.sampled_from([0, 0.5])
)
def test_nothing_is_lost_nor_answered_twice(
    policy: PolicyName,
    faults: tuple[Fault, ...],
    asked: list[tuple[float, str, int, int, int]],
    gateways: int,
    loss: float,
) -> None:
    """After the last fault each client has had exactly one answer, and all books are empty."""
    sessions = []
    for at, region, name, prompt_tokens, output_tokens in sorted(asked):
        sessions.append((at, region, Once(name, prompt_tokens, output_tokens, user=name)))
    world_settings = settings_of(
        {},
        regions=tuple(RegionSettings(name, count, gateways) for name, count in REGIONS.items()),
        faults=faults,
        duration_seconds=LAST_SECONDS + 60.0,
        signals=SignalSettings(scrape_loss_ratio=float(loss), state_interval_seconds=0.3),
    )
    world = world_of(world_settings, arrivals(*sessions), policy)
    for at in (5.0, 10.0, 20.0, LAST_SECONDS):
        world.loop.at(at, lambda: check_open(sessions, world.open))
    records = world.run()
    asked_sessions = [session for _, _, session in sessions]
    check_books(world, asked_sessions)
    assert not world.open
    assert not world.broken
    assert records.sent == len(sessions)
    assert [record.ending for record in records.requests] == [Ending.SERVED] * len(sessions)
    assert [session.answers for session in asked_sessions] == [1] * len(sessions)


def check_open(sessions: list[tuple[float, str, Once]], open_requests: dict[int, object]) -> None:
    """At any time there are at most as many open requests as sessions without an answer."""
    assert len(open_requests) <= sum(not session.answers for _, _, session in sessions)
