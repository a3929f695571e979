"""The images that there are, by name: which local program each one stands for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

NON_ROOT = 65532
MISSING_TAG_PREFIX = "missing"
BROKEN_TAG_PREFIX = "broken"
BROKEN_VARIABLE = "HELIOSTAT_E2E_BROKEN"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"^(?P<name>[^@]+?)(?::(?P<tag>[\w][\w.-]*))?(?:@sha256:[0-9a-f]+)?$")


@dataclass(frozen=True)
class Image:
    """One image's configuration, and the folders of the machine that it needs."""

    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    readable: tuple[str, ...] = ()
    user: int = 0
    working_directory: str = "/"


@dataclass(frozen=True)
class ImageSources:
    """Where the programs are on this machine.

    heliostat -- the environment with the installed wheel
    engine -- the folder from which that environment imports `heliostat_cluster`
    envoy -- the Envoy program
    libraries -- further folders that its programs read
    """

    heliostat: Path
    engine: Path
    envoy: Path
    libraries: tuple[Path, ...]


class ImageTable:
    """All images, by the last two parts of their names."""

    def __init__(self, sources: ImageSources) -> None:
        libraries = tuple(str(folder) for folder in sources.libraries)
        programs = sources.heliostat / "bin"
        self._images = {
            "heliostat/heliostat": Image(
                entrypoint=(str(programs / "heliostat"),),
                environment=_environment(programs),
                readable=(str(sources.heliostat), *libraries),
                user=NON_ROOT,
            ),
            "envoyproxy/envoy": Image(
                entrypoint=(str(sources.envoy),),
                arguments=("-c", "/etc/envoy/envoy.yaml"),
                environment=_environment(sources.envoy.parent),
                readable=(str(sources.envoy.parent), *libraries),
            ),
            "vllm/vllm-openai": Image(
                entrypoint=(str(programs / "python3"), "-m", "heliostat_cluster.images.vllm"),
                environment=_environment(programs) | {"PYTHONPATH": str(sources.engine)},
                readable=(str(sources.heliostat), *libraries),
            ),
            "e2e/idle": Image(
                entrypoint=("/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"),
                environment=_environment(programs),
                readable=(str(sources.heliostat), *libraries),
            ),
        }

    def find(self, reference: str) -> Image | None:
        """Return the image of a reference; None if there is none."""
        found = _REFERENCE.match(reference)
        if found is None:
            return None
        tag = found["tag"] or "latest"
        image = self._images.get("/".join(found["name"].split("/")[-2:]))
        if image is None or tag.startswith(MISSING_TAG_PREFIX):
            return None
        if tag.startswith(BROKEN_TAG_PREFIX):
            return replace(image, environment={**image.environment, BROKEN_VARIABLE: "1"})
        return image


def _environment(programs: Path) -> dict[str, str]:
    return {"PATH": f"{programs}:{_SYSTEM_PATH}", "HOME": "/root", "PYTHONUNBUFFERED": "1"}
