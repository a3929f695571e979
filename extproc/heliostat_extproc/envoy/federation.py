"""Where Envoy and its router meet for federation: a port for peers, and sockets in the pod."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from heliostat_extproc.envoy.addresses import sibling_socket


@dataclass(frozen=True, slots=True)
class FederationSettings:
    """Where other regions' gateways come in, and the Unix sockets between Envoy and the router."""

    listen_port: int
    """For other regions' gateways and the region's own, with certificates."""
    return_socket: Path
    """Envoy's: where it sends a request itself that a peer has not served."""
    links_socket: Path
    """Envoy's: where the router opens its state streams."""
    health_socket: Path
    """The router's: where Envoy asks whether a region is reachable."""
    listen_address: str = "0.0.0.0"  # noqa: S104 - peers come from anywhere

    @classmethod
    def beside(
        cls,
        router_socket: Path,
        listen_port: int,
        listen_address: str = "0.0.0.0",  # noqa: S104 - peers come from anywhere
    ) -> Self:
        """Put the sockets beside the router's own."""
        return cls(
            listen_port=listen_port,
            return_socket=sibling_socket(router_socket, "return"),
            links_socket=sibling_socket(router_socket, "links"),
            health_socket=sibling_socket(router_socket, "health"),
            listen_address=listen_address,
        )
