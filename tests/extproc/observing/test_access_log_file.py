"""The access log never holds up a request, whatever its file does."""

import io
import json
import threading
from pathlib import Path

from heliostat_extproc.observing.access_log_file import AccessLogFile
from heliostat_extproc.observing.request_record import Ending, RequestRecord
from heliostat_extproc.observing.request_story import LINE_FIELDS


def record(number: int, ending: Ending = Ending.SERVED) -> RequestRecord:
    return RequestRecord(number, f"id-{number}", 0.0, 0.0, ending=ending)


def test_the_page_lists_every_field() -> None:
    """docs/observing.md says of each what the code says of it."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "observing.md").read_text()
    for field, text in LINE_FIELDS.items():
        assert f"| `{field}` | {text} |\n" in page


class Stuck(io.BytesIO):
    """A pipe that nobody reads, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def write(self, data) -> int:
        self.reached.set()
        self.released.wait(10)
        return super().write(data)


def test_lines_are_json_with_exactly_the_documented_fields() -> None:
    """What needs no engine is not worth a line."""
    file = io.BytesIO()
    log = AccessLogFile(file)
    log.start()
    log.tell(record(1))
    log.tell(record(2, Ending.ANSWERED_HERE))
    log.stop()
    (line,) = map(json.loads, file.getvalue().splitlines())
    assert list(line) == list(LINE_FIELDS)
    assert line["request_id"] == "id-1"


def test_a_file_that_is_stuck_costs_lines_and_no_memory() -> None:
    """What does not fit any more is counted as lost."""
    file = Stuck()
    log = AccessLogFile(file, most_waiting=3)
    log.start()
    log.tell(record(0))
    assert file.reached.wait(10)
    for number in range(1, 11):
        log.tell(record(number))
    assert log.lost_lines == 7
    file.released.set()
    log.stop()
    assert len(file.getvalue().splitlines()) == 4


def test_a_full_disk_costs_lines_and_the_log_goes_on() -> None:
    """The next batch is written once there is room again."""
    file = io.BytesIO()
    log = AccessLogFile(file)
    failing = True

    def write(data: bytes, real=file.write) -> int:
        if failing:
            raise OSError(28, "No space left on device")
        return real(data)

    file.write = write  # type: ignore[method-assign]
    log.tell(record(1))
    log._write()
    failing = False
    log.tell(record(2))
    log.start()
    log.stop()
    assert log.lost_lines == 1
    assert [json.loads(line)["request_id"] for line in file.getvalue().splitlines()] == ["id-2"]
