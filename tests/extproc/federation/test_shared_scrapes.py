"""Which of the endpoints that routers share each of them scrapes, and what finding out costs."""

import pytest

from heliostat_extproc.federation import core_state
from heliostat_extproc.federation.core_state import SharedScrapes
from heliostat_extproc.federation.relay import scrape_owner
from heliostat_extproc.federation.slots import RelayedEvent
from heliostat_routing.events import Event, ScrapeFailed

ENDPOINTS = frozenset(f"10.0.0.{n}:8000" for n in range(200))


class Shared:
    """What the routers know; `owners_asked` counts how often an owner was worked out."""

    is_relaying = True

    def __init__(self) -> None:
        self.routers: tuple[str, ...] = ("a", "b", "c")
        self.endpoints = ENDPOINTS
        self.busy: frozenset[str] = frozenset()
        self.told: list[object] = []
        self.owners_asked = 0

    def relay(self, event: RelayedEvent) -> None:
        self.told.append(event)

    def relay_queues(self) -> None:
        """Nothing is queued."""

    def live_routers(self) -> tuple[str, ...]:
        return self.routers

    def submit(self, event: Event) -> None:
        self.told.append(event)

    def scrapes(self, router: str) -> SharedScrapes:
        return SharedScrapes(
            router,
            self,
            submit=self.submit,
            endpoints=lambda: self.endpoints,
            busy_endpoints=lambda: self.busy,
        )


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Shared:
    """Three routers with 200 endpoints."""
    them = Shared()

    def count(address: str, routers: tuple[str, ...]) -> str | None:
        them.owners_asked += 1
        return scrape_owner(address, routers)

    monkeypatch.setattr(core_state, "scrape_owner", count)
    return them


def test_each_endpoint_is_scraped_by_one_router(shared: Shared) -> None:
    """Together they scrape all, whoever comes and goes."""
    for routers in (("a", "b", "c"), ("a", "c"), ("a",), ("a", "b")):
        shared.routers = routers
        scraped = [it for name in routers for it in shared.scrapes(name).endpoints()]
        assert sorted(scraped) == sorted(ENDPOINTS)


def test_owners_are_worked_out_once(shared: Shared) -> None:
    """Asking again costs nothing; an endpoint that comes is the only one that is looked at."""
    scrapes = shared.scrapes("a")
    before = scrapes.endpoints()
    assert shared.owners_asked == len(ENDPOINTS)
    for _ in range(20):
        assert scrapes.endpoints() == before
        scrapes.busy()
    shared.endpoints = ENDPOINTS | {"10.9.9.9:8000"}
    scrapes.endpoints()
    assert shared.owners_asked == len(ENDPOINTS) + 1


def test_a_router_that_comes_takes_its_part_at_once(shared: Shared) -> None:
    """What was worked out among others counts no more."""
    scrapes = shared.scrapes("a")
    before = set(scrapes.endpoints())
    shared.routers = ("a", "b", "c", "d")
    after = set(scrapes.endpoints())
    assert after < before
    shared.routers = ("a", "b", "c")
    assert set(scrapes.endpoints()) == before


def test_busy_are_those_with_requests_that_this_router_scrapes(shared: Shared) -> None:
    """What others scrape, other regions and what has gone are none of them."""
    scrapes = shared.scrapes("a")
    own = list(scrapes.endpoints())
    others = sorted(ENDPOINTS - set(own))
    shared.busy = frozenset({own[0], own[1], others[0], "region/west", "gone:1"})
    assert sorted(scrapes.busy()) == sorted(own[:2])


def test_a_scrape_is_told_to_the_core_and_the_siblings(shared: Shared) -> None:
    """One router scrapes for all."""
    shared.scrapes("a").submit(ScrapeFailed("e"))
    assert shared.told == [ScrapeFailed("e")] * 2
