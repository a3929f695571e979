"""The router's Prometheus metrics.

Labels hold only names from manifests, addresses of endpoints and members of closed sets, never what
a client sent. Endpoint gauges are read from the core's views when somebody scrapes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from math import nan

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from heliostat_extproc.conversation import Outcome
from heliostat_extproc.engine_metrics import MetricsProblem
from heliostat_extproc.envoy.access_log import AccessLogServer
from heliostat_extproc.envoy.ads import AdsServer
from heliostat_extproc.errors import Reason
from heliostat_extproc.federation.reports import LinkState, PeerReport
from heliostat_extproc.scraper import FetchProblem
from heliostat_routing.commands import Command, Dispatch, Enqueue, Forward
from heliostat_routing.events import Event, RequestArrived
from heliostat_routing.settings import EndpointPhase
from heliostat_routing.views import BreakerState, EndpointView, PoolView

_DECISION_BUCKETS = (25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 1e-3, 2e-3, 5e-3, 20e-3)
_WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """Counts what happens; observes the driver, the ext_proc service and the scraper."""

    def __init__(self, views: Callable[[], tuple[PoolView, ...]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(_ViewCollector(views))
        # `labels` costs more than the count itself: on the hot path each series is looked up once.
        requests = self._counter("requests", "Requests by how they ended.", "pool", "code")
        decisions = self._counter("decisions", "Decisions by the rule.", "policy", "rule")
        self._requests = cache(requests.labels)
        self._decisions = cache(decisions.labels)
        self._scrapes = self._counter("scrapes", "Scrapes of engines by result.", "result")
        self._core_errors = self._counter("core_errors", "Failures of the routing core.")
        self._protocol_errors = self._counter("ext_proc_protocol_errors", "Senseless messages.")
        self._manifest_problems = Gauge(
            "heliostat_router_manifest_problems",
            "Manifests that are not in force as written.",
            registry=self.registry,
        )
        self._decision_seconds = self._histogram(
            "decision_seconds", "Time the core took for a new request.", _DECISION_BUCKETS
        )
        wait_seconds = self._histogram(
            "queue_wait_seconds", "Time that requests were held.", _WAIT_BUCKETS, "pool"
        )
        self._wait_seconds = cache(wait_seconds.labels)

    def on_handled(self, event: Event, commands: Sequence[Command], seconds: float) -> None:
        """Count the decisions among the commands."""
        if isinstance(event, RequestArrived):
            self._decision_seconds.observe(seconds)
        for command in commands:
            if isinstance(command, Dispatch | Enqueue | Forward):
                why = command.explanation
                self._decisions(why.policy, why.rule).inc()

    def on_core_failed(self) -> None:
        """Count a failure of the core."""
        self._core_errors.inc()

    def on_finished(self, pool: str, outcome: Outcome | Reason) -> None:
        """Count a request."""
        self._requests(pool, outcome.value).inc()

    def on_held(self, pool: str, seconds: float) -> None:
        """Note how long a request was held."""
        self._wait_seconds(pool).observe(seconds)

    def on_protocol_error(self) -> None:
        """Count a message of Envoy's that made no sense."""
        self._protocol_errors.inc()

    def on_scraped(self, problem: FetchProblem | MetricsProblem | None) -> None:
        """Count a scrape."""
        self._scrapes.labels("ok" if problem is None else problem.value).inc()

    def watch_envoy(self, ads: AdsServer, access_log: AccessLogServer) -> None:
        """Show what Envoy's side counts."""
        self._gauge("envoy_connections", "Connected Envoys.", lambda: ads.connected)
        counts = (
            ("envoy_refused_updates", "Updates that Envoy refused.", lambda: ads.refusals),
            (
                "access_log_malformed_entries",
                "Entries of Envoy's log that could not be read.",
                lambda: access_log.malformed_entries,
            ),
            (
                "access_log_unjoined_entries",
                "Entries of Envoy's log without a ticket.",
                lambda: access_log.unjoined_entries,
            ),
        )
        self.registry.register(_CountCollector(counts))

    def watch_discovery(self, age_seconds: Callable[[], float]) -> None:
        """Show how old the view of the pools may be."""
        self._gauge(
            "discovery_age_seconds",
            "Since the source of the pools was last heard; 30 s are normal where nothing changes.",
            age_seconds,
        )

    def watch_peers(self, reports: Callable[[], tuple[PeerReport, ...]]) -> None:
        """Show how other regions are heard, and what goes to them and comes from them."""
        self.registry.register(_PeerCollector(reports))

    def watch_certificate(self, seconds_left: Callable[[], float | None]) -> None:
        """Show how long the region's certificate is still valid."""

        def read() -> float:
            left = seconds_left()
            return nan if left is None else left

        self._gauge(
            "region_certificate_expires_seconds",
            "Until the region's certificate in use expires; negative once it has, NaN without one.",
            read,
        )

    def on_manifests_read(self, problem_count: int) -> None:
        """Note how many manifests are faulty now."""
        self._manifest_problems.set(problem_count)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        gauge = Gauge(f"heliostat_router_{name}", text, registry=self.registry)
        gauge.set_function(read)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"heliostat_router_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        full_name = f"heliostat_router_{name}"
        return Histogram(full_name, text, labels, buckets=buckets, registry=self.registry)


class _CountCollector(Collector):
    """Shows counts that others keep."""

    def __init__(self, counts: Sequence[tuple[str, str, Callable[[], int]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Read every count."""
        for name, text, read in self._counts:
            yield CounterMetricFamily(f"heliostat_router_{name}", text, value=read())


class _PeerCollector(Collector):
    """Turns the links to other regions into gauges and counts."""

    def __init__(self, reports: Callable[[], tuple[PeerReport, ...]]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        """Describe every peer as it is now."""
        peers = self._reports()
        for name, text, read in _PEER_GAUGES:
            gauge = GaugeMetricFamily(f"heliostat_router_peer_{name}", text, labels=["region"])
            for peer in peers:
                value = read(peer)
                if value is not None:
                    gauge.add_metric([peer.region], value)
            yield gauge
        for name, text, read_count in _PEER_COUNTS:
            count = CounterMetricFamily(f"heliostat_router_peer_{name}", text, labels=["region"])
            for peer in peers:
                count.add_metric([peer.region], read_count(peer))
            yield count

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: the links may not be there yet."""
        return iter(())


class _ViewCollector(Collector):
    """Turns the core's views into gauges."""

    def __init__(self, views: Callable[[], tuple[PoolView, ...]]) -> None:
        self._views = views

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Describe every pool and endpoint as it is now."""
        pools = self._views()
        for name, text, read_pool in _POOL_GAUGES:
            family = GaugeMetricFamily(f"heliostat_router_pool_{name}", text, labels=["pool"])
            for pool in pools:
                family.add_metric([pool.pool], read_pool(pool))
            yield family
        for name, text, read_endpoint in _ENDPOINT_GAUGES:
            family = GaugeMetricFamily(
                f"heliostat_router_endpoint_{name}", text, labels=["pool", "endpoint"]
            )
            for pool in pools:
                for endpoint in pool.endpoints:
                    value = read_endpoint(endpoint)
                    if value is not None:
                        family.add_metric([pool.pool, endpoint.address], value)
            yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name nothing in advance: the core may not be there yet."""
        return iter(())


_POOL_GAUGES: tuple[tuple[str, str, Callable[[PoolView], float]], ...] = (
    ("queued_requests", "Requests that are held.", lambda pool: pool.queued),
    ("inflight_requests", "Requests sent and not finished.", lambda pool: pool.inflight),
    ("bytes_per_token", "Prompt bytes per token, as learned.", lambda pool: pool.bytes_per_token),
)

_PEER_GAUGES: tuple[tuple[str, str, Callable[[PeerReport], float | None]], ...] = (
    (
        "reachable",
        "Heard now (1), or not (0).",
        lambda peer: peer.state is not LinkState.UNREACHABLE,
    ),
    ("round_trip_seconds", "Round trip to it.", lambda peer: peer.round_trip_seconds),
    ("last_seen_seconds", "Since it was heard.", lambda peer: peer.last_seen_seconds),
)

_PEER_COUNTS: tuple[tuple[str, str, Callable[[PeerReport], int]], ...] = (
    ("sent_requests", "Requests sent there.", lambda peer: peer.sent),
    ("refused_requests", "Of those, came back unserved.", lambda peer: peer.refused),
    ("received_requests", "Requests that came from there.", lambda peer: peer.received),
)

_ENDPOINT_GAUGES: tuple[tuple[str, str, Callable[[EndpointView], float | None]], ...] = (
    ("ready", "Takes new requests (1) or drains (0).", lambda e: e.phase is EndpointPhase.READY),
    ("available", "Would take a request at once.", lambda e: e.available),
    (
        "breaker_closed",
        "Not kept away from by failures.",
        lambda e: e.breaker is BreakerState.CLOSED,
    ),
    ("inflight_requests", "Requests sent and not finished.", lambda e: e.inflight),
    ("pending_requests", "In flight and predicted not to run yet.", lambda e: e.pending),
    ("running_requests", "Running, as the engine says.", lambda e: e.running_requests),
    ("waiting_requests", "Waiting, as the engine says.", lambda e: e.waiting_requests),
    ("kv_cache_utilization_ratio", "KV cache in use.", lambda e: e.kv_cache_utilization),
    ("indexed_tokens", "Tokens in the prefix index.", lambda e: e.indexed_tokens),
    (
        "prefill_tokens_per_second",
        "Prefill rate, as learned.",
        lambda e: e.prefill_tokens_per_second,
    ),
)
