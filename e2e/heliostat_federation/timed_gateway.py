"""`heliostat` whose Envoy writes down when it did what with each request, to the microsecond.

Each entrance has a file of its own in the process's folder for temporary files. All instants are of
one machine's clock, so those of two gateways compare.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any as AnyType
from unittest.mock import patch

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import DataSource, SubstitutionFormatString
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
)
from envoy_data_plane.google.protobuf import Any

from heliostat_cli.main import main
from heliostat_extproc.envoy import entrances

FLUSH_SECONDS = 10.0
"""Envoy writes its files this often."""
_INSTANTS = ("DS_RX_END", "US_TX_BEG", "US_RX_BEG", "DS_TX_BEG")
_FORMAT = " ".join(
    (
        "%START_TIME(%s.%6f)%",
        *(f"%COMMON_DURATION(DS_RX_BEG:{instant}:us)%" for instant in _INSTANTS),
        "%UPSTREAM_CLUSTER%",
    )
)


@dataclass(frozen=True, slots=True)
class Passage:
    """One request's way through a gateway: instants of the machine's clock."""

    begun_at: float
    read_at: float
    """All of it had come."""
    sent_at: float
    """It went on to where the router had said."""
    answered_at: float
    """The first byte of the answer had come."""
    told_at: float
    """The first byte of the answer went to whoever asked."""
    cluster: str


def read_passages(folder: Path, entrance: str) -> Iterator[Passage]:
    """Give what came in by an entrance and was answered from elsewhere."""
    for line in _file(folder, entrance).read_text().splitlines():
        begun_at, *microseconds, cluster = line.split()
        if "-" not in microseconds:
            begun = float(begun_at)
            read, sent, answered, told = (begun + int(it) / 1e6 for it in microseconds)
            yield Passage(begun, read, sent, answered, told, cluster)


def _file(folder: Path, entrance: str) -> Path:
    return folder / f"passages-{entrance}.log"


def _timed_manager(**fields: AnyType) -> HttpConnectionManager:
    file = _file(Path(os.environ["TMPDIR"]), fields["stat_prefix"])
    source = DataSource(inline_string=_FORMAT + "\n")
    log = FileAccessLog(
        path=str(file), log_format=SubstitutionFormatString(text_format_source=source)
    )
    logs = [*fields.pop("access_log"), AccessLog(name="file", typed_config=Any.pack(log))]
    return HttpConnectionManager(access_log=logs, **fields)


if __name__ == "__main__":
    with patch.object(entrances, "HttpConnectionManager", _timed_manager):
        sys.exit(main())
