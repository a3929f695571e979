"""The code of the region state protocol is what its definition gives."""

from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

import heliostat_extproc
from heliostat_extproc.federation.state_pb2 import Hello, WatchResponse

PACKAGES = Path(heliostat_extproc.__file__).parents[1]
PROTO = "heliostat_extproc/federation/state.proto"


def test_the_committed_code_is_what_the_definition_gives(tmp_path: Path) -> None:
    """Nobody changes one without the other: `make proto`."""
    include = str(files("grpc_tools") / "_proto")
    arguments = ["", f"-I{PACKAGES}", f"-I{include}", f"--python_out={tmp_path}"]
    assert protoc.main([*arguments, f"--pyi_out={tmp_path}", PROTO]) == 0
    for name in ("state_pb2.py", "state_pb2.pyi"):
        made = tmp_path / "heliostat_extproc/federation" / name
        committed = PACKAGES / "heliostat_extproc/federation" / name
        assert made.read_text() == committed.read_text(), f"{name}: run make proto"


def test_what_a_newer_version_adds_is_passed_over() -> None:
    """Fields that are not known here change nothing of those that are."""
    known = WatchResponse(hello=Hello(version=9, region="asia", router="a"), pong=7)
    added_number_and_text = b"\xa0\x06\x01" + b"\xaa\x06\x03new"
    read = WatchResponse.FromString(known.SerializeToString() + added_number_and_text)
    assert (read.hello.version, read.hello.region, read.pong) == (9, "asia", 7)
