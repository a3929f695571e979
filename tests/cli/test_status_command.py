"""`heliostat status`: what routers say, in 80 columns, and never a traceback."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from rich.console import Console

from heliostat_cli.main import main
from heliostat_cli.overview.answers import AnswerError, read_router
from heliostat_cli.overview.asking import Answer
from heliostat_cli.overview.tables import overview, sent_counts, sentence
from heliostat_extproc.admin import AdminSources, PeersReport, build_admin
from heliostat_extproc.federation.reports import LinkReason, LinkState, PeerReport, RemotePool
from heliostat_extproc.pool_sync import EndpointsReport
from heliostat_routing.settings import EndpointPhase
from heliostat_routing.views import BreakerState, EndpointView, PoolView


def pool(free: int, busy: int, queued: int = 0) -> dict[str, Any]:
    """A pool as /pools gives it."""
    endpoints = tuple(
        EndpointView(
            address=f"127.0.0.1:{8000 + number}",
            phase=EndpointPhase.READY,
            available=number < free,
            breaker=BreakerState.CLOSED,
            inflight=0 if number < free else 4,
            siblings_inflight=0,
            pending=0,
            running_requests=None,
            waiting_requests=None,
            kv_cache_utilization=None,
            indexed_tokens=0.0,
            prefill_tokens_per_second=2500.0,
        )
        for number in range(free + busy)
    )
    return asdict(PoolView("default/chat", "heliostat", queued, 4 * busy, 4.0, endpoints))


def peer(region: str, state: str = "Connected", reason: str | None = None) -> dict[str, Any]:
    """A peer as /peers gives it."""
    return {
        "region": region,
        "state": state,
        "reason": reason,
        "round_trip_seconds": 0.102,
        "last_seen_seconds": 0.04 if state == "Connected" else 12.0,
        "sent": 420,
        "received": 3,
        "refused": 2,
        "identity": f"spiffe://heliostat.example/region/{region}",
        "address": "127.0.0.1:1",
        "pools": [
            {"pool": "default/chat", "free": 3, "queued": 0, "wait_seconds": 0.0, "load": 1.5}
        ],
    }


def peers(*others: dict[str, Any], siblings: tuple[str, ...] = ()) -> dict[str, Any]:
    """What /peers gives."""
    return {
        "region": "us",
        "router": "us-0",
        "peers": list(others),
        "siblings": [{"router": name, "state": "Connected"} for name in siblings],
    }


def printed(answers: list[Answer], earlier: dict[tuple[str, str], int] | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(overview(answers, earlier))
    return out.getvalue()


@asynccontextmanager
async def serving(pools: object, peering: object = None, status: int = 200) -> AsyncIterator[str]:
    """An admin port with these answers."""
    application = web.Application()

    def answering(value: object) -> Callable[[web.Request], Coroutine[Any, Any, web.Response]]:
        async def handler(_request: web.Request) -> web.Response:
            return web.json_response(value, status=status)

        return handler

    application.router.add_get("/pools", answering(pools))
    if peering is not None:
        application.router.add_get("/peers", answering(peering))
    async with running(application) as url:
        yield url


@asynccontextmanager
async def running(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def status(*arguments: str) -> int:
    """Run the command while servers of this loop answer."""
    return await asyncio.to_thread(main, ["status", *arguments])


async def test_a_federation_is_shown_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Each region's room, who sends where, links that are not well and why."""
    federation = peers(peer("europe"), peer("asia", "Unreachable", "Silent"), siblings=("us-1",))
    async with serving({"pools": [pool(0, 2, queued=5)], "problems": []}, federation) as url:
        assert await status(url) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    region = next(line for line in text.splitlines() if line.startswith("us us-0"))
    assert region.split() == ["us", "us-0", "default/chat", "2", "of", "2", "0", "8", "4.0", "5"]
    to_europe = next(line for line in text.splitlines() if " europe " in line)
    assert to_europe.split() == (
        ["us", "us-0", "europe", "Connected", "102", "ms", "420", "2", "3", "free"]
    )
    assert "Silent, seen 12 s ago" in text
    assert "us us-0 has none free, 5 queued: sends to europe (3 free)" in text
    assert "us-1" in text


async def test_a_real_admin_port_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """What the router process serves is read as it is."""
    seen = PeerReport(
        *(
            "eu",
            LinkState.CONNECTED,
            LinkReason.HEARD,
            0.102,
            0.01,
            7,
            0,
            1,
            "spiffe://x/eu",
            "h:1",
        ),
        writers=("eu-0",),
        pools=(RemotePool("m", 3, 0, 0.0, 1.0),),
    )
    sources = AdminSources(
        registry=CollectorRegistry(),
        views=lambda: (PoolView("default/chat", "heliostat", 0, 0, 4.0, ()),),
        problems=lambda: ["chat.yaml: spec.model is missing"],
        silent_engines=lambda: {f"10.0.0.{n}:8000": "unreachable" for n in range(1, 6)},
        is_ready=lambda: True,
        endpoints=lambda: EndpointsReport(synced=True, endpoints={}),
        peers=lambda: PeersReport("us", "us-0", (seen,), ()),
        requests=lambda _id, _most: (),
    )
    async with running(build_admin(sources)) as url:
        assert await status(url.removeprefix("http://")) == 0
    text = capsys.readouterr().out
    assert "0 of 0" in text
    to_eu = next(line for line in text.splitlines() if " eu " in line and "Connected" in line)
    assert to_eu.split() == ["us", "eu", "Connected", "102", "ms", "7", "1", "3", "free"]
    assert "chat.yaml: spec.model is missing" in " ".join(text.split())
    assert "no metrics from 10.0.0.1:8000 (unreachable), 10.0.0.2:8000" in " ".join(text.split())
    assert "10.0.0.4" not in text
    assert "and 2 more" in " ".join(text.split())


async def test_a_dead_router_is_shown_beside_the_others(
    capsys: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    """Status 1, a line with the reason, and what the others say."""
    dead = f"http://127.0.0.1:{unused_tcp_port}"
    async with serving({"pools": [pool(1, 0)]}, peers()) as url:
        assert await status(url, dead) == 1
        text = capsys.readouterr().out
        assert "1 of 1" in text
        assert "no answer" in text
        assert f"{dead}: Connection refused" in text
        assert await status("--json", url, dead) == 1
    alive, gone = json.loads(capsys.readouterr().out)["routers"]
    assert (alive["region"], alive["pools"][0]["free"]) == ("us", 1)
    assert gone == {"url": dead, "problem": "Connection refused"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [({}, 200), ([1], 200), ("text", 200), ({"pools": [{"pool": 1}]}, 200), ({"pools": []}, 500)],
)
async def test_answers_that_are_no_routers_are_told(
    capsys: pytest.CaptureFixture[str], answer: object, code: int
) -> None:
    """Whatever another server answers there is one line and status 1."""
    async with serving(answer, status=code) as url:
        assert await status(url) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert url in captured.out


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999"])
def test_a_url_that_is_none_is_wrong_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and an example."""
    with pytest.raises(SystemExit) as ended:
        main(["status", url])
    assert ended.value.code == 2
    assert "must be like http://127.0.0.1:9090" in capsys.readouterr().err


def test_what_was_sent_since_the_last_look_stands_beside_the_total() -> None:
    """Watching shows the difference; a restarted router's count begins anew."""
    answer = Answer("u", read_router({"pools": []}, peers(peer("eu"))))
    assert "420 +20" in printed([answer], {("u", "eu"): 400})
    assert "420 +0" in printed([answer], {("u", "eu"): 900})
    assert sent_counts([answer]) == {("u", "eu"): 420}


def test_a_region_with_room_serves_its_own() -> None:
    """Why requests stay is said too, and that nobody has more room."""
    full = {"pools": [pool(0, 1, queued=2)]}
    assert sentence(read_router({"pools": [pool(2, 1)]}, peers(peer("eu")))) == (
        "us serves its own: 2 free"
    )
    assert sentence(read_router(full, peers(peer("eu", "Unreachable")))) == (
        "us has none free, 2 queued: nobody has more room"
    )


def test_each_row_says_which_of_the_regions_routers_it_is_of() -> None:
    """The ends of long pod names are kept: they are what differs. All fits in 80 columns."""
    names = ("heliostat-gateway-7d9c5b8f4-x2k9p", "heliostat-gateway-7d9c5b8f4-q7m4t")
    answers = [
        Answer(
            f"http://10.0.0.{number}:9090",
            read_router(
                {"pools": [pool(1, 0)], "problems": [f"problem {number} of many words" * 4]},
                {**peers(peer("asia-southeast"), siblings=(names[1 - number],)), "router": name},
            ),
        )
        for number, name in enumerate(names)
    ]
    text = printed(answers)
    assert max(len(line) for line in text.splitlines()) <= 80
    regions, sends = text.split("Who sends where")
    for number, end in enumerate(("x2k9p", "q7m4t")):
        assert sum(line.startswith("us ") and f"{end} " in line for line in regions.splitlines())
        rows = [line for line in sends.splitlines() if " asia-southeast " in line]
        (row,) = [line for line in rows if line.startswith("us ") and f"{end} " in line]
        assert row.rstrip().endswith("3 free")
        assert f"us {names[number]} serves its own: 1 free" in text
        assert f"http://10.0.0.{number}:9090: problem {number}" in text


def test_names_from_elsewhere_cannot_steer_the_terminal() -> None:
    """Control characters and markup in a peer's words are shown as text or not at all."""
    federation = peers(peer("eu", "[b]\x1b[2J", "\x07Lost" + "x" * 100))
    text = printed([Answer("u", read_router({"pools": []}, federation))])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[b][2J" in text


def test_numbers_of_another_kind_are_refused() -> None:
    """A text where a number should be is no router's answer."""
    broken = {**peer("eu"), "round_trip_seconds": "soon"}
    with pytest.raises(AnswerError):
        read_router({"pools": []}, peers(broken))
