"""What an engine's hardware and model make of time and memory: named, overridable numbers."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Capacities and step times of one engine."""

    kv_tokens: int
    """Tokens that the KV cache holds, all requests and cached prefixes together."""

    prefill_seconds_per_token: float
    """Compute time of one uncached prompt token."""

    prefill_floor_seconds: float
    """Least time of a step that computes any prompt token."""

    decode_floor_seconds: float
    """Time to read the weights once: least time of a step that only decodes."""

    context_seconds_per_token: float
    """Time to read one token of KV context, paid for every decoding request's whole context."""

    step_overhead_seconds: float
    """Scheduling, sampling and launch time of every step."""

    block_tokens: int = 16
    """Tokens per KV block: the grain of allocation and of prefix matching."""

    max_running_requests: int = 256
    """Requests in the batch at once (vLLM's max_num_seqs)."""

    max_step_tokens: int = 2048
    """Token budget of a step, prompt chunks and decodes together (max_num_batched_tokens)."""

    max_unfinished_requests: int | None = None
    """Running and waiting requests beyond which new ones are refused (vLLM's
    max_num_queued_reqs, which counts both). None: no limit."""

    speed_ratio: float = 1.0
    """Divides every time: 10 makes an engine ten times as fast as its hardware."""

    @property
    def kv_blocks(self) -> int:
        """Blocks in the pool."""
        return self.kv_tokens // self.block_tokens

    def step_seconds(self, prefill_tokens: int, decode_requests: int, context_tokens: int) -> float:
        """Duration of one step.

        Prompt chunks are bound by compute, decoding by reading the weights; in a mixed step they
        overlap, so the longer of the two counts. Context reads and overhead add to it.
        """
        compute = decode = 0.0
        if prefill_tokens:
            compute = max(
                self.prefill_floor_seconds, prefill_tokens * self.prefill_seconds_per_token
            )
        if decode_requests:
            decode = self.decode_floor_seconds
        context = context_tokens * self.context_seconds_per_token
        return (max(compute, decode) + context + self.step_overhead_seconds) / self.speed_ratio


PROFILES: Mapping[str, EngineProfile] = {
    "l4-llama-8b": EngineProfile(
        kv_tokens=28_000,
        prefill_seconds_per_token=0.4e-3,
        prefill_floor_seconds=65e-3,
        decode_floor_seconds=63e-3,
        context_seconds_per_token=0.5e-6,
        step_overhead_seconds=3e-3,
    ),
    "h100-llama-8b": EngineProfile(
        kv_tokens=450_000,
        prefill_seconds_per_token=50e-6,
        prefill_floor_seconds=8e-3,
        decode_floor_seconds=7e-3,
        context_seconds_per_token=0.055e-6,
        step_overhead_seconds=1e-3,
        max_step_tokens=8192,
    ),
}
"""Llama-3.1-8B on one NVIDIA L4 (24 GB) and on one H100 (80 GB)."""
