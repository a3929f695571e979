"""Timers of balancers: a port's `call_at`, again and again."""

from collections.abc import Callable

from heliostat_sim.world.balancer import GatewayPort


def repeat(port: GatewayPort, interval_seconds: float, action: Callable[[], None]) -> None:
    """Run the action now and at every interval from now on."""

    def tick() -> None:
        action()
        port.call_at(port.now + interval_seconds, tick)

    tick()
