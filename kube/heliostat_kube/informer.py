"""A local, always current copy of one kind of object: list once, then watch for ever.

While the API server is away, the copy stays as it was; when it is back, the watch goes on from
where it was, and only if the server has forgotten that moment is the list read anew. A kind that
is not served (404: its CRD is not installed) is waited for in the same way.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import structlog

from heliostat_kube.api import KubeApi, WatchEvent
from heliostat_kube.backoff import Backoff
from heliostat_kube.errors import (
    ExpiredError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
)
from heliostat_kube.resource import Json, Resource, key_of

T = TypeVar("T")

OnChange = Callable[[str, T | None, T | None], None]
"""Called with the key, what was known before and what is known now; None for absent."""

log = structlog.get_logger("heliostat.kube")


@dataclass(frozen=True)
class InformerTiming:
    """How patient an informer is.

    watch_seconds -- after this long the server ends a watch, and the next continues it: quiet
        watches stay provably alive, and a bookmark precedes each end
    silence_seconds -- silence beyond watch_seconds after which a connection counts as dead
    first_retry_seconds, max_retry_seconds -- bounds of the backoff after failures, kept small so
        that an outage's end is noticed quickly
    max_refusals -- after so many watches in a row that the server itself refused, list anew: its
        history may not be ours (a restored backup)
    """

    watch_seconds: float = 25.0
    silence_seconds: float = 5.0
    first_retry_seconds: float = 0.2
    max_retry_seconds: float = 5.0
    max_refusals: int = 3


class Informer(Generic[T]):
    """Objects of one kind, in `items` by `namespace/name`, trimmed to what the owner needs.

    `trim` runs once per object and version; keep its result small and comparable: `on_change` is
    called only where two results differ. It runs on the event loop and must not block or raise.
    `optional` kinds may not be served: that is then told, once, as information.
    """

    def __init__(
        self,
        api: KubeApi,
        resource: Resource,
        *,
        trim: Callable[[Json], T],
        on_change: OnChange[T],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timing: InformerTiming | None = None,
        optional: bool = False,
    ) -> None:
        self._api = api
        self._optional = optional
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._trim = trim
        self._on_change = on_change
        self._timing = timing or InformerTiming()
        self._items: dict[str, T] = {}
        self._resource_version: str | None = None
        self._refusals = 0
        self._heard_at: float | None = None
        self._healthy = True
        self._backoff = Backoff(self._timing.first_retry_seconds, self._timing.max_retry_seconds)
        self.items: Mapping[str, T] = MappingProxyType(self._items)
        self.synced = asyncio.Event()
        """Set for ever once the list has been read."""
        self.settled = asyncio.Event()
        """Set for ever once the list has been read or refused."""
        self.refusal: KubeError | None = None
        """Why the server does not give this list, or does not know it; None while it does."""

    def age_seconds(self) -> float:
        """Seconds since the server was last heard; infinite before the first time.

        Up to `watch_seconds` is normal where nothing changes.
        """
        return float("inf") if self._heard_at is None else time.monotonic() - self._heard_at

    @property
    def is_failing(self) -> bool:
        """Whether the last that was heard of the server was an error, or that it is away."""
        return not self._healthy

    async def run(self) -> None:
        """Keep `items` current until cancelled."""
        while True:
            try:
                if self._resource_version is None:
                    self._resource_version = await self._list()
                await self._watch(self._resource_version)
            except ExpiredError:
                self._resource_version = None
                await asyncio.sleep(self._backoff.next_seconds())
            except KubeError as error:
                self._note_failure(error)
                await asyncio.sleep(self._backoff.next_seconds())

    def _note_failure(self, error: KubeError) -> None:
        if isinstance(error, ForbiddenError | InvalidError | NotFoundError):
            self.refusal = error
            self.settled.set()
        if error.status:
            self._refusals += 1
            if self._refusals >= self._timing.max_refusals:
                self._resource_version = None
        if self._healthy:
            self._healthy = False
            if self._optional and isinstance(error, NotFoundError):
                log.info("kind-not-served", **self._names())
                return
            log.warning("watch-lost", reason=error.reason, error=error.message, **self._names())

    def _note_heard(self) -> None:
        self._heard_at = time.monotonic()
        self.refusal = None
        self._refusals = 0
        if not self._healthy:
            self._healthy = True
            log.info("watch-restored", **self._names())

    def _names(self) -> dict[str, str | None]:
        return {
            "resource": self._resource.plural,
            "group": self._resource.group,
            "namespace": self._namespace,
            "selector": self._label_selector,
        }

    async def _list(self) -> str:
        found: dict[str, T] = {}
        version = ""
        async for page in self._api.list_pages(
            self._resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            for obj in page.items:
                found[key_of(obj)] = self._trim(obj)
            version = page.resource_version
        self._note_heard()
        for key in [key for key in self._items if key not in found]:
            self._remove(key)
        for key, item in found.items():
            self._put(key, item)
        self.synced.set()
        self.settled.set()
        return version

    async def _watch(self, resource_version: str) -> None:
        timing = self._timing
        started_at = time.monotonic()
        async with self._api.watch(
            self._resource,
            self._namespace,
            resource_version=resource_version,
            timeout_seconds=timing.watch_seconds,
            read_timeout_seconds=timing.watch_seconds + timing.silence_seconds,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ) as events:
            self._note_heard()
            async for event in events:
                self._on_event(event)
        self._note_heard()
        self._backoff.reset()
        if time.monotonic() - started_at < timing.first_retry_seconds:
            await asyncio.sleep(timing.first_retry_seconds)

    def _on_event(self, event: WatchEvent) -> None:
        self._note_heard()
        self._backoff.reset()
        if event.type == "DELETED":
            self._remove(key_of(event.object))
        elif event.type != "BOOKMARK":
            self._put(key_of(event.object), self._trim(event.object))
        self._resource_version = str(event.object["metadata"]["resourceVersion"])

    def _put(self, key: str, item: T) -> None:
        before = self._items.get(key)
        self._items[key] = item
        if before != item:
            self._on_change(key, before, item)

    def _remove(self, key: str) -> None:
        before = self._items.pop(key, None)
        if before is not None:
            self._on_change(key, before, None)
