"""Other `heliostat` commands as child processes: none outlives the demo, whatever ends it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from heliostat_extproc.envoy import leash

_START_SECONDS = 30.0
_STOP_SECONDS = 4.0
_PROGRAM = "import sys; from heliostat_cli.main import main; sys.exit(main())"


class ChildError(RuntimeError):
    """A process that the demo needs did not start, or ended before its time."""


class Child:
    """A running `heliostat` command; made by `run_child`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready_line(self) -> str:
        """The first line it prints, which says that it is ready.

        Raises ChildError if it ends, or prints nothing within 30 seconds.
        """
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise ChildError(f"the {self._name} did not start in {_START_SECONDS:g} s") from error
        if not line:
            await self._process.wait()
            raise ChildError(f"the {self._name} did not start: {self._last_words()}")
        return line.decode()

    async def ended(self) -> None:
        """Wait until it ends."""
        await self._process.wait()

    def check(self) -> None:
        """Raise ChildError if it has ended."""
        if self._process.returncode is not None:
            raise ChildError(f"the {self._name} ended early: {self._last_words()}")

    async def kill(self) -> None:
        """End it as a lost machine ends: at once. What it has started goes with it (Linux)."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End it, by force if it does not end in 4 seconds."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return (
            lines[-1].removeprefix("heliostat: ")
            if lines
            else f"exit status {self._process.returncode}"
        )


@asynccontextmanager
async def run_child(
    name: str, arguments: Sequence[str], folder: Path, *, temporary: Path | None = None
) -> AsyncIterator[Child]:
    """Run `heliostat ARGUMENTS` for as long as the block lasts; its log goes to the folder.

    A child that is to be killed is given a folder for its temporary files, which nobody else then
    removes. It has a session of its own, so that ^C reaches the demo alone, and a leash, so that it
    ends with the demo (Linux).
    """
    log = folder / f"{name}.log"
    environment = dict(os.environ)
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid())),
            *(sys.executable, "-c", _PROGRAM, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
    child = Child(name, process, log)
    try:
        yield child
    finally:
        with suppress(TimeoutError):
            await child.stop()
