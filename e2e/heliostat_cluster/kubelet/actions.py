"""What probes and lifecycle hooks do: a command, HTTP, a TCP connection, gRPC, a sleep."""

import asyncio
import contextlib
import ssl

import aiohttp
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from heliostat_cluster.kubelet.container import Container
from heliostat_kube.resource import Json


class ActionError(Exception):
    """A probe or a hook failed; the text says how."""


class Actions:
    """Probes and hooks against one pod. The HTTP session is shared by all."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def run(
        self, action: Json, container: Json, running: Container, timeout_seconds: float
    ) -> None:
        """Do one handler's action. Raises ActionError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._run(action, container, running, timeout_seconds)
        except TimeoutError:
            raise ActionError(f"timed out after {timeout_seconds:g} s") from None
        except (aiohttp.ClientError, grpc.aio.AioRpcError, OSError) as error:
            raise ActionError(str(error) or type(error).__name__) from error

    async def _run(
        self, action: Json, container: Json, running: Container, timeout_seconds: float
    ) -> None:
        match action:
            case {"exec": source}:
                status, output = await running.execute(source["command"], timeout_seconds)
                if status:
                    raise ActionError(f"command ended with {status}: {output.strip()[-500:]}")
            case {"httpGet": source}:
                await self._get(source, container)
            case {"tcpSocket": source}:
                host = source.get("host") or self._address
                _, writer = await asyncio.open_connection(host, _port(source["port"], container))
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            case {"grpc": source}:
                await self._check(f"{self._address}:{source['port']}", source.get("service") or "")
            case {"sleep": source}:
                await asyncio.sleep(source["seconds"])

    async def _get(self, source: Json, container: Json) -> None:
        scheme = (source.get("scheme") or "HTTP").lower()
        host = source.get("host") or self._address
        path = source.get("path") or "/"
        url = f"{scheme}://{host}:{_port(source['port'], container)}{path}"
        headers = {each["name"]: each["value"] for each in source.get("httpHeaders") or ()}
        headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"} | headers
        async with self._session.get(
            url, headers=headers, ssl=_unverified_tls() if scheme == "https" else True
        ) as response:
            if not 200 <= response.status < 400:
                raise ActionError(f"HTTP probe failed with statuscode: {response.status}")

    async def _check(self, target: str, service: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise ActionError(f"service unhealthy (status {answer.status})")


def _port(port: int | str, container: Json) -> int:
    if isinstance(port, int):
        return port
    for each in container.get("ports") or ():
        if each.get("name") == port:
            return int(each["containerPort"])
    if port.isdigit():
        return int(port)
    raise ActionError(f"the container has no port named {port}")


def _unverified_tls() -> ssl.SSLContext:
    """A kubelet does not verify what it probes."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
