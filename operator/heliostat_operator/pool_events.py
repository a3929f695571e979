"""kopf, in a thread and on a loop of its own: each event of a pool names a key to look at.

kopf cancels what else runs on its loop when it ends, so it does not share ours. Nothing is decided
here: kopf neither retries event handlers nor tells of a pool that was deleted while a watch was
down. The stores and the queue do both; so a lost event costs nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import kopf

from heliostat_crds.wire_names import FIELD_MANAGER, GROUP
from heliostat_kube.connection import TOKEN_REFRESH_SECONDS, Connection, find_connection
from heliostat_kube.resource import INFERENCE_POOLS

STOP_SECONDS = 5.0


class PoolEventsError(Exception):
    """kopf has ended though nobody asked it to."""


class _Endless:
    """Delays between tries, without end: an API server may be away for long."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0, 2.0)
        while True:
            yield 5.0


async def follow_pool_events(
    namespaces: Sequence[str], kubeconfig: Path | None, on_pool: Callable[[str], None]
) -> None:
    """Call `on_pool` with the key of each pool that something happens to, until cancelled."""
    # What kopf warns of (signals, retries) is handled or told elsewhere.
    logging.getLogger("kopf").setLevel(logging.ERROR)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    failure: list[BaseException] = []
    stop = threading.Event()

    def tell(key: str) -> None:
        loop.call_soon_threadsafe(on_pool, key)

    def serve() -> None:
        try:
            asyncio.run(_serve(namespaces, kubeconfig, tell, stop))
        except BaseException as error:
            failure.append(error)
        finally:
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=serve, name="kopf", daemon=True)
    thread.start()
    try:
        await ended.wait()
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, STOP_SECONDS)
    raise PoolEventsError("kopf has ended") from (failure[0] if failure else None)


async def _serve(
    namespaces: Sequence[str],
    kubeconfig: Path | None,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> None:
    connection = await find_connection(kubeconfig)
    await kopf.operator(
        registry=_registry(connection, tell),
        settings=_settings(),
        standalone=True,
        # Without one kopf asks for the user's name, which an image need not have.
        identity=cast("Any", FIELD_MANAGER),
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )


def _settings() -> kopf.OperatorSettings:
    """No events, no annotations, no finalizers, no need to see CRDs and namespaces."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 60  # the API server takes whole seconds only
    settings.networking.error_backoffs = _Endless()
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings


def _credentials(authorization: str | None) -> tuple[str, str]:
    scheme, _, token = (authorization or "").partition(" ")
    return scheme, token


def _registry(connection: Connection, tell: Callable[[str], None]) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def sign_in(**_: Any) -> kopf.ConnectionInfo:
        scheme, token = _credentials(await connection.authorize())
        files = connection.tls_files
        return kopf.ConnectionInfo(
            server=connection.server,
            ca_path=None if files is None else files.authority,
            insecure=None if files is None else not files.verify,
            scheme=scheme or None,
            token=token or None,
            certificate_path=None if files is None else files.certificate,
            private_key_path=None if files is None else files.key,
            proxy_url=connection.proxy,
            expiration=datetime.now(UTC) + timedelta(seconds=10 * TOKEN_REFRESH_SECONDS)
            if token
            else None,
        )

    async def on_pool_event(namespace: str | None, name: str | None, **_: Any) -> None:
        tell(f"{namespace}/{name}")

    kopf.on.login(registry=registry)(sign_in)
    kind = INFERENCE_POOLS
    kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(on_pool_event)
    return registry
