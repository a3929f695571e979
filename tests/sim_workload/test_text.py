import json

from hypothesis import given
from hypothesis import strategies as st

from heliostat_sim.workload.text import (
    CHARACTERS_PER_TOKEN,
    TextPart,
    count_tokens,
    render,
    render_part,
)

parts = st.builds(TextPart, st.text(min_size=1, max_size=8), st.integers(0, 1500))


@given(st.lists(parts, max_size=5))
def test_text_has_the_length_its_tokens_say(texts: list[TextPart]) -> None:
    """A rendered text has exactly four characters a token, all of which JSON leaves as they are."""
    rendered = render(texts)
    assert len(rendered) == count_tokens(texts) * CHARACTERS_PER_TOKEN
    assert json.dumps(rendered.decode("ascii")) == f'"{rendered.decode()}"'


@given(st.text(max_size=8), st.integers(0, 1500), st.integers(0, 1500))
def test_same_key_is_same_text(key: str, first_tokens: int, second_tokens: int) -> None:
    """Two texts of one key are equal up to the shorter one's end, cached or not."""
    first = render([TextPart(key, first_tokens)])
    second = render_part(TextPart(key, second_tokens))
    shorter = min(len(first), len(second))
    assert first[:shorter] == second[:shorter]


def test_different_keys_differ_at_once() -> None:
    """Texts of different keys share no prefix that an engine's cache would find."""
    texts = {render([TextPart(f"key/{number}", 4)]) for number in range(2000)}
    assert len(texts) == 2000
