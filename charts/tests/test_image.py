"""What the Dockerfile must agree on with the chart and the package."""

import re
import tomllib

import yaml

from .rendering import CHART, CHARTS

ROOT = CHARTS.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def argument(name: str) -> str:
    """The default of a build argument."""
    (value,) = re.findall(rf"^ARG {name}=(.*)$", DOCKERFILE, flags=re.MULTILINE)
    return str(value)


def test_every_base_is_pinned_by_digest() -> None:
    """The image is built on exactly the Python that was chosen."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert set(bases) == {"${PYTHON_IMAGE}@${PYTHON_DIGEST}"}
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", argument("PYTHON_DIGEST"))


def test_the_image_runs_as_the_charts_user() -> None:
    """The image's own user is a number, not root's, and the one that the chart names."""
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, flags=re.MULTILINE)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {int(part) for part in user} == {values["runAsUser"]}


def test_the_image_has_the_packages_version() -> None:
    """The label tells the version of the program inside."""
    assert argument("VERSION") == PYPROJECT["project"]["version"]


def test_the_builder_gets_every_package() -> None:
    """.dockerignore lets in whatever the wheel is made of, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    folders = {path.split("/")[0] for path in packages}
    assert "*" in lines
    assert let_in == folders | {"LICENSE", "README.md", "pyproject.toml", "requirements.lock"}
