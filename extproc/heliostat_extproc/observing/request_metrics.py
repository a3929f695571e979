"""Counts requests once it is known how they ended."""

from prometheus_client import CollectorRegistry

from heliostat_extproc.observing import metric_list
from heliostat_extproc.observing.instruments import CounterFamily, HistogramFamily, Instruments
from heliostat_extproc.observing.request_record import RequestRecord
from heliostat_routing.commands import Forward


class _PoolSeries:
    """The series of one pool that a served request is counted in, looked up once."""

    __slots__ = ("cached", "output", "prompt", "total", "tpot", "ttft")

    def __init__(self, families: "RequestMetrics", pool: str) -> None:
        self.total = families.total_seconds.at(pool)
        self.ttft = families.ttft_seconds.at(pool)
        self.tpot = families.tpot_seconds.at(pool)
        self.prompt = families.prompt_tokens.at(pool)
        self.cached = families.cached_tokens.at(pool)
        self.output = families.output_tokens.at(pool)


class RequestMetrics:
    """What is counted of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = CounterFamily(metric_list.REQUESTS)
        self.total_seconds = HistogramFamily(metric_list.REQUEST_SECONDS)
        self.ttft_seconds = HistogramFamily(metric_list.TTFT_SECONDS)
        self.tpot_seconds = HistogramFamily(metric_list.TPOT_SECONDS)
        self.prompt_tokens = CounterFamily(metric_list.PROMPT_TOKENS)
        self.cached_tokens = CounterFamily(metric_list.CACHED_TOKENS)
        self.output_tokens = CounterFamily(metric_list.OUTPUT_TOKENS)
        self.retries = CounterFamily(metric_list.RETRIES)
        self.failed_attempts = CounterFamily(metric_list.FAILED_ATTEMPTS)
        self.forwards = CounterFamily(metric_list.FORWARDS)
        self.given_back = CounterFamily(metric_list.GIVEN_BACK)
        self._pools: dict[str, _PoolSeries] = {}
        kinds = (CounterFamily, HistogramFamily)
        families = [value for value in vars(self).values() if isinstance(value, kinds)]
        registry.register(Instruments(families))

    def tell(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        pool = record.pool
        self.requests.at(pool, record.settle()).add()
        if record.failed_attempts:
            self.failed_attempts.at(pool).add(record.failed_attempts)
            self.retries.at(pool).add(record.retries)
        if record.returns:
            self.given_back.at(pool).add(record.returns)
        if record.forwards:
            self._tell_forwards(record)
        if record.is_served:
            self._tell_served(record)

    def _tell_forwards(self, record: RequestRecord) -> None:
        for _, step in record.steps:
            if isinstance(step, Forward):
                self.forwards.at(record.pool, step.region).add()

    def _tell_served(self, record: RequestRecord) -> None:
        series = self._pools.get(record.pool)
        if series is None:
            series = self._pools[record.pool] = _PoolSeries(self, record.pool)
        total, ttft, tpot = record.total_seconds, record.ttft_seconds, record.tpot_seconds
        if total is not None:
            series.total.observe(total)
        if ttft is not None:
            series.ttft.observe(ttft)
        if tpot is not None:
            series.tpot.observe(tpot)
        measured = record.measured
        if measured is not None and record.region is None:  # else that region counts them
            series.prompt.add(measured.prompt_tokens or 0)
            series.cached.add(measured.cached_tokens or 0)
            series.output.add(measured.output_tokens or 0)
