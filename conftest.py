"""What the whole suite shares: an option to write golden files anew, Hypothesis' settings."""

import pytest
from hypothesis import HealthCheck, settings

# How fast examples are made says how busy the machine is, nothing of the code.
settings.register_profile(
    "busy-machine", suppress_health_check=[HealthCheck.too_slow], deadline=None
)
settings.load_profile("busy-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--regenerate`."""
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write the golden files from what the code gives now; read the difference with git",
    )


@pytest.fixture(scope="session")
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--regenerate"))
