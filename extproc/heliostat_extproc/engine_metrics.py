"""Reads what the router needs from vLLM's /metrics, and nothing else.

A general Prometheus parser takes milliseconds for a page of which nine families matter: here each
is found by a search through the bytes. Whatever an engine says is checked before it is believed.
"""

import math
import re
from collections.abc import Iterator
from enum import StrEnum

from heliostat_routing.events import EngineMetrics

RUNNING = b"vllm:num_requests_running"
WAITING = b"vllm:num_requests_waiting"
KV_UTILIZATION = b"vllm:kv_cache_usage_perc"
FINISHED = b"vllm:request_success_total"
PROMPT_TOKENS = b"vllm:prompt_tokens_total"
GENERATION_TOKENS = b"vllm:generation_tokens_total"
PREFIX_QUERIES = b"vllm:prefix_cache_queries_total"
PREFIX_HITS = b"vllm:prefix_cache_hits_total"
FIRST_TOKENS = b"vllm:time_to_first_token_seconds_count"
CACHE_CONFIG = b"vllm:cache_config_info"
PROCESS_START = b"process_start_time_seconds"

_LARGEST_COUNT = 2**53
_UTILIZATION_SLACK_RATIO = 0.01
_SERIES_LIMIT = 1000
_LABEL = re.compile(rb'(block_size|num_gpu_blocks|kv_cache_size_tokens)="(\d{1,15})"')


class MetricsProblem(StrEnum):
    """Why a page of metrics is not believed."""

    MISSING = "missing"
    NOT_A_NUMBER = "not-a-number"
    OUT_OF_RANGE = "out-of-range"
    TOO_MANY_SERIES = "too-many-series"


class MetricsError(Exception):
    """The page lacks a family that every vLLM has, or says what cannot be."""

    def __init__(self, problem: MetricsProblem, family: bytes) -> None:
        super().__init__(f"{family.decode()}: {problem}")
        self.problem = problem


def parse_engine_metrics(page: bytes) -> EngineMetrics:
    """Read one page; sums over the engines of one server. Raise `MetricsError` on nonsense."""
    utilizations = list(_values(page, KV_UTILIZATION))
    if not utilizations:
        raise MetricsError(MetricsProblem.MISSING, KV_UTILIZATION)
    utilization = sum(utilizations) / len(utilizations)
    if utilization > 1.0 + _UTILIZATION_SLACK_RATIO:
        raise MetricsError(MetricsProblem.OUT_OF_RANGE, KV_UTILIZATION)
    return EngineMetrics(
        running_requests=_count(page, RUNNING),
        waiting_requests=_count(page, WAITING),
        kv_cache_utilization=min(1.0, utilization),
        finished_requests=_count(page, FINISHED),
        prompt_tokens=_count(page, PROMPT_TOKENS),
        generation_tokens=_count(page, GENERATION_TOKENS),
        prefix_query_tokens=_find_count(page, PREFIX_QUERIES),
        prefix_hit_tokens=_find_count(page, PREFIX_HITS),
        first_tokens=_find_count(page, FIRST_TOKENS),
        kv_capacity_tokens=_kv_capacity_tokens(page),
        started_milliseconds=_started_milliseconds(page),
    )


def _count(page: bytes, family: bytes) -> int:
    count = _find_count(page, family)
    if count is None:
        raise MetricsError(MetricsProblem.MISSING, family)
    return count


def _find_count(page: bytes, family: bytes) -> int | None:
    """Add up a family's series; None where there are none."""
    values = list(_values(page, family))
    if sum(values) > _LARGEST_COUNT:
        raise MetricsError(MetricsProblem.OUT_OF_RANGE, family)
    return int(sum(values)) if values else None


def _values(page: bytes, family: bytes) -> Iterator[float]:
    """Yield the value of each of the family's series."""
    for line in _lines(page, family):
        text = line[line.rfind(b"}") + 1 :].split()
        try:
            value = float(text[0])
        except (IndexError, ValueError) as error:
            raise MetricsError(MetricsProblem.NOT_A_NUMBER, family) from error
        if math.isnan(value):
            raise MetricsError(MetricsProblem.NOT_A_NUMBER, family)
        if value < 0 or math.isinf(value):
            raise MetricsError(MetricsProblem.OUT_OF_RANGE, family)
        yield value


def _lines(page: bytes, family: bytes) -> Iterator[bytes]:
    """Yield what follows the family's name, line by line; its lines stand together."""
    size = len(family)
    start = 0 if page.startswith(family) else page.find(b"\n" + family) + 1
    if not start and not page.startswith(family):
        return
    found = False
    for _ in range(_SERIES_LIMIT):
        end = page.find(b"\n", start)
        end = len(page) if end < 0 else end
        if page[start + size : start + size + 1] in (b"{", b" "):
            found = True
            yield page[start + size : end]
        if page.startswith(family, end + 1):
            start = end + 1
        elif found:
            return
        else:
            start = page.find(b"\n" + family, end) + 1
            if not start:
                return
    raise MetricsError(MetricsProblem.TOO_MANY_SERIES, family)


def _started_milliseconds(page: bytes) -> int | None:
    """Read when the engine's process began; of several engines, as one that changes with any."""
    seconds = sum(_values(page, PROCESS_START))
    if seconds * 1000 > _LARGEST_COUNT:
        raise MetricsError(MetricsProblem.OUT_OF_RANGE, PROCESS_START)
    return round(seconds * 1000) or None


def _kv_capacity_tokens(page: bytes) -> int | None:
    """Read the size of the KV cache; those of several engines add up."""
    capacity_tokens = 0
    for line in _lines(page, CACHE_CONFIG):
        labels = {name: int(value) for name, value in _LABEL.findall(line)}
        blocks, block_size_tokens = labels.get(b"num_gpu_blocks", 0), labels.get(b"block_size", 0)
        capacity_tokens += labels.get(b"kv_cache_size_tokens") or blocks * block_size_tokens
    if capacity_tokens > _LARGEST_COUNT:
        raise MetricsError(MetricsProblem.OUT_OF_RANGE, CACHE_CONFIG)
    return capacity_tokens or None
