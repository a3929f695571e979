"""Which ports gateways get. Checked here, for Envoys can share one without noticing."""

import socket
from contextlib import ExitStack

_HOST = "127.0.0.1"
_USUAL_PORT = 8080


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
    """So many free ports, no two alike. Raises PortError."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        try:
            for probe in sockets:
                probe.bind((_HOST, 0))
        except OSError as error:
            raise PortError(f"there is no free port on {_HOST}: {error.strerror}") from error
        return [int(probe.getsockname()[1]) for probe in sockets]


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
