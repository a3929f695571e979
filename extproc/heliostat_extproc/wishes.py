"""What a request asks for beside its body, in the headers that llm-d's clients send.

A wish that cannot be read counts as none: it never makes a request fail.
"""

from dataclasses import dataclass

OBJECTIVE_HEADERS = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
"""Name an InferenceObjective, whose priority the request has; the first that is there counts."""

TTFT_OBJECTIVE_HEADERS = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
"""By when the first token is wanted, in milliseconds."""

_LONGEST_NAME = 253
_LONGEST_TTFT_MILLISECONDS = 3_600_000.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the headers of a request ask for."""

    objective: str | None = None
    ttft_objective_seconds: float | None = None


_NONE = Wishes()


def read_wishes(head: dict[str, str]) -> Wishes:
    """Read the wishes among the headers that mean something to the router."""
    objective = _first(head, OBJECTIVE_HEADERS)
    ttft = _first(head, TTFT_OBJECTIVE_HEADERS)
    if objective is None and ttft is None:
        return _NONE
    return Wishes(objective and objective[:_LONGEST_NAME], _seconds(ttft or ""))


def _first(head: dict[str, str], names: tuple[str, str]) -> str | None:
    return head.get(names[0]) or head.get(names[1])


def _seconds(text: str) -> float | None:
    try:
        milliseconds = float(text)
    except ValueError:
        return None
    if not 0.0 < milliseconds <= _LONGEST_TTFT_MILLISECONDS:
        return None
    return milliseconds / 1000
