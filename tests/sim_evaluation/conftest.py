from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from heliostat_sim.engine import PROFILES
from heliostat_sim.evaluation import Report, Terms, make_report
from heliostat_sim.world.records import Records
from heliostat_sim.world.settings import RegionSettings, WorldSettings

MakeReport = Callable[..., Report]


@pytest.fixture
def a_report() -> MakeReport:
    """Makes a report of nothing but what it is told."""
    settings = WorldSettings((RegionSettings("us", 1),), PROFILES["l4-llama-8b"], {})

    def make(policy: str = "heliostat", seed: int = 0, **values: Any) -> Report:
        empty = make_report(
            Records(), settings, scenario="arena", policy=policy, seed=seed, terms=Terms()
        )
        return replace(empty, **values)

    return make
