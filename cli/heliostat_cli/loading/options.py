"""What a load run is told, and the errors that stop it before its first request."""

from dataclasses import dataclass


class OptionError(ValueError):
    """The options contradict each other or the workload."""


class GatewayError(RuntimeError):
    """No request can be sent: the gateway does not answer, or names no model."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a workload is sent, and for how long."""

    url: str = "http://127.0.0.1:8080"
    """The gateway (or an engine), without `/v1`."""
    model: str | None = None
    """The model to ask for; None: the first that `/v1/models` lists."""
    engine_url: str | None = None
    """An engine stand-in that serves the requests: if it lags, the run is not valid either."""
    concurrency: int | None = None
    """Sessions held at once, each starting as another ends (closed loop).

    None: sessions start when the workload says (open loop), which must then be timed.
    """
    max_requests: int | None = None
    """Requests to start at most; None: no limit."""
    seconds: float | None = None
    """Start no request later than this after the first; None: no limit."""
    timeout_seconds: float = 600.0
    """How long one request may take, answer included."""
    progress_seconds: float = 0.25
    """Between two calls of the progress callback."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise OptionError(f"the URL must start with http:// or https://, not {self.url!r}")
        if self.concurrency is not None and self.concurrency < 1:
            raise OptionError("the concurrency must be at least 1")
        if self.max_requests is not None and self.max_requests < 1:
            raise OptionError("the number of requests must be at least 1")
        for name in ("seconds", "timeout_seconds", "progress_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptionError(f"{name} must be positive, not {value:g}")
