"""The file of tenants as it changes: what is wrong leaves the last good one in use."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from heliostat_extproc.tenancy.tenants_file import TenantsFile, TenantsFileError

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"


def write(file: Path, key: str) -> None:
    file.write_text(f"tenants: [{{name: acme, keys: [{key}]}}]")


@pytest.mark.parametrize("data", [b"", b"tenants: 3", b"\xff"])
def test_a_file_without_tenants_is_refused_at_the_start(tmp_path: Path, data: bytes) -> None:
    """The error names the file."""
    file = tmp_path / "tenants.yaml"
    file.write_bytes(data)
    with pytest.raises(TenantsFileError, match=str(file)):
        TenantsFile(file)


def test_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    """The error says why it cannot be read."""
    with pytest.raises(TenantsFileError, match="No such file"):
        TenantsFile(tmp_path / "tenants.yaml")


def test_keys_are_rotated(tmp_path: Path) -> None:
    """Another content is taken over once; neither key is in a log."""
    file = tmp_path / "tenants.yaml"
    write(file, FIRST)
    tenants = TenantsFile(file)
    write(file, SECOND)
    with capture_logs() as logs:
        assert tenants.reload()
        assert not tenants.reload()
    assert tenants.tenants.credentials == ((SECOND, "acme"),)
    assert "sk-" not in str(logs)


def test_the_last_good_tenants_stay(tmp_path: Path) -> None:
    """A file that is wrong or gone is told once, and locks nobody out."""
    file = tmp_path / "tenants.yaml"
    write(file, FIRST)
    tenants = TenantsFile(file)
    for spoil in (lambda: file.write_text(f"tenants: {SECOND}"), file.unlink):
        spoil()
        with capture_logs() as logs:
            assert not tenants.reload()
            assert not tenants.reload()
        assert len(logs) == 1
        assert "sk-second" not in str(logs)
        assert tenants.problem
        assert tenants.tenants.credentials == ((FIRST, "acme"),)
    write(file, FIRST)
    assert not tenants.reload()
    assert not tenants.problem
