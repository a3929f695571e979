"""Where a world's demand comes from: chats, trees of thought, bursts, days and recorded traces.

Everything is drawn from a seed and lazily, so that equal seeds ask for equal texts at equal times
whatever the policies do, and a long run holds only what is open.
"""
