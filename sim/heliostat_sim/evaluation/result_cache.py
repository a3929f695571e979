"""Keeps the reports of a long evaluation in a file, so that it can go on where it was cut off."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from heliostat_sim.evaluation.report import Report

_PACKAGES = ("heliostat_routing", "heliostat_sim")
_SOURCES = (".py", ".yaml")
_UNSEEN = "heliostat_sim/findings"
"""What only words the reports, and makes none."""


class ResultCache:
    """A file of JSON lines: a key, the code's digest, and the report.

    A report counts only while the code and the scenarios that it came from are the same. What a
    path in a key leads to is not looked at: whoever changes a file outside the packages removes
    the cache. `packages` are those that the reports depend on.
    """

    def __init__(self, path: Path, packages: Sequence[str] = _PACKAGES) -> None:
        self._path = path
        self._code = code_digest(packages)
        self._reports: dict[str, Report] = {}
        if path.exists():
            self._read()

    def get(self, key: str) -> Report | None:
        """The report of this key, if the code is still the same."""
        return self._reports.get(key)

    def put(self, key: str, report: Report) -> None:
        """Keep a report, in the file at once."""
        line = json.dumps({"key": key, "code": self._code, "report": report.to_json()})
        self._append(line)
        self._reports[key] = report

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            self._append("")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off while it was written
            if entry["code"] == self._code:
                self._reports[entry["key"]] = Report.from_json(entry["report"])


def code_digest(packages: Sequence[str] = _PACKAGES) -> str:
    """A digest of all code and scenarios in these packages that reports depend on."""
    digest = sha256()
    for package in packages:
        _add(digest.update, files(package), package)
    return digest.hexdigest()


def _add(update: Callable[[bytes], object], folder: Traversable, name: str) -> None:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        inner = f"{name}/{entry.name}"
        if inner == _UNSEEN:
            continue
        if entry.is_dir():
            _add(update, entry, inner)
        elif entry.name.endswith(_SOURCES):
            update(inner.encode() + b"\0" + entry.read_bytes() + b"\0")
