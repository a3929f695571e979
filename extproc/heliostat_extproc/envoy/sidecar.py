"""What an Envoy that someone else starts needs from the router: its configuration and a way to end.

Each file appears whole, since Envoy may start at any time.
"""

from dataclasses import dataclass
from pathlib import Path

from heliostat_extproc.envoy.active_requests import REQUEST_STATS, STATE_STREAMS_STAT
from heliostat_extproc.envoy.bootstrap import BootstrapSettings, bootstrap_json
from heliostat_extproc.envoy.client_identity import ClientIdentity
from heliostat_extproc.envoy.client_tls import ClientTls, sds_json
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.observing.trace_settings import TraceSettings

_DRAIN_BODY = Path(__file__).with_name("drain.sh")


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """Where Envoy's files go, and what they say."""

    folder: Path
    router_socket: Path
    listen_address: str = "0.0.0.0"  # noqa: S104 - a gateway listens for everyone
    listen_port: int = 8080
    admin_port: int = 15000
    """Envoy's admin interface, on loopback."""
    ready_port: int = 15001
    """Where Envoy says whether it should get traffic."""
    tls_certificate: Path | None = None
    """PEM file of the certificate for clients, as Envoy sees it; None: no TLS."""
    tls_key: Path | None = None
    """PEM file of its private key, as Envoy sees it."""
    tls_port: int = 8443
    client_identity: ClientIdentity | None = None
    """How clients prove which tenant they are; None: whoever reaches the gateway may ask."""
    federation: FederationSettings | None = None
    """How other gateways come in; its sockets are as Envoy sees them."""
    traces: TraceSettings | None = None
    """Where Envoy tells of its spans."""
    body_limit_bytes: int = 32 * 1024 * 1024
    drain_seconds: float = 30.0
    """How long requests in flight may take to end."""


def sidecar_files(settings: SidecarSettings) -> dict[str, str]:
    """Give the files by name; `envoy.json` last, which tells that all are there."""
    tls = _client_tls(settings)
    files = {"drain.sh": drain_script(settings.admin_port, settings.drain_seconds)}
    if tls is not None:
        files[tls.sds_file.name] = sds_json(tls)
    files["envoy.json"] = bootstrap_json(
        BootstrapSettings(
            router_socket=settings.router_socket,
            admin=settings.admin_port,
            listen_address=settings.listen_address,
            listen_port=settings.listen_port,
            client_tls=tls,
            client_identity=settings.client_identity,
            ready_port=settings.ready_port,
            body_limit_bytes=settings.body_limit_bytes,
            federation=settings.federation,
            traces=settings.traces,
        )
    )
    return files


def drain_script(admin_port: int, drain_seconds: float) -> str:
    """Write the bash script that ends the work of the Envoy with this admin port."""
    settings = (
        f"admin_port={admin_port}",
        f"default_limit={drain_seconds:.0f}",
        f"request_stats=({' '.join(REQUEST_STATS)})",
        f"state_streams_stat={STATE_STREAMS_STAT}",
    )
    return "\n".join(("#!/bin/bash", *settings, "", _DRAIN_BODY.read_text()))


def publish_files(folder: Path, files: dict[str, str]) -> None:
    """Put the files there, each in one step; OSError where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        draft = folder / f".{name}.draft"
        draft.write_text(text)
        draft.replace(folder / name)


def _client_tls(settings: SidecarSettings) -> ClientTls | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return ClientTls(
        certificate=settings.tls_certificate.absolute(),
        key=settings.tls_key.absolute(),
        sds_file=settings.folder.absolute() / "envoy-tls.json",
        port=settings.tls_port,
    )
