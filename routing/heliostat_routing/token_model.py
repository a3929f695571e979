"""What a pool's requests look like in tokens, learned from the usage that engines report."""

from heliostat_routing.learned import GREATEST, ROUNDING_RATIO, TokenSamples
from heliostat_routing.settings import BLOCK_BYTES

MEMORY = 0.98
ASSUMED_BYTES_PER_TOKEN = 4.0
FEWEST_BYTES_PER_TOKEN = 0.5
MOST_BYTES_PER_TOKEN = 16.0
"""A request outside these bounds is no text (images), or its usage is wrong: it teaches nothing."""
ASSUMED_OUTPUT_TOKENS = 200.0
ASSUMED_DURATION_SECONDS = 5.0


class TokenModel:
    """Bytes per prompt token, output tokens and duration of a request: running means."""

    __slots__ = (
        "_bytes",
        "_tokens",
        "_weight",
        "block_tokens",
        "bytes_per_token",
        "mean_duration_seconds",
        "mean_output_tokens",
    )

    def __init__(self) -> None:
        self._weight = 0.0
        self._tokens = 256.0
        self._bytes = self._tokens * ASSUMED_BYTES_PER_TOKEN
        self.bytes_per_token = ASSUMED_BYTES_PER_TOKEN
        """Request bytes that one prompt token stands for."""
        self.block_tokens = BLOCK_BYTES / ASSUMED_BYTES_PER_TOKEN
        """Tokens that one block key stands for."""
        self.mean_output_tokens = ASSUMED_OUTPUT_TOKENS
        self.mean_duration_seconds = ASSUMED_DURATION_SECONDS

    def observe_prompt(self, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn from a request whose usage is known."""
        low, high = FEWEST_BYTES_PER_TOKEN * prompt_tokens, MOST_BYTES_PER_TOKEN * prompt_tokens
        if prompt_tokens > 0 and low <= prompt_bytes <= high:
            self._bytes = self._bytes * MEMORY + prompt_bytes
            self._tokens = self._tokens * MEMORY + prompt_tokens
            self._weigh()

    def observe_output(self, output_tokens: int, duration_seconds: float) -> None:
        """Learn from a request that ran to its end."""
        self._weight = self._weight * MEMORY + 1.0
        self.mean_output_tokens += (output_tokens - self.mean_output_tokens) * (1 - MEMORY)
        self.mean_duration_seconds += (duration_seconds - self.mean_duration_seconds) * (1 - MEMORY)

    @property
    def samples(self) -> TokenSamples:
        """What it knows, in a few numbers."""
        return TokenSamples(
            self._weight,
            self._bytes,
            self._tokens,
            self.mean_output_tokens,
            self.mean_duration_seconds,
        )

    def take_over(self, told: TokenSamples) -> bool:
        """Know what a sibling has learned, where that is more and can be; return whether."""
        sane = 0 < told.prompt_tokens <= GREATEST and (
            FEWEST_BYTES_PER_TOKEN <= told.prompt_bytes / told.prompt_tokens <= MOST_BYTES_PER_TOKEN
        )
        means = (told.mean_output_tokens, told.mean_duration_seconds)
        sane = sane and all(0 < mean <= GREATEST for mean in means)
        most = (1 + ROUNDING_RATIO) / (1 - MEMORY)
        if not sane or not self._weight < told.weight <= most:
            return False
        self._weight, self._bytes = told.weight, told.prompt_bytes
        self._tokens = told.prompt_tokens
        self.mean_output_tokens, self.mean_duration_seconds = means
        self._weigh()
        return True

    def _weigh(self) -> None:
        self.bytes_per_token = self._bytes / self._tokens
        self.block_tokens = BLOCK_BYTES / self.bytes_per_token

    def expected_output(self, most: int | None) -> float:
        """Output tokens to expect of a request that may produce at most so many."""
        return self.mean_output_tokens if most is None else min(self.mean_output_tokens, most)
