"""The HTTP side of `heliostat load`: sends a workload's requests and measures the answers."""

from heliostat_cli.loading.options import GatewayError, LoadOptions, OptionError
from heliostat_cli.loading.report import LoadReport, Progress
from heliostat_cli.loading.run import run_load

__all__ = ["GatewayError", "LoadOptions", "LoadReport", "OptionError", "Progress", "run_load"]
