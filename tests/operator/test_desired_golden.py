"""What the operator makes of pools, in full: `golden/<case>.in.yaml` gives `<case>.out.yaml`.

An input is a pool as a user writes it; a second document holds the operator's options and the
replicas. `pytest tests/operator --regenerate` writes the outputs anew.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat_crds.inference_pool import InferencePool
from heliostat_operator.desired.objects import desired_objects
from heliostat_operator.desired.settings import DesiredSettings, Picker, SecretKey

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in GOLDEN.glob("*.in.yaml"))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and every repeated value in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _translated(case: str) -> str:
    documents = list(yaml.safe_load_all((GOLDEN / f"{case}.in.yaml").read_text()))
    manifest, options = documents[0], documents[1] if len(documents) > 1 else {}
    manifest["metadata"]["uid"] = "5f0b9a50-0000-4000-8000-000000000001"
    pool = InferencePool.from_object(manifest)
    key, picker = options.get("engineApiKey"), options.get("picker")
    settings = DesiredSettings(
        engine_api_key=SecretKey(**key) if key else None,
        picker=Picker(**{**picker, "addresses": tuple(picker["addresses"])}) if picker else None,
    )
    replicas = options.get("replicas", pool.spec.replicas)
    objects = desired_objects(pool, replicas=replicas, settings=settings)
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=100)


@pytest.mark.parametrize("case", CASES)
def test_pool_translates_to_the_reviewed_objects(case: str, regenerate: bool) -> None:
    """A pool gives exactly the objects that were reviewed."""
    path = GOLDEN / f"{case}.out.yaml"
    translated = _translated(case)
    if regenerate:
        path.write_text(translated)
    assert path.read_text() == translated


def test_every_output_has_its_input() -> None:
    """No output is left behind by a case that is gone."""
    outputs = {path.name.removesuffix(".out.yaml") for path in GOLDEN.glob("*.out.yaml")}
    assert outputs == set(CASES)
    assert len(CASES) >= 20
