"""Informers of one kind in several namespaces, seen as one."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from heliostat_kube.api import KubeApi
from heliostat_kube.informer import Informer, OnChange
from heliostat_kube.resource import Json, Resource

T = TypeVar("T")


class InformerGroup(Generic[T]):
    """One informer over all namespaces, or one for each of those given."""

    def __init__(
        self,
        api: KubeApi,
        resource: Resource,
        namespaces: Sequence[str],
        *,
        trim: Callable[[Json], T],
        on_change: OnChange[T],
        label_selector: str | None = None,
    ) -> None:
        self._informers: tuple[Informer[T], ...] = tuple(
            Informer(
                api,
                resource,
                namespace=namespace,
                label_selector=label_selector,
                trim=trim,
                on_change=on_change,
            )
            for namespace in (namespaces or (None,))
        )

    async def run(self) -> None:
        """Keep all of them current until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())

    @property
    def is_synced(self) -> bool:
        """Whether every list has been read."""
        return all(informer.synced.is_set() for informer in self._informers)

    async def wait_synced(self) -> None:
        """Wait until every list has been read."""
        for informer in self._informers:
            await informer.synced.wait()

    def get(self, key: str) -> T | None:
        """Give one object by `namespace/name`."""
        found = (informer.items.get(key) for informer in self._informers)
        return next((item for item in found if item is not None), None)

    def values(self) -> Iterator[T]:
        """Give all objects."""
        for informer in self._informers:
            yield from informer.items.values()
