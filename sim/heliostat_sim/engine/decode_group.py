"""The decoding part of the batch, advanced as a whole.

Every member gains one token per step, so a step is one addition to a shared counter: a member's
own position follows from the step at which it joined. Which steps need new blocks follows from the
members' positions modulo the block size, kept as a histogram. No step loops over the members.
"""

import heapq

from heliostat_sim.engine.request import SequenceState


class DecodeGroup:
    """Members, their common step counter and what the next steps will need."""

    def __init__(self, block_tokens: int) -> None:
        self.members = 0
        self.context_tokens = 0
        self.steps = 0
        self._block_tokens = block_tokens
        self._crossings = [0] * block_tokens
        self._finishes: list[tuple[int, int, SequenceState]] = []
        self._joins = 0

    def join(self, sequence: SequenceState) -> None:
        """Add a sequence whose computed tokens lack only its newest output token."""
        sequence.joined_step = self.steps
        remaining = sequence.request.output_tokens - sequence.output_tokens
        self._joins += 1
        sequence.join_number = self._joins
        heapq.heappush(self._finishes, (self.steps + remaining, self._joins, sequence))
        self._crossings[self._phase(sequence)] += 1
        self.members += 1
        self.context_tokens += sequence.computed_tokens

    def leave(self, sequence: SequenceState) -> None:
        """Remove a member and write its position back into it."""
        self._crossings[self._phase(sequence)] -= 1
        assert sequence.joined_step is not None  # noqa: S101 - members have joined
        gained = self.steps - sequence.joined_step
        sequence.computed_tokens += gained
        sequence.output_tokens += gained
        sequence.joined_step = None
        self.members -= 1
        self.context_tokens -= sequence.computed_tokens

    def output_tokens(self, sequence: SequenceState) -> int:
        """Output tokens that the sequence has by now, member or not."""
        if sequence.joined_step is None:
            return sequence.output_tokens
        return sequence.output_tokens + self.steps - sequence.joined_step

    def advance(self, steps: int) -> None:
        """Give every member one token per step."""
        self.steps += steps
        self.context_tokens += self.members * steps

    def blocks_for(self, first_step: int, steps: int) -> int:
        """Count the new blocks that all members need in [first_step, first_step + steps)."""
        if steps == 1:
            return self._crossings[first_step % self._block_tokens]
        cycles, rest = divmod(steps, self._block_tokens)
        blocks = cycles * self.members
        for step in range(first_step, first_step + rest):
            blocks += self._crossings[step % self._block_tokens]
        return blocks

    def steps_within(self, first_step: int, blocks: int) -> int:
        """Count the steps from `first_step` on for which so many blocks are enough."""
        cycles, rest = divmod(blocks, self.members)
        steps = cycles * self._block_tokens
        while rest >= (needed := self._crossings[(first_step + steps) % self._block_tokens]):
            rest -= needed
            steps += 1
        return steps

    def pop_finished(self) -> list[SequenceState]:
        """Return the members whose last token came with the current step, oldest joiner first."""
        finished = []
        while self._finishes and self._finishes[0][0] <= self.steps:
            _, join_number, sequence = heapq.heappop(self._finishes)
            if self._is_current(join_number, sequence):
                finished.append(sequence)
        return finished

    def steps_to_next_finish(self) -> int:
        """Steps until some member has its last token. There must be members."""
        while not self._is_current(*self._finishes[0][1:]):
            heapq.heappop(self._finishes)
        return self._finishes[0][0] - self.steps

    @staticmethod
    def _is_current(join_number: int, sequence: SequenceState) -> bool:
        return sequence.joined_step is not None and sequence.join_number == join_number

    def _phase(self, sequence: SequenceState) -> int:
        """Steps congruent to this (modulo the block size) start a new block for the sequence."""
        assert sequence.joined_step is not None  # noqa: S101 - called for members only
        return (sequence.joined_step - sequence.computed_tokens) % self._block_tokens
