"""`python -m heliostat_cluster up`: a cluster that stays until it is interrupted."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from heliostat_cluster.cluster import Cluster, ClusterSettings
from heliostat_cluster.errors import ClusterError
from heliostat_cluster.tools import build_tools

_ASK_GATEWAY = """\
  curl "http://$(kubectl get pod -n heliostat-system -l app.kubernetes.io/component=gateway \\
    -o jsonpath='{.items[0].status.podIP}'):8080/v1/models\""""


def main() -> int:
    """Parse the command line and obey."""
    parser = argparse.ArgumentParser(prog="heliostat_cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tools", help="build the control plane, kubectl and helm into the cache")
    up = commands.add_parser("up", help="start a cluster and keep it until ^C")
    up.add_argument("--nodes", type=int, default=2, help="nodes at first (default: 2)")
    up.add_argument("--gpus", type=int, default=8, help="GPUs of each node (default: 8)")
    up.add_argument(
        "--state",
        type=Path,
        help="folder for logs and the kubeconfig, kept at the end (default: one that is removed)",
    )
    options = parser.parse_args()
    try:
        if options.command == "tools":
            sys.stdout.write(f"{build_tools().folder}\n")
        else:
            asyncio.run(_keep_up(options))
    except ClusterError as error:
        sys.stderr.write(f"heliostat_cluster: {error}\n")
        return 1
    return 0


async def _keep_up(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    state = options.state or Path(tempfile.mkdtemp(prefix="heliostat-cluster-"))
    settings = ClusterSettings(nodes=options.nodes, gpus=options.gpus)
    async with Cluster(state, settings) as cluster:
        sys.stdout.write(_announcement(cluster))
        sys.stdout.flush()
        await stop.wait()
    if options.state is None:
        shutil.rmtree(state, ignore_errors=True)
        sys.stdout.write("The cluster has ended, and its logs are removed.\n")
    else:
        sys.stdout.write(f"The cluster has ended; its logs stay in {cluster.state}.\n")


def _announcement(cluster: Cluster) -> str:
    nodes, gpus = cluster.settings.nodes, cluster.settings.gpus
    return f"""The cluster is up: {nodes} nodes with {gpus} GPUs each.

  logs          {cluster.state / "logs"}
  logs of pods  {cluster.state / "pod-logs"}

  export KUBECONFIG={cluster.kubeconfig}
  export PATH={cluster.tools.folder}:$PATH
  kubectl get nodes

Once Heliostat is installed, its gateway answers this machine at its pod's address:

{_ASK_GATEWAY}

^C ends it.
"""


if __name__ == "__main__":
    sys.exit(main())
