import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.address import AddressError, parse_address
from heliostat_crds.duration import DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60.0), ("500ms", 0.5), ("1.5m", 90.0), ("1h", 3600.0), ("0s", 0.0)],
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    """A number and a unit give seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "60", "s", "-1s", "1 s", "1d", "1e3s", "٣s", "1s\n", "1s2s", "1234567h"]
)
def test_other_text_is_no_duration(text: str) -> None:
    """What is not a number and a unit is refused with an example of what is."""
    with pytest.raises(DurationError, match="500ms"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=3_600_000))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    """Formatting and parsing are inverse down to the millisecond."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.7:9000", "10.0.0.7:9000"),
        ("10.0.0.7", "10.0.0.7:8000"),
        ("[FD00:0::7]:9000", "[fd00::7]:9000"),
        ("[::1]", "[::1]:8000"),
    ],
)
def test_addresses_have_one_canonical_form(text: str, canonical: str) -> None:
    """IPv4 and bracketed IPv6, with and without a port, give one way of writing."""
    assert str(parse_address(text, 8000)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("engine:8000", "host names are not resolved"),
        ("", "is not an address"),
        ("::1:8000", "is not an address"),
        ("[fe80::1%eth0]:80", "is not an address"),
        ("10.0.0.256:80", "no valid IP address"),
        ("010.0.0.1:80", "no valid IP address"),
        ("[10.0.0.1]:80", "no valid IP address"),
        ("10.0.0.1:0", "out of range; allowed: 1 to 65535"),
        ("10.0.0.1:65536", "out of range; allowed: 1 to 65535"),
        ("10.0.0.1:", "is not an address"),
        ("[::ffff:10.0.0.1]:80", "no valid IP address: write 10.0.0.1 instead"),
        ("0.0.0.0:80", "not the address of one server"),
        ("[ff02::1]:80", "not the address of one server"),
    ],
)
def test_bad_addresses_say_what_is_wrong(text: str, says: str) -> None:
    """What is not the address of one server is refused with the reason."""
    with pytest.raises(AddressError, match=says):
        parse_address(text, 8000)
