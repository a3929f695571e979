"""Endpoint addresses as manifests write them: `10.0.0.7:8000`, `[fd00::7]:8000`, port optional."""

import ipaddress
import re
from typing import NamedTuple

_ADDRESS = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<ipv4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
MAX_PORT = 65535
NOT_AN_ADDRESS = (
    'is not an address; write "10.0.0.7:8000" or "[fd00::7]:8000"'
    " (IP addresses only, host names are not resolved)"
)
"""What is said of other text, after the text."""


class AddressError(ValueError):
    """The text is not an endpoint address."""


class Address(NamedTuple):
    """A model server's IP address and port."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        """Write the address in its one canonical form: equal addresses give equal text."""
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def parse_address(text: str, default_port: int) -> Address:
    """Read `ip` or `ip:port`, IPv6 in brackets; AddressError says what is wrong."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise AddressError(f'"{text}" {NOT_AN_ADDRESS}')
    port = int(match["port"]) if match["port"] is not None else default_port
    if not 1 <= port <= MAX_PORT:
        raise AddressError(f'"{text}" has a port out of range; allowed: 1 to {MAX_PORT}')
    return Address(_parse_ip(match, text), port)


def _parse_ip(match: re.Match[str], text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        if match["ipv6"] is not None:
            ip = ipaddress.IPv6Address(match["ipv6"])
        else:
            ip = ipaddress.IPv4Address(match["ipv4"])
    except ValueError as error:
        raise AddressError(f'"{text}" holds no valid IP address: {error}') from error
    if ip.version == 6 and ip.ipv4_mapped is not None:
        raise AddressError(f'"{text}" holds no valid IP address: write {ip.ipv4_mapped} instead')
    if ip.is_unspecified or ip.is_multicast:
        raise AddressError(f'"{text}" is not the address of one server')
    return ip
