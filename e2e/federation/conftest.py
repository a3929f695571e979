"""Three regions as processes, one set for all scenarios that need nothing special."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from heliostat_federation.federation import Federation, FederationSettings, running_federation
from heliostat_federation.region import RegionSettings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="ten minutes of load with faults, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes ten minutes: --long"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes ten minutes; with --long only")


def kept_logs(name: str) -> Path | None:
    """Where the logs stay, if E2E_STATE says so."""
    state = os.environ.get("E2E_STATE")
    return None if state is None else Path(state) / name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_federation() -> AsyncIterator[Federation]:
    settings = FederationSettings(
        logs=kept_logs("federation"),
        differing={
            "eu": RegionSettings(groups=("gdpr",)),
            "asia": RegionSettings(groups=("apac",)),
        },
    )
    async with running_federation(settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def federation(shared_federation: Federation) -> Federation:
    """All regions up, connected and idle, whatever the scenario before has broken."""
    async with asyncio.timeout(120):
        await shared_federation.restore()
    return shared_federation
