"""Who a client is: Envoy checks its API key or its token, and tells the router the tenant's name.

The keys come with the routes, over ADS, and change without restart; those of tokens Envoy fetches
from the issuer. What a client says of its tenant is removed before, and its credentials after.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from envoy.extensions.filters.http.api_key_auth.v3.api_key_auth_pb2 import ApiKeyAuthPerRoute
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import DataSource, HttpUri, TransportSocket
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.route.v3 import RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.api_key_auth.v3 import (
    ApiKeyAuth,
    Forwarding,
    KeySource,
)
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwksAsyncFetch,
    JwtAuthentication,
    JwtClaimToHeader,
    JwtHeader,
    JwtProvider,
    JwtRequirement,
    RemoteJwks,
    RequirementRule,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    UpstreamTlsContext,
)
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.addresses import tcp_address

API_KEYS = "envoy.filters.http.api_key_auth"
TOKENS = "envoy.filters.http.jwt_authn"
ISSUER_CLUSTER = "token-issuer"
_PROVIDER = "issuer"
_KEY_HEADERS = ("authorization", "x-api-key")
_FETCH_SECONDS = 5
_KEYS_SECONDS = 300
_RETRY_FETCH_SECONDS = 5


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Which tokens (JWT, RFC 7519) are good, and what in them names the tenant."""

    issuer: str
    keys_url: str
    """`http` or `https` URL of the issuer's key set (JWKS)."""
    audiences: tuple[str, ...] = ()
    """One of these must be among the token's; none: any is good."""
    tenant_claim: str = "sub"
    authorities: str = "/etc/ssl/certs/ca-certificates.crt"
    """PEM file of those who vouch for the URL's certificate, as Envoy sees it."""


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """How clients prove who they are: by tokens, else by API keys."""

    tokens: TokenSettings | None = None


def identity_filter(identity: ClientIdentity) -> HttpFilter:
    """Refuse whoever does not prove to be a tenant."""
    if identity.tokens is not None:
        return _token_filter(identity.tokens)
    # Without the keys that come with the routes, nobody is let in.
    config = ApiKeyAuth(key_sources=_key_sources(), forwarding=_forwarding())
    return HttpFilter(name=API_KEYS, typed_config=Any.pack(config))


def credentials_config(credentials: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Give the part of a route table that has the keys, each with its tenant.

    It is built with upb: thousands of typed messages would hold requests up for seconds.
    """
    config = ApiKeyAuthPerRoute()
    for key, tenant in credentials:
        config.credentials.add(key=key, client=tenant)
    for name in _KEY_HEADERS:
        config.key_sources.add(header=name)
    config.forwarding.header = wire.TENANT_HEADER
    config.forwarding.hide_credentials = True
    type_url = f"type.googleapis.com/{config.DESCRIPTOR.full_name}"
    return {API_KEYS: Any(type_url=type_url, value=config.SerializeToString())}


def issuer_cluster(tokens: TokenSettings) -> Cluster:
    """Reach the issuer's keys."""
    url = urlsplit(tokens.keys_url)
    host, secure = url.hostname or "", url.scheme == "https"
    endpoint = LbEndpoint(
        endpoint=Endpoint(address=tcp_address(host, url.port or (443 if secure else 80)))
    )
    cluster = Cluster(
        name=ISSUER_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=timedelta(seconds=_FETCH_SECONDS),
        load_assignment=ClusterLoadAssignment(
            cluster_name=ISSUER_CLUSTER,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
    )
    if secure:
        cluster.transport_socket = _verified(host, tokens.authorities)
    return cluster


def _token_filter(tokens: TokenSettings) -> HttpFilter:
    provider = JwtProvider(
        issuer=tokens.issuer,
        audiences=list(tokens.audiences),
        require_expiration=True,
        # Alone: by default Envoy takes tokens from URLs too, which logs and spans show.
        from_headers=[JwtHeader(name="authorization", value_prefix="Bearer ")],
        remote_jwks=RemoteJwks(
            http_uri=HttpUri(
                uri=tokens.keys_url,
                cluster=ISSUER_CLUSTER,
                timeout=timedelta(seconds=_FETCH_SECONDS),
            ),
            cache_duration=timedelta(seconds=_KEYS_SECONDS),
            async_fetch=JwksAsyncFetch(
                fast_listener=True, failed_refetch_duration=timedelta(seconds=_RETRY_FETCH_SECONDS)
            ),
        ),
        claim_to_headers=[
            JwtClaimToHeader(header_name=wire.TENANT_HEADER, claim_name=tokens.tenant_claim)
        ],
    )
    config = JwtAuthentication(
        providers={_PROVIDER: provider},
        rules=[
            RequirementRule(
                match=RouteMatch(prefix="/"), requires=JwtRequirement(provider_name=_PROVIDER)
            )
        ],
    )
    return HttpFilter(name=TOKENS, typed_config=Any.pack(config))


def _key_sources() -> list[KeySource]:
    return [KeySource(header=name) for name in _KEY_HEADERS]


def _forwarding() -> Forwarding:
    return Forwarding(header=wire.TENANT_HEADER, hide_credentials=True)


def _verified(host: str, authorities: str) -> TransportSocket:
    context = UpstreamTlsContext(
        sni=host,
        auto_sni_san_validation=True,
        common_tls_context=CommonTlsContext(
            validation_context=CertificateValidationContext(
                trusted_ca=DataSource(filename=authorities)
            )
        ),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))
