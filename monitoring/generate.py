"""Writes what is made from the list of metrics: the page and the dashboard (`make dashboards`)."""

from pathlib import Path

from dashboard import dashboard_json
from metrics_page import metrics_page

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "charts" / "heliostat" / "monitoring" / "dashboard.json"

if __name__ == "__main__":
    PAGE.write_text(metrics_page())
    DASHBOARD.write_text(dashboard_json())
