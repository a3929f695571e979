"""Runs helm on the charts, and reads what it renders."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heliostat_cluster.tools import build_tools

CHARTS = Path(__file__).resolve().parents[1]
CHART = CHARTS / "heliostat"
CRDS_CHART = CHARTS / "heliostat-crds"
RELEASE = "heliostat"
NAMESPACE = "heliostat-system"
# What a cluster with the Prometheus operator, cert-manager and the Gateway API serves, and with our
# definitions, which are there from the second install on.
_API_VERSIONS = (
    "monitoring.coreos.com/v1",
    "cert-manager.io/v1",
    "gateway.networking.k8s.io/v1",
    "heliostat.dev/v1alpha1/RegionPeer",
)

Object = Mapping[str, Any]


class HelmError(Exception):
    """Helm refused; the text is what it told the user."""


def helm(*arguments: str | Path) -> str:
    """Run helm and return its standard output. Raises HelmError."""
    command = [build_tools().path("helm"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


@dataclass(frozen=True)
class Rendered:
    """The rendered manifests: of the chart itself, and of the chart of the definitions."""

    own: tuple[str, ...]
    definitions: tuple[str, ...]

    @property
    def objects(self) -> list[Object]:
        """The chart's own objects."""
        return [yaml.safe_load(text) for text in self.own]

    def of_kind(self, kind: str) -> list[Object]:
        """The chart's own objects of this kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def find(self, kind: str, name: str) -> Object:
        """Return the one object of this kind and name."""
        (found,) = [each for each in self.of_kind(kind) if each["metadata"]["name"] == name]
        return found


def render(*options: str | Path, chart: Path = CHART, release: str = RELEASE) -> Rendered:
    """Render the chart as `helm install` would. Raises HelmError."""
    apis = [f"--api-versions={name}" for name in _API_VERSIONS]
    text = helm("template", release, chart, "--namespace", NAMESPACE, *apis, *options)
    documents = [part.strip() + "\n" for part in text.split("\n---\n")]
    documents = [part.removeprefix("---\n") for part in documents if yaml.safe_load(part)]
    own = [part for part in documents if part.startswith("# Source: heliostat/templates/")]
    others = [part for part in documents if part not in own]
    return Rendered(tuple(own), tuple(others))


def pod_specs(rendered: Rendered) -> dict[str, Object]:
    """Return the specification of each component's pods, by the component's name."""
    return {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"][
            "template"
        ]["spec"]
        for each in rendered.of_kind("Deployment")
    }


def containers(pod_spec: Object) -> dict[str, Object]:
    """Return all containers of a pod by name, sidecars too."""
    return {
        each["name"]: each
        for each in [*pod_spec.get("initContainers", ()), *pod_spec["containers"]]
    }
