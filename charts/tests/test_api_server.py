"""What a real API server says to the charts: accepted, upgraded, and gone without remains."""

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from heliostat_cluster.control_plane import ControlPlaneSettings, open_control_plane
from heliostat_cluster.tools import build_tools

from .rendering import CHART, NAMESPACE, RELEASE, render
from .test_golden import CASES, values_file

_ADDRESS = "127.0.0.7"
_MODES = ("enforce", "warn")
# Kinds that this API server has not heard of: other projects define them, or the release itself
# (test_other_regions_come_and_go_with_upgrades has those taken).
_FOREIGN_KINDS = (
    "Certificate",
    "HTTPRoute",
    "PodMonitor",
    "PrometheusRule",
    "ServiceMonitor",
    "RegionPeer",
)


class ApiServer:
    """An API server without nodes, reached with helm and kubectl."""

    def __init__(self, kubeconfig: Path) -> None:
        self._environment = os.environ | {"KUBECONFIG": str(kubeconfig)}

    def run(self, program: str, *arguments: str | Path, stdin: str = "") -> str:
        """Run helm or kubectl; return what it prints, warnings included."""
        done = subprocess.run(
            [build_tools().path(program), *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            env=self._environment,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def names(self, kinds: str, *options: str) -> set[str]:
        """The objects of these kinds, as `kind/name`."""
        return set(self.run("kubectl", "get", kinds, "-o", "name", *options).split())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ApiServer]:
    """A control plane that enforces the restricted profile in the release's namespace."""
    with tempfile.TemporaryDirectory(prefix="heliostat-charts-") as folder:
        settings = ControlPlaneSettings()
        async with open_control_plane(
            build_tools(), Path(folder), _ADDRESS, settings
        ) as control_plane:
            server = ApiServer(control_plane.access.kubeconfig)
            for namespace in (NAMESPACE, "red", "blue"):
                server.run("kubectl", "create", "namespace", namespace)
                profile = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in _MODES]
                server.run("kubectl", "label", "namespace", namespace, *profile)
            yield server


@pytest.fixture
def release(server: ApiServer) -> Iterator[ApiServer]:
    """The server with the chart installed."""
    server.run("helm", "install", RELEASE, CHART, "--namespace", NAMESPACE)
    yield server
    if server.run("helm", "list", "--namespace", NAMESPACE, "--short").strip():
        server.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_accepted_without_a_warning(server: ApiServer, case: str) -> None:
    """Whatever the values, the API server takes every object, strictly read, and says no more."""
    own = render("--values", values_file(case)).own
    known = [
        text for text in own if not any(f"\nkind: {kind}\n" in text for kind in _FOREIGN_KINDS)
    ]
    told = server.run(
        *("kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict"),
        *("--filename", "-"),
        stdin="---\n".join(known),
    )
    lines = told.splitlines()
    assert len(lines) == len(known)
    assert [
        line for line in lines if not line.endswith("serverside-applied (server dry run)")
    ] == []


def test_an_upgrade_changes_ports_and_leaves_the_lease(release: ApiServer) -> None:
    """An upgrade takes old ports away, and does not end the leader's term."""
    lease = ("lease", f"{RELEASE}-operator", "--namespace", NAMESPACE)
    term = '{"spec": {"holderIdentity": "leader", "leaseDurationSeconds": 15}}'
    release.run("kubectl", "patch", *lease, "--type=merge", "--patch", term)
    told = release.run(
        *("helm", "upgrade", RELEASE, CHART, "--namespace", NAMESPACE),
        *("--set", "gateway.service.httpPort=8000,adminPort=9091"),
    )
    assert "/v1\n" in told
    assert "Serve a first model" not in told
    holder = release.run("kubectl", "get", *lease, "--output=jsonpath={.spec.holderIdentity}")
    assert holder == "leader"
    service = ("service", f"{RELEASE}-gateway", "--namespace", NAMESPACE)
    ports = release.run("kubectl", "get", *service, "--output=jsonpath={.spec.ports[*].port}")
    assert ports == "8000"


def test_an_upgrade_keeps_the_secret_of_the_gateways(release: ApiServer) -> None:
    """Gateway pods of before and after an upgrade know each other."""
    upgrade = ("helm", "upgrade", RELEASE, CHART, "--namespace", NAMESPACE)
    asked = ("kubectl", "get", "secret", f"{RELEASE}-siblings", "--namespace", NAMESPACE)
    release.run(*upgrade, "--set", "gateway.replicas=2")
    first = release.run(*asked, "--output=jsonpath={.data.secret}")
    release.run(*upgrade, "--set", "gateway.replicas=3")
    assert release.run(*asked, "--output=jsonpath={.data.secret}") == first != ""


def test_other_regions_come_and_go_with_upgrades(release: ApiServer) -> None:
    """Once the definitions are there, an upgrade makes the peers, and takes back those left out."""
    upgrade = ("helm", "upgrade", RELEASE, CHART, "--namespace", NAMESPACE)
    values = ("--values", values_file("federation"))
    release.run(*upgrade, *values)
    in_place = ("regionpeers.heliostat.dev", "--namespace", NAMESPACE)
    names = {"regionpeer.heliostat.dev/eu-west", "regionpeer.heliostat.dev/tokyo"}
    assert release.names(*in_place) == names
    header = release.run("kubectl", "get", *in_place).splitlines()[0].split()
    assert header == ["NAME", "REGION", "ADDRESS", "STATE", "RTT", "LASTSEEN", "AGE"]
    release.run(*upgrade, *values, "--set-json", "peers=[]")
    assert release.names(*in_place) == set()


def test_uninstall_leaves_definitions_and_pools_alone(release: ApiServer) -> None:
    """After uninstalling, the definitions and the pools are there, and nothing else."""
    pool = (
        '{"apiVersion": "heliostat.dev/v1alpha1", "kind": "InferencePool",'
        ' "metadata": {"name": "kept"}, "spec": {"model": {"name": "kept"}}}'
    )
    release.run("kubectl", "apply", "--filename", "-", stdin=pool)
    release.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    kinds = "all,serviceaccount,role,rolebinding,configmap,secret,lease,pdb,networkpolicy"
    release.run(
        *("kubectl", "wait", "pod", "--all", "--for=delete", "--timeout=60s"),
        *("--namespace", NAMESPACE),
    )
    left = release.names(kinds, "--namespace", NAMESPACE)
    assert left <= {"serviceaccount/default", "configmap/kube-root-ca.crt"}
    mine = release.names(
        "clusterrole,clusterrolebinding", "--selector=app.kubernetes.io/name=heliostat"
    )
    assert mine == set()
    assert release.names("inferencepools.heliostat.dev") == {"inferencepool.heliostat.dev/kept"}


def test_a_release_elsewhere_takes_the_definitions_over_when_told_to(release: ApiServer) -> None:
    """Definitions that were kept are refused to another release, unless it takes them over."""
    release.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    other = ("helm", "upgrade", "--install", "other", CHART, "--namespace", "red")
    with pytest.raises(AssertionError, match="invalid ownership metadata"):
        release.run(*other)
    release.run(*other, "--take-ownership")
    release.run("helm", "uninstall", "other", "--namespace", "red", "--wait")
    release.run(
        *("helm", "upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE),
        "--take-ownership",
    )
