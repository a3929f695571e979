from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("version", "region", "router", "epoch", "block_key_scheme")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BLOCK_KEY_SCHEME_FIELD_NUMBER: _ClassVar[int]
    version: int
    region: str
    router: str
    epoch: int
    block_key_scheme: str
    def __init__(self, version: _Optional[int] = ..., region: _Optional[str] = ..., router: _Optional[str] = ..., epoch: _Optional[int] = ..., block_key_scheme: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("hello", "ping")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ping: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ping: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("hello", "pong", "slots", "gone_writers", "relay_anew", "relayed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    GONE_WRITERS_FIELD_NUMBER: _ClassVar[int]
    RELAY_ANEW_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    pong: int
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    gone_writers: _containers.RepeatedScalarFieldContainer[str]
    relay_anew: bool
    relayed: _containers.RepeatedCompositeFieldContainer[Relayed]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., pong: _Optional[int] = ..., slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., gone_writers: _Optional[_Iterable[str]] = ..., relay_anew: _Optional[bool] = ..., relayed: _Optional[_Iterable[_Union[Relayed, _Mapping]]] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("writer", "epoch", "sequence", "region", "whole", "pools", "gone_models", "heads", "received")
    WRITER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    GONE_MODELS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    writer: str
    epoch: int
    sequence: int
    region: str
    whole: bool
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    gone_models: _containers.RepeatedScalarFieldContainer[str]
    heads: Heads
    received: _containers.RepeatedCompositeFieldContainer[Received]
    def __init__(self, writer: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., region: _Optional[str] = ..., whole: _Optional[bool] = ..., pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ..., gone_models: _Optional[_Iterable[str]] = ..., heads: _Optional[_Union[Heads, _Mapping]] = ..., received: _Optional[_Iterable[_Union[Received, _Mapping]]] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("model", "capacity", "adapters", "draining")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    model: str
    capacity: Capacity
    adapters: Adapters
    draining: bool
    def __init__(self, model: _Optional[str] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., adapters: _Optional[_Union[Adapters, _Mapping]] = ..., draining: _Optional[bool] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("free", "room", "queued", "start_microseconds", "finish_microseconds", "load_thousandths", "prefill_tokens_per_second", "kv_capacity_tokens")
    FREE_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    START_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    FINISH_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_THOUSANDTHS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    KV_CAPACITY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    free: int
    room: int
    queued: int
    start_microseconds: int
    finish_microseconds: int
    load_thousandths: int
    prefill_tokens_per_second: int
    kv_capacity_tokens: int
    def __init__(self, free: _Optional[int] = ..., room: _Optional[int] = ..., queued: _Optional[int] = ..., start_microseconds: _Optional[int] = ..., finish_microseconds: _Optional[int] = ..., load_thousandths: _Optional[int] = ..., prefill_tokens_per_second: _Optional[int] = ..., kv_capacity_tokens: _Optional[int] = ...) -> None: ...

class Adapters(_message.Message):
    __slots__ = ("any", "names")
    ANY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    any: bool
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, any: _Optional[bool] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class Heads(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, keys: _Optional[_Iterable[int]] = ...) -> None: ...

class Received(_message.Message):
    __slots__ = ("origin", "requests")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    origin: str
    requests: int
    def __init__(self, origin: _Optional[str] = ..., requests: _Optional[int] = ...) -> None: ...

class Relayed(_message.Message):
    __slots__ = ("sent", "attempt_started", "attempt_failed", "measured", "finished", "queues", "scraped", "scrape_failed", "prefixes_known", "pool_learned", "endpoint_learned")
    SENT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_STARTED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FAILED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    SCRAPED_FIELD_NUMBER: _ClassVar[int]
    SCRAPE_FAILED_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_KNOWN_FIELD_NUMBER: _ClassVar[int]
    POOL_LEARNED_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_LEARNED_FIELD_NUMBER: _ClassVar[int]
    sent: Sent
    attempt_started: AttemptStarted
    attempt_failed: AttemptFailed
    measured: Measured
    finished: Finished
    queues: Queues
    scraped: Scraped
    scrape_failed: ScrapeFailed
    prefixes_known: PrefixesKnown
    pool_learned: PoolLearned
    endpoint_learned: EndpointLearned
    def __init__(self, sent: _Optional[_Union[Sent, _Mapping]] = ..., attempt_started: _Optional[_Union[AttemptStarted, _Mapping]] = ..., attempt_failed: _Optional[_Union[AttemptFailed, _Mapping]] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., queues: _Optional[_Union[Queues, _Mapping]] = ..., scraped: _Optional[_Union[Scraped, _Mapping]] = ..., scrape_failed: _Optional[_Union[ScrapeFailed, _Mapping]] = ..., prefixes_known: _Optional[_Union[PrefixesKnown, _Mapping]] = ..., pool_learned: _Optional[_Union[PoolLearned, _Mapping]] = ..., endpoint_learned: _Optional[_Union[EndpointLearned, _Mapping]] = ...) -> None: ...

class Sent(_message.Message):
    __slots__ = ("ticket", "pool", "block_keys", "prompt_bytes", "max_output_tokens", "adapter", "affinity_key", "origin", "hold_seconds", "residency", "endpoint", "age_seconds")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    BLOCK_KEYS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_KEY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    HOLD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESIDENCY_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ticket: int
    pool: str
    block_keys: _containers.RepeatedScalarFieldContainer[int]
    prompt_bytes: int
    max_output_tokens: int
    adapter: str
    affinity_key: int
    origin: str
    hold_seconds: float
    residency: Names
    endpoint: str
    age_seconds: float
    def __init__(self, ticket: _Optional[int] = ..., pool: _Optional[str] = ..., block_keys: _Optional[_Iterable[int]] = ..., prompt_bytes: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., adapter: _Optional[str] = ..., affinity_key: _Optional[int] = ..., origin: _Optional[str] = ..., hold_seconds: _Optional[float] = ..., residency: _Optional[_Union[Names, _Mapping]] = ..., endpoint: _Optional[str] = ..., age_seconds: _Optional[float] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class AttemptStarted(_message.Message):
    __slots__ = ("ticket", "endpoint")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    ticket: int
    endpoint: str
    def __init__(self, ticket: _Optional[int] = ..., endpoint: _Optional[str] = ...) -> None: ...

class AttemptFailed(_message.Message):
    __slots__ = ("ticket", "endpoint")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    ticket: int
    endpoint: str
    def __init__(self, ticket: _Optional[int] = ..., endpoint: _Optional[str] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("ticket", "endpoint", "outcome", "ttft_seconds", "duration_seconds", "prompt_tokens", "cached_tokens", "output_tokens", "output_bytes")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TTFT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ticket: int
    endpoint: str
    outcome: str
    ttft_seconds: float
    duration_seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    output_bytes: int
    def __init__(self, ticket: _Optional[int] = ..., endpoint: _Optional[str] = ..., outcome: _Optional[str] = ..., ttft_seconds: _Optional[float] = ..., duration_seconds: _Optional[float] = ..., prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., output_bytes: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: int
    def __init__(self, ticket: _Optional[int] = ...) -> None: ...

class Queues(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[Queue]
    def __init__(self, queues: _Optional[_Iterable[_Union[Queue, _Mapping]]] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("pool", "queued", "oldest_seconds", "held")
    POOL_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    pool: str
    queued: int
    oldest_seconds: float
    held: _containers.RepeatedCompositeFieldContainer[Held]
    def __init__(self, pool: _Optional[str] = ..., queued: _Optional[int] = ..., oldest_seconds: _Optional[float] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("endpoint", "oldest_seconds")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    oldest_seconds: float
    def __init__(self, endpoint: _Optional[str] = ..., oldest_seconds: _Optional[float] = ...) -> None: ...

class Scraped(_message.Message):
    __slots__ = ("endpoint", "running_requests", "waiting_requests", "kv_cache_utilization", "finished_requests", "prompt_tokens", "generation_tokens", "prefix_query_tokens", "prefix_hit_tokens", "first_tokens", "kv_capacity_tokens", "started_milliseconds")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    FINISHED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CAPACITY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    running_requests: int
    waiting_requests: int
    kv_cache_utilization: float
    finished_requests: int
    prompt_tokens: int
    generation_tokens: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    first_tokens: int
    kv_capacity_tokens: int
    started_milliseconds: int
    def __init__(self, endpoint: _Optional[str] = ..., running_requests: _Optional[int] = ..., waiting_requests: _Optional[int] = ..., kv_cache_utilization: _Optional[float] = ..., finished_requests: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., generation_tokens: _Optional[int] = ..., prefix_query_tokens: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ..., first_tokens: _Optional[int] = ..., kv_capacity_tokens: _Optional[int] = ..., started_milliseconds: _Optional[int] = ...) -> None: ...

class ScrapeFailed(_message.Message):
    __slots__ = ("endpoint",)
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    def __init__(self, endpoint: _Optional[str] = ...) -> None: ...

class PrefixesKnown(_message.Message):
    __slots__ = ("endpoint", "block_keys", "age_seconds")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_KEYS_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    block_keys: _containers.RepeatedScalarFieldContainer[int]
    age_seconds: float
    def __init__(self, endpoint: _Optional[str] = ..., block_keys: _Optional[_Iterable[int]] = ..., age_seconds: _Optional[float] = ...) -> None: ...

class PoolLearned(_message.Message):
    __slots__ = ("pool", "prefill", "pace", "tokens", "usual_work_seconds", "usual_kv_tokens")
    POOL_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    USUAL_WORK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    USUAL_KV_TOKENS_FIELD_NUMBER: _ClassVar[int]
    pool: str
    prefill: LineSamples
    pace: LineSamples
    tokens: TokenSamples
    usual_work_seconds: float
    usual_kv_tokens: float
    def __init__(self, pool: _Optional[str] = ..., prefill: _Optional[_Union[LineSamples, _Mapping]] = ..., pace: _Optional[_Union[LineSamples, _Mapping]] = ..., tokens: _Optional[_Union[TokenSamples, _Mapping]] = ..., usual_work_seconds: _Optional[float] = ..., usual_kv_tokens: _Optional[float] = ...) -> None: ...

class EndpointLearned(_message.Message):
    __slots__ = ("endpoint", "prefill", "step_seconds")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    prefill: LineSamples
    step_seconds: float
    def __init__(self, endpoint: _Optional[str] = ..., prefill: _Optional[_Union[LineSamples, _Mapping]] = ..., step_seconds: _Optional[float] = ...) -> None: ...

class LineSamples(_message.Message):
    __slots__ = ("weight", "x", "y", "xx", "xy")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    XX_FIELD_NUMBER: _ClassVar[int]
    XY_FIELD_NUMBER: _ClassVar[int]
    weight: float
    x: float
    y: float
    xx: float
    xy: float
    def __init__(self, weight: _Optional[float] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., xx: _Optional[float] = ..., xy: _Optional[float] = ...) -> None: ...

class TokenSamples(_message.Message):
    __slots__ = ("weight", "prompt_bytes", "prompt_tokens", "mean_output_tokens", "mean_duration_seconds")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEAN_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEAN_DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    weight: float
    prompt_bytes: float
    prompt_tokens: float
    mean_output_tokens: float
    mean_duration_seconds: float
    def __init__(self, weight: _Optional[float] = ..., prompt_bytes: _Optional[float] = ..., prompt_tokens: _Optional[float] = ..., mean_output_tokens: _Optional[float] = ..., mean_duration_seconds: _Optional[float] = ...) -> None: ...
