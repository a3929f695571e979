"""A client connected to the small API server."""

from collections.abc import AsyncIterator

import pytest

from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from tests.kube.api_server import FakeApiServer, running_api_server


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        yield running


@pytest.fixture
async def api(server: FakeApiServer) -> AsyncIterator[KubeApi]:
    async with KubeApi(Connection(server=server.url)) as client:
        yield client
