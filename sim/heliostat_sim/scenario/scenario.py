"""Scenarios by name or by file: load one, change it, and make its world."""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heliostat_crds.yaml_document import YamlDocument, YamlError, read_yaml
from heliostat_sim.scenario.compiled import scenario_demand, world_settings
from heliostat_sim.scenario.problems import ScenarioError, scenario_error
from heliostat_sim.scenario.spec import ScenarioSpec
from heliostat_sim.world.demand import Demand
from heliostat_sim.world.settings import WorldSettings

_SUFFIX = ".yaml"
_FILE_SUFFIXES = (_SUFFIX, ".yml")
_BUILT_IN = files("heliostat_sim").joinpath("scenarios")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario. Changing it makes another."""

    name: str
    spec: ScenarioSpec
    source: str
    """The file, as errors name it."""
    data: Mapping[str, Any]
    """What the file says, changes included."""

    @property
    def description(self) -> str:
        """What the scenario is about."""
        return self.spec.description.strip()

    def settings(self) -> WorldSettings:
        """Everything but the demand."""
        return world_settings(self.spec)

    def demand(self, seed: int, traces: Path | None = None) -> Demand:
        """All that is asked; `traces` is the folder of recorded ones.

        Raises WorkloadError, as where a trace is needed and not given.
        """
        return scenario_demand(self.spec, seed, traces)

    def with_changes(self, changes: Mapping[str, Any]) -> "Scenario":
        """The scenario with other values, each at a dotted path. Raises ScenarioError."""
        data = deepcopy(dict(self.data))
        for path, value in changes.items():
            _set(data, path, value)
        return _checked(self.name, data, self.source, None)

    def shortened(self) -> "Scenario":
        """The short form, for tests: with the changes that the file itself gives for it."""
        return self.with_changes({"short": {}, **self.spec.short})


def scenario_names() -> list[str]:
    """The scenarios that come with the simulator."""
    found = (entry.name for entry in _BUILT_IN.iterdir() if entry.name.endswith(_SUFFIX))
    return sorted(name.removesuffix(_SUFFIX) for name in found)


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A scenario by its name, or from a file. Raises ScenarioError."""
    path = Path(name_or_path)
    if path.suffix in _FILE_SUFFIXES or os.sep in str(name_or_path):
        try:
            return parse_scenario(path.stem, path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ScenarioError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{path}: {error}") from error
    name, names = str(name_or_path), scenario_names()
    if name not in names:
        raise ScenarioError(f'there is no scenario "{name}"; there are {", ".join(names)}')
    text = _BUILT_IN.joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    return parse_scenario(name, text, name + _SUFFIX)


def parse_scenario(name: str, text: str, source: str) -> Scenario:
    """A scenario from a file's text. Raises ScenarioError."""
    try:
        documents = read_yaml(text)
    except YamlError as error:
        raise ScenarioError(f"{source}:{error.line}: {error.message}") from error
    if len(documents) != 1 or not isinstance(documents[0].data, dict):
        raise ScenarioError(f"{source}: a scenario is one document, a mapping")
    scenario = _checked(name, documents[0].data, source, documents[0])
    try:
        scenario.shortened()
    except ScenarioError as error:
        raise ScenarioError(f"{error} (in the short form)") from error
    return scenario


def parse_change(text: str) -> tuple[str, Any]:
    """A change as a command line gives it, `regions.us.engines=4`. Raises ScenarioError."""
    path, separator, value = text.partition("=")
    if not separator or not path:
        raise ScenarioError(f'"{text}" is not a change; write PATH=VALUE, such as think=5s')
    try:
        documents = read_yaml(value)
    except YamlError as error:
        raise ScenarioError(f"{path}: {error.message}") from error
    return path, documents[0].data if documents else None


def _checked(
    name: str, data: Mapping[str, Any], source: str, document: YamlDocument | None
) -> Scenario:
    try:
        spec = ScenarioSpec.model_validate(data)
    except ValidationError as error:
        raise scenario_error(error, source, data, document) from error
    return Scenario(name, spec, source, data)


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path; mappings on the way are made where they are missing."""
    *parents, last = path.split(".")
    place: Any = data
    for part in parents:
        if isinstance(place, list):
            place = place[_index(place, part, path)]
        else:
            place = place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise ScenarioError(f'{path}: "{part}" is a value and has no fields')
    if isinstance(place, list):
        place[_index(place, last, path)] = value
    else:
        place[last] = value


def _index(place: list[Any], part: str, path: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise ScenarioError(f'{path}: "{part}" is none of the {len(place)} entries, from 0')
    return int(part)
