"""The demo of three regions: its sun, its clients, what it counts, shows and says in the end."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console

from heliostat_cli.demonstration.crowd import Crowd
from heliostat_cli.demonstration.day_report import day_json, day_report, engines_sentence
from heliostat_cli.demonstration.day_run import DayState, Mode
from heliostat_cli.demonstration.day_screen import DayLines, DayScene, render_day
from heliostat_cli.demonstration.lookout import Federation
from heliostat_cli.demonstration.provisioning import (
    CancelledSearchError,
    Provisioning,
    find_provisioning,
)
from heliostat_cli.demonstration.sun import REGIONS, Day, nearest
from heliostat_cli.demonstration.tally import Tally
from heliostat_cli.loading.report import Outcome
from heliostat_cli.main import main
from heliostat_cli.overview.answers import read_router
from heliostat_sim.workload.conversations import ConversationSettings, LengthDistribution

US, EUROPE, ASIA = REGIONS
DEADLINE_SECONDS = 20.0


def router(region: str, sent: int = 0, state: str = "Connected", refused: int = 0) -> Any:
    """What a region's router answers: two engines, and the same of both peers."""
    endpoint = {"phase": "ready", "breaker": "closed", "available": True}
    pool = {"pool": "chat", "queued": 3, "inflight": 5, "endpoints": [endpoint, endpoint]}
    peers = [
        {
            "region": other.name,
            "state": state,
            "reason": None,
            "round_trip_seconds": 0.1021,
            "sent": sent,
            "refused": refused,
            "pools": [{"pool": "chat", "free": 1, "queued": 0}],
        }
        for other in REGIONS
        if other.name != region
    ]
    peering = {"region": region, "router": "r", "peers": peers, "siblings": []}
    return read_router({"pools": [pool]}, peering)


def lived(mode: Mode, *, ttft_seconds: float = 0.3, done: bool = True) -> DayState:
    """A run with a request in each region, one cut, and much to show."""
    day = Day(40.0)
    state = DayState(mode, day, Tally(day.seconds), running=True, done=done, active=12)
    for region in REGIONS:
        good = Outcome(ttft_seconds=ttft_seconds, e2e_seconds=1.0)
        state.tally.record(region.name, region.name, good)
        state.federation.take(region.name, router(region.name))
        state.federation.take(region.name, router(region.name, sent=100))
    state.tally.on_kill()
    state.tally.record("asia", "asia", Outcome(failure="truncated-stream"))
    state.tally.lag.record(0.001)
    return state


def printed(renderable: object, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def test_the_sun_moves_on_by_eight_hours() -> None:
    """Each region's day is that of the one before, a third of a day later."""
    day = Day(48.0)
    for at in range(0, 48, 3):
        assert day.clients(US, at) == day.clients(ASIA, at + 16) == day.clients(EUROPE, at + 32)


def test_peaks_exceed_a_region_and_the_total_fits_the_world() -> None:
    """At its peak a region has more clients than engines serve; all together never so."""
    day = Day(40.0)
    serves = day.engines * day.running_requests
    for region in REGIONS:
        counts = [day.clients(region, at) for at in range(40)]
        assert max(counts) == day.peak_clients > 2 * serves
        assert min(counts) == day.night_clients
    assert all(sum(day.clients(r, at) for r in REGIONS) < 3 * serves for at in range(40))


def test_shifts_and_curve_agree() -> None:
    """At any time as many clients are in their shifts as the curve says."""
    day = Day(40.0)
    for at in (0.0, 7.3, 20.02, 39.9):
        there = sum(
            any(begins <= at < ends for begins, ends in day.shifts(EUROPE, number))
            for number in range(day.peak_clients)
        )
        assert abs(there - day.clients(EUROPE, at)) <= 1


def test_no_two_clients_have_a_chat_in_common() -> None:
    """Chats are dealt out, the same ones for the same seed."""
    first, again = (Day(40.0, seed=3).deal_chats() for _ in range(2))
    chats = {place: next(mine) for place, mine in first.items()}
    assert chats == {place: next(mine) for place, mine in again.items()}
    assert len({chat.turns for chat in chats.values()}) == 3 * Day(40.0).peak_clients


def test_clients_ask_the_nearest_gateway_first() -> None:
    """The own region comes first, then by the paper's round trips."""
    assert nearest("us") == ["us", "europe", "asia"]
    assert nearest("europe") == ["europe", "us", "asia"]
    assert nearest("asia") == ["asia", "us", "europe"]


@pytest.mark.parametrize(
    ("failure", "counted"),
    [("connection", "cut"), ("truncated-stream", "cut"), ("503 queue-full", "failed")],
)
def test_only_what_the_kill_cuts_is_counted_apart(failure: str, counted: str) -> None:
    """A stream that breaks after the kill is its victim; a refusal or an earlier break is not."""
    tally = Tally(40.0)
    tally.record("us", "us", Outcome(failure=failure))
    assert (tally.cut, tally.failed) == (0, 1)
    tally.on_kill()
    tally.record("us", "us", Outcome(failure=failure))
    assert (tally.cut, tally.failed) == ((1, 1) if counted == "cut" else (0, 2))


def test_who_serves_whom_survives_restarts_and_counts_what_came_back() -> None:
    """Requests given back were not served there; a new router's count is added to the old one's."""
    federation, tally = Federation(), Tally(40.0)
    for _ in range(30):
        tally.record("us", "us", Outcome(e2e_seconds=1.0))
    tally.record("europe", "us", Outcome(e2e_seconds=1.0))
    federation.take("us", router("us", sent=10, refused=2))
    federation.take("us", None)
    federation.take("us", router("us", sent=3))
    served = federation.served(tally)
    assert served["us", "asia"] == served["us", "europe"] == 8 + 3
    assert served["us", "us"] == 30 - 2 * 11
    assert (served["europe", "us"], served["europe", "europe"]) == (1, 0)


@asynccontextmanager
async def gateway(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_clients_come_and_go_and_ask_elsewhere_where_nobody_listens(
    unused_tcp_port: int,
) -> None:
    """Each request is counted once; those of a region without gateway are served by the nearest."""
    active: list[int] = []

    async def answer(_request: web.Request) -> web.StreamResponse:
        active.append(crowd.active)
        event = {"choices": [{"delta": {"content": "word"}}]}
        text = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"
        await asyncio.sleep(0.02)
        return web.Response(text=text, content_type="text/event-stream")

    lengths = LengthDistribution(10, 0, 10)
    chats = ConversationSettings(
        system_tokens=10, user_tokens=lengths, output_tokens=lengths, think_seconds=0.05
    )
    day = Day(1.0, peak_clients=4, chats=chats)
    dead = f"http://127.0.0.1:{unused_tcp_port}"
    tally = Tally(day.seconds)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        gateway(answer) as url,
        aiohttp.ClientSession() as http,
    ):
        gateways = {
            "us": {"us": url},
            "europe": {"europe": dead, "us": url},
            "asia": {"asia": dead, "us": dead},
        }
        crowd = Crowd(day, gateways, http, tally)
        await crowd.run()
    assert (tally.cut, crowd.active) == (0, 0)
    assert set(tally.errors) == {"connection"}
    assert tally.errors == tally.regions["asia"].errors
    assert tally.regions["europe"].elsewhere["us"] == tally.regions["europe"].served > 0
    assert tally.served == len(active) > 20
    assert max(active) <= 3 * day.peak_clients


def scene_at(stage: str) -> DayScene:
    """A scene at its beginning, in its middle or at its end."""
    scene = DayScene(Day(40.0))
    scene.states.append(lived(Mode.REGION_LOCAL, ttft_seconds=12.345))
    if stage == "starting":
        scene.states = [DayState(Mode.REGION_LOCAL, scene.day, Tally(40.0))]
    if stage in ("killed", "simulating"):
        state = lived(Mode.FEDERATED, done=stage == "simulating")
        state.down, state.news = "europe", "Europe is lost: gateway and engines were killed"
        state.federation.take("europe", None)
        state.federation.take("us", router("us", sent=100, state="Unreachable"))
        state.federation.remember(state.tally, time.perf_counter())
        scene.states.append(state)
    scene.asking_simulator = stage == "simulating"
    return scene


@pytest.mark.parametrize("height", [24, 40])
@pytest.mark.parametrize("stage", ["starting", "local", "killed", "simulating"])
def test_the_live_view_fits_a_small_terminal(stage: str, height: int) -> None:
    """At every stage the view has at most 80 columns and the terminal's lines, and cuts nothing."""
    text = printed(render_day(scene_at(stage), height))
    lines = text.splitlines()
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= 80
    assert "…" not in text


def test_the_view_shows_who_is_lost_and_which_links_are() -> None:
    """A killed region says so, and its links are unreachable as others see them."""
    text = printed(render_day(scene_at("killed"), 40))
    assert "Europe is lost" in text
    assert "killed" in text
    assert "US-Europe Unreachable" in text
    assert "Europe-Asia Connected 102 ms" in text
    assert "TTFT p90 over the day, up to 12" in text


def test_plain_lines_tell_the_story() -> None:
    """Without a terminal there is a line at each start, each event, and every few seconds."""
    out = io.StringIO()
    display = DayLines(Console(file=out, width=300))
    for stage in ("starting", "local", "killed", "killed", "simulating"):
        display.show(scene_at(stage))
    lines = out.getvalue().splitlines()
    assert lines[0] == "region-local: starting three gateways and their engines"
    assert lines[1].startswith("region-local 40 s: 3 served, 12 active, 1 cut by the kill, 0 fail")
    assert lines[2] == "federated: Europe is lost: gateway and engines were killed"
    assert lines[-1].startswith("asking the simulator")
    assert len(lines) == 4


def test_the_end_compares_both_days_and_names_what_went_wrong() -> None:
    """The table has both runs; failures and interrupts stand beneath it; the JSON has all of it."""
    day = Day(40.0)
    states = [lived(Mode.REGION_LOCAL, ttft_seconds=2.0), lived(Mode.FEDERATED, done=False)]
    states[1].tally.record("us", "us", Outcome(failure="503 no-endpoint"))
    provisioning = Provisioning({"us": 3, "europe": 4, "asia": 3}, 7)
    text = printed(day_report(day, states, provisioning))
    assert max(len(line) for line in text.splitlines()) <= 80
    rows = {line[:24].strip(): line.split() for line in text.splitlines()}
    assert rows["served"][-2:] == ["3", "3"]
    assert rows["cut by the kill"][-2:] == ["1", "1"]
    assert rows["failed"][-2:] == ["0", "1"]
    assert rows["TTFT p50"][2:] == ["2", "s", "300", "ms"]
    assert "federated: 1 failed: 503 no-endpoint" in text
    assert "federated: interrupted" in text
    plain = json.loads(day_json(day, states, provisioning))
    assert plain["runs"]["federated"]["errors"] == {"503 no-endpoint": 1}
    assert plain["runs"]["federated"]["interrupted"]
    assert plain["simulated_engines"]["region_local"] == {"us": 3, "europe": 4, "asia": 3}


def test_what_the_simulator_says_is_said_as_it_is() -> None:
    """Its numbers are in the sentence; that it has found none is too."""
    found = engines_sentence(Day(40.0), Provisioning({"us": 3, "europe": 4, "asia": 3}, 7))
    assert "needs 10 engines" in found
    assert "and 7 federated" in found
    none = engines_sentence(Day(40.0), Provisioning({"us": 3, "europe": None, "asia": 3}, 7))
    assert "has found no number" in none


def test_the_simulator_needs_fewer_engines_for_regions_that_serve_each_other() -> None:
    """The demo's own demand: more engines apart, and each region needs some; repeatable."""
    found = find_provisioning(Day(40.0))
    assert found.federated is not None
    assert found.apart_total is not None
    assert len(REGIONS) <= found.federated < found.apart_total
    assert found == find_provisioning(Day(40.0))
    with pytest.raises(CancelledSearchError):
        find_provisioning(Day(40.0), lambda: False)


@pytest.mark.parametrize("options", [["--keep"], ["--port", "8080"], ["--policies", "heliostat"]])
def test_options_of_the_single_region_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and the option that is missing."""
    assert main(["demo", *options]) == 2
    assert capsys.readouterr().err == f"heliostat demo: {options[0]} needs --single-region\n"
