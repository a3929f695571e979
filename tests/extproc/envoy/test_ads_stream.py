"""The ADS state machine, message by message."""

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from heliostat_extproc.envoy.ads_stream import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    EnvoyStream,
    Offer,
    Version,
)


def offer(number: int, *pools: str) -> Offer:
    """Offer these pools, each with one address of its name."""
    resources = {pool: pool.encode() for pool in pools}
    addresses = {pool: frozenset({pool}) for pool in pools}
    return {
        CLUSTER_TYPE: Version(number, resources),
        ENDPOINT_TYPE: Version(number, resources, addresses),
        ROUTE_TYPE: Version(number, {"pools": b"".join(resources.values())}),
    }


def request(type_url: str, *names: str, nonce: str = "", error: str = "") -> DiscoveryRequest:
    """Write what an Envoy sends."""
    message = DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce)
    if error:
        message.error_detail.message = error
    return message


def sent(stream: EnvoyStream, offered: Offer) -> list[DiscoveryResponse]:
    """List what the stream sends now."""
    return list(stream.responses(offered))


def kinds(responses: list[DiscoveryResponse]) -> list[str]:
    """List the types of responses."""
    return [response.type_url for response in responses]


def settle(stream: EnvoyStream, offered: Offer) -> None:
    """Subscribe to everything and acknowledge until nothing is left to send."""
    names = {
        CLUSTER_TYPE: (),
        ENDPOINT_TYPE: tuple(offered[ENDPOINT_TYPE].resources),
        ROUTE_TYPE: ("pools",),
    }
    for type_url, wanted in names.items():
        stream.on_request(request(type_url, *wanted))
    while responses := sent(stream, offered):
        for response in responses:
            wanted = names[response.type_url]
            stream.on_request(request(response.type_url, *wanted, nonce=response.nonce))


def test_nothing_is_sent_before_there_is_anything_to_say() -> None:
    """A restarted router keeps silent until its first publication."""
    stream = EnvoyStream()
    stream.on_request(request(CLUSTER_TYPE))
    assert sent(stream, {}) == []


def test_routes_come_last() -> None:
    """Clusters and endpoints are acknowledged before a route can lead to them."""
    stream = EnvoyStream()
    stream.on_request(request(CLUSTER_TYPE))
    stream.on_request(request(ROUTE_TYPE, "pools"))
    (clusters,) = sent(stream, offer(1, "a"))
    stream.on_request(request(ENDPOINT_TYPE, "a"))
    (endpoints,) = sent(stream, offer(1, "a"))
    assert kinds([clusters, endpoints]) == [CLUSTER_TYPE, ENDPOINT_TYPE]
    stream.on_request(request(ENDPOINT_TYPE, "a", nonce=endpoints.nonce))
    assert sent(stream, offer(1, "a")) == []
    stream.on_request(request(CLUSTER_TYPE, nonce=clusters.nonce))
    assert kinds(sent(stream, offer(1, "a"))) == [ROUTE_TYPE]


def test_no_pools_is_an_answer_too() -> None:
    """With no pool the Envoy never asks for endpoints and still gets its routes."""
    stream = EnvoyStream()
    stream.on_request(request(CLUSTER_TYPE))
    stream.on_request(request(ROUTE_TYPE, "pools"))
    (clusters,) = sent(stream, offer(1))
    stream.on_request(request(CLUSTER_TYPE, nonce=clusters.nonce))
    assert kinds(sent(stream, offer(1))) == [ROUTE_TYPE]


def test_updates_coalesce_while_one_is_unanswered() -> None:
    """Of many updates only the newest follows the one in flight."""
    stream = EnvoyStream()
    stream.on_request(request(CLUSTER_TYPE))
    (first,) = sent(stream, offer(1, "a"))
    assert sent(stream, offer(2, "a", "b")) == []
    assert sent(stream, offer(3, "a", "b", "c")) == []
    stream.on_request(request(CLUSTER_TYPE, nonce=first.nonce))
    (second,) = sent(stream, offer(3, "a", "b", "c"))
    assert second.version_info == "3"


def test_leaving_cluster_outlives_its_route() -> None:
    """A cluster goes only after the routes without it are acknowledged."""
    stream = EnvoyStream()
    settle(stream, offer(1, "a", "b"))
    clusters, endpoints = sent(stream, offer(2, "a"))
    assert len(clusters.resources) == 2
    stream.on_request(request(CLUSTER_TYPE, nonce=clusters.nonce))
    stream.on_request(request(ENDPOINT_TYPE, "a", "b", nonce=endpoints.nonce))
    (routes,) = sent(stream, offer(2, "a"))
    assert routes.type_url == ROUTE_TYPE
    stream.on_request(request(ROUTE_TYPE, "pools", nonce=routes.nonce))
    (clusters,) = sent(stream, offer(2, "a"))
    assert (clusters.type_url, len(clusters.resources)) == (CLUSTER_TYPE, 1)


def test_new_names_are_answered_and_stale_requests_are_not() -> None:
    """A subscription that grows gets its resources, one that crossed a response on its ACK."""
    stream = EnvoyStream()
    settle(stream, offer(1, "a"))
    clusters, endpoints = sent(stream, offer(2, "a", "b"))
    stream.on_request(request(ENDPOINT_TYPE, "a", "b", nonce="stale"))
    assert sent(stream, offer(2, "a", "b")) == []
    assert len(endpoints.resources) == 1
    stream.on_request(request(ENDPOINT_TYPE, "a", "b", nonce=endpoints.nonce))
    (endpoints,) = sent(stream, offer(2, "a", "b"))
    assert len(endpoints.resources) == 2
    assert clusters.version_info == "2"


def test_only_acknowledged_addresses_count() -> None:
    """Addresses are held from the acknowledgement on, and a refusal changes nothing."""
    stream = EnvoyStream()
    assert stream.acked_addresses is None
    settle(stream, offer(1, "a"))
    assert stream.acked_addresses == {"a": {"a"}}
    _, endpoints = sent(stream, offer(2, "a", "b"))
    answer = stream.on_request(
        request(ENDPOINT_TYPE, "a", "b", nonce=endpoints.nonce, error="no such thing")
    )
    assert answer is not None
    assert answer.refusal == "no such thing"
    assert stream.acked_addresses == {"a": {"a"}}


def test_a_cluster_that_left_while_it_warmed_has_no_endpoints() -> None:
    """An Envoy acknowledges clusters once each has its endpoints, so one that has gone meanwhile
    gets none rather than silence, and newer clusters can follow."""
    stream = EnvoyStream()
    settle(stream, offer(1, "a"))
    clusters, endpoints = sent(stream, offer(2, "a", "b"))
    stream.on_request(request(ENDPOINT_TYPE, "a", "b", nonce=endpoints.nonce))
    [endpoints] = sent(stream, offer(3, "a"))
    assert endpoints.type_url == ENDPOINT_TYPE
    told = [resource.value for resource in endpoints.resources]
    assert told[0] == b"a"
    gone = ClusterLoadAssignment.FromString(told[1])
    assert (gone.cluster_name, len(gone.endpoints)) == ("b", 0)
    stream.on_request(request(ENDPOINT_TYPE, "a", "b", nonce=endpoints.nonce))
    stream.on_request(request(CLUSTER_TYPE, nonce=clusters.nonce))
    assert kinds(sent(stream, offer(3, "a"))) == [CLUSTER_TYPE]


def test_a_pool_that_comes_back_at_once_counts_once_its_new_cluster_is_acknowledged() -> None:
    """Endpoints of a cluster that the Envoy was told to drop are not there any more, whatever was
    acknowledged before."""
    stream = EnvoyStream()
    settle(stream, offer(1, "a", "b"))
    both, without = offer(1, "a", "b"), offer(2, "b")
    gone = {**both, CLUSTER_TYPE: without[CLUSTER_TYPE]}
    [clusters] = sent(stream, gone)
    assert stream.acked_addresses == {"b": frozenset({"b"})}
    back = {**both, CLUSTER_TYPE: Version(3, both[CLUSTER_TYPE].resources)}
    stream.on_request(request(CLUSTER_TYPE, nonce=clusters.nonce))
    [clusters] = sent(stream, back)
    assert stream.acked_addresses == {"b": frozenset({"b"})}
    stream.on_request(request(ENDPOINT_TYPE, "b"))
    stream.on_request(request(ENDPOINT_TYPE, "a", "b"))
    [endpoints] = sent(stream, back)
    stream.on_request(request(ENDPOINT_TYPE, "a", "b", nonce=endpoints.nonce))
    assert stream.acked_addresses == {"a": frozenset({"a"}), "b": frozenset({"b"})}


def test_an_envoy_that_has_dropped_a_cluster_acknowledges_nothing_for_it() -> None:
    """What an Envoy no longer asks for it has not taken, although the response held it."""
    stream = EnvoyStream()
    settle(stream, offer(1, "a", "b"))
    _, endpoints = sent(stream, offer(2, "a", "b"))
    stream.on_request(request(ENDPOINT_TYPE, "b", nonce=endpoints.nonce))
    assert stream.acked_addresses == {"b": frozenset({"b"})}


def test_an_address_counts_no_more_from_when_the_envoy_is_told_to_drop_it() -> None:
    """One that comes back before the answer would meet an Envoy that has just dropped it."""
    stream = EnvoyStream()
    settle(stream, offer(1, "a"))
    without = {**offer(1, "a"), ENDPOINT_TYPE: Version(2, {"a": b""}, {"a": frozenset()})}
    [_] = sent(stream, without)
    assert stream.acked_addresses == {"a": frozenset()}


def test_an_envoy_that_has_refused_all_clusters_waits_for_better_ones() -> None:
    """No route is sent that would lead to clusters that are not there."""
    stream = EnvoyStream()
    settle(stream, offer(1))
    offered = offer(2, "a")
    assert sent(stream, {ROUTE_TYPE: offered[ROUTE_TYPE]}) == []
    assert kinds(sent(stream, offered)) == [CLUSTER_TYPE, ENDPOINT_TYPE]


def with_secret(offered: Offer, number: int, content: bytes = b"s") -> Offer:
    """Add a secret."""
    return {**offered, SECRET_TYPE: Version(number, {"region-certificate": content})}


def test_secrets_wait_for_nothing_and_change_nothing_else() -> None:
    """They are sent before clusters are settled, and a new one is sent alone."""
    stream = EnvoyStream()
    stream.on_request(request(CLUSTER_TYPE))
    stream.on_request(request(SECRET_TYPE, "region-certificate"))
    secrets, clusters = sent(stream, with_secret(offer(1, "a"), 1))
    assert kinds([secrets, clusters]) == [SECRET_TYPE, CLUSTER_TYPE]
    stream.on_request(request(SECRET_TYPE, "region-certificate", nonce=secrets.nonce))
    (renewed,) = sent(stream, with_secret(offer(1, "a"), 2, b"new"))
    assert [it.value for it in renewed.resources] == [b"new"]


def test_without_a_secret_there_is_no_answer() -> None:
    """An Envoy that asks for one is not told that there is none, and gets all else."""
    stream = EnvoyStream()
    stream.on_request(request(SECRET_TYPE, "region-certificate"))
    settle(stream, offer(1, "a"))
    assert stream.acked_addresses == {"a": {"a"}}
    assert sent(stream, offer(1, "a")) == []
