"""What breaks, and how it comes back: faults as actions on the world's timeline."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request
from heliostat_sim.world.settings import Fault, FaultKind

if TYPE_CHECKING:  # the world schedules its faults
    from heliostat_sim.world.world import World


def schedule_faults(world: "World") -> None:
    """Put every fault of the world's settings, and its mending, on the timeline."""
    break_of: dict[FaultKind, Callable[[World, Fault], None]] = {
        FaultKind.ENGINE: _break_engine,
        FaultKind.GATEWAY: _break_gateways,
        FaultKind.POD: _break_pod,
        FaultKind.LINK: _cut_link,
        FaultKind.REGION: _break_region,
        FaultKind.SLOW: lambda world, fault: _set_speed(world, fault, fault.speed_ratio),
    }
    mend_of: dict[FaultKind, Callable[[World, Fault], None]] = {
        FaultKind.ENGINE: _mend_engine,
        FaultKind.GATEWAY: _mend_gateways,
        FaultKind.POD: _mend_pod,
        FaultKind.LINK: lambda world, fault: world.network.mend(fault.region, fault.other_region),
        FaultKind.REGION: _mend_region,
        FaultKind.SLOW: lambda world, fault: _set_speed(world, fault, 1.0),
    }
    for fault in world.settings.faults:
        broken, mended = break_of[fault.kind], mend_of[fault.kind]
        world.loop.at(fault.at_seconds, lambda f=fault, act=broken: act(world, f))  # type: ignore[misc]
        mended_at = fault.at_seconds + fault.lasts_seconds
        world.loop.at(mended_at, lambda f=fault, act=mended: act(world, f))  # type: ignore[misc]


def _kill(world: "World", engine: EngineHost) -> None:
    if not engine.alive:
        return
    world.note_totals(engine)
    lost = engine.kill()
    for request in lost:
        world.break_off(request)
    world.loop.after(world.settings.health_seconds, world.list_engines)


def _revive(world: "World", engine: EngineHost) -> None:
    """Bring an engine back; of faults that overlap the first to be mended does."""
    if not engine.alive:
        engine.restart()
        world.list_engines()


def _break_engine(world: "World", fault: Fault) -> None:
    _kill(world, world.engines[fault.region][fault.engine])


def _mend_engine(world: "World", fault: Fault) -> None:
    _revive(world, world.engines[fault.region][fault.engine])


def _break_gateways(world: "World", fault: Fault) -> None:
    for gateway in world.all_gateways_of(fault.region):
        gateway.alive = False
        for request in gateway.stop():
            world.break_off(request)


def _mend_gateways(world: "World", fault: Fault) -> None:
    for gateway in world.all_gateways_of(fault.region):
        if not gateway.alive:
            gateway.restart()


def _break_pod(world: "World", fault: Fault) -> None:
    gateway = world.all_gateways_of(fault.region)[fault.gateway]
    if gateway.alive:
        streams = [*gateway.open.values(), *gateway.lent.values()]
        gateway.alive = False
        gateway.stop()
        for request in streams:
            world.break_off(request)


def _mend_pod(world: "World", fault: Fault) -> None:
    gateway = world.all_gateways_of(fault.region)[fault.gateway]
    if not gateway.alive:
        gateway.restart()


def _cut_link(world: "World", fault: Fault) -> None:
    """Cut a link, and with it the streams that cross it."""
    world.network.cut(fault.region, fault.other_region)
    for request in list(world.open.values()):
        if request.ending is None and not _holds_together(world, request):
            world.break_off(request)


def _holds_together(world: "World", request: Request) -> bool:
    """Whether ingress, placing gateway and engine of a request reach each other."""
    ingress, gateway, engine = request.ingress, request.gateway, request.engine
    if gateway is None:
        return True
    reaches = world.network.reaches
    in_engine = engine is not None and request.id in engine.requests
    return reaches(ingress.region, gateway.region) and (
        not in_engine or reaches(gateway.region, engine.region)
    )


def _break_region(world: "World", fault: Fault) -> None:
    for request in list(world.open.values()):
        if request.ingress is not None and request.ingress.region == fault.region:
            world.break_off(request)
    _break_gateways(world, fault)
    for engine in world.engines[fault.region]:
        _kill(world, engine)


def _mend_region(world: "World", fault: Fault) -> None:
    for engine in world.engines[fault.region]:
        if not engine.alive:
            engine.restart()
    _mend_gateways(world, fault)
    world.list_engines()


def _set_speed(world: "World", fault: Fault, ratio: float) -> None:
    world.engines[fault.region][fault.engine].set_speed(ratio)
