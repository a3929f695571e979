"""`make cluster`: what it says, and what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

LAST_LINE = "^C ends it.\n"
END_SECONDS = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder of a short name: the path of a Unix socket has 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="up-") as name:
        yield Path(name)


@pytest.mark.parametrize("kept", [False, True])
def test_a_cluster_of_ones_own_says_where_its_logs_are_and_whether_they_stay(
    folder: Path, kept: bool
) -> None:
    """Each path has a line of its own; at the end only a folder that was asked for stays."""
    options = ["--nodes", "0", *(["--state", str(folder / "state")] if kept else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "heliostat_cluster", "up", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    told = list(takewhile(lambda line: line != LAST_LINE, process.stdout))
    assert process.poll() is None, told
    logs = Path(re.findall(r"^  logs +(\S+)$", "".join(told), re.MULTILINE)[0])
    assert logs.is_dir()
    process.send_signal(signal.SIGINT)
    end, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0
    assert len(told[0]) <= 80
    assert logs.is_dir() == kept
    assert ("stay in" in end) == kept
    assert list(folder.iterdir()) == ([folder / "state"] if kept else [])
