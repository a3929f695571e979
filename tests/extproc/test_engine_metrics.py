"""Reading vLLM's /metrics: what is needed, summed, and never believed when it cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.engine_metrics import MetricsError, MetricsProblem, parse_engine_metrics
from heliostat_routing.events import EngineMetrics

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="odd } name\\n"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:prefix_cache_queries_total{engine="0"} 1e+06
vllm:prefix_cache_hits_total{engine="0"} 500.0
vllm:prompt_tokens_total{engine="0"} 4000.0
vllm:generation_tokens_total{engine="0"} 700.0
vllm:request_success_total{engine="0",finished_reason="stop"} 10.0
vllm:request_success_total{engine="0",finished_reason="abort"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 3.0
vllm:time_to_first_token_seconds_count{engine="0"} 9.0
vllm:time_to_first_token_seconds_count{engine="1"} 6.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100",cache_dtype="auto"} 1.0
vllm:cache_config_info{block_size="16",engine="1",kv_cache_size_tokens="5000"} 1.0
process_start_time_seconds 1.76423456789e+09
"""


def replaced(old: str, new: str) -> bytes:
    assert old in PAGE
    return PAGE.replace(old, new).encode()


def test_reads_and_sums_over_the_engines_of_a_server() -> None:
    """Counts add up, utilizations are averaged, families with a common start are told apart."""
    assert parse_engine_metrics(PAGE.encode()) == EngineMetrics(
        running_requests=4,
        waiting_requests=2,
        kv_cache_utilization=0.5,
        finished_requests=12,
        prompt_tokens=4000,
        generation_tokens=700,
        prefix_query_tokens=1_000_000,
        prefix_hit_tokens=500,
        first_tokens=15,
        kv_capacity_tokens=1600 + 5000,
        started_milliseconds=1_764_234_567_890,
    )


def test_a_page_that_starts_or_ends_with_a_family_is_read_whole() -> None:
    """Neither a missing newline at the end nor a family in the first line is lost."""
    lines = [line for line in PAGE.splitlines() if not line.startswith("#")]
    rotated = "\n".join(lines).encode()
    assert parse_engine_metrics(rotated).running_requests == 4
    assert parse_engine_metrics("\n".join(reversed(lines)).encode()).running_requests == 4


def test_without_capacity_the_engine_has_not_said_it() -> None:
    """Missing is not zero."""
    page = "\n".join(line for line in PAGE.splitlines() if "cache_config" not in line)
    metrics = parse_engine_metrics(page.encode())
    assert metrics.kv_capacity_tokens is None
    page = replaced("vllm:prefix_cache_hits_total", "vllm:other")
    assert parse_engine_metrics(page).prefix_hit_tokens is None


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (b"", MetricsProblem.MISSING),
        (b"<html>not metrics</html>", MetricsProblem.MISSING),
        (replaced("num_requests_running{", "num_requests_jogging{"), MetricsProblem.MISSING),
        (replaced("request_success_total", "x"), MetricsProblem.MISSING),
        (replaced("} 2.0\nvllm:num_requests_w", "} NaN\nvllm:num_requests_w"), "not-a-number"),
        (replaced("} 0.25", "} many"), MetricsProblem.NOT_A_NUMBER),
        (replaced("} 0.25", "}"), MetricsProblem.NOT_A_NUMBER),
        (replaced("} 3.0", "} -3.0"), MetricsProblem.OUT_OF_RANGE),
        (replaced("} 3.0", "} +Inf"), MetricsProblem.OUT_OF_RANGE),
        (replaced("} 3.0", "} 1e300"), MetricsProblem.OUT_OF_RANGE),
        (replaced("} 0.75", "} 7.5"), MetricsProblem.OUT_OF_RANGE),
        (b"vllm:kv_cache_usage_perc 0\n" * 5000, MetricsProblem.TOO_MANY_SERIES),
        (b"vllm:kv_cache_usage_percent 0\n" * 5000, MetricsProblem.TOO_MANY_SERIES),
    ],
)
def test_nonsense_is_refused_with_its_reason(page: bytes, problem: str) -> None:
    """A hostile or broken page is an error with a closed reason, never numbers."""
    with pytest.raises(MetricsError) as caught:
        parse_engine_metrics(page)
    assert caught.value.problem == problem


@given(st.lists(st.sampled_from(PAGE.splitlines()) | st.text(max_size=60), max_size=40))
def test_any_page_is_read_or_refused(lines: list[str]) -> None:
    """No page raises anything but the error that is for it."""
    try:
        metrics = parse_engine_metrics("\n".join(lines).encode())
    except MetricsError:
        return
    assert metrics.running_requests >= 0
    assert 0.0 <= metrics.kv_cache_utilization <= 1.0
