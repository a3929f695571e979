"""Which ports gateways get. Checked here, for Envoys can share one without noticing."""

import random
import socket
from contextlib import ExitStack, suppress

_HOST = "127.0.0.1"
_USUAL_PORT = 8080
_PORTS = range(20_000, 32_000)
"""Below those of outgoing connections (Linux: 32768 to 60999)."""


class PortError(RuntimeError):
    """The port that was asked for is taken."""


def choose_port(wanted: int | None) -> int:
    """The wanted port; without one, the usual port if it is free, else any free one.

    Raises PortError if the wanted port cannot be had.
    """
    if wanted is not None:
        return _bind(wanted)
    try:
        return _bind(_USUAL_PORT)
    except PortError:
        return _bind(0)


def free_ports(count: int) -> list[int]:
    """So many free ports, no two alike. Raises PortError.

    None of them is one that the kernel gives to outgoing connections, as Linux is set up: such a
    port may be taken again before its gateway listens.
    """
    candidates = random.sample(_PORTS, len(_PORTS))
    with ExitStack() as stack:
        found: list[int] = []
        for port in candidates:
            if len(found) == count:
                break
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((_HOST, port))
                found.append(port)
    if len(found) < count:
        raise PortError(f"there are no {count} free ports on {_HOST}")
    return found


def _bind(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
            probe.listen()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such port"
            raise PortError(f"cannot listen on {_HOST}:{port}: {reason}") from error
        return int(probe.getsockname()[1])
