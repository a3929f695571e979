import time
from collections import Counter
from collections.abc import Iterator

import pytest

from heliostat_sim.demand.chat import ARENA
from heliostat_sim.demand.open_chat import RegionTraffic, Storm, open_chats
from heliostat_sim.demand.single_turn import SingleTurnSettings, single_turns
from heliostat_sim.world.demand import Arrival, Ask


def storm(seed: int = 1) -> Iterator[Arrival]:
    return open_chats(
        {"us": RegionTraffic(10.0), "eu": RegionTraffic(5.0)},
        ARENA,
        "arena",
        seed,
        300.0,
        storms=[Storm(100.0, 0.6), Storm(200.0, 0.6, prefixes=4)],
    )


def first_ask(arrival: Arrival) -> Ask:
    (ask,) = arrival.session.start()
    return ask


def test_chats_arrive_in_order_from_all_regions() -> None:
    """Arrivals ascend, end in time, and each region has its own rate."""
    arrivals = list(storm())
    times = [arrival.at for arrival in arrivals]
    assert times == sorted(times)
    assert times[-1] < 300
    regions = Counter(arrival.region for arrival in arrivals)
    assert regions["us"] == pytest.approx(3000, rel=0.1)
    assert regions["eu"] == pytest.approx(1500, rel=0.1)


def test_chats_are_the_same_for_a_seed() -> None:
    """Equal seeds make equal arrivals."""

    def seen(seed: int) -> list[tuple[float, str, int, int]]:
        return [(a.at, a.region, a.session.user, first_ask(a).prompt_tokens) for a in storm(seed)]

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


def test_a_storm_shares_one_prefix_and_then_several() -> None:
    """From its start a storm's share of chats begins with one prefix of 3,000 tokens, the next
    storm's with one of four others; before there is none.
    """
    hot: dict[int, Counter[int]] = {0: Counter(), 1: Counter(), 2: Counter()}
    sizes: Counter[int] = Counter()
    for arrival in storm():
        ask, phase = first_ask(arrival), int(arrival.at // 100)
        sizes[phase] += 1
        if ask.prompt_tokens > 3000:
            hot[phase][ask.chain.hashes[3000 // 16 - 1]] += 1
    assert not hot[0]
    assert len(hot[1]) == 1
    assert len(hot[2]) == 4
    assert not hot[1].keys() & hot[2].keys()
    for phase in (1, 2):
        assert sum(hot[phase].values()) / sizes[phase] == pytest.approx(0.6, abs=0.05)


def test_single_turns_share_their_regions_heads() -> None:
    """Questions of a region share one of its heads, those of different regions nothing."""
    settings = SingleTurnSettings(heads_per_region=3)
    heads: dict[str, set[int]] = {"us": set(), "eu": set()}
    rates = {"us": 20.0, "eu": 10.0, "none": 0.0}
    for arrival in single_turns(rates, settings, 1, 50.0, block_tokens=128):
        ask = first_ask(arrival)
        assert (ask.prompt_tokens, ask.output_tokens) == (640, 64)
        assert len(ask.chain.hashes) == 704 // 128
        heads[arrival.region].add(ask.chain.hashes[3])
        assert arrival.session.on_answer(ask) == []
    assert len(heads["us"]) == len(heads["eu"]) == 3
    assert not heads["us"] & heads["eu"]


def test_single_turns_follow_the_rates() -> None:
    """Each region's arrivals come at its own rate."""
    rates = {"us": 30.0, "eu": 10.0}
    arrivals = list(single_turns(rates, SingleTurnSettings(), 1, 200.0, block_tokens=128))
    regions = Counter(arrival.region for arrival in arrivals)
    assert regions["us"] == pytest.approx(6000, rel=0.06)
    assert regions["eu"] == pytest.approx(2000, rel=0.06)


def test_single_turns_are_cheap() -> None:
    """Making one takes less than 30 µs of CPU, so that millions can be made."""
    rates = {f"r-{number}": 200.0 for number in range(50)}
    arrivals = single_turns(rates, SingleTurnSettings(), 1, 2.0, block_tokens=128)
    began = time.process_time()
    count = sum(1 for _ in arrivals)
    assert (time.process_time() - began) / count < 30e-6
