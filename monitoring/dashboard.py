"""Makes the Grafana dashboard from the list of metrics. Run by `make dashboards`.

On top is what to look at first; below, a row for each group of the list with a panel for each
metric: rates of counters, quantiles of histograms, gauges as they are.
"""

import json
from collections.abc import Iterable
from itertools import count
from typing import Any

from heliostat_extproc.observing import metric_list as m
from heliostat_extproc.observing.metric_list import GROUPS, Metric, MetricKind

TITLE = "Heliostat"
_WIDTH, _COLUMNS, _HEIGHT = 24, 3, 8
_QUANTILES = (0.5, 0.95, 0.99)
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SELECTORS = {"pool": 'pool=~"$pool"'}

Query = tuple[str, str]
"""A PromQL expression, and the legend of its series."""


def dashboard_json() -> str:
    """Give the dashboard as Grafana imports it."""
    return json.dumps(build_dashboard(), indent=2) + "\n"


def build_dashboard() -> dict[str, Any]:
    """Build the dashboard."""
    return {
        "title": TITLE,
        "uid": "heliostat",
        "tags": ["heliostat"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source(), _pools()]},
        "panels": _layout([("At first sight", _first_sight()), *_groups()]),
    }


def _first_sight() -> list[dict[str, Any]]:
    served = f"sum(rate({_named(m.CACHED_TOKENS)}[$__rate_interval]))"
    prompt = f"sum(rate({_named(m.PROMPT_TOKENS)}[$__rate_interval]))"
    ended = f"sum by (outcome) (rate({_named(m.REQUESTS)}[$__rate_interval]))"
    return [
        _panel("Requests by outcome", "reqps", [(ended, "{{outcome}}")]),
        _panel("Time to first token", "s", _quantiles(m.TTFT_SECONDS, ())),
        _panel("Time per output token", "s", _quantiles(m.TPOT_SECONDS, ())),
        _panel("Prompt tokens found in caches", "percentunit", [(f"{served} / {prompt}", "hits")]),
        _panel(
            "Waiting and running",
            "short",
            [
                (f"sum(max by (pool, instance) ({_named(m.POOL_QUEUED)}))", "held"),
                (f"sum(max by (pool, instance) ({_named(m.POOL_INFLIGHT)}))", "in flight"),
            ],
        ),
        _panel(
            "Endpoints",
            "short",
            [
                (_some_router(m.ENDPOINT_READY), "ready"),
                (_some_router(m.ENDPOINT_AVAILABLE), "would take a request"),
                (_some_router(m.ENDPOINT_BREAKER_CLOSED), "not kept away from"),
            ],
        ),
    ]


def _some_router(metric: Metric) -> str:
    """Count the endpoints of which some router says so: every router of a region sees them all."""
    return f"sum(max by (pool, endpoint) ({_named(metric)}))"


def _groups() -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for title, metrics in GROUPS:
        yield title, [_metric_panel(metric) for metric in metrics]


def _metric_panel(metric: Metric) -> dict[str, Any]:
    name = metric.name.removeprefix(m.PREFIX).removesuffix("_total").replace("_", " ")
    text = metric.text
    if metric.kind is MetricKind.HISTOGRAM:
        return _panel(name, "s", _quantiles(metric, metric.labels), text)
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or name
    if metric.kind is MetricKind.COUNTER:
        rate = f"sum{by} (rate({_named(metric)}[$__rate_interval]))"
        return _panel(f"{name} per second", "short", [(rate, legend)], text)
    return _panel(name, _unit(metric.name), [(f"max{by} ({_named(metric)})", legend)], text)


def _quantiles(metric: Metric, labels: tuple[str, ...]) -> list[Query]:
    by = ", ".join(("le", *labels))
    buckets = f"sum by ({by}) (rate({_named(metric, '_bucket')}[$__rate_interval]))"
    series = "".join(f" {{{{{label}}}}}" for label in labels)
    return [(f"histogram_quantile({q}, {buckets})", f"p{q * 100:g}{series}") for q in _QUANTILES]


def _named(metric: Metric, suffix: str = "") -> str:
    chosen = ", ".join(_SELECTORS[label] for label in metric.labels if label in _SELECTORS)
    return f"{metric.name}{suffix}" + (f"{{{chosen}}}" if chosen else "")


def _unit(name: str) -> str:
    if name.endswith("_seconds"):
        return "s"
    return "percentunit" if name.endswith("_ratio") else "short"


def _panel(title: str, unit: str, queries: list[Query], text: str = "") -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [_target(chr(ord("A") + index), *q) for index, q in enumerate(queries)],
    }


def _target(name: str, expression: str, legend: str) -> dict[str, Any]:
    return {"refId": name, "datasource": _SOURCE, "expr": expression, "legendFormat": legend}


def _layout(rows: Iterable[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    number, top, width = count(1), 0, _WIDTH // _COLUMNS
    for title, panels in rows:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        placed.append({"id": next(number), "type": "row", "title": title, "gridPos": place})
        top += 1
        for index, panel in enumerate(panels):
            row, column = divmod(index, _COLUMNS)
            place = {"h": _HEIGHT, "w": width, "x": column * width, "y": top + row * _HEIGHT}
            placed.append({"id": next(number), **panel, "gridPos": place})
        top += -(-len(panels) // _COLUMNS) * _HEIGHT
    return placed


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"}


def _pools() -> dict[str, Any]:
    return {
        "name": "pool",
        "label": "Pool",
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({m.POOL_QUEUED.name}, pool)",
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
