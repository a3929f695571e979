"""Every name that the router and its Envoy must agree on, in one place."""

from enum import StrEnum

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

POOL_HEADER = "x-heliostat-pool"
"""Set by the router on a request that it forwards: its pool here, for when it comes back."""

ORIGIN_HEADER = "x-heliostat-origin"
HOLD_HEADER = "x-heliostat-hold"
RESIDENCY_HEADER = "x-heliostat-residency"
"""Set on a request that is forwarded, for the peer: the router that has sent it, how many seconds
it may be held there, and where it may be served (names with commas; none: anywhere)."""

PEER_HEADERS = (POOL_HEADER, ORIGIN_HEADER, HOLD_HEADER, RESIDENCY_HEADER)
"""What goes with a request that is forwarded, and is not for engines."""

TENANT_HEADER = "x-heliostat-tenant"
"""Set by Envoy on a client's request: the tenant whose key or token it came with."""

CLIENT_RESIDENCY_HEADER = "x-data-residency"
"""Set by a client: regions and groups where the request may be served, as the header above. It can
only narrow what the pool allows."""

IDENTITY_HEADER = "x-forwarded-client-cert"
"""Set by Envoy on what comes from a peer: the identity in its certificate, which it has verified.
Clients cannot set it."""

DECLARATION_HEADER = "x-heliostat-declaration"
"""Set by the router on a state stream: under which declaration of its destination it is opened."""

NO_RETRY = ("x-envoy-ratelimited", "true")
"""Response header by which Envoy retries no more, whatever the status."""

ENTRANCE_METADATA = "x-heliostat-entrance"
"""gRPC metadata of Envoy's calls to the router: by which of its listeners a request came in."""

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
REQUESTS_CLUSTER = "router-requests"
ROUTES_NAME = "pools"
REQUEST_LOG = "requests"
ATTEMPT_LOG = "attempts"
_CLUSTER_PREFIX = "pool:"
_PEER_PREFIX = "peer:"
_LINK_PREFIX = "link:"


class Entrance(StrEnum):
    """The listeners of Envoy by which requests come in."""

    CLIENTS = "clients"
    FEDERATION = "federation"
    """Other regions' gateways, and state streams; mTLS."""
    RETURN = "return"
    """Envoy itself, with a request that a peer has not served: inside the pod only."""


def cluster_name(pool: str) -> str:
    """Name the Envoy cluster of a pool."""
    return f"{_CLUSTER_PREFIX}{pool}"


def pool_name(cluster: str) -> str:
    """Name the pool of an Envoy cluster."""
    return cluster.removeprefix(_CLUSTER_PREFIX)


def peer_cluster(region: str) -> str:
    """Name the Envoy cluster of requests to a region."""
    return f"{_PEER_PREFIX}{region}"


def link_cluster(destination: str, declaration: str) -> str:
    """Name the Envoy cluster of the state stream to a region, or to a router of this one."""
    return f"{_LINK_PREFIX}{destination}/{declaration}"


def peer_region(cluster: str) -> str | None:
    """Name the region of a peer's cluster; None for any other cluster."""
    return cluster.removeprefix(_PEER_PREFIX) if cluster.startswith(_PEER_PREFIX) else None
