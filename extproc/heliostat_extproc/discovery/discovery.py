"""Where pools come from, whatever that is."""

from collections.abc import AsyncIterator
from typing import Protocol

from heliostat_extproc.discovery.snapshot import Snapshot


class Discovery(Protocol):
    """Follows the pools of a folder or of a cluster."""

    def watch(self) -> AsyncIterator[Snapshot]:
        """Give the first complete snapshot, then each that differs from the last."""
        ...

    def age_seconds(self) -> float:
        """Seconds since the source was last heard; infinite before the first time."""
        ...
