"""`heliostat router`: options that do not go together are told before anything starts."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat_cli.envoy_options import sidecar_settings
from heliostat_cli.main import main
from heliostat_cli.router import body_limit_bytes, configure, router_settings
from heliostat_extproc.envoy.sidecar import sidecar_files

HELIOSTAT = Path(sys.executable).with_name("heliostat")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--listen-tls"], "--listen-tls needs --listen"),
        (["--tls-cert", "c", "--tls-key", "k"], "--tls-cert needs --listen-tls"),
        (["--listen", "x:1", "--tls-cert", "c", "--tls-key", "k"], "--tls-cert needs --listen-tls"),
        (
            ["--listen", "x:1", "--listen-tls", "--tls-key", "k"],
            "--tls-cert and --tls-key go together",
        ),
        (
            ["--write-envoy-config", "d", "--gateway-tls-cert", "c"],
            "--gateway-tls-cert and --gateway-tls-key go together",
        ),
        (
            ["--gateway-tls-cert", "c", "--gateway-tls-key", "k"],
            "--gateway-tls-cert needs --write-envoy-config",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    """Status 2 and a line that names the options; no file is written."""
    assert main(["router", "--pools", str(tmp_path), *options]) == 2
    assert problem in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--engine-api-key-file", "no-such-file"], "no-such-file: No such file"),
        (
            ["--listen", "127.0.0.1:0", "--listen-tls", "--tls-cert", "no-cert", "--tls-key", "k"],
            "no-cert: No such file",
        ),
        (["--write-envoy-config", "/proc/nowhere"], "cannot write Envoy's configuration"),
    ],
)
def test_files_that_cannot_be_used_are_told_at_the_start(
    tmp_path: Path, options: list[str], problem: str
) -> None:
    """Status 1 and one line with the file and the reason."""
    socket = str(tmp_path / "router.sock")
    arguments = ["--pools", str(tmp_path), "--socket", socket, "--admin-port", "0", *options]
    command = [str(HELIOSTAT), "router", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert problem in done.stderr


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(["--pools", "pools", *options])


@pytest.mark.parametrize(("options", "limit_mib"), [([], 32), (["--max-body-mib", "3"], 3)])
def test_router_and_envoy_have_one_limit_of_bodies(
    tmp_path: Path, options: list[str], limit_mib: int
) -> None:
    """Envoy would buffer, or the router refuse, what the other one does not."""
    args = parsed("--write-envoy-config", str(tmp_path), *options)
    assert router_settings(args, tmp_path).body_limit_bytes == limit_mib * 1024 * 1024
    envoy = sidecar_settings(args, None, body_limit_bytes(args))
    assert envoy is not None
    line = f'"perConnectionBufferLimitBytes": {limit_mib * 1024 * 1024}'
    assert line in sidecar_files(envoy)["envoy.json"]


@pytest.mark.parametrize("limit", ["0", "1025", "-1", "many"])
def test_a_limit_that_cannot_be_kept_is_refused(limit: str) -> None:
    """Neither nothing nor more than Envoy's windows hold."""
    with pytest.raises(SystemExit):
        parsed("--max-body-mib", limit)
