"""One run of one container: its process, its log, and commands inside it."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from heliostat_cluster.kubelet import container_init

DEFAULT_CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
"""What a container runtime leaves to root, by their numbers."""
_OTHER_CAPABILITIES = {"NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_NICE": 23}
CANNOT_RUN_STATUS = 128
TERMINATION_MESSAGE = "termination-message"
TERMINATION_MESSAGE_BYTES = 4096


class ContainerStartError(Exception):
    """The container cannot be made, or its program not be found."""


@dataclass(frozen=True)
class Mount:
    """A file or folder of the machine that appears in a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerSpec:
    """Everything `container_init` needs.

    capabilities -- numbers of those that are kept; None keeps all
    readable -- folders of the machine with the image's programs
    files -- small files written into the root: path and content
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str
    hostname: str
    network: str | None
    mounts: Sequence[Mount]
    readable: Sequence[str]
    files: Mapping[str, str]
    uid: int
    gid: int
    groups: Sequence[int]
    capabilities: Sequence[int] | None
    no_new_privileges: bool
    read_only_root: bool
    host_network: bool = False
    kubelet_pid: int = field(default_factory=os.getpid)


class Container:
    """A started container. `id` is new with every start."""

    def __init__(self, folder: Path, spec: ContainerSpec, log: Path) -> None:
        self.id = secrets.token_hex(32)
        self.log = log
        self._spec = spec
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._pid: int | None = None

    async def start(self) -> None:
        """Start the program. Raises ContainerStartError."""
        scratch = self._folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        spec_file = self._folder / "spec.json"
        spec_file.write_text(json.dumps(asdict(self._spec) | {"scratch": str(scratch)}))
        reader, writer = os.pipe()
        try:
            with self.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", container_init.__file__),
                    *(str(spec_file), str(writer)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(writer,),
                    start_new_session=True,
                )
        finally:
            os.close(writer)
        report = await asyncio.to_thread(_read_all, reader)
        for line in report.splitlines():
            word, _, rest = line.partition(" ")
            if word == "pid":
                self._pid = int(rest)
            else:
                await self._process.wait()
                raise ContainerStartError(rest)
        if self._pid is None:
            await self._process.wait()
            raise ContainerStartError("the container could not be made")

    async def wait(self) -> int:
        """Wait for the end; return the exit code, above 128 for a signal."""
        assert self._process is not None
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the container's first process."""
        running = self._process is not None and self._process.returncode is None
        if self._pid is not None and running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    async def execute(self, command: Sequence[str], timeout_seconds: float) -> tuple[int, str]:
        """Run a command inside; return its status and output. Raises TimeoutError."""
        spec_file = self._folder / f"exec-{secrets.token_hex(4)}.json"
        document = asdict(self._spec) | {"command": list(command)}
        spec_file.write_text(json.dumps(document))
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", container_init.__file__),
                *("enter", str(spec_file), str(self._pid)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                async with asyncio.timeout(timeout_seconds):
                    output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
        finally:
            spec_file.unlink(missing_ok=True)
        return process.returncode or 0, output.decode(errors="replace")

    def termination_message(self) -> str:
        """Return what the program wrote as its last words."""
        written = (self._folder / TERMINATION_MESSAGE).read_bytes()
        return written[-TERMINATION_MESSAGE_BYTES:].decode(errors="replace")

    def log_end(self, most_bytes: int = TERMINATION_MESSAGE_BYTES) -> str:
        """Return the end of the log."""
        return self.log.read_bytes()[-most_bytes:].decode(errors="replace")


def kept_capabilities(added: Sequence[str], dropped: Sequence[str]) -> list[int]:
    """Return what a container keeps, by number."""
    known = DEFAULT_CAPABILITIES | _OTHER_CAPABILITIES
    kept = set() if "ALL" in dropped else set(DEFAULT_CAPABILITIES)
    kept = (kept - set(dropped)) | (set(known) if "ALL" in added else set(added))
    return sorted(known[name] for name in kept if name in known)


def _read_all(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read().decode(errors="replace")
