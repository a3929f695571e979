"""The addresses behind names: followed, kept while they cannot be looked up."""

import asyncio
from collections.abc import Callable

from heliostat_extproc.federation.resolver import MOST_ADDRESSES, Resolver


class Names:
    """A directory of names that tests change."""

    def __init__(self, **hosts: tuple[str, ...]) -> None:
        self.hosts = hosts
        self.asked = 0

    async def look_up(self, host: str, _port: int) -> tuple[str, ...]:
        self.asked += 1
        if host not in self.hosts:
            raise OSError("no such name")
        return self.hosts[host]


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail at the deadline."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def resolver(names: Names, changes: list[dict[str, tuple[str, ...]]]) -> Resolver:
    return Resolver(
        lambda addresses: changes.append(dict(addresses)),
        lookup=names.look_up,
        interval_seconds=0.01,
    )


async def test_addresses_follow_the_name() -> None:
    """Each change is told, and only changes are."""
    names = Names(asia=("10.0.0.1",))
    changes: list[dict[str, tuple[str, ...]]] = []
    it = resolver(names, changes)
    it.apply({"asia": "asia:443"})
    await eventually(lambda: names.asked > 3)
    assert changes == [{"asia": ("10.0.0.1:443",)}]
    names.hosts["asia"] = ("10.0.0.2", "fd00::1")
    await eventually(lambda: len(changes) > 1)
    assert changes[1:] == [{"asia": ("10.0.0.2:443", "[fd00::1]:443")}]
    it.close()


async def test_a_name_that_fails_keeps_its_addresses() -> None:
    """A region is not gone because its name cannot be looked up, or means nothing."""
    names = Names(asia=("10.0.0.1",))
    changes: list[dict[str, tuple[str, ...]]] = []
    it = resolver(names, changes)
    it.apply({"asia": "asia:443"})
    await eventually(lambda: changes)
    del names.hosts["asia"]
    asked = names.asked
    await eventually(lambda: names.asked > asked + 2)
    names.hosts["asia"] = ()
    asked = names.asked
    await eventually(lambda: names.asked > asked + 2)
    assert it.addresses == {"asia": ("10.0.0.1:443",)}
    it.close()


async def test_an_address_is_its_own_answer() -> None:
    """Nobody is asked for what is no name."""
    names = Names()
    changes: list[dict[str, tuple[str, ...]]] = []
    it = resolver(names, changes)
    it.apply({"asia": "10.0.0.1:443", "eu": "[fd00::1]:443"})
    await eventually(lambda: len(it.addresses) == 2)
    assert it.addresses == {"asia": ("10.0.0.1:443",), "eu": ("[fd00::1]:443",)}
    assert names.asked == 0
    it.close()


async def test_a_region_that_is_dropped_has_no_addresses() -> None:
    """What is not wanted is not followed."""
    names = Names(asia=("10.0.0.1",))
    changes: list[dict[str, tuple[str, ...]]] = []
    it = resolver(names, changes)
    it.apply({"asia": "asia:443"})
    await eventually(lambda: changes)
    it.apply({})
    assert changes[-1] == {}
    it.close()


async def test_a_region_at_another_name_is_not_at_the_addresses_of_the_one_before() -> None:
    """Until the new name is looked up, nobody knows where it is."""
    names = Names(asia=("10.0.0.1",))
    changes: list[dict[str, tuple[str, ...]]] = []
    it = resolver(names, changes)
    it.apply({"asia": "asia:443"})
    await eventually(lambda: changes)
    it.apply({"asia": "new:443"})
    assert changes[-1] == {}
    names.hosts["new"] = ("10.0.0.2",)
    await eventually(lambda: changes[-1] == {"asia": ("10.0.0.2:443",)})
    it.close()


async def test_many_addresses_are_bounded() -> None:
    """However long the answer, so many are kept."""
    names = Names(asia=tuple(f"10.0.{n}.1" for n in range(200)))
    changes: list[dict[str, tuple[str, ...]]] = []
    it = resolver(names, changes)
    it.apply({"asia": "asia:443"})
    await eventually(lambda: changes)
    assert len(it.addresses["asia"]) == MOST_ADDRESSES
    it.close()


async def test_a_hurry_is_not_waited_for() -> None:
    """A region that is not reached is looked up before its turn."""
    names = Names(asia=("10.0.0.1",))
    changes: list[dict[str, tuple[str, ...]]] = []
    it = Resolver(lambda it: changes.append(dict(it)), lookup=names.look_up, interval_seconds=600.0)
    it.apply({"asia": "asia:443"})
    await eventually(lambda: names.asked == 1)
    it.hurry("asia")
    await eventually(lambda: names.asked == 2)
    it.close()
