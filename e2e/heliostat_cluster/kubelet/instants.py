"""Wall-clock instants as the API server writes them."""

import datetime


def now_text() -> str:
    """Return this second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_text_micro() -> str:
    """Return this microsecond, for leases."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
