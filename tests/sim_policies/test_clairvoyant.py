"""The clairvoyant, over real engines."""

from heliostat_sim.policies.clairvoyant import Clairvoyant
from heliostat_sim.policies.engine_outlook import EngineOutlook
from heliostat_sim.world.request import Ending, Request

from .fake_port import SMALL, FakePort, Requests


class LivePort(FakePort):
    """Dispatches really, and at once."""

    def dispatch(self, request: Request, engine: object) -> None:
        host = next(e for e in self.engines if e is engine)
        super().dispatch(request, host)
        assert host.submit(request)


def test_goes_where_the_prefix_is_cached() -> None:
    """What is cached costs no prefill."""
    port, make = LivePort(engines=3), Requests()
    balancer = Clairvoyant(port, {})
    first = make((1, 3200))
    port.dispatch(first, port.engines[1])
    port.run(60.0)
    balancer.on_request(make((1, 3200), (2, 100)))
    assert port.places[-1] == "us-1"


def test_goes_where_the_batch_ends_first() -> None:
    """Among engines without room it waits for the one whose requests end first."""
    port, make = LivePort(engines=2, profile=SMALL), Requests()
    balancer = Clairvoyant(port, {})
    long, short = make((1, 1200), output_tokens=300), make((2, 1200), output_tokens=50)
    port.dispatch(long, port.engines[0])
    port.dispatch(short, port.engines[1])
    port.run(2.0)
    held = make((3, 1200), output_tokens=50)
    balancer.on_request(held)
    assert port.places == ["us-0", "us-1"]
    port.run(4.0)
    balancer.on_finished(short)
    assert port.places[-1] == "us-1"


def test_never_lets_engines_preempt() -> None:
    """A whole life's KV is there before a request is let in."""
    port, make = LivePort(engines=1, profile=SMALL), Requests()
    balancer = Clairvoyant(port, {})
    requests = [make((n, 200 + 37 * n), output_tokens=100 + 23 * n) for n in range(1, 13)]
    for request in requests:
        balancer.on_request(request)
    engine = port.engines[0]
    for _ in range(3000):
        before = set(engine.requests)
        port.run(0.1)
        for gone in before - set(engine.requests):
            balancer.on_finished(next(r for r in requests if r.id == gone))
    assert engine.finished_requests == 12
    assert engine.totals.preemptions == 0


def test_gateways_share_one_mind() -> None:
    """What one gateway's request leaves behind, another's takes."""
    shared: dict[str, object] = {}
    here = LivePort(engines=1, profile=SMALL)
    there = LivePort(engines=0, loop=here.loop)
    there.all_engines = here.all_engines
    make = Requests()
    one, other = Clairvoyant(here, shared), Clairvoyant(there, shared)
    first = make((1, 1200), output_tokens=50)
    one.on_request(first)
    here.run(2.0)
    there.engines = here.engines
    other.on_request(make((2, 1200), output_tokens=50))
    assert there.places == []
    here.run(5.0)
    one.on_finished(first)
    assert there.places == ["us-0"]


def test_rejects_what_never_fits() -> None:
    """A request longer than every KV cache is not held for ever."""
    port, make = LivePort(engines=1, profile=SMALL), Requests()
    request = make((1, 3200))
    Clairvoyant(port, {}).on_request(request)
    assert port.ended == [(request, Ending.REJECTED)]


def test_knows_that_a_sibling_under_way_will_be_cached() -> None:
    """The second of two equal prompts costs no prefill where the first is going."""
    port, make = FakePort(engines=1), Requests()
    first, second = make((1, 1600)), make((1, 1600))
    alone = EngineOutlook(port.engines[0], [], 0.0).forecast(second)
    beside = EngineOutlook(port.engines[0], [first], 0.0).forecast(second)
    assert alone is not None
    assert beside is not None
    assert beside.prefill_seconds < 1.3 * alone.prefill_seconds
