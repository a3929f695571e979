"""Every value's effect on what is installed, as files that a reviewer can read.

`<case>.values.yaml` is what a user sets, `<case>.golden.yaml` the objects that then differ from
those of the default values. `--regenerate` writes the latter anew.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..values_table import leaf_values
from .rendering import CHART, HelmError, Rendered, render

HERE = Path(__file__).parent
DEFAULT = "default"
CASES = sorted(path.name.removesuffix(".values.yaml") for path in HERE.glob("*.values.yaml"))
# Values with no effect on the chart's own objects; test_chart.py shows theirs.
CRDS_VALUES = {"crds.enabled", "crds.keep"}


def values_file(case: str) -> Path:
    """Where the case's values are."""
    return HERE / f"{case}.values.yaml"


def values_of(case: str) -> dict[str, Any]:
    """What the case sets."""
    return yaml.safe_load(values_file(case).read_text()) or {}


def golden_text(case: str, rendered: Rendered, default: Rendered) -> str:
    """All objects of the default case; of another, those that differ, and which are gone."""
    if case == DEFAULT:
        return "---\n".join(rendered.own)
    changed = [text for text in rendered.own if text not in default.own]
    names = {_name(text) for text in rendered.own}
    gone = [name for name in map(_name, default.own) if name not in names]
    return "".join(f"# gone: {name}\n" for name in gone) + "---\n".join(changed)


def _name(text: str) -> str:
    found = yaml.safe_load(text)
    return " ".join(
        (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"])
    )


@pytest.fixture(scope="session")
def default() -> Rendered:
    """What the default values give."""
    return render()


@pytest.mark.parametrize("case", CASES)
def test_values_render_what_their_golden_file_says(
    case: str, default: Rendered, *, regenerate: bool
) -> None:
    """Each case renders exactly the objects that were reviewed."""
    text = golden_text(case, render("--values", values_file(case)), default)
    golden = HERE / f"{case}.golden.yaml"
    if regenerate:
        golden.write_text(text)
    assert text == golden.read_text(), "run make charts, and read the difference"


def test_every_golden_file_has_its_case() -> None:
    """No golden file outlives the case that it shows."""
    golden = {path.name.removesuffix(".golden.yaml") for path in HERE.glob("*.golden.yaml")}
    assert golden == set(CASES)


def set_paths(values: dict[str, Any], documented: set[str], above: str = "") -> Iterator[str]:
    """The documented values that a case sets."""
    for key, value in values.items():
        path = f"{above}{key}"
        if path in documented:
            yield path
        else:
            yield from set_paths(value, documented, f"{path}.")


def without(values: dict[str, Any], path: str) -> dict[str, Any]:
    """The values less one of them."""
    rest = copy.deepcopy(values)
    *groups, last = path.split(".")
    group = rest
    for name in groups:
        group = group[name]
    del group[last]
    return rest


DOCUMENTED = {path for path, _, _ in leaf_values((CHART / "values.yaml").read_text())}
SETTINGS = [
    (case, path) for case in CASES for path in sorted(set_paths(values_of(case), DOCUMENTED))
]


def test_every_value_has_a_case() -> None:
    """Each value that users can set is set by a case."""
    assert {path for _, path in SETTINGS} == DOCUMENTED - CRDS_VALUES


@pytest.mark.parametrize("case", [case for case in CASES if case != DEFAULT])
def test_every_value_of_a_case_has_an_effect(case: str, tmp_path: Path) -> None:
    """Leaving out any value of a case gives something else, so that none is without effect."""
    whole = render("--values", values_file(case))
    idle = []
    for path in (path for name, path in SETTINGS if name == case):
        rest = tmp_path / f"{path}.yaml"
        rest.write_text(yaml.safe_dump(without(values_of(case), path)))
        try:
            if render("--values", rest) == whole:
                idle.append(path)
        except HelmError:
            continue
    assert idle == []
