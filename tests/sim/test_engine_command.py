"""`heliostat engine` as a process."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_several_engines_serve_until_a_signal_and_exit_cleanly(ending: signal.Signals) -> None:
    """The ready line names every address; a signal ends the process with status 0, silently."""
    program = "import sys; from heliostat_cli.main import main; sys.exit(main())"
    arguments = ["engine", "--port", "0", "--count", "2", "--model", "m", "--kv-tokens", "1000"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["model"] == "m"
            assert len(set(ready["addresses"])) == 2
            for address in ready["addresses"]:
                url = f"http://{address}/v1/models"
                with urllib.request.urlopen(url, timeout=5) as response:
                    assert json.load(response)["data"][0]["max_model_len"] == 992
            process.send_signal(ending)
            _, errors = process.communicate(timeout=5)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")
