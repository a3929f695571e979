import json
from pathlib import Path

import pytest

from heliostat_sim.workload.azure import azure
from heliostat_sim.workload.mooncake import BLOCK_TOKENS, mooncake
from heliostat_sim.workload.text import render
from heliostat_sim.workload.traces import TraceError, TraceWindow

WHOLE = TraceWindow()
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def row(at_ms: int, tokens: int, output: int, ids: list[int]) -> str:
    return json.dumps(
        {"timestamp": at_ms, "input_length": tokens, "output_length": output, "hash_ids": ids}
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def mooncake_trace(tmp_path: Path) -> Path:
    return write(
        tmp_path / "mooncake.jsonl",
        row(0, 1100, 5, [0, 1, 2]),
        row(1000, 1400, 6, [0, 1, 3]),
        row(3000, 512, 7, [1]),
        row(9000, 3, 8, [4]),
    )


@pytest.fixture
def azure_trace(tmp_path: Path) -> Path:
    return write(
        tmp_path / "azure.csv",
        AZURE_HEADER,
        "2023-11-16 18:15:46.6805900,374,44",
        "2023-11-16 18:15:50.9951690,396,109",
        "2023-11-16 18:16:46.6805900,1,2",
    )


def prompts(path: Path, seed: int = 0) -> list[bytes]:
    return [render(session.turns[0].user) for session in mooncake(path, WHOLE, seed)]


def test_equal_block_ids_are_equal_prefixes(mooncake_trace: Path) -> None:
    """Two prompts share exactly the text of the blocks that they share from the start."""
    first, second, third, _ = prompts(mooncake_trace)
    shared = 2 * BLOCK_TOKENS * 4
    assert first[:shared] == second[:shared]
    assert first[shared : shared + 16] != second[shared : shared + 16]
    assert third == first[BLOCK_TOKENS * 4 : shared]


def test_prompts_have_the_trace_lengths(mooncake_trace: Path) -> None:
    """Prompts are cut to input_length, and answers are to have output_length tokens."""
    workload = mooncake(mooncake_trace, WHOLE, 0)
    assert [len(prompt) for prompt in prompts(mooncake_trace)] == [4400, 5600, 2048, 12]
    assert [session.turns[0].output_tokens for session in workload] == [5, 6, 7, 8]
    assert [session.prompt_tokens(0) for session in workload] == [1100, 1400, 512, 3]


def test_a_seed_changes_the_text_not_the_sharing(mooncake_trace: Path) -> None:
    """Another seed gives other texts, so that a second run does not find the first one's cache."""
    first, second = prompts(mooncake_trace, seed=1), prompts(mooncake_trace, seed=2)
    assert first == prompts(mooncake_trace, seed=1)
    assert all(a[:16] != b[:16] for a, b in zip(first[:3], second[:3], strict=True))


def test_window_and_scale_choose_the_times(mooncake_trace: Path) -> None:
    """A window keeps its part of the trace, counted from its start, and the scale compresses it."""
    window = TraceWindow(start_seconds=1, duration_seconds=8, time_scale=4)
    workload = mooncake(mooncake_trace, window, 0)
    assert [session.at_seconds for session in workload] == [0.0, 0.5]
    assert (workload.timed, workload.length, workload.span_seconds) == (True, 2, 0.5)


def test_an_empty_window_is_an_error(mooncake_trace: Path) -> None:
    """A window without requests is refused rather than run as an empty load."""
    with pytest.raises(TraceError, match="4 requests, but none in the chosen window"):
        mooncake(mooncake_trace, TraceWindow(start_seconds=60), 0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"timestamp": 0, "input', "JSON is malformed"),
        ('{"timestamp": 0, "output_length": 1, "hash_ids": []}', "input_length"),
        (row(0, 0, 1, []), "input_length"),
        (row(-5, 10, 1, [1]), "timestamp"),
        (row(0, 10, 1, [1, 2]), "takes 1 blocks of 512 tokens, but hash_ids names 2"),
        ("[]", "Expected `object`"),
    ],
)
def test_a_wrong_mooncake_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """A malformed line is refused with its number and what is wrong."""
    path = write(tmp_path / "trace.jsonl", row(0, 3, 1, [1]), "", line)
    with pytest.raises(TraceError, match=r"trace\.jsonl:3: ") as caught:
        mooncake(path, WHOLE, 0)
    assert problem in str(caught.value)


def test_azure_lengths_and_times(azure_trace: Path) -> None:
    """An Azure line gives a prompt and an answer of its lengths at its time from the first."""
    sessions = list(azure(azure_trace, TraceWindow(time_scale=2), 0))
    assert [session.prompt_tokens(0) for session in sessions] == [374, 396, 1]
    assert [session.turns[0].output_tokens for session in sessions] == [44, 109, 2]
    assert [s.at_seconds for s in sessions] == pytest.approx([0.0, 2.1572895, 30.0])


def test_azure_prompts_share_only_what_is_asked(azure_trace: Path) -> None:
    """Prompts share no text unless a shared system message is asked for, inside their length."""
    alone = [render(session.turns[0].user) for session in azure(azure_trace, WHOLE, 0)]
    assert alone[0][:16] != alone[1][:16]
    sessions = list(azure(azure_trace, WHOLE, 0, shared_tokens=100))
    assert sessions[0].system == sessions[1].system
    assert [session.prompt_tokens(0) for session in sessions] == [374, 396, 1]
    assert sessions[2].system == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2023-11-16 18:15:46,374", "3 fields expected, 2 found"),
        ("yesterday,374,44", "yesterday"),
        ("2023-11-16 18:15:46,many,44", "many"),
        ("2023-11-16 18:15:46,0,44", "at least 1"),
        ("2023-11-16 18:15:46+00:00,5,44", "offset-naive"),
    ],
)
def test_a_wrong_azure_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """A malformed line is refused with its number and what is wrong."""
    path = write(tmp_path / "trace.csv", AZURE_HEADER, "2023-11-16 18:15:46.68,374,44", line)
    with pytest.raises(TraceError, match=r"trace\.csv:3: ") as caught:
        azure(path, WHOLE, 0)
    assert problem in str(caught.value)


def test_a_wrong_file_is_named(tmp_path: Path, azure_trace: Path) -> None:
    """A file that is missing, or another trace's, is refused with its name."""
    with pytest.raises(TraceError, match=r"none\.jsonl: No such file"):
        mooncake(tmp_path / "none.jsonl", WHOLE, 0)
    with pytest.raises(TraceError, match=r"azure\.csv:1: "):
        mooncake(azure_trace, WHOLE, 0)
    with pytest.raises(TraceError, match="the columns must be TIMESTAMP"):
        azure(write(tmp_path / "x.csv", "a,b"), WHOLE, 0)
