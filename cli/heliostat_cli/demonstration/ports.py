"""Which port the gateway gets. Checked here, for Envoys can share one without noticing."""

import socket

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
