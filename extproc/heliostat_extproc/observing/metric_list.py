"""Every metric of the router, declared once: what is counted, the pages and the dashboard follow.

Names and labels are stable: they only change with a word in the changelog. Labels hold names from
manifests, addresses of endpoints and members of closed sets, never what a client has sent.
"""

from dataclasses import dataclass
from enum import StrEnum

PREFIX = "heliostat_router_"


class MetricKind(StrEnum):
    """Types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` is as in queries, but for the suffixes of a histogram's series."""

    name: str
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_LATENCY_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 320.0),
)
_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.5, 1.0, 2.5),
)
_WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DECISION_BUCKETS = (25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 1e-3, 2e-3, 5e-3, 20e-3)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}_total", MetricKind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", MetricKind.GAUGE, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", MetricKind.HISTOGRAM, text, labels, buckets)


REQUESTS = _counter(
    "requests",
    "Requests by how they ended: `served`, `served-elsewhere`, `refused-by-engine`,"
    " `engine-failed`, `client-left`, `answered-here`, `fell-open`, `dispatched` (its end is not"
    " known), or the reason of an error.",
    *("pool", "outcome"),
)
REQUEST_SECONDS = _histogram(
    "request_duration_seconds",
    "End to end: from the whole request to the end of its answer, of requests that were served.",
    _LATENCY_BUCKETS,
    "pool",
)
TTFT_SECONDS = _histogram(
    "time_to_first_token_seconds",
    "From the whole request to the first byte of the answer's body, waiting here included. Of"
    " streams alone.",
    _LATENCY_BUCKETS,
    "pool",
)
TPOT_SECONDS = _histogram(
    "time_per_output_token_seconds",
    "Mean time between two tokens of a request, of streams whose engine tells the usage.",
    _TOKEN_BUCKETS,
    "pool",
)
PROMPT_TOKENS = _counter("prompt_tokens", "Tokens of prompts, as the engines' usage tells.", "pool")
CACHED_TOKENS = _counter("cached_tokens", "Of those, found in an engine's prefix cache.", "pool")
OUTPUT_TOKENS = _counter("output_tokens", "Tokens that engines have generated.", "pool")
RETRIES = _counter("retries", "Further attempts at endpoints, after one that failed.", "pool")
FAILED_ATTEMPTS = _counter(
    "failed_attempts", "Attempts at endpoints that failed before the response headers.", "pool"
)
FORWARDS = _counter(
    "forwards", "Times that a request was sent to another region.", *("pool", "region")
)
GIVEN_BACK = _counter(
    "given_back",
    "Times that a request came back unanswered, from a region or from endpoints, to be decided"
    " anew.",
    "pool",
)

DECISIONS = _counter("decisions", "Decisions by the rule that made them.", *("policy", "rule"))
DECISION_SECONDS = _histogram(
    "decision_seconds", "Time that the core takes for a new request.", _DECISION_BUCKETS
)
QUEUE_SECONDS = _histogram(
    "queue_wait_seconds", "Time that requests were held, of those that were.", _WAIT_BUCKETS, "pool"
)
CORE_ERRORS = _counter("core_errors", "Failures of the routing core: those requests fell open.")

POOL_QUEUED = _gauge("pool_queued_requests", "Requests that are held.", "pool")
POOL_INFLIGHT = _gauge("pool_inflight_requests", "Requests sent and not finished.", "pool")
POOL_BYTES_PER_TOKEN = _gauge("pool_bytes_per_token", "Prompt bytes per token, as learned.", "pool")


def _of_endpoint(name: str, text: str) -> Metric:
    return _gauge(f"endpoint_{name}", text, "pool", "endpoint")


ENDPOINT_READY = _of_endpoint("ready", "Takes new requests (1) or drains (0).")
ENDPOINT_AVAILABLE = _of_endpoint("available", "Would take a request at once (1).")
ENDPOINT_BREAKER_CLOSED = _of_endpoint(
    "breaker_closed", "Not kept away from by failures or silence (1)."
)
ENDPOINT_INFLIGHT = _of_endpoint("inflight_requests", "Requests sent and not finished.")
ENDPOINT_PENDING = _of_endpoint("pending_requests", "In flight and predicted not to run yet.")
ENDPOINT_RUNNING = _of_endpoint("running_requests", "Running, as the engine says.")
ENDPOINT_WAITING = _of_endpoint("waiting_requests", "Waiting, as the engine says.")
ENDPOINT_KV = _of_endpoint("kv_cache_utilization_ratio", "KV cache in use.")
ENDPOINT_INDEXED_TOKENS = _of_endpoint("indexed_tokens", "Tokens in the prefix index.")
ENDPOINT_PREFILL = _of_endpoint("prefill_tokens_per_second", "Prefill rate, as learned.")

PEER_REACHABLE = _gauge("peer_reachable", "Heard now (1), or not (0).", "region")
PEER_ROUND_TRIP = _gauge("peer_round_trip_seconds", "Round trip to it.", "region")
PEER_LAST_SEEN = _gauge("peer_last_seen_seconds", "Since it was heard.", "region")
PEER_SENT = _counter("peer_sent_requests", "Requests sent there.", "region")
PEER_REFUSED = _counter("peer_refused_requests", "Of those, came back unserved.", "region")
PEER_RECEIVED = _counter("peer_received_requests", "Requests that came from there.", "region")
CERTIFICATE_EXPIRES = _gauge(
    "region_certificate_expires_seconds",
    "Until the region's certificate in use expires; negative once it has, NaN without one.",
)

TENANT_INFLIGHT = _gauge("tenant_inflight_requests", "Open requests of a tenant.", "tenant")
TENANT_REQUESTS = _counter(
    "tenant_requests",
    "Requests of a tenant: `admitted`, `rate-limited` or `inflight-limited`.",
    *("tenant", "outcome"),
)

SCRAPES = _counter("scrapes", "Scrapes of engines by result: `ok`, or what was wrong.", "result")
DISCOVERY_AGE = _gauge(
    "discovery_age_seconds",
    "Since the source of the pools was last heard; 30 s are normal where nothing changes.",
)
MANIFEST_PROBLEMS = _gauge("manifest_problems", "Manifests that are not in force as written.")
ENVOY_CONNECTIONS = _gauge("envoy_connections", "Connected Envoys.")
ENVOY_REFUSED_UPDATES = _counter("envoy_refused_updates", "Updates that Envoy refused.")
PROTOCOL_ERRORS = _counter("ext_proc_protocol_errors", "Senseless messages of an Envoy.")
LOG_MALFORMED = _counter(
    "access_log_malformed_entries", "Entries of Envoy's log that could not be read."
)
LOG_UNJOINED = _counter(
    "access_log_unjoined_entries",
    "Entries of Envoy's log without a ticket: turned away, or not seen by this router.",
)
LOG_LOST_LINES = _counter(
    "access_log_lost_lines", "Lines of the router's access log that could not be written in time."
)
LOST_SPANS = _counter("trace_lost_spans", "Spans that no collector has taken in time.")

GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Requests",
        (
            *(REQUESTS, REQUEST_SECONDS, TTFT_SECONDS, TPOT_SECONDS),
            *(PROMPT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS),
            *(RETRIES, FAILED_ATTEMPTS, FORWARDS, GIVEN_BACK),
        ),
    ),
    ("Decisions", (DECISIONS, DECISION_SECONDS, QUEUE_SECONDS, CORE_ERRORS)),
    ("Pools", (POOL_QUEUED, POOL_INFLIGHT, POOL_BYTES_PER_TOKEN)),
    (
        "Endpoints",
        (
            *(ENDPOINT_READY, ENDPOINT_AVAILABLE, ENDPOINT_BREAKER_CLOSED),
            *(ENDPOINT_INFLIGHT, ENDPOINT_PENDING, ENDPOINT_RUNNING, ENDPOINT_WAITING),
            *(ENDPOINT_KV, ENDPOINT_INDEXED_TOKENS, ENDPOINT_PREFILL),
        ),
    ),
    (
        "Other regions",
        (
            *(PEER_REACHABLE, PEER_ROUND_TRIP, PEER_LAST_SEEN),
            *(PEER_SENT, PEER_REFUSED, PEER_RECEIVED, CERTIFICATE_EXPIRES),
        ),
    ),
    ("Tenants", (TENANT_REQUESTS, TENANT_INFLIGHT)),
    (
        "The router itself",
        (
            *(SCRAPES, DISCOVERY_AGE, MANIFEST_PROBLEMS),
            *(ENVOY_CONNECTIONS, ENVOY_REFUSED_UPDATES, PROTOCOL_ERRORS),
            *(LOG_MALFORMED, LOG_UNJOINED, LOG_LOST_LINES, LOST_SPANS),
        ),
    ),
)
"""All of them, as the pages show them."""

METRICS: tuple[Metric, ...] = tuple(metric for _, metrics in GROUPS for metric in metrics)
