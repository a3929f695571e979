"""How a stand-in is set up: the engine's profile, its name on the wire and its limits."""

from dataclasses import dataclass, replace

from heliostat_sim.engine import PROFILES, EngineProfile

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """One stand-in. None keeps the profile's own number."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port."""

    model: str = DEFAULT_MODEL
    """The leading name on the wire."""

    aliases: tuple[str, ...] = ()
    """Further names of the model."""

    model_root: str | None = None
    """Where the model was loaded from; None: the same as its name."""

    adapters: tuple[tuple[str, str], ...] = ()
    """LoRA adapters loaded from the start: name and path."""

    max_loras: int | None = None
    """Adapters in one batch; None: LoRA is off."""

    runtime_lora: bool = False
    """Whether adapters can be loaded and unloaded over HTTP."""

    api_key: str | None = None
    profile: str = "l4-llama-8b"
    kv_tokens: int | None = None
    block_tokens: int | None = None
    max_running_requests: int | None = None
    max_step_tokens: int | None = None
    prefill_tokens_per_second: float | None = None
    speed_ratio: float = 1.0
    max_model_tokens: int | None = None
    """Prompt and output of one request together; never more than the KV cache holds."""

    max_unfinished_requests: int | None = None

    def engine_profile(self) -> EngineProfile:
        """Return the named profile with the overrides applied. Raises KeyError: unknown name."""
        profile = PROFILES[self.profile]
        prefill = self.prefill_tokens_per_second
        return replace(
            profile,
            kv_tokens=self.kv_tokens or profile.kv_tokens,
            block_tokens=self.block_tokens or profile.block_tokens,
            max_running_requests=self.max_running_requests or profile.max_running_requests,
            max_step_tokens=self.max_step_tokens or profile.max_step_tokens,
            prefill_seconds_per_token=1 / prefill if prefill else profile.prefill_seconds_per_token,
            max_unfinished_requests=self.max_unfinished_requests,
            speed_ratio=self.speed_ratio,
        )

    def model_limit_tokens(self) -> int:
        """Return the longest prompt and output that the engine can take, together."""
        profile = self.engine_profile()
        capacity = profile.kv_blocks * profile.block_tokens
        return min(self.max_model_tokens or capacity, capacity)
