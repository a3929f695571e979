"""The tokenisation without a model: deterministic, prefix-stable, and true to generated text."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat_sim.engine.generation import natural_output_tokens
from heliostat_sim.standin.tokens import TokenBlocks, chat_tokens, ids_of_tokens, tokens_of_ids

texts = st.text(max_size=30)
turns = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=5)


@given(turns=turns, more=turns)
def test_a_longer_conversation_begins_with_the_tokens_of_the_shorter(
    turns: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    """Adding messages never changes the tokens of those before."""
    shorter = chat_tokens(None, [(role, [text]) for role, text in turns], generate=False)
    longer = chat_tokens(None, [(role, [text]) for role, text in turns + more])
    assert longer.startswith(shorter)


@given(turns=turns, output_tokens=st.integers(1, 40), block_tokens=st.sampled_from([4, 16]))
def test_a_reply_sent_back_has_the_blocks_that_were_generated(
    turns: list[tuple[str, str]], output_tokens: int, block_tokens: int
) -> None:
    """The next turn's hashes over the reply equal those under which the engine cached it."""
    messages = [(role, [text]) for role, text in turns]
    first = TokenBlocks(chat_tokens(None, messages), block_tokens)
    reply = first.output(0, output_tokens).decode()
    second = TokenBlocks(chat_tokens(None, [*messages, ("assistant", [reply])]), block_tokens)
    full_blocks = (first.prompt_tokens + output_tokens) // block_tokens
    assert second.between(0, full_blocks) == first.between(0, full_blocks)


@given(ids=st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_ids_and_tokens_convert_without_loss(ids: list[int]) -> None:
    """A prompt of ids has exactly these ids."""
    assert ids_of_tokens(tokens_of_ids(ids)) == ids


def test_a_salt_separates_caches() -> None:
    """The same prompt under another salt shares no block."""
    prompt = chat_tokens(None, [("user", ["a text of more than one block" * 9])])
    hashes = {salt: TokenBlocks(prompt, 16, salt).between(0, 1)[0] for salt in (None, "a", "b")}
    assert len(set(hashes.values())) == 3


def test_natural_lengths_have_the_stated_mean() -> None:
    """Over many prompts answers are about 200 tokens long."""
    seeds = (TokenBlocks(b"%08d" % number, 16).seed for number in range(4000))
    lengths = [natural_output_tokens(seed) for seed in seeds]
    assert 185 < sum(lengths) / len(lengths) < 215
    assert min(lengths) >= 1
