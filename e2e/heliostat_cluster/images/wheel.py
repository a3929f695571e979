"""The `heliostat` image: an environment in which the wheel of this checkout is installed.

Its dependencies are those of the environment that runs the tests, which the lock has filled; the
package itself comes from the wheel alone, so a file that the wheel lacks is missing here too.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from heliostat_cluster.errors import ClusterError
from heliostat_cluster.tools import cache_folder

CHECKOUT = Path(__file__).resolve().parents[3]
_SOURCE_FOLDERS = ("routing", "crds", "kube", "extproc", "operator", "sim", "cli")
_SOURCE_FILES = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE")
_KEPT_SECONDS = 24 * 3600.0


def build_environment() -> Path:
    """Return the environment for these sources, building it if need be. Raises ClusterError."""
    base = cache_folder() / "wheels"
    folder = base / _digest()
    if not folder.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        _build(folder)
        _forget_old(base)
    folder.touch()
    return folder


def _build(folder: Path) -> None:
    """Build beside the folder and rename: no run ever sees a part of it."""
    uv = Path(sys.prefix) / "bin" / "uv"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as name:
        work = Path(name)
        _run([uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--offline"], work)
        wheels = list((work / "dist").glob("*.whl"))
        venv = work / "environment"
        _run([sys.executable, "-m", "venv", "--without-pip", venv], work)
        install: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--offline",
            "--no-deps",
            "--compile-bytecode",
        ]
        _run([*install, "--python", venv / "bin" / "python", *wheels], work)
        _link_libraries(venv)
        _name_interpreter(venv, folder)
        venv.chmod(0o755)
        try:
            venv.rename(folder)
        except OSError as error:
            if not folder.is_dir():
                raise ClusterError(f"cannot write {folder}: {error}") from error


def _run(command: list[str | Path], work: Path) -> None:
    parts = [str(part) for part in command]
    if "build" in parts:
        parts += ["--python", sys.executable, "--out-dir", str(work / "dist"), str(CHECKOUT)]
    done = subprocess.run(
        parts,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"VIRTUAL_ENV": sys.prefix},
    )
    if done.returncode:
        raise ClusterError(f"building the wheel failed: {done.stderr.strip()}")


def _link_libraries(venv: Path) -> None:
    """Have the environment see the dependencies of ours, but not what ours links to in turn."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = venv / "lib" / version / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


def _name_interpreter(venv: Path, final: Path) -> None:
    """Let the programs' first lines name the place where the environment will be."""
    for program in (venv / "bin").iterdir():
        if program.is_file() and not program.is_symlink():
            text = program.read_text()
            program.write_text(text.replace(str(venv), str(final)))


def _forget_old(base: Path) -> None:
    """Remove what no run has used for a day; one that lasts may still use the others."""
    for each in base.iterdir():
        if time.time() - each.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(each, ignore_errors=True)


def _digest() -> str:
    digest = hashlib.sha256(f"{sys.prefix} {sys.version}".encode())
    files = [CHECKOUT / name for name in _SOURCE_FILES]
    for folder in _SOURCE_FOLDERS:
        files += (CHECKOUT / folder).rglob("*")
    for path in sorted(files):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
