"""The page of metrics, the dashboard and the alerts speak of the metrics that there are."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat_extproc.errors import Reason
from heliostat_extproc.observing.metric_list import METRICS, Metric, MetricKind
from heliostat_extproc.observing.request_record import Ending

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
ALERTS = ROOT / "charts" / "heliostat" / "monitoring" / "alerts.yaml"
_NAME = re.compile(r"heliostat_[a-z_]+")
_LABELS = re.compile(r"(heliostat_[a-z_]+)\{([^}]*)\}")
_DURATION = re.compile(r"[1-9][0-9]*[smhd]")


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the generator's modules define."""
    sys.path.insert(0, str(MONITORING))
    try:
        return {
            **runpy.run_path(str(MONITORING / "metrics_page.py")),
            **runpy.run_path(str(MONITORING / "dashboard.py")),
            **runpy.run_path(str(MONITORING / "generate.py")),
        }
    finally:
        sys.path.remove(str(MONITORING))


@pytest.fixture(scope="module")
def series(made: dict[str, Any]) -> dict[str, Metric]:
    """Every name of a series that a query may ask for."""
    named: dict[str, Metric] = {}
    for metric in (*METRICS, *made["operator_metrics"]()):
        suffixes = ("_bucket", "_count", "_sum") if metric.kind is MetricKind.HISTOGRAM else ("",)
        named.update({f"{metric.name}{suffix}": metric for suffix in suffixes})
    return named


def check_query(expression: str, series: dict[str, Metric]) -> None:
    """Fail where a query names a metric, or a label of one, that there is not."""
    names = _NAME.findall(expression)
    assert names, expression
    assert set(names) <= set(series), expression
    for name, selector in _LABELS.findall(expression):
        asked = set(re.findall(r"(\w+)\s*[=!]", selector))
        assert asked <= {*series[name].labels, "instance"}, expression
    assert expression.count("(") == expression.count(")"), expression


@pytest.mark.parametrize(
    ("path", "writer"), [("PAGE", "metrics_page"), ("DASHBOARD", "dashboard_json")]
)
def test_what_is_committed_is_what_the_list_makes(
    made: dict[str, Any], path: str, writer: str
) -> None:
    """A metric that is added or changed shows in both."""
    assert made[path].read_text() == made[writer](), "run make dashboards"


def test_the_dashboard_asks_for_what_there_is(series: dict[str, Metric]) -> None:
    """Every query names metrics and labels of the list, and every metric of the router has one."""
    dashboard = json.loads((ROOT / "charts/heliostat/monitoring/dashboard.json").read_text())
    targets = [t for panel in dashboard["panels"] for t in panel.get("targets", [])]
    for target in targets:
        check_query(target["expr"], series)
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        labels = {label for name in _NAME.findall(target["expr"]) for label in series[name].labels}
        assert shown <= labels
    asked = {series[name].name for t in targets for name in _NAME.findall(t["expr"])}
    assert {metric.name for metric in METRICS} <= asked
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def rules() -> Iterator[dict[str, Any]]:
    """Every alert."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from group["rules"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any], series: dict[str, Metric]) -> None:
    """It has a severity, and a word for whoever is woken."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    check_query(rule["expr"], series)
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert _DURATION.fullmatch(rule.get("for", "1m"))
    # Outcomes are words of a closed set: a selector by another would never match.
    for outcomes in re.findall(r'outcome=~?"([^"]*)"', rule["expr"]):
        assert set(outcomes.split("|")) <= outcome_words()


def outcome_words() -> set[str]:
    """How a request may end."""
    return {word.value for kind in (Ending, Reason) for word in kind}


def test_promtool_agrees() -> None:
    """Where there is a promtool, it takes the rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on PATH")
    command = [promtool, "check", "rules", ALERTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
