"""TLS towards clients: Envoy reads the certificate from files and takes a new one without restart.

Envoy renews only what comes over SDS, so the bootstrap names an SDS file, and that the certificate.
It watches the folders of certificate and key for files that are moved there, which is how
Kubernetes updates a mounted Secret.
"""

from dataclasses import dataclass
from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    ConfigSource,
    DataSource,
    PathConfigSource,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

_SECRET_NAME = "gateway"  # noqa: S105 - a name in Envoy's configuration


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Where clients reach the gateway over TLS, and with which certificate."""

    certificate: Path
    """PEM file of the certificate chain, as Envoy sees it."""
    key: Path
    """PEM file of the private key, as Envoy sees it."""
    sds_file: Path
    """Where the text of `sds_json` lies."""
    port: int = 8443


def sds_json(tls: ClientTls) -> str:
    """Write the SDS file that names certificate and key."""
    certificate = TlsCertificate(
        certificate_chain=DataSource(filename=str(tls.certificate)),
        private_key=DataSource(filename=str(tls.key)),
    )
    secret = Secret(name=_SECRET_NAME, tls_certificate=certificate)
    return DiscoveryResponse(version_info="1", resources=[Any.pack(secret)]).to_json(indent=2)


def tls_socket(tls: ClientTls) -> TransportSocket:
    """Serve TLS with the certificate of the SDS file, for HTTP/2 and HTTP/1.1."""
    source = ConfigSource(
        path_config_source=PathConfigSource(path=str(tls.sds_file)),
        resource_api_version=ApiVersion.V3,
    )
    context = DownstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_certificate_sds_secret_configs=[
                SdsSecretConfig(name=_SECRET_NAME, sds_config=source)
            ],
            alpn_protocols=["h2", "http/1.1"],
        )
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))
