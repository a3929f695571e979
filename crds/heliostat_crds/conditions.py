"""What a resource's status may say: condition types and their closed sets of reasons."""

from enum import StrEnum

MAX_MESSAGE_CHARACTERS = 80
"""Length of the messages of Ready and Progressing: `kubectl get` shows them whole."""
MAX_DETAIL_CHARACTERS = 1000
"""Length of the message of Degraded, which tells all that is known; an event holds no more."""


class ConditionType(StrEnum):
    """The conditions of an InferencePool."""

    READY = "Ready"
    """The pool serves what its spec asks for."""
    PROGRESSING = "Progressing"
    """The pool is on its way to what its spec asks for."""
    DEGRADED = "Degraded"
    """Something is wrong, though the pool may still serve."""


class ReadyReason(StrEnum):
    """Why a pool is ready or not."""

    ALL_READY = "AllReady"
    """True: every replica serves."""
    UPDATING = "Updating"
    """True: as many replicas as asked for serve while a rollout replaces them."""
    UPDATE_STALLED = "UpdateStalled"
    """True: as many replicas as asked for serve, but the rollout of new ones cannot go on."""
    SCALED_TO_ZERO = "ScaledToZero"
    """True: `replicas` is 0, and nothing runs."""
    LOADING = "Loading"
    """False: pods run, and their engines still load the model."""
    PODS_NOT_READY = "PodsNotReady"
    """False: fewer pods are ready than asked for, for no more specific reason."""
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    """False: no machine has room for a pod (accelerators, memory, placement)."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """False: the engine's image cannot be pulled."""
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    """False: the engine exited before it was ever ready."""
    ENGINE_CRASHED = "EngineCrashed"
    """False: an engine that was ready exited."""
    INVALID_SPEC = "InvalidSpec"
    """False: the spec cannot be carried out; the last good one keeps serving."""
    NAME_CONFLICT = "NameConflict"
    """False: the name of the model, an alias or an adapter belongs to an older pool."""
    NO_PODS = "NoPods"
    """False: the selector matches no pod."""


class ProgressingReason(StrEnum):
    """Where a pool is on its way."""

    UPDATING = "Updating"
    """True: a rollout replaces pods."""
    SCALING = "Scaling"
    """True: pods are being added."""
    DRAINING = "Draining"
    """True: pods that will be removed finish their requests."""
    LOADING = "Loading"
    """True: engines load the model."""
    COMPLETE = "Complete"
    """False: nothing is left to do."""
    STALLED = "Stalled"
    """False: nothing moves until its cause, named in Degraded, is gone."""


class DegradedReason(StrEnum):
    """What is wrong with a pool, also where it still serves."""

    AS_EXPECTED = "AsExpected"
    """False: nothing is wrong."""
    PODS_NOT_READY = "PodsNotReady"
    """True: pods that have run for long are not ready."""
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    """True: no machine has room for a pod."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """True: the engine's image cannot be pulled."""
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    """True: an engine exited before it was ever ready."""
    ENGINE_CRASHED = "EngineCrashed"
    """True: an engine that was ready exited."""
    ADAPTER_LOAD_FAILED = "AdapterLoadFailed"
    """True: an engine refuses a LoRA adapter; the model itself is served."""
    INVALID_SPEC = "InvalidSpec"
    """True: the spec cannot be carried out; the last good one keeps serving."""
    NAME_CONFLICT = "NameConflict"
    """True: a name that the pool claims belongs to an older pool."""
    NO_PODS = "NoPods"
    """True: the selector matches no pod."""


class PeerConditionType(StrEnum):
    """The conditions of a RegionPeer."""

    CONNECTED = "Connected"
    """The peer's gateway answers routers here, and what it says is fresh."""
    DEGRADED = "Degraded"
    """Something is wrong, though requests may still go there."""


class ConnectedReason(StrEnum):
    """Why a peer counts as connected or not; `kubectl get` shows it as the peer's state."""

    CONNECTED = "Connected"
    """True: every router here is told the peer's state."""
    DEGRADED = "Degraded"
    """True: some routers here are told the peer's state, or all of them a part of it."""
    UNREACHABLE = "Unreachable"
    """False: no router here is told the peer's state."""
    OWN_REGION = "OwnRegion"
    """False: the region is the one that the peer is declared in."""
    REGION_TAKEN = "RegionTaken"
    """False: an older RegionPeer is that region."""
    IDENTITY_TAKEN = "IdentityTaken"
    """False: an older RegionPeer has that identity."""
    INVALID_SPEC = "InvalidSpec"
    """False: the spec cannot be carried out."""
    NO_ROUTERS = "NoRouters"
    """Unknown: no router runs here that could tell."""
    ROUTERS_UNREADABLE = "RoutersUnreadable"
    """Unknown: routers run here, and none of them tells of its peers."""
    PENDING = "Pending"
    """Unknown: the routers have not heard of the RegionPeer yet."""


class PeerDegradedReason(StrEnum):
    """What is wrong with a peer, also where requests still go there."""

    AS_EXPECTED = "AsExpected"
    """False: nothing is wrong."""
    PARTLY_CONNECTED = "PartlyConnected"
    """True: some routers here do not reach the peer, or get only a part of its state."""
    UNREACHABLE = "Unreachable"
    """True: no router here reaches the peer."""
    NOT_IN_FORCE = "NotInForce"
    """True: the RegionPeer is passed over; Connected says why."""
    NOT_KNOWN = "NotKnown"
    """Unknown: nobody tells; Connected says why."""
