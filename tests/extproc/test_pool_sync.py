"""Pools on their way to the core: what may be picked, and from when on."""

from dataclasses import replace

import pytest

from heliostat_extproc.discovery.catalog import NotSyncedError
from heliostat_extproc.discovery.snapshot import ServedPool, Snapshot
from heliostat_extproc.driver import RouterDriver
from heliostat_extproc.pool_sync import EndpointReport, EndpointsReport, PoolSync
from heliostat_routing.commands import Command, Dispatch
from heliostat_routing.events import Event, PoolUpdated, RequestArrived
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PoolSettings
from heliostat_routing.views import PoolView

ADDRESS = "10.0.0.1:8000"


class FakeCore:
    """Remembers the phase in which each pool's endpoint was told last."""

    def __init__(self) -> None:
        self.phases: dict[str, EndpointPhase] = {}

    def handle(self, event: Event, now: float) -> list[Command]:
        assert isinstance(event, PoolUpdated)
        self.phases[event.pool] = event.endpoints[0].phase
        return []

    def views(self, now: float) -> tuple[PoolView, ...]:
        return ()


def pool(name: str) -> ServedPool:
    return ServedPool(name, PoolSettings(), (EndpointSettings(ADDRESS),))


async def test_an_endpoint_is_ready_in_the_pool_whose_cluster_envoy_has_acknowledged() -> None:
    """The same address in another pool's cluster is not known there yet."""
    core = FakeCore()
    sync = PoolSync(RouterDriver(core), lambda pools: None)
    sync.apply(Snapshot((pool("a"), pool("b"))))
    assert core.phases == {"a": EndpointPhase.STARTING, "b": EndpointPhase.STARTING}
    sync.on_acked({"a": frozenset({ADDRESS})})
    assert core.phases == {"a": EndpointPhase.READY, "b": EndpointPhase.STARTING}
    sync.on_acked({name: frozenset({ADDRESS}) for name in ("a", "b")})
    assert core.phases == {"a": EndpointPhase.READY, "b": EndpointPhase.READY}


async def test_a_pool_that_gets_a_residency_rule_is_published_anew() -> None:
    """Envoy must send nothing there by itself any more, though no address has changed."""
    published: list[frozenset[str]] = []
    sync = PoolSync(RouterDriver(FakeCore()), lambda _: published.append(sync.restricted))
    sync.apply(Snapshot((pool("a"),)))
    ruled = replace(pool("a"), settings=PoolSettings(residency=frozenset({"eu"})))
    sync.apply(Snapshot((ruled,)))
    sync.apply(Snapshot((ruled,)))
    assert published == [frozenset(), frozenset({"a"})]


async def test_the_report_tells_phases_and_requests_of_every_endpoint() -> None:
    """Before the first snapshot nothing is known; then each endpoint is, as the core was told."""
    sync = PoolSync(RouterDriver(FakeCore()), lambda pools: None)
    assert sync.report() == EndpointsReport(synced=False, endpoints={})
    sync.apply(Snapshot((pool("a"),)))
    sync.on_acked({"a": frozenset({ADDRESS})})
    ready = EndpointReport("a", EndpointPhase.READY, inflight=0)
    assert sync.report() == EndpointsReport(synced=True, endpoints={ADDRESS: ready})


async def test_nothing_is_said_of_a_name_before_the_first_snapshot() -> None:
    """A router that has just started must not call a model unknown that its Envoy serves."""
    sync = PoolSync(RouterDriver(FakeCore()), lambda pools: None)
    with pytest.raises(NotSyncedError):
        sync.resolve("llama")
    with pytest.raises(NotSyncedError):
        sync.models()
    sync.apply(Snapshot((pool("a"),)))
    assert sync.resolve("llama") is None
    assert sync.models() == ()


async def test_what_is_known_of_an_engine_outlives_the_pool_that_its_group_was_named_after() -> (
    None
):
    """When the oldest pool of a model goes, the others' engines keep their cached prefixes."""
    driver = RouterDriver(Router())
    sync = PoolSync(driver, lambda pools: None)
    sync.apply(Snapshot((pool("oldest"),)))
    sync.on_acked({"oldest": frozenset({ADDRESS})})
    arrival = RequestArrived(1, "oldest", block_keys=(1, 2, 3), prompt_bytes=1536)
    assert isinstance(driver.arrive(arrival), Dispatch)
    driver.finish(1)

    def known() -> dict[str, float]:
        return {it.pool: it.endpoints[0].indexed_tokens for it in driver.views()}

    before = known()["oldest"]
    assert before > 0
    sync.apply(Snapshot((pool("next"),)))
    assert known() == {"next": before}
