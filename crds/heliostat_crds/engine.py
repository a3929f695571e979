"""The model servers of a pool: image, arguments, adapters, caches, how long they may take."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from heliostat_crds.fields import (
    DurationBetween,
    FreeForm,
    Items,
    ModelName,
    ObjectName,
    Strict,
    Text,
    first_repeated,
)
from heliostat_crds.quantity import Quantity, Size
from heliostat_crds.rules import Misfit, Rule

DEFAULT_IMAGE = "vllm/vllm-openai:v0.32.0"
"""The engine image of pools that name none: the vLLM release that Heliostat is tested with."""
DEFAULT_MAX_ADAPTERS = 4
"""LoRA adapters that one batch may use where a pool with adapters does not say."""
DEFAULT_PORT = 8000
KV_EVENTS_PORTS = (5557, 5558)
"""Ports at which an engine tells of its KV cache: as it changes, and again on request."""

OPERATOR_ARGS = (
    "api-key",
    "enable-lora",
    "kv-events-config",
    "lora-modules",
    "max-loras",
    "model",
    "port",
    "served-model-name",
    "shutdown-timeout",
)
"""vLLM options that the operator sets itself, without their hyphens."""
OPERATOR_ENV = ("HF_HOME", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_API_KEY")
"""Environment variables that the operator sets itself."""
TOKEN_ENV = "HF_TOKEN"  # noqa: S105 -- the name of a variable, not a token
"""Environment variable that holds the Hugging Face token."""

_Port = Annotated[int, Field(ge=1, le=65535)]
_StartupTimeout = Annotated[str, DurationBetween("10s", "24h")]
_DrainTimeout = Annotated[str, DurationBetween("0s", "24h")]


class ImagePullPolicy(StrEnum):
    """When the engine's image is pulled."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class KvEvents(StrEnum):
    """Whether engines tell routers what their KV caches hold."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class CacheType(StrEnum):
    """What holds the files that engines download."""

    EMPTY_DIR = "EmptyDir"
    PERSISTENT_VOLUME_CLAIM = "PersistentVolumeClaim"
    HOST_PATH = "HostPath"


class EnvVar(Strict):
    """One environment variable of the engine."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$",
            json_schema_extra={"allowed": "letters, digits, `_`, `-` and `.`, no digit first"},
        ),
    ]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768, json_schema_extra={"allowed": ""})] | None = None
    """Value of the variable; `$(NAME)` is replaced as Kubernetes does."""
    value_from: FreeForm | None = None
    """Where the value comes from (`secretKeyRef`, `configMapKeyRef`, `fieldRef`, ...), as in a
    pod."""

    rules = (
        Rule(
            "give value or valueFrom, not both",
            cel="!(has(self.value) && has(self.valueFrom))",
            check=lambda env: (
                Misfit(("valueFrom",))
                if env.value is not None and env.value_from is not None
                else None
            ),
        ),
    )


class Adapter(Strict):
    """A LoRA adapter."""

    name: ModelName
    """The adapter's name as the engines know it; clients ask for it as a model."""
    uri: Text | None = None
    """Where the engines load the adapter from: a Hugging Face repository or a path in the
    container; if unset, `name`."""

    @property
    def source(self) -> str:
        """Where the engines load the adapter from."""
        return self.uri or self.name


class HuggingFaceToken(Strict):
    """The token for gated models, kept in a Secret."""

    secret_name: ObjectName
    """Name of the Secret, in the pool's namespace."""
    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[-._a-zA-Z0-9]+$",
            json_schema_extra={"allowed": "letters, digits, `_`, `-` and `.`"},
        ),
    ] = "token"
    """Key of the token in the Secret."""


def _misplaced_cache_field(cache: "ModelCache") -> Misfit | None:
    wanted = {"claim_name": CacheType.PERSISTENT_VOLUME_CLAIM, "path": CacheType.HOST_PATH}
    for field, alias in (("claim_name", "claimName"), ("path", "path")):
        if (getattr(cache, field) is not None) != (cache.type is wanted[field]):
            return Misfit((alias,), _CACHE_MESSAGES[alias])
    if cache.size_limit is not None and cache.type is not CacheType.EMPTY_DIR:
        return Misfit(("sizeLimit",), _CACHE_MESSAGES["sizeLimit"])
    return None


_CACHE_MESSAGES = {
    "claimName": "claimName is needed with type PersistentVolumeClaim, and only there",
    "path": "path is needed with type HostPath, and only there",
    "sizeLimit": "sizeLimit is for type EmptyDir only",
}


class ModelCache(Strict):
    """The volume for downloaded files, mounted at /root/.cache/huggingface."""

    type: Annotated[CacheType, Field(strict=False)] = CacheType.EMPTY_DIR
    """`EmptyDir` is downloaded anew by every pod; the others keep the files."""
    claim_name: ObjectName | None = None
    """The PersistentVolumeClaim, in the pool's namespace; with several pods it must allow
    ReadWriteMany."""
    path: (
        Annotated[
            str,
            Field(
                min_length=2,
                max_length=1024,
                pattern=r"^(/(\.?[^/.:][^/:]*|\.\.[^/:]+))+/?$",
                json_schema_extra={
                    "allowed": "an absolute path without `..` and `:`, such as `/var/cache/models`"
                },
            ),
        ]
        | None
    ) = None
    """The folder on the machine; it is made where it is not there."""
    size_limit: Size | None = None
    """Size at which a pod's EmptyDir is full and the pod is evicted; no limit if unset."""

    rules = (
        Rule(
            _CACHE_MESSAGES["claimName"],
            cel="has(self.claimName) == (self.type == 'PersistentVolumeClaim')",
            check=_misplaced_cache_field,
        ),
        Rule(_CACHE_MESSAGES["path"], cel="has(self.path) == (self.type == 'HostPath')"),
        Rule(_CACHE_MESSAGES["sizeLimit"], cel="!has(self.sizeLimit) || self.type == 'EmptyDir'"),
    )


class Resources(Strict):
    """What an engine's container asks for besides its accelerators."""

    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=16)
    """What the machine must have left, by resource (`cpu`, `memory`, ...)."""
    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=16)
    """What the container may use at most, by resource."""


_OPERATOR_ARG = f"--({'|'.join(arg.replace('-', '[-_]') for arg in OPERATOR_ARGS)})"
_OPTION_CHARACTERS = 40
"""More than the longest of OPERATOR_ARGS: the API server looks at no more of an argument."""
_IS_OPERATOR_ARG = re.compile(rf"{_OPERATOR_ARG}([=.].*)?", re.DOTALL)
_ARG_MESSAGE = (
    "the operator sets this vLLM argument itself; use the fields of spec.model and spec.engine"
    f" instead of {', '.join(f'--{arg}' for arg in OPERATOR_ARGS)}"
)


def _operator_arg(engine: "Engine") -> Misfit | None:
    for index, arg in enumerate(engine.args):
        if _IS_OPERATOR_ARG.fullmatch(arg):
            return Misfit(("args", index))
    return None


def _operator_env(engine: "Engine") -> Misfit | None:
    for index, env in enumerate(engine.env):
        if env.name in OPERATOR_ENV:
            return Misfit(("env", index, "name"))
    return None


def _doubled_token(engine: "Engine") -> Misfit | None:
    if engine.hugging_face_token is not None:
        for index, env in enumerate(engine.env):
            if env.name == TOKEN_ENV:
                return Misfit(("env", index, "name"))
    return None


def _repeated_name(engine: "Engine") -> Misfit | None:
    repeated = first_repeated(env.name for env in engine.env)
    if repeated is not None:
        return Misfit(
            ("env", repeated, "name"), f'"{engine.env[repeated].name}" is already in engine.env'
        )
    repeated = first_repeated(adapter.name for adapter in engine.adapters)
    if repeated is not None:
        name = engine.adapters[repeated].name
        message = f'"{name}" is already the name in engine.adapters'
        return Misfit(("adapters", repeated, "name"), message)
    return None


class Engine(Strict):
    """The model servers."""

    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")] = DEFAULT_IMAGE
    """The engine's image, with a tag or digest. A pool keeps the default that it was created
    with."""
    image_pull_policy: Annotated[ImagePullPolicy, Field(strict=False)] = (
        ImagePullPolicy.IF_NOT_PRESENT
    )
    """When the image is pulled."""
    image_pull_secrets: Annotated[
        Items[ObjectName], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Names of the Secrets that hold the registry's credentials, in the pool's namespace."""
    port: _Port = DEFAULT_PORT
    """Port that the engines listen on; of endpoints, where their address names none. Cannot be
    changed where the operator runs the engines: routers know one port for all of a pool's pods."""
    args: Annotated[
        Items[Annotated[str, Field(max_length=4096)]],
        Field(max_length=128, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Further arguments of vLLM, such as `--max-model-len=32768`."""
    env: Annotated[
        Items[EnvVar],
        Field(
            max_length=128,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    """Environment variables of the engine."""
    adapters: Annotated[
        Items[Adapter],
        Field(
            max_length=128,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    """The LoRA adapters that the engines serve; loaded and unloaded live. The first adapter of a
    pool without `maxAdapters` restarts its engines once."""
    max_adapters: Annotated[int, Field(ge=1, le=256)] | None = None
    """LoRA adapters that one batch may use (`--max-loras`); 4 if unset. Set it where adapters will
    come later: their first then needs no restart."""
    kv_events: Annotated[KvEvents, Field(strict=False)] = KvEvents.ENABLED
    """Whether the engines publish what their KV caches hold, at ports 5557 and 5558. Routers do not
    read it yet."""
    hugging_face_token: HuggingFaceToken | None = None
    """The token for gated models."""
    model_cache: ModelCache = Field(default_factory=ModelCache)
    """The volume for downloaded models."""
    shared_memory: Size = "8Gi"
    """Size of /dev/shm; it counts as memory of the pod."""
    startup_timeout: _StartupTimeout = "30m"
    """How long an engine may load its model before it is restarted."""
    drain_timeout: _DrainTimeout = "5m"
    """How long requests in flight may take to finish when a pod leaves."""
    resources: Resources = Field(default_factory=Resources)
    """What an engine asks for besides its accelerators."""

    rules = (
        Rule(
            _ARG_MESSAGE,
            cel=(
                "!has(self.args) || !self.args.exists(a,"
                f" (a.size() > {_OPTION_CHARACTERS} ? a.substring(0, {_OPTION_CHARACTERS}) : a)"
                f".matches('^{_OPERATOR_ARG}($|[=.])'))"
            ),
            check=_operator_arg,
        ),
        Rule(
            f"the operator sets {', '.join(OPERATOR_ENV)} itself; take them out of env",
            cel=f"!has(self.env) || !self.env.exists(e, e.name in {list(OPERATOR_ENV)})",
            check=_operator_env,
        ),
        Rule(
            f"give the token in huggingFaceToken or as {TOKEN_ENV} in env, not both",
            cel=(
                "!has(self.huggingFaceToken) || !has(self.env) ||"
                f" !self.env.exists(e, e.name == '{TOKEN_ENV}')"
            ),
            check=_doubled_token,
        ),
        Rule("names are listed twice", check=_repeated_name),
        Rule(
            f"port must not be {KV_EVENTS_PORTS[0]} or {KV_EVENTS_PORTS[1]}, which KV events use;"
            " choose another, or set kvEvents to Disabled",
            cel=f"self.kvEvents == 'Disabled' || !(self.port in {list(KV_EVENTS_PORTS)})",
            check=lambda it: (
                Misfit(("port",))
                if it.kv_events is KvEvents.ENABLED and it.port in KV_EVENTS_PORTS
                else None
            ),
        ),
    )
