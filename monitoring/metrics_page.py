"""Writes docs/metrics.md from what the code declares. Run by `make dashboards`."""

from collections.abc import Iterator

from prometheus_client.metrics import MetricWrapperBase

from heliostat_extproc.observing.metric_list import GROUPS, Metric, MetricKind
from heliostat_operator.health import Metrics

HEAD = """\
# Metrics

Every metric of router and operator, at `/metrics` of their admin ports. The list is made from the
code (`make dashboards`). Names, types and labels are stable: they change only with a word in the
[changelog](../CHANGELOG.md). [Observing](observing.md) says which to look at first.

Labels hold names from manifests, addresses of endpoints and words of closed sets, never what a
client has sent. What has no labels is there from the start; a series with labels appears with the
first that it counts.

Requests are counted when they have ended and Envoy has told how: a second later at most. What
another region serves is counted there and at the gateway that forwarded it; its tokens are counted
there alone. Gateways of others ([`--listen`](envoy.md#other-gateways)) tell less: their requests
end as `dispatched`.
"""


def metrics_page() -> str:
    """Give the whole page."""
    parts = [HEAD]
    for title, metrics in (*GROUPS, ("The operator", tuple(operator_metrics()))):
        parts.append(f"## {title}\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n")
        parts[-1] += "".join(map(_row, metrics))
    return "\n".join(parts)


def operator_metrics() -> Iterator[Metric]:
    """Give what the operator declares, in the same form."""
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            suffix = "_total" if family.type == "counter" else ""
            yield Metric(
                f"{family.name}{suffix}",
                MetricKind(family.type),
                family.documentation,
                tuple(metric._labelnames),
            )


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |\n"
