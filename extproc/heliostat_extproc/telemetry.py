"""The router's Prometheus metrics: what counts them, each as `observing.metric_list` declares it.

Gauges of pools, endpoints and regions are read from views when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import nan

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from heliostat_extproc.engine_metrics import MetricsProblem
from heliostat_extproc.envoy.access_log import AccessLogServer
from heliostat_extproc.envoy.ads import AdsServer
from heliostat_extproc.federation.reports import LinkState, PeerReport
from heliostat_extproc.observing import metric_list as metrics
from heliostat_extproc.observing.instruments import CounterFamily, HistogramFamily, Instruments
from heliostat_extproc.scraper import FetchProblem
from heliostat_extproc.tenancy.admission import TenantReport
from heliostat_routing.commands import Command, Dispatch, Enqueue, Forward
from heliostat_routing.events import Event, RequestArrived
from heliostat_routing.settings import EndpointPhase
from heliostat_routing.views import BreakerState, EndpointView, PoolView

_Read = Callable[[], float]
_EXPLAINED = (Dispatch, Enqueue, Forward)


class Telemetry:
    """Counts what happens; observes the driver and the scraper."""

    def __init__(self, views: Callable[[], tuple[PoolView, ...]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_ViewCollector(views))
        self._decisions = CounterFamily(metrics.DECISIONS)
        self._decision_seconds = HistogramFamily(metrics.DECISION_SECONDS)
        self._queue_seconds = HistogramFamily(metrics.QUEUE_SECONDS)
        self._scrapes = CounterFamily(metrics.SCRAPES)
        self._core_errors = CounterFamily(metrics.CORE_ERRORS)
        self._protocol_errors = CounterFamily(metrics.PROTOCOL_ERRORS)
        self._manifest_problems = 0
        own = (
            *(self._decisions, self._decision_seconds, self._queue_seconds),
            *(self._scrapes, self._core_errors, self._protocol_errors),
        )
        self.registry.register(Instruments(own))
        self._show((metrics.MANIFEST_PROBLEMS, lambda: self._manifest_problems))

    def on_handled(self, event: Event, commands: Sequence[Command], seconds: float) -> None:
        """Count the decisions among the commands."""
        if isinstance(event, RequestArrived):
            self._decision_seconds.at().observe(seconds)
        for command in commands:
            if isinstance(command, _EXPLAINED):
                why = command.explanation
                self._decisions.at(why.policy, why.rule).add()

    def on_core_failed(self) -> None:
        """Count a failure of the core."""
        self._core_errors.at().add()

    def on_held(self, pool: str, seconds: float) -> None:
        """Note how long a request was held."""
        self._queue_seconds.at(pool).observe(seconds)

    def on_protocol_error(self) -> None:
        """Count a message of Envoy's that made no sense."""
        self._protocol_errors.at().add()

    def on_scraped(self, problem: FetchProblem | MetricsProblem | None) -> None:
        """Count a scrape."""
        self._scrapes.at("ok" if problem is None else problem.value).add()

    def watch_envoy(self, ads: AdsServer, access_log: AccessLogServer) -> None:
        """Show what Envoy's side counts."""
        self._show(
            (metrics.ENVOY_CONNECTIONS, lambda: ads.connected),
            (metrics.ENVOY_REFUSED_UPDATES, lambda: ads.refusals),
            (metrics.LOG_MALFORMED, lambda: access_log.malformed_entries),
            (metrics.LOG_UNJOINED, lambda: access_log.unjoined_entries),
        )

    def watch_discovery(self, age_seconds: _Read) -> None:
        """Show how old the view of the pools may be."""
        self._show((metrics.DISCOVERY_AGE, age_seconds))

    def watch_told(self, lost_lines: _Read, lost_spans: _Read) -> None:
        """Show what of the access log and of traces is lost."""
        self._show((metrics.LOG_LOST_LINES, lost_lines), (metrics.LOST_SPANS, lost_spans))

    def watch_peers(self, reports: Callable[[], tuple[PeerReport, ...]]) -> None:
        """Show how other regions are heard, and what goes to them and comes from them."""
        self.registry.register(_PeerCollector(reports))

    def watch_tenants(self, reports: Callable[[], Sequence[TenantReport]]) -> None:
        """Show what tenants ask for, and what they are refused."""
        self.registry.register(_TenantCollector(reports))

    def watch_certificate(self, seconds_left: Callable[[], float | None]) -> None:
        """Show how long the region's certificate is still valid."""

        def read() -> float:
            left = seconds_left()
            return nan if left is None else left

        self._show((metrics.CERTIFICATE_EXPIRES, read))

    def on_manifests_read(self, problem_count: int) -> None:
        """Note how many manifests are faulty now."""
        self._manifest_problems = problem_count

    def _show(self, *readings: tuple[metrics.Metric, _Read]) -> None:
        self.registry.register(_ReadingCollector(readings))


def _family(metric: metrics.Metric) -> CounterMetricFamily | GaugeMetricFamily:
    if metric.kind is metrics.MetricKind.COUNTER:
        name = metric.name.removesuffix("_total")
        return CounterMetricFamily(name, metric.text, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)


class _ReadingCollector(Collector):
    """Shows single values that others keep."""

    def __init__(self, readings: Iterable[tuple[metrics.Metric, _Read]]) -> None:
        self._readings = tuple(readings)

    def collect(self) -> Iterator[Metric]:
        """Read every value."""
        for metric, read in self._readings:
            family = _family(metric)
            family.add_metric((), read())
            yield family

    def describe(self) -> Iterator[Metric]:
        """Name them without reading: what is read may not be there yet."""
        for metric, _ in self._readings:
            yield _family(metric)


class _PeerCollector(Collector):
    """Turns the links to other regions into gauges and counts."""

    def __init__(self, reports: Callable[[], tuple[PeerReport, ...]]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        """Describe every peer as it is now."""
        peers = self._reports()
        for metric, read in _OF_PEERS:
            family = _family(metric)
            for peer in peers:
                value = read(peer)
                if value is not None:
                    family.add_metric((peer.region,), value)
            yield family

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: the links may not be there yet."""
        return iter(())


class _TenantCollector(Collector):
    """Turns what is known of tenants into gauges and counts; they are those of the tenants file."""

    def __init__(self, reports: Callable[[], Sequence[TenantReport]]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        """Describe every tenant that has asked."""
        inflight = _family(metrics.TENANT_INFLIGHT)
        requests = _family(metrics.TENANT_REQUESTS)
        for report in self._reports():
            inflight.add_metric((report.tenant,), report.inflight)
            for outcome, count in report.outcomes.items():
                requests.add_metric((report.tenant, outcome), count)
        yield inflight
        yield requests

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: nobody may have asked yet."""
        return iter(())


class _ViewCollector(Collector):
    """Turns the core's views into gauges."""

    def __init__(self, views: Callable[[], tuple[PoolView, ...]]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        """Describe every pool and endpoint as it is now."""
        pools = self._views()
        for metric, read_pool in _OF_POOLS:
            family = _family(metric)
            for pool in pools:
                family.add_metric((pool.pool,), read_pool(pool))
            yield family
        for metric, read_endpoint in _OF_ENDPOINTS:
            family = _family(metric)
            for pool in pools:
                for endpoint in pool.endpoints:
                    value = read_endpoint(endpoint)
                    if value is not None:
                        family.add_metric((pool.pool, endpoint.address), value)
            yield family

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: the core may not be there yet."""
        return iter(())


_OF_POOLS: tuple[tuple[metrics.Metric, Callable[[PoolView], float]], ...] = (
    (metrics.POOL_QUEUED, lambda pool: pool.queued),
    (metrics.POOL_INFLIGHT, lambda pool: pool.inflight),
    (metrics.POOL_BYTES_PER_TOKEN, lambda pool: pool.bytes_per_token),
)

_OF_PEERS: tuple[tuple[metrics.Metric, Callable[[PeerReport], float | None]], ...] = (
    (metrics.PEER_REACHABLE, lambda peer: peer.state is not LinkState.UNREACHABLE),
    (metrics.PEER_ROUND_TRIP, lambda peer: peer.round_trip_seconds),
    (metrics.PEER_LAST_SEEN, lambda peer: peer.last_seen_seconds),
    (metrics.PEER_SENT, lambda peer: peer.sent),
    (metrics.PEER_REFUSED, lambda peer: peer.refused),
    (metrics.PEER_RECEIVED, lambda peer: peer.received),
)

_OF_ENDPOINTS: tuple[tuple[metrics.Metric, Callable[[EndpointView], float | None]], ...] = (
    (metrics.ENDPOINT_READY, lambda e: e.phase is EndpointPhase.READY),
    (metrics.ENDPOINT_AVAILABLE, lambda e: e.available),
    (metrics.ENDPOINT_BREAKER_CLOSED, lambda e: e.breaker is BreakerState.CLOSED),
    (metrics.ENDPOINT_INFLIGHT, lambda e: e.inflight),
    (metrics.ENDPOINT_PENDING, lambda e: e.pending),
    (metrics.ENDPOINT_RUNNING, lambda e: e.running_requests),
    (metrics.ENDPOINT_WAITING, lambda e: e.waiting_requests),
    (metrics.ENDPOINT_KV, lambda e: e.kv_cache_utilization),
    (metrics.ENDPOINT_INDEXED_TOKENS, lambda e: e.indexed_tokens),
    (metrics.ENDPOINT_PREFILL, lambda e: e.prefill_tokens_per_second),
)
