"""TLS between regions: who proves what with which secret. All secrets come over ADS."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from envoy_data_plane.envoy.config.core.v3 import ConfigSource, DataSource, TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy.control_plane import ads_source
from heliostat_extproc.federation.region_certificate import RegionCertificate

CERTIFICATE_SECRET = "region-certificate"  # noqa: S105 - a name, as are the next two
ALLOWED_SECRET = "region-authority"  # noqa: S105
"""Who may come in: those whom the authority vouches for, with one of the allowed identities."""
AUTHORITY_SECRET = "region-trust"  # noqa: S105
"""The authority alone: each peer's cluster names the one identity that it takes."""

_UNBLOCKED = timedelta(milliseconds=100)
_TLS = "envoy.transport_sockets.tls"
_ALPN = ("h2",)


def region_secrets(certificate: RegionCertificate, allowed: Collection[str]) -> dict[str, Secret]:
    """Give the secrets by name."""
    authority = DataSource(inline_bytes=certificate.authority)
    # The own identity is always among them: an empty list would let everyone in.
    identities = sorted({certificate.identity, *allowed})
    secrets = (
        Secret(
            name=CERTIFICATE_SECRET,
            tls_certificate=TlsCertificate(
                certificate_chain=DataSource(inline_bytes=certificate.certificate),
                private_key=DataSource(inline_bytes=certificate.key),
            ),
        ),
        Secret(
            name=ALLOWED_SECRET,
            validation_context=CertificateValidationContext(
                trusted_ca=authority,
                match_typed_subject_alt_names=[_exactly(it) for it in identities],
            ),
        ),
        Secret(
            name=AUTHORITY_SECRET,
            validation_context=CertificateValidationContext(trusted_ca=authority),
        ),
    )
    return {secret.name: secret for secret in secrets}


def peers_socket() -> TransportSocket:
    """Take connections from peers alone; from nobody while the secrets are not there."""
    # A region without a certificate serves its clients all the same.
    source = ads_source()
    source.initial_fetch_timeout = _UNBLOCKED
    context = DownstreamTlsContext(
        require_client_certificate=True,
        common_tls_context=CommonTlsContext(
            tls_params=_tls_parameters(),
            tls_certificate_sds_secret_configs=[_secret(CERTIFICATE_SECRET, source)],
            validation_context_sds_secret_config=_secret(ALLOWED_SECRET, source),
            alpn_protocols=list(_ALPN),
        ),
    )
    return TransportSocket(name=_TLS, typed_config=Any.pack(context))


def peer_socket(identity: str) -> TransportSocket:
    """Connect to the peer of this identity alone, with the region's own certificate."""
    source = ads_source()
    context = UpstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_params=_tls_parameters(),
            tls_certificate_sds_secret_configs=[_secret(CERTIFICATE_SECRET, source)],
            combined_validation_context=CommonTlsContextCombinedCertificateValidationContext(
                default_validation_context=CertificateValidationContext(
                    match_typed_subject_alt_names=[_exactly(identity)]
                ),
                validation_context_sds_secret_config=_secret(AUTHORITY_SECRET, source),
            ),
            alpn_protocols=list(_ALPN),
        )
    )
    return TransportSocket(name=_TLS, typed_config=Any.pack(context))


def serialized_secrets(
    certificate: RegionCertificate | None, allowed: Collection[str]
) -> Mapping[str, bytes]:
    """Serialize the secrets; none without a certificate."""
    if certificate is None:
        return {}
    return {name: bytes(it) for name, it in region_secrets(certificate, allowed).items()}


def _secret(name: str, source: ConfigSource) -> SdsSecretConfig:
    return SdsSecretConfig(name=name, sds_config=source)


def _exactly(identity: str) -> SubjectAltNameMatcher:
    return SubjectAltNameMatcher(
        san_type=SubjectAltNameMatcherSanType.URI, matcher=StringMatcher(exact=identity)
    )


def _tls_parameters() -> TlsParameters:
    return TlsParameters(
        tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
        tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
    )
