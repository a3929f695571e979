"""Keeps the LoRA adapters of running engines as their pool declares them, without a restart.

An adapter counts as held only once its pod's annotation says so, and no longer from the moment
that the annotation does not: so routers never ask an engine for what it does not have.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import structlog

from heliostat_crds.inference_pool import InferencePool, PoolKind
from heliostat_crds.wire_names import ADAPTERS_ANNOTATION
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import ConflictError, KubeError, NotFoundError
from heliostat_kube.resource import PODS, SECRETS
from heliostat_operator.desired.engine_args import serves_adapters
from heliostat_operator.desired.settings import SecretKey
from heliostat_operator.health import Metrics
from heliostat_operator.observed.observation import AdapterFailure
from heliostat_operator.observed.pod import PodView
from heliostat_operator.watches import Watches

LOAD_TIMEOUT_SECONDS = 300.0
"""A large adapter may have to be downloaded first."""
ASK_TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 1024 * 1024
_MAX_MESSAGE_CHARACTERS = 200

log = structlog.get_logger("heliostat.operator")


class AdapterLoadError(Exception):
    """An engine would not load or unload an adapter; the message is the engine's."""

    def __init__(self, adapter: str, message: str) -> None:
        super().__init__(message)
        self.adapter = adapter


class EngineAdapters:
    """The adapters of one engine, over its HTTP."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str | None) -> None:
        self._session = session
        self._base_url = base_url
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}

    async def fetch_loaded(self) -> dict[str, str]:
        """Give what the engine holds, name -> where from; AdapterLoadError if it does not say."""
        status, answer = await self._call("GET", "/v1/models", None, "", ASK_TIMEOUT_SECONDS)
        cards = answer.get("data") if isinstance(answer, Mapping) else None
        if status != 200 or not isinstance(cards, list):
            raise AdapterLoadError("", f"/v1/models answers {status}")
        return {
            str(card["id"]): str(card.get("root") or "")
            for card in cards
            if isinstance(card, Mapping) and card.get("parent") and "id" in card
        }

    async def load(self, name: str, source: str) -> None:
        """Have the engine load an adapter; AdapterLoadError tells what it answered."""
        body = {"lora_name": name, "lora_path": source}
        await self._change("/v1/load_lora_adapter", body, name)

    async def unload(self, name: str) -> None:
        """Have the engine drop an adapter; AdapterLoadError tells what it answered."""
        await self._change("/v1/unload_lora_adapter", {"lora_name": name}, name)

    async def _change(self, path: str, body: dict[str, str], adapter: str) -> None:
        status, answer = await self._call("POST", path, body, adapter, LOAD_TIMEOUT_SECONDS)
        if status != 200:
            raise AdapterLoadError(adapter, _message_of(answer) or f"the engine answers {status}")

    async def _call(
        self, method: str, path: str, body: Any, adapter: str, limit_seconds: float
    ) -> tuple[int, Any]:
        limits = aiohttp.ClientTimeout(total=limit_seconds, sock_connect=ASK_TIMEOUT_SECONDS)
        try:
            # A pod is not ours to trust: it shall not lead us elsewhere, nor fill our memory.
            async with self._session.request(
                method,
                self._base_url + path,
                json=body,
                headers=self._headers,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                return response.status, _parsed(await _bounded(response.content))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or type(error).__name__
            raise AdapterLoadError(adapter, f"cannot ask the engine: {text}") from error


async def _bounded(content: aiohttp.StreamReader) -> str:
    """Read an answer, as far as MAX_ANSWER_BYTES."""
    answer = bytearray()
    async for chunk in content.iter_any():
        answer += chunk
        if len(answer) >= MAX_ANSWER_BYTES:
            break
    return answer[:MAX_ANSWER_BYTES].decode(errors="replace")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _message_of(answer: Any) -> str:
    if isinstance(answer, Mapping):
        error = answer.get("error")
        told = error.get("message") if isinstance(error, Mapping) else answer.get("message")
        return str(told or "")[:_MAX_MESSAGE_CHARACTERS]
    return str(answer or "")[:_MAX_MESSAGE_CHARACTERS]


class AdapterKeeper:
    """Looks after one pod at a time; a queue calls it, and again after failures."""

    def __init__(
        self,
        api: KubeApi,
        watches: Watches,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        api_key: SecretKey | None,
    ) -> None:
        self._api = api
        self._watches = watches
        self._session = session
        self._metrics = metrics
        self._api_key = api_key
        self._proven: dict[str, tuple[str, dict[str, str]]] = {}
        self._failures: dict[str, AdapterFailure] = {}

    def failures(self, pods: tuple[PodView, ...]) -> tuple[AdapterFailure, ...]:
        """Give what went wrong last on each of these pods."""
        found = (self._failures.get(pod.key) for pod in pods)
        return tuple(failure for failure in found if failure is not None)

    async def keep(self, pod_key: str) -> None:
        """Make one pod hold what its pool declares; AdapterLoadError where its engine refuses."""
        pod, pool = self._find(pod_key)
        if pod is None or pool is None:
            self._forget(pod_key)
            return
        container = pod.engine_container
        address = pod.address(pool.spec.engine.port)
        if not pod.ready or not pod.alive or address is None or container is None:
            return
        wanted = {adapter.name: adapter.source for adapter in pool.spec.engine.adapters}
        state = container.container_id or "", wanted
        if self._proven.get(pod_key) == state and pod.loaded_adapters == wanted.keys():
            return
        if not wanted and not pod.loaded_adapters and not serves_adapters(pool.spec.engine):
            self._forget(pod_key)
            return
        try:
            await self._make_hold(pod, address, wanted)
        except AdapterLoadError as error:
            self._failures[pod_key] = AdapterFailure(error.adapter, pod.name, str(error))
            raise
        self._failures.pop(pod_key, None)
        self._proven[pod_key] = state

    def _find(self, pod_key: str) -> tuple[PodView | None, InferencePool | None]:
        pod = self._watches.pod(pod_key)
        found = None if pod is None else self._watches.pool(f"{pod.namespace}/{pod.pool}")
        pool = None if found is None else found.pool
        if pool is not None and pool.pool_kind is not PoolKind.MANAGED:
            pool = None
        return pod, pool

    def _forget(self, pod_key: str) -> None:
        self._proven.pop(pod_key, None)
        self._failures.pop(pod_key, None)

    async def _make_hold(self, pod: PodView, address: str, wanted: dict[str, str]) -> None:
        key = await self._key(pod.namespace)
        engine = EngineAdapters(self._session, f"http://{address}", key)
        loaded = await engine.fetch_loaded()
        right = {name for name, source in wanted.items() if loaded.get(name) == source}
        await self._annotate(pod, right)
        failed: AdapterLoadError | None = None
        for name in loaded.keys() - right:
            try:
                await engine.unload(name)
            except AdapterLoadError as error:
                failed = error
        for name in wanted.keys() - right:
            try:
                await engine.load(name, wanted[name])
            except AdapterLoadError as error:
                failed = error
                continue
            right.add(name)
        await self._annotate(pod, right)
        if failed is not None:
            raise failed
        log.info("adapters-loaded", pod=pod.key, adapters=sorted(right))

    async def _annotate(self, pod: PodView, names: set[str]) -> None:
        """Tell the routers, unless what the pod says is this already."""
        current = self._watches.pod(pod.key) or pod
        container = pod.engine_container
        if container is None or (current.loaded_adapters == names and current.adapters is not None):
            return
        text = json.dumps({"container": container.container_id, "adapters": sorted(names)})
        patch = {"metadata": {"uid": pod.uid, "annotations": {ADAPTERS_ANNOTATION: text}}}
        try:
            await self._api.merge_patch(PODS, pod.name, patch, pod.namespace)
        except (NotFoundError, ConflictError):
            return  # the pod is gone
        self._metrics.writes.labels(PODS.kind).inc()

    async def _key(self, namespace: str) -> str | None:
        if self._api_key is None:
            return None
        try:
            secret = await self._api.get(SECRETS, self._api_key.name, namespace)
        except KubeError as error:
            raise AdapterLoadError("", f"Secret {self._api_key.name}: {error.message}") from error
        data = ((secret or {}).get("data") or {}).get(self._api_key.key)
        if data is None:
            missing = f'Secret {self._api_key.name} with key "{self._api_key.key}" is missing'
            raise AdapterLoadError("", missing)
        return base64.b64decode(data).decode().strip()
