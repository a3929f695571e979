"""Keeps the status of RegionPeers: asks every router what it hears, and writes what is new.

Level-based and never in a pool's way: without peers nobody is asked anything, and a cluster that
does not serve the kind, or does not let it be read, runs its pools as ever.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import structlog

from heliostat_crds.peer_claims import (
    PeerRefusal,
    peer_claim,
    peer_created_seconds,
    refused_peers,
)
from heliostat_crds.status import PeerStatus
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError, NotFoundError
from heliostat_kube.informer import Informer
from heliostat_kube.resource import REGION_PEERS, Json
from heliostat_operator.events import transitions
from heliostat_operator.health import Metrics
from heliostat_operator.observed.peer_report import RouterPeers, parse_router_peers
from heliostat_operator.observed.peer_status import PeerObservation, is_news, observe_peer
from heliostat_operator.peer_object import PeerObject, parse_peer_object
from heliostat_operator.pool_object import parse_conditions
from heliostat_operator.routers import ask_router
from heliostat_operator.settings import OperatorSettings

ROUND_SECONDS = 3.0
"""Time between two rounds of questions to the routers."""
MOVING_SECONDS = 10.0
"""How often at most a status is written in which only counts and instants have moved on."""
_COALESCE_SECONDS = 0.1

log = structlog.get_logger("heliostat.operator")


class _Written(NamedTuple):
    uid: str
    version: int
    status: Json
    at: float


class PeerKeeper:
    """The peers of the own namespace, and what the routers there say of them."""

    def __init__(
        self,
        api: KubeApi,
        settings: OperatorSettings,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        *,
        routers: Callable[[], Sequence[str]],
    ) -> None:
        self._api = api
        self._session = session
        self._admin_port = settings.router_admin_port
        self._metrics = metrics
        self._routers = routers
        self._changed = asyncio.Event()
        self._written: dict[str, _Written] = {}
        self._failures: dict[str, str] = {}
        self._peers: Informer[PeerObject] = Informer(
            api,
            REGION_PEERS,
            namespace=settings.own_namespace,
            trim=parse_peer_object,
            on_change=self._on_change,
            optional=True,
        )

    async def watch(self) -> None:
        """Follow the peers until cancelled."""
        await self._peers.run()

    async def keep(self) -> None:
        """Keep every status current until cancelled; what fails is tried in the next round."""
        while True:
            self._changed.clear()
            if self._peers.items:
                await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS if self._peers.items else None):
                    await self._changed.wait()
            await asyncio.sleep(_COALESCE_SECONDS)

    async def look(self) -> None:
        """Look at all peers once."""
        addresses = self._routers()
        asked = (ask_router(self._session, it, self._admin_port, "/peers") for it in addresses)
        answers = [parse_router_peers(answer) for answer in await asyncio.gather(*asked)]
        refused = self._refused(answers)
        for key, obj in tuple(self._peers.items.items()):
            try:
                await self._publish(obj, answers, refused.get(key))
            except KubeError as error:
                self._note_failure(key, error)
                if not error.status:
                    return  # nobody answers
            else:
                self._failures.pop(key, None)

    def _refused(self, answers: Sequence[RouterPeers | None]) -> Mapping[str, PeerRefusal]:
        """Tell which peers the routers pass over; they know which region this is."""
        own = next((it.region for it in answers if it is not None and it.region), None)
        peers = (obj.peer for obj in self._peers.items.values())
        claims = (peer_claim(it, peer_created_seconds(it)) for it in peers if it is not None)
        return refused_peers(claims, own)

    async def _publish(
        self,
        obj: PeerObject,
        answers: Sequence[RouterPeers | None],
        refusal: PeerRefusal | None,
    ) -> None:
        present = self._present_status(obj)
        before = parse_conditions(present)
        status = observe_peer(
            PeerObservation(
                generation=obj.generation,
                region="" if obj.peer is None else obj.peer.spec.region,
                routers=answers,
                previous=before,
                now=datetime.now(UTC),
                spec_problem=obj.problem,
                refusal=refusal,
            )
        )
        wanted = _status_json(status)
        if wanted == present or not (is_news(present, wanted) or self._is_old(obj)):
            return
        removed = dict.fromkeys(present.keys() - wanted.keys())
        body: dict[str, Any] = {"status": {**wanted, **removed}}
        try:
            answer = await self._api.merge_patch(
                REGION_PEERS, obj.name, body, obj.namespace, subresource="status"
            )
        except NotFoundError:
            return
        self._metrics.writes.labels(REGION_PEERS.kind).inc()
        version = int(answer["metadata"]["resourceVersion"])
        self._written[obj.key] = _Written(obj.uid, version, wanted, time.monotonic())
        for condition in transitions(before, status.conditions):
            log.info(
                "peer-condition",
                peer=obj.key,
                type=condition.type,
                status=condition.status.value,
                reason=condition.reason,
                message=condition.message,
            )

    def _is_old(self, obj: PeerObject) -> bool:
        """Whether what moves on by itself may be written again."""
        written = self._written.get(obj.key)
        return written is None or time.monotonic() - written.at >= MOVING_SECONDS

    def _present_status(self, obj: PeerObject) -> Mapping[str, Any]:
        """Give the newest status known: what was watched, or what we wrote since."""
        written = self._written.get(obj.key)
        if written is not None and written.uid == obj.uid and written.version > obj.version:
            return written.status
        return obj.status

    def _on_change(self, key: str, before: PeerObject | None, now: PeerObject | None) -> None:
        if now is None:
            self._written.pop(key, None)
            self._failures.pop(key, None)
        if before is None or now is None or before.generation != now.generation:
            self._changed.set()

    def _note_failure(self, key: str, error: KubeError) -> None:
        """Log a failure once, until it is another one or is over."""
        if self._failures.get(key) != error.message:
            self._failures[key] = error.message
            log.warning("peer-status-not-written", peer=key, error=error.message)


def _status_json(status: PeerStatus) -> Json:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
