"""The page about other gateways shows the very files that tests run."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"<!-- (gateways/\S+) -->\n```yaml\n(.*?)```", re.DOTALL)


def test_the_page_shows_the_files_that_are_tested(regenerate: bool) -> None:
    """Each block is its file, to the letter, and each file has a block."""
    page = DOCS / "gateways.md"
    if regenerate:
        page.write_text(_BLOCK.sub(_filled, page.read_text()))
    shown = dict(_BLOCK.findall(page.read_text()))
    files = {f"gateways/{file.name}": file.read_text() for file in (DOCS / "gateways").iterdir()}
    assert shown == files


def _filled(block: re.Match[str]) -> str:
    return f"<!-- {block[1]} -->\n```yaml\n{(DOCS / block[1]).read_text()}```"
