"""Multi-turn chats: every prompt holds all earlier messages and answers.

The lengths follow what is published of WildChat and of Chatbot Arena; what is not published is
assumed, and said where it stands. Clients run conversation after conversation (closed loop), or
conversations arrive by themselves (`heliostat_sim.demand.open_chat`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from xxhash import xxh3_64_intdigest

from heliostat_sim.demand.heads import Heads, HeadSettings
from heliostat_sim.workload.conversations import ConversationSettings, LengthDistribution
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Ask, ClosedClient, Session


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """The shape of chats, and what different chats have in common."""

    shape: ConversationSettings
    """Turns, lengths, think time, and `users` in each region. Its groups and system prompts mean
    nothing here: the heads take their place."""
    heads: HeadSettings
    max_output_tokens: int = 512
    recorded_answers: bool = False
    """A later prompt holds the data set's answers, whole, and not what the engine wrote. The engine
    has then cached no answer that comes again."""
    user_skew: float = 0.5
    """Zipf exponent of how often a region's users begin a chat; 0 makes them equal."""


ARENA = ChatSettings(
    shape=ConversationSettings(
        groups=1,
        users=80,
        mean_turns=2.5,
        single_turn_ratio=0.0,
        user_tokens=LengthDistribution(80, 120, 2000),
        output_tokens=LengthDistribution(250, 200, 2000),
        think_seconds=0.0,
        max_context_tokens=8000,
    ),
    heads=HeadSettings(
        world_tokens=20,
        user_tokens=68,
        world_ratio=0.83,
        region_ratio=0.81,
        user_ratio=0.81,
        heads_per_user=2,
    ),
)
"""Chatbot Arena's chats of two turns or more. Turns and lengths are assumed, so that prompts hold
as much that was sent before as the published hit rates let suppose. The heads make the published
similarity, within users and across them, alike in all regions."""

WILDCHAT = ChatSettings(
    shape=ConversationSettings(
        groups=1,
        users=40,
        mean_turns=4.76,
        single_turn_ratio=0.0,
        user_tokens=LengthDistribution(325, 1609, 3000),
        output_tokens=LengthDistribution(441, 411, 4000),
        think_seconds=0.0,
        max_context_tokens=3000,
    ),
    heads=HeadSettings(
        world_tokens=12,
        region_tokens=50,
        user_tokens=108,
        world_ratio=0.77,
        region_ratio=0.74,
        user_ratio=0.73,
        heads_per_user=2,
    ),
)
"""WildChat's chats of two turns or more: 2.54 turns in the mean with 59 % of one turn leave a mean
of 4.76. User messages are 296 tokens in the mean, their share of the heads counted in. The longest
are cut, and chats end at 3,000 tokens (an assumption), which leaves 3 turns in the mean. The heads
make the published similarity within users, within regions and across regions; with three regions,
that across users comes out between the last two."""


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """One message and its answer, before any limit on output."""

    user_tokens: int
    answer_tokens: int
    think_seconds: float


class ChatSession:
    """One conversation: its next prompt is known when the answer is there."""

    __slots__ = ("_chain", "_name", "_settings", "_turn", "_turns", "user")

    def __init__(
        self,
        user: int,
        chain: TokenChain,
        turns: list[PlannedTurn],
        name: int,
        settings: ChatSettings,
    ) -> None:
        self.user = user
        self._chain = chain
        self._turns = turns
        self._name = name
        self._settings = settings
        self._turn = 0

    def start(self) -> list[Ask]:
        """The first message."""
        return [self._ask()]

    def on_answer(self, ask: Ask) -> list[Ask]:
        """The next message, if there is one."""
        self._turn += 1
        return [self._ask()] if self._turn < len(self._turns) else []

    def _ask(self) -> Ask:
        number, chain = self._turn, self._chain
        turn = self._turns[number]
        chain.add(self._name + 3 * number, turn.user_tokens)
        prompt_tokens = chain.tokens
        output_tokens = min(turn.answer_tokens, self._settings.max_output_tokens)
        asked = chain
        if self._settings.recorded_answers:
            asked = chain.fork()
            chain.add(self._name + 3 * number + 2, turn.answer_tokens)
        asked.add(self._name + 3 * number + 1, output_tokens)
        return Ask(
            asked,
            prompt_tokens,
            output_tokens,
            turn.think_seconds,
            number,
            self._settings.max_output_tokens,
        )


class Chats:
    """Draws conversations of the users of all regions."""

    def __init__(self, settings: ChatSettings, key: str, block_tokens: int) -> None:
        self.settings = settings
        self.heads = Heads(settings.heads, key, block_tokens)
        self._key = key
        users = range(1, settings.shape.users + 1)
        self._weights = list(accumulate(rank**-settings.user_skew for rank in users))
        self._users = range(settings.shape.users)

    def draw(self, rng: Random, region: str, *, thinks_first: bool = False) -> ChatSession:
        """A new conversation in a region."""
        user = self._draw(rng)
        chain = self.heads.begin(rng, region, user)
        return self.begin(rng, self._id(region, user), chain, thinks_first=thinks_first)

    def begin(
        self, rng: Random, user: int, chain: TokenChain, *, thinks_first: bool = False
    ) -> ChatSession:
        """A new conversation that begins with what the chain holds."""
        turns = self._plan(rng, chain.tokens, thinks_first)
        return ChatSession(user, chain, turns, rng.getrandbits(60), self.settings)

    def draw_user(self, rng: Random, region: str) -> int:
        """One of a region's users, by a number unlike those of other regions."""
        return self._id(region, self._draw(rng))

    def _draw(self, rng: Random) -> int:
        return rng.choices(self._users, cum_weights=self._weights)[0]

    def _id(self, region: str, user: int) -> int:
        return xxh3_64_intdigest(f"{self._key}/user/{region}/{user}".encode())

    def _plan(self, rng: Random, head_tokens: int, thinks_first: bool) -> list[PlannedTurn]:
        shape = self.settings.shape
        context_tokens = head_tokens
        turns: list[PlannedTurn] = []
        for _ in range(shape.draw_turns(rng)):
            user_tokens = shape.user_tokens.draw_tokens(rng)
            answer_tokens = shape.output_tokens.draw_tokens(rng)
            think_seconds = rng.expovariate(1.0) * shape.think_seconds
            context_tokens += user_tokens + answer_tokens
            if turns and context_tokens > shape.max_context_tokens:
                break
            if not turns and not thinks_first:
                think_seconds = 0.0
            turns.append(PlannedTurn(user_tokens, answer_tokens, think_seconds))
        return turns


def chat_clients(
    clients: Mapping[str, int],
    settings: ChatSettings,
    kind: str,
    seed: int,
    *,
    block_tokens: int = 16,
    ramp_seconds: float = 0.0,
) -> tuple[ClosedClient, ...]:
    """So many clients in each region, whose first chats begin within the ramp."""
    chats = Chats(settings, f"{kind}/{seed}", block_tokens)

    def client(region: str, number: int) -> ClosedClient:
        rng = Random(f"{kind}/{seed}/{region}/{number}")  # noqa: S311 - reproducible, not secret
        starts_at = rng.random() * ramp_seconds
        return ClosedClient(region, _endless(chats, rng, region), starts_at)

    return tuple(client(region, i) for region, count in clients.items() for i in range(count))


def _endless(chats: Chats, rng: Random, region: str) -> Iterator[Session]:
    while True:
        yield chats.draw(rng, region, thinks_first=True)
