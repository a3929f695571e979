"""Addresses as Envoy takes them."""

import ipaddress
from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import Address, Pipe, SocketAddress

_OWNER_ONLY = 0o600


class AddressError(ValueError):
    """An endpoint address is not `ip:port`, which is all that Envoy takes here."""


def parse_address(address: str) -> tuple[str, int]:
    """Split `ip:port` (`[ip]:port` for IPv6); AddressError where it is anything else."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") else host)
        number = int(port)
    except ValueError as error:
        raise AddressError(f"{address!r} is not ip:port") from error
    if not 0 < number < 65536 or (ip.version == 6) != host.startswith("["):
        raise AddressError(f"{address!r} is not ip:port")
    return str(ip), number


def tcp_address(host: str, port: int) -> Address:
    """Give a port of a host; `::` takes IPv4 too."""
    return Address(
        socket_address=SocketAddress(address=host, port_value=port, ipv4_compat=host == "::")
    )


def pipe_address(path: Path) -> Address:
    """Give a Unix socket of someone else."""
    return Address(pipe=Pipe(path=str(path)))


def sibling_socket(socket: Path, name: str) -> Path:
    """Name a further Unix socket beside this one."""
    return socket.with_name(f"{socket.stem}-{name}.sock")


def requests_socket(router_socket: Path) -> Path:
    """Name the Unix socket on which the router serves ext_proc and the access log."""
    return sibling_socket(router_socket, "requests")


def state_socket(router_socket: Path) -> Path:
    """Name the Unix socket on which the router tells other routers the state."""
    return sibling_socket(router_socket, "state")


def own_pipe_address(path: Path) -> Address:
    """Give a Unix socket that Envoy makes, for its own user alone."""
    return Address(pipe=Pipe(path=str(path), mode=_OWNER_ONLY))
