"""How an engine leaves without losing a request: preStop waits, then comes SIGTERM."""

import math

from heliostat_crds.duration import parse_duration
from heliostat_crds.engine import Engine
from heliostat_kube.resource import Json
from heliostat_operator.desired.engine_args import SHUTDOWN_SECONDS

SPARE_SECONDS = 10
"""What is left of the grace period for the engine's process to end."""

PRE_STOP_SCRIPT = """\
# Waits until this engine has been idle for a while, or the time is up: python3 -c ... PORT SECONDS
import re, sys, time, urllib.request

port, limit = sys.argv[1], max(3.0, float(sys.argv[2]))
metrics = f"http://127.0.0.1:{port}/metrics"
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
count = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:{.*})? (\\S+)", re.MULTILINE)
began = time.monotonic()
quiet = 0  # reads in a row that found nobody: no request, or no engine
while time.monotonic() - began < limit:
    try:
        with direct.open(metrics, timeout=5) as answer:
            counts = [float(number) for number in count.findall(answer.read().decode())]
        idle = bool(counts) and not any(counts)
    except Exception as error:  # slow or odd: perhaps busy; refused: nothing listens any more
        idle = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
    quiet = quiet + 1 if idle else 0
    # Routers drop the pod within a second of its deletion, so three are enough.
    if quiet >= 4 and time.monotonic() - began >= 3:
        break
    time.sleep(0.5)
"""


def drain_seconds(engine: Engine) -> int:
    """Give how long requests in flight may take, in whole seconds."""
    return math.ceil(parse_duration(engine.drain_timeout))


def grace_seconds(engine: Engine) -> int:
    """Give the grace period of the pod: to drain, to shut down, and some to spare."""
    return drain_seconds(engine) + SHUTDOWN_SECONDS + SPARE_SECONDS


def desired_lifecycle(engine: Engine) -> Json:
    """Give the preStop hook, which holds back SIGTERM.

    It asks the engine itself. So it also covers routers that have not heard of the deletion:
    what they still send keeps the engine alive.
    """
    command = ["python3", "-c", PRE_STOP_SCRIPT, str(engine.port), str(drain_seconds(engine))]
    return {"preStop": {"exec": {"command": command}}}
