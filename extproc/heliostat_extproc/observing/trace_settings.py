"""Whether and where traces are told of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """A collector, and how much it gets."""

    collector: str
    """`HOST:PORT` of OTLP over gRPC, in plain text."""
    sample_ratio: float = 0.01
    """Share of requests whose trace is recorded, of those that come without a trace."""
    service: str = "heliostat"
    """Start of the names under which Envoy and router tell of themselves."""
