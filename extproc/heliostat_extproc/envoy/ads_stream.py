"""One Envoy's ADS stream as a state machine without I/O: requests in, responses out.

State of the world: clusters first, then endpoints, then routes (make before break). A cluster that
leaves stays until the routes without it are acknowledged. A resource type with an unanswered
response waits, so that any number of updates in between become one. Secrets go at once.
"""

import itertools
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

_TYPE_PREFIX = "type.googleapis.com/"
CLUSTER_TYPE = f"{_TYPE_PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE = f"{_TYPE_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTE_TYPE = f"{_TYPE_PREFIX}envoy.config.route.v3.RouteConfiguration"
SECRET_TYPE = f"{_TYPE_PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"
TYPES = (CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE, SECRET_TYPE)
_ORDERED_TYPES = (CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE)


@dataclass(frozen=True, slots=True)
class Version:
    """All resources of one type at one version; equal numbers of one type are equal content."""

    number: int
    resources: Mapping[str, bytes]
    addresses: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For endpoints only: the addresses in each cluster."""


Offer = Mapping[str, Version]
"""By type URL: the newest version that no Envoy has refused."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An Envoy has acknowledged (`refusal` None) or refused a version."""

    type_url: str
    version: Version
    refusal: str | None


@dataclass(slots=True)
class _Subscription:
    """What one type's last response was, and what the Envoy has made of it."""

    names: frozenset[str] = frozenset()
    nonce: str = ""
    sent: Version | None = None
    sent_names: frozenset[str] = frozenset()
    awaits_answer: bool = False
    held: Version | None = None
    """The last version that was acknowledged."""


class EnvoyStream:
    """What one connected Envoy has asked for, has been sent and has acknowledged."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, _Subscription] = {}
        self._nonces = itertools.count(1)
        self._clusters_sent_with_routes: Mapping[str, bytes] = {}
        self._clusters_behind_routes: Mapping[str, bytes] = {}
        self._clusters_sent: Mapping[str, bytes] | None = None
        self.acked_addresses: Mapping[str, frozenset[str]] | None = None
        """What the Envoy certainly has: the addresses of each cluster that it has acknowledged and
        that nothing sent since takes away. None before the first acknowledgement."""

    def on_request(self, request: DiscoveryRequest) -> Answer | None:
        """Take in a subscription, an acknowledgement or a refusal; stale ones are ignored."""
        if request.type_url not in TYPES:
            return None
        subscription = self._subscriptions.setdefault(request.type_url, _Subscription())
        if request.response_nonce not in ("", subscription.nonce):
            return None
        subscription.names = frozenset(request.resource_names)
        if request.type_url == ENDPOINT_TYPE:
            self._keep_acked(subscription.names)
        if not subscription.awaits_answer:
            subscription.sent = None
            return None
        return self._on_answer(request, subscription)

    def _on_answer(self, request: DiscoveryRequest, subscription: _Subscription) -> Answer | None:
        version = subscription.sent
        if version is None or request.response_nonce != subscription.nonce:
            return None
        subscription.awaits_answer = False
        if request.HasField("error_detail"):
            return Answer(request.type_url, version, request.error_detail.message)
        subscription.held = version
        if request.type_url == ENDPOINT_TYPE:
            self.acked_addresses = {
                name: version.addresses[name]
                for name in subscription.sent_names & subscription.names
                if name in version.addresses
            }
            if self._clusters_sent is not None:
                self._keep_acked(self._clusters_sent)
        if request.type_url == ROUTE_TYPE:
            self._clusters_behind_routes = self._clusters_sent_with_routes
        return Answer(request.type_url, version, None)

    def _keep_acked(self, clusters: Container[str]) -> None:
        """Count on no other clusters: one that comes back must be acknowledged anew."""
        if self.acked_addresses is not None:
            self.acked_addresses = {
                name: addresses
                for name, addresses in self.acked_addresses.items()
                if name in clusters
            }

    def _keep_acked_addresses(self, told: Mapping[str, frozenset[str]]) -> None:
        """Count on no address that the Envoy is told to drop."""
        if self.acked_addresses is not None:
            self.acked_addresses = {
                name: addresses & told.get(name, frozenset())
                for name, addresses in self.acked_addresses.items()
            }

    def responses(self, offer: Offer) -> Iterator[DiscoveryResponse]:
        """Yield what can be sent now; routes wait until clusters and endpoints are settled.

        Endpoints do not wait for the clusters' acknowledgement: Envoy holds that one back until
        the new clusters have their endpoints. Secrets wait for nothing: it has neither clusters nor
        endpoints in force before the secrets that they name.
        """
        secrets = self._subscriptions.get(SECRET_TYPE)
        version = offer.get(SECRET_TYPE)
        if secrets and version and not secrets.awaits_answer and _is_due(secrets, version):
            yield self._respond(SECRET_TYPE, secrets, version, offer)
        settled = True
        for type_url in _ORDERED_TYPES:
            version = offer.get(type_url)
            subscription = self._subscriptions.get(type_url)
            if version is None:  # every version there was has been refused
                settled = False
                continue
            if subscription is None:
                settled &= not version.resources
                continue
            if type_url == CLUSTER_TYPE:
                version = self._with_routed_clusters(version, offer)
            if type_url == ROUTE_TYPE and not settled:
                return
            if not subscription.awaits_answer and _is_due(subscription, version):
                yield self._respond(type_url, subscription, version, offer)
            settled &= not subscription.awaits_answer
            settled &= _covers(type_url, subscription, version)

    def _with_routed_clusters(self, clusters: Version, offer: Offer) -> Version:
        """Keep the clusters that the Envoy's present routes still name."""
        routes = self._subscriptions.get(ROUTE_TYPE)
        wanted = offer.get(ROUTE_TYPE)
        if routes is None or routes.held is None or wanted is None:
            return clusters
        if routes.held.number == wanted.number:
            return clusters
        return Version(clusters.number, {**self._clusters_behind_routes, **clusters.resources})

    def _respond(
        self, type_url: str, subscription: _Subscription, version: Version, offer: Offer
    ) -> DiscoveryResponse:
        names = _sent_names(type_url, subscription, version)
        subscription.nonce = str(next(self._nonces))
        subscription.sent = version
        subscription.sent_names = subscription.names
        subscription.awaits_answer = True
        if type_url == ROUTE_TYPE:
            self._clusters_sent_with_routes = offer[CLUSTER_TYPE].resources
        elif type_url == CLUSTER_TYPE:
            self._clusters_sent = version.resources
            self._keep_acked(version.resources)
        elif type_url == ENDPOINT_TYPE:
            self._keep_acked_addresses(version.addresses)
        response = DiscoveryResponse(
            version_info=str(version.number), nonce=subscription.nonce, type_url=type_url
        )
        for name in names:
            value = version.resources.get(name)
            response.resources.add(
                type_url=type_url, value=_without_endpoints(name) if value is None else value
            )
        return response


def _is_due(subscription: _Subscription, version: Version) -> bool:
    sent = subscription.sent
    if sent is None or sent.number != version.number:
        return True
    if not subscription.names <= subscription.sent_names:
        return True
    return len(sent.resources) != len(version.resources)


def _sent_names(type_url: str, subscription: _Subscription, version: Version) -> list[str]:
    """Name what a response holds.

    An Envoy that asks for the endpoints of a cluster that has left is told that it has none: until
    it hears of each cluster that it was given it acknowledges no clusters, and takes no newer ones.
    """
    if type_url == CLUSTER_TYPE:
        return sorted(version.resources)
    if type_url == ENDPOINT_TYPE:
        return sorted(subscription.names)
    return sorted(subscription.names & version.resources.keys())


def _without_endpoints(cluster: str) -> bytes:
    return bytes(ClusterLoadAssignment(cluster_name=cluster).SerializeToString())


def _covers(type_url: str, subscription: _Subscription, version: Version) -> bool:
    """Whether the Envoy has asked for the endpoints of every cluster that it was given."""
    return type_url != ENDPOINT_TYPE or subscription.names >= version.resources.keys()
