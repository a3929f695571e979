"""The engine model in real time, on the event loops that it runs under."""

import asyncio
import time
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from heliostat_sim.engine import Engine, EngineProfile, FinishReason
from heliostat_sim.standin.answers import StreamedAnswer, WholeAnswer
from heliostat_sim.standin.chunks import AnswerShape
from heliostat_sim.standin.exposition import EngineExposition
from heliostat_sim.standin.live_engine import LiveEngine
from heliostat_sim.standin.loop_lag import LoopLagProbe
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.requests import GenerationPlan
from heliostat_sim.standin.tokens import TokenBlocks, text_tokens

Run = Callable[[Coroutine[None, None, None]], None]
RUNNERS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
SHAPE = AnswerShape("cmpl-1", 0, "m", chat=False, fingerprint="vllm-0")


def profile(speed_ratio: float) -> EngineProfile:
    """Return the small GPU at some speed."""
    return EngineOptions(speed_ratio=speed_ratio).engine_profile()


def live(engine: Engine) -> LiveEngine:
    """Return an engine in real time."""
    return LiveEngine(engine, EngineExposition("m", engine.profile, LoopLagProbe()))


def plan(text: str, output_tokens: int) -> GenerationPlan:
    """Return a request of a known length."""
    blocks = TokenBlocks(text_tokens(text), 16)
    return GenerationPlan(blocks, output_tokens, FinishReason.LENGTH)


@pytest.mark.parametrize("run", RUNNERS)
def test_steps_that_are_due_at_once_are_handed_out(run: Run) -> None:
    """Steps shorter than the clock's grain, whose instants are past, end requests all the same."""

    async def requests() -> None:
        standing = live(Engine(profile(speed_ratio=1e9)))
        answers = []
        for number in range(20):
            plan_ = plan(f"prompt {number}", 50)
            answer = WholeAnswer(plan_.blocks)
            standing.start(plan_, answer)
            answers.append(answer)
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*(answer.finished for answer in answers))
        assert [end.output_tokens for end in ends] == [50] * 20
        standing.close()

    run(requests())


def test_an_end_is_handed_out_though_an_abort_moves_the_engine_past_it() -> None:
    """A request that is over when another is aborted gets its answer, even if nothing follows."""

    async def requests() -> None:
        engine = Engine(profile(speed_ratio=1e3))
        standing = live(engine)
        plans = [plan("one", 1), plan("two", 1)]
        answers = [WholeAnswer(one.blocks) for one in plans]
        ids = [standing.start(one, answer) for one, answer in zip(plans, answers, strict=True)]
        clock = asyncio.get_running_loop().time
        while engine.next_event_at() is not None:
            engine.is_full(clock())
        standing.abort(ids[0])
        async with asyncio.timeout(5):
            await answers[1].finished
        standing.close()

    asyncio.run(requests())


@pytest.mark.parametrize("run", RUNNERS)
def test_a_closed_connection_ends_its_own_stream_only(run: Run) -> None:
    """Writing to a transport that is closed cancels that answer; the others go on to their end."""

    async def requests() -> None:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_server(
            lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0
        )
        host, port = server.sockets[0].getsockname()
        standing = live(Engine(profile(speed_ratio=100.0)))
        answers, readers = [], []
        for number in range(2):
            reader, client = await asyncio.open_connection(host, port)
            writer = await accepted.get()
            plan_ = plan(f"prompt {number}", 30)
            answer = StreamedAnswer(plan_.blocks, SHAPE, writer.transport)
            if not number:
                writer.transport.abort()
                client.transport.abort()
                await writer.wait_closed()
            standing.start(plan_, answer)
            answers.append(answer)
            readers.append(reader)
        async with asyncio.timeout(5):
            end = await answers[1].finished
            text = await readers[1].readuntil(b"data: [DONE]\n\n")
        assert end.output_tokens == 30
        assert text.count(b"data: {") == 30
        assert answers[0].finished.done()
        standing.close()
        server.close()

    run(requests())


def test_a_stall_reaches_the_probes_p99() -> None:
    """Each tick that a stall delays is counted, so that one long stall shows."""

    async def stall() -> None:
        probe = LoopLagProbe()
        probe.start()
        await asyncio.sleep(0)
        time.sleep(0.25)  # noqa: ASYNC251 - the stall under test
        await asyncio.sleep(0.001)
        probe.stop()
        assert probe.max_seconds > 0.2
        assert probe.quantile_seconds(0.5) > 0.05

    asyncio.run(stall())


class _Told:
    """An answer that keeps what it was told."""

    streams = True

    def __init__(self) -> None:
        self.tokens = 0
        self.begun = asyncio.Event()

    def on_tokens(self, output_tokens: int) -> None:
        """Keep the count."""
        self.tokens = output_tokens
        self.begun.set()

    def on_finish(self, end: object) -> None:
        """Nothing to keep."""


@pytest.mark.parametrize("arrival", ["start", "abort"])
def test_tokens_that_are_due_do_not_wait_for_the_next_step(arrival: str) -> None:
    """A request that comes or goes just after a step's end holds nobody's token back."""

    async def requests() -> None:
        engine = Engine(profile(speed_ratio=20.0))
        standing = live(engine)
        first, other = _Told(), _Told()
        standing.start(plan("one", 100), first)
        spare = standing.start(plan("two", 100), _Told())
        async with asyncio.timeout(5):
            await first.begun.wait()
        before = first.tokens
        due = engine.next_step_at()
        assert due is not None
        while asyncio.get_running_loop().time() < due:
            time.sleep(0.0001)  # noqa: ASYNC251 - the loop is late for the step
        if arrival == "start":
            standing.start(plan("three", 100), other)
        else:
            standing.abort(spare)
        assert first.tokens > before
        standing.close()

    asyncio.run(requests())
