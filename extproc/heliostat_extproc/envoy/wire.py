"""Every name that the router and its Envoy must agree on, in one place."""

CLUSTER_HEADER = "x-heliostat-cluster"
"""Set by the router on the request: the cluster of its pool. Never sent upstream."""

LB_NAMESPACE = "envoy.lb"
ENDPOINT_KEY = "x-gateway-destination-endpoint"
"""Dynamic metadata `envoy.lb` / this key: `ip:port[,ip:port...]`, the pick and its fallbacks."""

ROUTER_NAMESPACE = "heliostat"
TICKET_KEY = "ticket"
"""Dynamic metadata `heliostat` / this key: joins the end of a request to its pick."""

TICKET_HEADER = "x-heliostat-ticket"
"""Set by the router on the request: joins each attempt to its pick. It goes upstream, because the
log of an attempt sees the request's headers but not its metadata (measured)."""

USAGE_NAMESPACE = "heliostat.usage"
"""Dynamic metadata that Envoy writes with the token counts of an answer."""

STREAM_NAMESPACE = "heliostat.stream"
STREAM_ERROR_KEY = "error-code"
"""Dynamic metadata `heliostat.stream` / this key: the code of an error that came as an event of a
200 stream. vLLM answers so where it is too busy to begin, and where it fails in the middle."""

TTFT_TAG = "ttft"
"""Access log tag: microseconds from the request's first byte upstream to the first body byte."""

UNTRUSTED_HEADER_PREFIXES = ("x-heliostat-", "x-gateway-destination-endpoint", "x-envoy-")
"""Headers that steer routing, retries or time-outs: a client may not set them."""

ROUTER_CLUSTER = "router"
ROUTES_NAME = "pools"
REQUEST_LOG = "requests"
ATTEMPT_LOG = "attempts"
_CLUSTER_PREFIX = "pool:"


def cluster_name(pool: str) -> str:
    """Name the Envoy cluster of a pool."""
    return f"{_CLUSTER_PREFIX}{pool}"


def pool_name(cluster: str) -> str:
    """Name the pool of an Envoy cluster."""
    return cluster.removeprefix(_CLUSTER_PREFIX)
