"""Holds the repository to what its files say of one another: packages, layers, pins, versions."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL_PATHS = [Path(p) for p in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
DEVELOPMENT_PATHS = [Path("e2e/heliostat_cluster"), Path("e2e/heliostat_federation")]
"""Packages that only tests and benchmarks need: installed with the checkout, not in the wheel."""
SOURCE_PATHS = [*WHEEL_PATHS, *DEVELOPMENT_PATHS]
PACKAGES = sorted(path.name for path in SOURCE_PATHS)


def tracked_files() -> list[Path]:
    """The files git knows, or none where this is not a checkout."""
    if not (ROOT / ".git").exists():
        return []
    git = shutil.which("git")
    if git is None:
        return []
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]


def test_every_package_folder_is_in_the_wheel() -> None:
    """A folder that holds a heliostat package is built, or the tests' own; no other is named."""
    found = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/heliostat_*/__init__.py")}
    assert found == set(SOURCE_PATHS)


def test_every_package_has_its_layer() -> None:
    """No package escapes the layer contract, the linter's roots, mypy or the editable install."""
    linter = PYPROJECT["tool"]["importlinter"]
    layers = next(c["layers"] for c in linter["contracts"] if c["type"] == "layers")
    in_layers = [name.strip() for layer in layers for name in re.split(r"[|:]", layer)]
    assert sorted(in_layers) == PACKAGES
    assert sorted(linter["root_packages"]) == PACKAGES
    assert sorted(PYPROJECT["tool"]["mypy"]["packages"]) == PACKAGES
    sources = sorted({str(path.parent) for path in SOURCE_PATHS})
    assert sorted(PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]) == sources
    assert sorted(PYPROJECT["tool"]["mypy"]["mypy_path"].split(":")) == sources


def test_source_roots_are_not_packages() -> None:
    """A source root never becomes importable: `operator/__init__.py` hides the standard one."""
    roots = {path.parent for path in SOURCE_PATHS} | {Path("operator")}
    assert [str(root) for root in roots if (ROOT / root / "__init__.py").exists()] == []


def test_every_package_is_typed() -> None:
    """Each package tells type checkers that its annotations count."""
    assert [str(path) for path in SOURCE_PATHS if not (ROOT / path / "py.typed").exists()] == []


def test_the_installed_version_is_the_declared_one() -> None:
    """What is installed is what pyproject.toml says, and the changelog has a place for it."""
    declared = PYPROJECT["project"]["version"]
    assert version("heliostat") == declared
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{declared}]" in changelog


def numbers(release: str) -> list[int]:
    """A version of numbers alone, without the zeros at its end, so that 9 and 9.0 are the same."""
    return [int(part) for part in re.sub(r"(\.0)+$", "", release).split(".")]


def test_the_lock_pins_every_dependency() -> None:
    """Each declared dependency is pinned within its bounds, and nothing is without hashes."""
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)((?:.*\\\n)*.*)", lock, flags=re.MULTILINE)
    pinned = {re.sub("[-_.]+", "-", name).lower(): pin for name, pin, _ in pins}
    assert [name for name, _, rest in pins if "--hash=sha256:" not in rest] == []
    declared = PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]
    for requirement in declared:
        parts = re.fullmatch(r"([a-z0-9-]+)(==|>=)([0-9.]+)", requirement)
        assert parts is not None, f"{requirement}: this test knows name>=1.2 and name==1.2"
        name, relation, bound = parts.groups()
        assert name in pinned, f"{name} is not locked: run make lock"
        pin = numbers(pinned[name])
        fits = pin == numbers(bound) if relation == "==" else pin >= numbers(bound)
        assert fits, f"{requirement} is locked at {pinned[name]}"


def imported_packages(source: str) -> Iterator[str]:
    """The packages that a module imports, wherever in it; a relative import is its own package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_the_core_needs_the_standard_library_alone() -> None:
    """No module of heliostat_routing imports another package, one that no contract names either."""
    allowed = sys.stdlib_module_names | {"heliostat_routing"}
    modules = sorted((ROOT / "routing" / "heliostat_routing").rglob("*.py"))
    assert modules
    foreign = [
        f"{path.relative_to(ROOT)}: {package}"
        for path in modules
        for package in imported_packages(path.read_text())
        if package not in allowed
    ]
    assert foreign == []


def test_make_help_lists_every_target() -> None:
    """`make help` is the index: no target is missing from it."""
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, flags=re.MULTILINE)
    assert sorted(re.findall(r"^([a-z0-9-]+):.*## ", makefile, flags=re.MULTILINE)) == sorted(
        phony.split()
    )


# In pieces, so that this file does not hold what it looks for.
FORBIDDEN = re.compile(
    "|".join(["pypi" + r"\.org", "pythonhosted" + r"\.org", "--(?:extra-)?index" + "-url"])
    + "|"
    + r"(?<![\w.])/(?:home|root|work|Users)"
    + r"/\w"
)


def test_no_tracked_file_names_a_registry_or_a_machine() -> None:
    """The repository works with any registry and from any folder: it names none."""
    files = tracked_files()
    if not files:
        pytest.skip("not a git checkout")
    hits = []
    for path in files:
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "ignore")
        hits += [f"{path.relative_to(ROOT)}: {m.group()}" for m in FORBIDDEN.finditer(text)]
    assert hits == []
