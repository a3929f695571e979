"""The file of the engines' API key: what it may hold, and what happens while it does not."""

from pathlib import Path

import pytest

from heliostat_extproc.engine_key import EngineKey, EngineKeyError


@pytest.mark.parametrize("text", [b"", b" \n", b"two words", b"a\nb", b"\xff", b"a\x00b"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: bytes) -> None:
    """What cannot be sent in a header is told at the start, with the file's name."""
    file = tmp_path / "key"
    file.write_bytes(text)
    with pytest.raises(EngineKeyError, match=str(file)):
        EngineKey(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The error names the file and why it cannot be read."""
    with pytest.raises(EngineKeyError, match="No such file"):
        EngineKey(tmp_path / "key")


def test_the_last_key_stays_while_the_file_has_none(tmp_path: Path) -> None:
    """A file that is empty for a moment or gone does not lock the engines."""
    file = tmp_path / "key"
    file.write_text("first\n")
    key = EngineKey(file)
    assert key.authorization == "Bearer first"
    for spoil in (lambda: file.write_text(""), file.unlink):
        spoil()
        key.reload()
        assert key.authorization == "Bearer first"
    file.write_text("second")
    key.reload()
    assert key.authorization == "Bearer second"
