"""docs/simulator.md: its examples run, and its tables have every field of a scenario."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from heliostat_cli.main import main
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.scenario import spec, workload_spec
from heliostat_sim.world.settings import FaultKind

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def models() -> Iterator[type[BaseModel]]:
    """What a scenario file is made of."""
    for module in (spec, workload_spec):
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                assert issubclass(value, BaseModel)
                yield value


def test_the_tables_have_every_field() -> None:
    """No field of a scenario file and no kind of workload or fault is missing on the page."""
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    words = set(re.findall(r"[A-Za-z-]+", table))
    fields = {info.alias or name for model in models() for name, info in model.model_fields.items()}
    assert len(fields) > 60
    assert sorted(fields - words) == []
    kinds = {"arena", "wildchat", "open-chat", "tree-of-thoughts", "single-turn"}
    assert kinds | {"mooncake", "azure"} <= words
    for fault in FaultKind:
        assert f"`{fault}`" in PAGE, fault


def test_the_scenario_of_the_page_runs(tmp_path: Path) -> None:
    """The example is a whole file; its short form runs and loses nothing."""
    (text,) = blocks("yaml")
    file, report = tmp_path / "pair.yaml", tmp_path / "report.json"
    file.write_text(text)
    assert main(["sim", "run", str(file), "--short", "--json", str(report)]) == 0
    assert '"lost": 0' in report.read_text()


def test_the_policy_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The example is a whole program of at most thirty lines that simulates its own policy."""
    (code,) = blocks("python")
    assert code.count("\n") <= 30
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "simulator.md", "exec"), names)  # noqa: S102 - it is the page's own
    assert re.match(r"[1-9]\d* served, first tokens in 0\.\d+ s\n", capsys.readouterr().out)


def test_what_the_page_asks_to_type_is_there(tmp_path: Path) -> None:
    """Every command line on the page has options and policies that exist."""
    lines = re.findall(r"(?:^\$ |^\.venv/bin/)heliostat (sim .*)$", PAGE, flags=re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words = line.split()
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
        for value in (
            words[words.index("--policies") + 1].split(",") if "--policies" in words else ()
        ):
            assert value in list(PolicyName)
