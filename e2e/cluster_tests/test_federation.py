"""Three regions on Kubernetes: a release each, with its certificate, peers and operator.

They are three namespaces of one cluster, because one machine bears one control plane; nothing is
shared but its API server. Each release watches its own namespace and has rights in no other, and
regions reach each other only through the Services of their federation ports.
"""

import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from heliostat_cluster.cluster import Cluster
from heliostat_cluster.kind import is_wanted
from heliostat_cluster.region import RELEASE, Region, eventually, pool_manifest
from heliostat_cluster.service_proxy import ServiceProxy
from heliostat_federation.authority import Certificates, identity_of
from heliostat_kube.api import KubeApi
from heliostat_kube.resource import NAMESPACES, REGION_PEERS, Json

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(is_wanted(), reason="pods of kind do not reach this machine's proxies"),
]

NAMES = ("us", "eu", "asia")
MODEL = "chat"
US_GATEWAYS = 3
CLIENTS = 6
STATE_SECONDS = 2.0
"""How long a router may take to know what the others do."""
_WORD_OF_ROUTER, _WORD_OF_ENVOY = "router", "--disable-hot-restart"


class Regions:
    """The releases by the names of their regions."""

    def __init__(self, cluster: Cluster, api: KubeApi, certificates: Certificates) -> None:
        self.cluster = cluster
        self.api = api
        self.certificates = certificates
        self.by_name = {name: Region(cluster, api, f"region-{name}") for name in NAMES}
        self.addresses: dict[str, str] = {}

    def __getitem__(self, name: str) -> Region:
        return self.by_name[name]

    def peers_of(self, name: str) -> list[dict[str, object]]:
        """The chart's values for the other regions."""
        return [
            {
                "region": other,
                "gateway": {"address": self.addresses[other]},
                "identity": identity_of(other),
            }
            for other in NAMES
            if other != name
        ]

    async def install(self, name: str, *, gateways: int = 1) -> None:
        """Install a region's release, or upgrade it."""
        await self[name].install(
            *("--set", f"crds.enabled={str(name == NAMES[0]).lower()}"),
            *("--set", f"watchNamespaces={{{self[name].home}}}", "--set", "operator.replicas=1"),
            *("--set", f"region.name={name}", "--set", "federation.enabled=true"),
            *("--set", "federation.certificate.secretName=region"),
            *("--set", "federation.service.type=ClusterIP"),
            *("--set", f"gateway.replicas={gateways}"),
            *("--set-json", f"peers={json.dumps(self.peers_of(name))}"),
        )

    async def make_secret(self, name: str) -> None:
        """Give a region its certificate, as `heliostat certs` tells its user to."""
        self.certificates.issue(name)
        folder = self.certificates.folder(name)
        files = [f"--from-file={folder / it}" for it in ("tls.crt", "tls.key", "ca.crt")]
        await self.cluster.kubectl(
            *("create", "secret", "generic", "region", "-n", self[name].home, *files)
        )

    async def us_agrees(self, *but: str) -> bool:
        """Whether the gateways of us charge its engine alike, and with no more than is asked.

        but -- pods that are not asked
        """
        loads = []
        for pod in await self["us"].component_pods("gateway"):
            if pod["metadata"]["name"] not in but:
                pools = (await _ask_router(pod, "/pools"))["pools"]
                endpoints = [it for pool in pools for it in pool["endpoints"]]
                loads.append(sum(it["inflight"] + it["siblings_inflight"] for it in endpoints))
        agreed = len(loads) == US_GATEWAYS - len(but) and min(loads) == max(loads)
        return agreed and 0 < loads[0] <= CLIENTS

    async def us_is_ready(self) -> bool:
        """Whether all gateways of us are there, and ready."""
        pods = await self["us"].component_pods("gateway")
        ready = [
            pod
            for pod in pods
            for it in pod["status"].get("conditions", ())
            if (it["type"], it["status"]) == ("Ready", "True")
        ]
        return len(ready) == len(pods) == US_GATEWAYS

    async def state(self, name: str, peer: str) -> str:
        """The reason of a RegionPeer's condition Connected."""
        found = await self.api.get(REGION_PEERS, peer, self[name].home) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((it["reason"] for it in conditions if it["type"] == "Connected"), "")

    async def until_state(self, name: str, peer: str, *reasons: str) -> None:
        """Wait until the operator says so of a peer."""
        last = ""

        async def told() -> bool:
            nonlocal last
            last = await self.state(name, peer)
            return last in reasons

        try:
            await eventually(told, f"{name} holds {peer} {reasons}", within_seconds=90)
        except AssertionError as error:
            raise AssertionError(f"{error}; {last=}") from None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def regions() -> AsyncIterator[Regions]:
    """Three releases that are connected to each other; us has three gateways."""
    kept = os.environ.get("E2E_STATE")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heliostat-e2e-")))
        state = Path(kept, "federation-cluster") if kept else folder / "cluster"
        cluster = await stack.enter_async_context(Cluster(state))
        api = await stack.enter_async_context(KubeApi.connect(cluster.kubeconfig))
        found = Regions(cluster, api, Certificates(folder / "certificates"))
        own_address = cluster.url.removeprefix("https://").rpartition(":")[0]
        for name, region in found.by_name.items():
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": region.home}}
            await api.create(NAMESPACES, namespace)
            await found.make_secret(name)
            proxy = ServiceProxy(api, region.home, f"{RELEASE}-federation", "federation")
            found.addresses[name] = await stack.enter_async_context(proxy.serve(own_address))
        for name in NAMES:
            await found.install(name)
        for name, region in found.by_name.items():
            # The first time the definitions were not there yet, and with them no peer.
            await found.install(name, gateways=US_GATEWAYS if name == "us" else 1)
            await region.apply(pool_manifest(region.home, MODEL, replicas=1))
        for name, region in found.by_name.items():
            gateways = US_GATEWAYS if name == "us" else 1
            await stack.enter_async_context(region.proxied_gateway(gateways))
            await region.until_settled(region.home, MODEL, 1)
            await region.until_served(MODEL)
            for peer in NAMES:
                if peer != name:
                    await found.until_state(name, peer, "Connected")
        yield found


async def test_a_peers_status_follows_it(regions: Regions) -> None:
    """Connected, Unreachable while eu has no gateway, Connected again; nobody's request fails."""
    eu = regions["eu"]
    async with regions["us"].traffic(MODEL, clients=6) as traffic:
        await traffic.answered(6)
        gateway = f"deployment/{RELEASE}-gateway"
        await regions.cluster.kubectl("scale", gateway, "--replicas=0", "-n", eu.home)
        await regions.until_state("us", "eu", "Unreachable")
        assert await regions.state("us", "asia") == "Connected"
        await traffic.answered(6)
        await regions.cluster.kubectl("scale", gateway, "--replicas=1", "-n", eu.home)
        await regions.until_state("us", "eu", "Connected")
        await traffic.answered(6)
    traffic.expect_no_failures()


async def test_a_pool_without_engines_is_served_by_other_regions(regions: Regions) -> None:
    """With its pool scaled to nothing, us answers through eu and asia."""
    us = regions["us"]
    await us.patch_pool(us.home, MODEL, {"replicas": 0})
    try:
        await us.until_settled(us.home, MODEL, 0)
        async with us.traffic(MODEL, clients=4) as traffic:
            await traffic.answered(12)
        traffic.expect_no_failures()
    finally:
        await us.patch_pool(us.home, MODEL, {"replicas": 1})
        await us.until_settled(us.home, MODEL, 1)


async def test_gateways_of_a_region_keep_one_view(regions: Regions) -> None:
    """Three gateways agree on what is in flight; one joins late, one leaves: no request fails."""
    us = regions["us"]
    async with us.traffic(MODEL, clients=CLIENTS) as traffic:
        await traffic.answered(CLIENTS)
        await eventually(regions.us_agrees, "all gateways count the same in flight")
        [leaving, *_] = await us.component_pods("gateway")
        name = leaving["metadata"]["name"]
        await regions.cluster.kubectl("delete", "pod", name, "-n", us.home, "--wait=false")
        await us.until_pod_gone(us.home, name, within_seconds=120)
        await eventually(regions.us_is_ready, "another gateway has joined", within_seconds=90)
        await traffic.answered(12)
        await eventually(regions.us_agrees, "the late one counts the same in flight")
    traffic.expect_no_failures()


async def test_a_gateway_that_is_killed_costs_its_own_streams_alone(regions: Regions) -> None:
    """What ran through a pod that dies at once is cut and nothing else; within two seconds the
    others know what is left, and so does the pod itself once it serves again."""
    us = regions["us"]
    async with us.traffic(MODEL, clients=CLIENTS) as traffic:
        await traffic.answered(CLIENTS)
        await eventually(regions.us_agrees, "all gateways count the same in flight")
        [killed, *_] = await us.component_pods("gateway")
        name = killed["metadata"]["name"]
        for word in (_WORD_OF_ROUTER, _WORD_OF_ENVOY):
            await regions.cluster.kill(name, word)
        await eventually(
            lambda: regions.us_agrees(name), "the others know", within_seconds=STATE_SECONDS
        )
        await eventually(lambda: _serves(killed), "it serves again")
        await eventually(regions.us_agrees, "it knows all", within_seconds=STATE_SECONDS)
        await eventually(regions.us_is_ready, "it is ready", within_seconds=90)
        failures = list(traffic.tally.failures)
        assert len(failures) < CLIENTS, failures
        await traffic.answered(2 * CLIENTS)
        assert traffic.tally.failures == failures


async def _serves(pod: Json) -> bool:
    """Whether the gateway of the pod answers."""
    ports = (it for part in pod["spec"]["containers"] for it in part.get("ports", ()))
    port = next(it["containerPort"] for it in ports if it["name"] == "http")
    url = f"http://{pod['status'].get('podIP', '')}:{port}/v1/models"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status == 200 and MODEL in await response.text()


async def _ask_router(pod: Json, path: str) -> Json:
    address = pod["status"].get("podIP", "")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}:9090{path}") as response,
    ):
        answer: Json = await response.json()
    return answer
