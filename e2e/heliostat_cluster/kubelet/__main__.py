"""The kubelet's process: `python -m heliostat_cluster.kubelet SETTINGS.json`."""

import asyncio
import ipaddress
import signal
import ssl
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

from heliostat_cluster.bridge import Bridge
from heliostat_cluster.images.table import ImageSources, ImageTable
from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.control import control_app
from heliostat_cluster.kubelet.kubelet import Kubelet
from heliostat_cluster.kubelet.log_server import KUBELET_PORT, log_app
from heliostat_cluster.kubelet.network import Network
from heliostat_cluster.kubelet.pod_worker import PodPlace
from heliostat_cluster.kubelet.settings import KubeletSettings, control_socket


def main() -> None:
    """Run until SIGTERM."""
    uvloop.run(_run(KubeletSettings.read(Path(sys.argv[1]))))


async def _run(settings: KubeletSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bridge = Bridge(settings.cluster_id, ipaddress.IPv4Network(settings.subnet))
    state = Path(settings.state)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(KubeletApi.connect(Path(settings.kubeconfig)))
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        place = PodPlace(
            api=api,
            images=ImageTable(_sources(settings)),
            network=Network(bridge),
            session=session,
            service=_service(bridge.address, settings.api_port),
            timing=settings.timing,
            state=state,
        )
        kubelet = Kubelet(place, bridge.address, KUBELET_PORT)
        await stack.enter_async_context(kubelet.running())
        logs = await _start(stack, log_app(state))
        tls = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=settings.certificate_authority
        )
        tls.load_cert_chain(settings.server_certificate, settings.server_key)
        tls.verify_mode = ssl.CERT_REQUIRED
        await web.TCPSite(logs, bridge.address, KUBELET_PORT, ssl_context=tls).start()
        orders = await _start(stack, control_app(kubelet))
        await web.UnixSite(orders, str(control_socket(state))).start()
        await stop.wait()


async def _start(stack: AsyncExitStack, app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def _sources(settings: KubeletSettings) -> ImageSources:
    return ImageSources(
        heliostat=Path(settings.heliostat),
        engine=Path(settings.engine),
        envoy=Path(settings.envoy),
        libraries=tuple(Path(folder) for folder in settings.libraries),
    )


def _service(address: str, port: int) -> dict[str, str]:
    return {
        "KUBERNETES_SERVICE_HOST": address,
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
        "KUBERNETES_PORT": f"tcp://{address}:{port}",
    }


if __name__ == "__main__":
    main()
