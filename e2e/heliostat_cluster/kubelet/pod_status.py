"""A pod's status, as a kubelet computes it from the states of its containers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from heliostat_kube.resource import Json


class Role(Enum):
    """What a container is in its pod."""

    INIT = auto()
    SIDECAR = auto()
    MAIN = auto()


@dataclass
class ContainerRecord:
    """What the kubelet knows of one container."""

    spec: Json
    role: Role
    state: Json = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Json = field(default_factory=dict)
    restarts: int = 0
    container_id: str = ""
    image_id: str = ""
    ready: bool = False
    started: bool = False

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.spec["name"])

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it has not."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def status(self) -> Json:
        """Return its entry in the pod's status."""
        status: Json = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.image_id,
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }
        if self.container_id:
            status["containerID"] = self.container_id
        return status


@dataclass(frozen=True)
class PodView:
    """The containers and addresses of a pod at one moment.

    ended -- no container will ever run again
    """

    pod: Json
    records: Sequence[ContainerRecord]
    host_address: str
    pod_address: str
    started_at: str
    ended: bool


def desired_status(view: PodView, previous: Json, now: str) -> Json:
    """Return the status to write; times of conditions that did not change stay."""
    phase = _phase(view)
    status: Json = {
        "phase": phase,
        "hostIP": view.host_address,
        "hostIPs": [{"ip": view.host_address}],
        "startTime": view.started_at,
        "qosClass": view.pod.get("status", {}).get("qosClass", "BestEffort"),
        "conditions": _stamped(_conditions(view, phase), previous, now),
        "containerStatuses": [each.status() for each in _with(view, Role.MAIN)],
    }
    if (generation := view.pod["metadata"].get("generation")) is not None:
        status["observedGeneration"] = generation
    if view.pod_address:
        status["podIP"] = view.pod_address
        status["podIPs"] = [{"ip": view.pod_address}]
    if initial := _with(view, Role.INIT, Role.SIDECAR):
        status["initContainerStatuses"] = [_initial_status(each) for each in initial]
    return status


def _initial_status(record: ContainerRecord) -> Json:
    status = record.status()
    if record.role is Role.INIT:
        status["ready"] = record.exit_code == 0
    return status


def _phase(view: PodView) -> str:
    mains = _with(view, Role.MAIN)
    codes = [record.exit_code for record in mains]
    if view.ended:
        inits = [record.exit_code for record in _with(view, Role.INIT)]
        failed = any(code != 0 for code in codes) or any(code for code in inits)
        return "Failed" if failed else "Succeeded"
    began = any(record.is_running or record.container_id for record in mains)
    return "Running" if began else "Pending"


def _conditions(view: PodView, phase: str) -> list[Json]:
    over = phase in ("Succeeded", "Failed")
    pending = [
        record.name
        for record in _with(view, Role.INIT, Role.SIDECAR)
        if not (record.exit_code == 0 if record.role is Role.INIT else record.started)
    ]
    initialized = not pending or any(record.container_id for record in _with(view, Role.MAIN))
    unready = [record.name for record in _with(view, Role.MAIN, Role.SIDECAR) if not record.ready]
    contained = not unready and not over
    message = f"containers with unready status: [{' '.join(unready)}]"
    reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    gates = _closed_gates(view.pod)
    return [
        _condition("PodReadyToStartContainers", bool(view.pod_address) and not over),
        _condition(
            "Initialized",
            initialized,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(pending)}]",
        ),
        _condition("ContainersReady", contained, reason, "" if over else message),
        _condition("Ready", contained, reason, "" if over else message)
        if not contained or not gates
        else _condition("Ready", False, "ReadinessGatesNotReady", "; ".join(gates)),
    ]


def _closed_gates(pod: Json) -> list[str]:
    conditions = pod.get("status", {}).get("conditions") or ()
    states = {condition["type"]: condition["status"] for condition in conditions}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    return [
        f'corresponding condition of pod readiness gate "{gate}" does not exist or is false'
        for gate in gates
        if states.get(gate) != "True"
    ]


def _condition(kind: str, state: bool, reason: str = "", message: str = "") -> Json:
    """Return a condition; reason and message are only told of one that is false."""
    condition: dict[str, Any] = {"type": kind, "status": "True" if state else "False"}
    condition["reason"] = None if state or not reason else reason
    condition["message"] = None if state or not message else message
    return condition


def _stamped(conditions: list[Json], previous: Json, now: str) -> list[Json]:
    before = {each["type"]: each for each in previous.get("conditions") or ()}
    for condition in conditions:
        old = before.get(condition["type"])
        same = old is not None and old["status"] == condition["status"]
        condition["lastTransitionTime"] = old["lastTransitionTime"] if old and same else now
        condition["lastProbeTime"] = None
    return conditions


def _with(view: PodView, *roles: Role) -> list[ContainerRecord]:
    return [record for record in view.records if record.role in roles]


def records_of(pod: Json) -> list[ContainerRecord]:
    """Return the containers of a pod that has not begun, in the order of their start."""
    spec = pod["spec"]
    records = []
    for container in spec.get("initContainers") or ():
        role = Role.SIDECAR if container.get("restartPolicy") == "Always" else Role.INIT
        records.append(ContainerRecord(container, role))
    records += [ContainerRecord(container, Role.MAIN) for container in spec["containers"]]
    if len(records) > len(spec["containers"]):
        for record in records[1:]:
            record.state = {"waiting": {"reason": "PodInitializing"}}
    return records
