"""vLLM's /metrics: its names, labels and buckets, rendered from the engine model's state."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from heliostat_sim.engine import EngineMetrics, EngineProfile, EngineTotals, Finished
from heliostat_sim.standin.loop_lag import LoopLagProbe

_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_GAP_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
_REQUEST_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_REQUEST_HISTOGRAMS = (
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
)


class Histogram:
    """Counts by bucket, cumulated only when rendered."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add the same observation some number of times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def render(self, name: str, labels: str) -> Iterator[str]:
        """Yield the sample lines."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_count{{{labels}}} {total}"
        yield f"{name}_sum{{{labels}}} {self._sum}"


class EngineExposition:
    """Everything that /metrics shows beside the engine's present state."""

    def __init__(
        self, model: str, profile: EngineProfile, lag: LoopLagProbe, max_loras: int | None = None
    ) -> None:
        self._labels = f'engine="0",model_name="{_escape(model)}"'
        self._model = _escape(model)
        self._profile = profile
        self._lag = lag
        self._first_token = Histogram(_FIRST_TOKEN_BUCKETS)
        self._token_gap = Histogram(_TOKEN_GAP_BUCKETS)
        self._requests = {name: Histogram(_REQUEST_BUCKETS) for name in _REQUEST_HISTOGRAMS}
        self._ended = dict.fromkeys(("stop", "length", "abort", "error", "repetition"), 0)
        self.rejected_requests = 0
        self._max_loras = max_loras
        self._running_adapters: dict[str, float] = {}
        self._started_at = time.time()

    def observe_first_token(self, seconds: float) -> None:
        """Count a time to first token."""
        self._first_token.observe(seconds)

    def observe_finish(self, event: Finished) -> None:
        """Count a finished request and its phases; one that was aborted counts nowhere."""
        self._ended[event.reason.value] += 1
        decode_seconds = event.at - event.first_token_at
        phases = {
            "e2e_request_latency_seconds": event.at - event.arrived_at,
            "request_queue_time_seconds": event.admitted_at - event.arrived_at,
            "request_prefill_time_seconds": event.first_token_at - event.admitted_at,
            "request_decode_time_seconds": decode_seconds,
            "request_inference_time_seconds": event.at - event.admitted_at,
        }
        for name, seconds in phases.items():
            self._requests[name].observe(seconds)
        if gaps := event.output_tokens - 1:
            self._token_gap.observe(decode_seconds / gaps, gaps)

    def note_adapters(self, running: set[str]) -> None:
        """Take note of the adapters whose requests are in the engine."""
        if self._max_loras is not None:
            self._running_adapters[",".join(sorted(running))] = time.time()

    def render(self, metrics: EngineMetrics) -> str:
        """Return the page."""
        lines = [
            *self._gauges(metrics),
            *self._counters(metrics),
            *self._histograms(),
            *self._cache_config(),
            *self._loras(),
            *self._loop_lag(),
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started_at:.2f}",
        ]
        return "\n".join(lines) + "\n"

    def _gauges(self, metrics: EngineMetrics) -> Iterator[str]:
        waiting = metrics.waiting_requests
        gauges = {
            "num_requests_running": metrics.running_requests,
            "num_requests_waiting": waiting,
            "kv_cache_usage_perc": metrics.kv_cache_utilization,
        }
        for name, value in gauges.items():
            yield f"# TYPE vllm:{name} gauge"
            yield f"vllm:{name}{{{self._labels}}} {float(value)}"
        yield "# TYPE vllm:num_requests_waiting_by_reason gauge"
        for reason, value in (("capacity", waiting), ("deferred", 0)):
            labels = f'{self._labels},reason="{reason}"'
            yield f"vllm:num_requests_waiting_by_reason{{{labels}}} {float(value)}"
        yield "# TYPE vllm:engine_sleep_state gauge"
        for state, value in (("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)):
            labels = f'{self._labels},sleep_state="{state}"'
            yield f"vllm:engine_sleep_state{{{labels}}} {float(value)}"

    def _counters(self, metrics: EngineMetrics) -> Iterator[str]:
        totals = metrics.totals
        counters = {
            "prefix_cache_queries": totals.prefix_queried_tokens,
            "prefix_cache_hits": totals.prefix_hit_tokens,
            "prompt_tokens": totals.prompt_tokens,
            "prompt_tokens_cached": totals.cached_prompt_tokens,
            "generation_tokens": totals.generated_tokens,
            "num_preemptions": totals.preemptions,
        }
        for name, value in counters.items():
            yield f"# TYPE vllm:{name} counter"
            yield f"vllm:{name}_total{{{self._labels}}} {float(value)}"
        yield "# TYPE vllm:request_success counter"
        for reason, value in self._ended.items():
            labels = f'{self._labels},finished_reason="{reason}"'
            yield f"vllm:request_success_total{{{labels}}} {float(value)}"
        yield "# TYPE vllm:admission_rejections counter"
        rejected = {"max_num_queued_reqs": self.rejected_requests, "max_num_queued_tokens": 0}
        for reason, value in rejected.items():
            labels = f'model_name="{self._model}",reason="{reason}"'
            yield f"vllm:admission_rejections_total{{{labels}}} {float(value)}"
        yield from self._prompt_sources(totals)

    def _prompt_sources(self, totals: EngineTotals) -> Iterator[str]:
        sources = {
            "local_compute": totals.prompt_tokens - totals.cached_prompt_tokens,
            "local_cache_hit": totals.cached_prompt_tokens,
            "external_kv_transfer": 0,
        }
        yield "# TYPE vllm:prompt_tokens_by_source counter"
        for source, value in sources.items():
            labels = f'{self._labels},source="{source}"'
            yield f"vllm:prompt_tokens_by_source_total{{{labels}}} {float(value)}"

    def _histograms(self) -> Iterator[str]:
        named = {
            "time_to_first_token_seconds": self._first_token,
            "inter_token_latency_seconds": self._token_gap,
            **self._requests,
        }
        for name, histogram in named.items():
            yield f"# TYPE vllm:{name} histogram"
            yield from histogram.render(f"vllm:{name}", self._labels)

    def _cache_config(self) -> Iterator[str]:
        """Yield the sizes; vLLM counts one block more than it can use, its null block."""
        profile = self._profile
        blocks = profile.kv_blocks + 1
        labels = (
            f'block_size="{profile.block_tokens}",enable_prefix_caching="True",engine="0",'
            f'kv_cache_size_tokens="{blocks * profile.block_tokens}",'
            f'num_gpu_blocks="{blocks}",prefix_caching_hash_algo="xxhash"'
        )
        yield "# TYPE vllm:cache_config_info gauge"
        yield f"vllm:cache_config_info{{{labels}}} 1.0"

    def _loras(self) -> Iterator[str]:
        """Yield every set of adapters there has been, each with its last moment, as vLLM does."""
        if self._max_loras is None:
            return
        yield "# TYPE vllm:lora_requests_info gauge"
        for running, seen_at in self._running_adapters.items():
            labels = (
                f'max_lora="{self._max_loras}",running_lora_adapters="{_escape(running)}",'
                'waiting_lora_adapters=""'
            )
            yield f"vllm:lora_requests_info{{{labels}}} {seen_at}"

    def _loop_lag(self) -> Iterator[str]:
        name = "heliostat_standin_event_loop_lag_seconds"
        yield f"# TYPE {name} gauge"
        for quantile, share in (("0.5", 0.5), ("0.99", 0.99)):
            yield f'{name}{{quantile="{quantile}"}} {self._lag.quantile_seconds(share):.6f}'
        yield f'{name}{{quantile="1"}} {self._lag.max_seconds:.6f}'


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
