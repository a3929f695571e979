"""What can be set of Envoy's static configuration."""

from dataclasses import dataclass, field
from pathlib import Path

from heliostat_extproc.envoy.client_identity import ClientIdentity
from heliostat_extproc.envoy.client_tls import ClientTls
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.observing.trace_settings import TraceSettings


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """Where Envoy listens, where the router is, and the limits of the listener."""

    router_socket: Path
    """The Unix socket on which the router serves ADS; others lie beside it."""
    admin: Path | int
    """Envoy's own admin interface: a Unix socket, or a port on loopback."""
    listen_address: str = "0.0.0.0"  # noqa: S104 - a gateway listens for everyone
    listen_port: int = 8080
    client_tls: ClientTls | None = None
    """TLS for clients, beside HTTP."""
    client_identity: ClientIdentity | None = None
    """How clients prove which tenant they are; None: whoever reaches the gateway may ask."""
    ready_port: int | None = None
    """Where Envoy says whether it should get traffic; None: nowhere."""
    federation: FederationSettings | None = None
    """How other regions and the region's other gateways come in; None: they do not."""
    node_id: str = "heliostat"
    body_limit_bytes: int = 32 * 1024 * 1024
    """The largest request body; a larger one is answered 413. Conversations with images reach
    tens of megabytes, and each request holds its body in memory until it is answered."""
    message_timeout_seconds: float = 1.0
    """How long the router may think about one message before the request goes on without it."""
    return_timeout_seconds: float = 10.0
    """The same for a request that a peer has given back: without the router's word it goes to the
    pool that it came for, while the router still has it open."""
    max_hold_seconds: float = 3600.0
    """The longest hold that the router may ask for."""
    log_flush_seconds: float = 0.01
    """How long a log entry may wait for others: the ledger learns of a retry this late."""
    max_client_connections: int = 50_000
    """Connections of clients beyond which new ones are closed: each costs Envoy memory."""
    request_headers_timeout_seconds: float = 30.0
    """For a client that never ends its headers."""
    request_timeout_seconds: float = 300.0
    """For a client that never ends its body."""
    traces: TraceSettings | None = None
    """Where Envoy tells of its spans; None: nowhere, and trace contexts go through as they are."""
    runtime: dict[str, object] = field(default_factory=dict)
    """Envoy runtime flags to add."""
