"""Runs one request on the engine to its end, as every path needs it that computes something."""

import asyncio

from heliostat_sim.engine import EngineOverloadedError, Finished
from heliostat_sim.standin.answers import WholeAnswer
from heliostat_sim.standin.errors import ApiError, overloaded
from heliostat_sim.standin.exposition import EngineExposition
from heliostat_sim.standin.live_engine import LiveEngine
from heliostat_sim.standin.requests import GenerationPlan


class Runner:
    """Lets requests in and waits for them."""

    def __init__(self, live: LiveEngine, exposition: EngineExposition) -> None:
        self._live = live
        self._exposition = exposition

    async def accept(self) -> None:
        """Check that there is room, and let requests that arrived together do so too.

        What is checked again at the start may thus fail after a stream's headers are sent, as in
        vLLM, where more time passes between the two. Raises ApiError (503).
        """
        if self._live.is_full():
            raise self.overloaded()
        await asyncio.sleep(0)

    async def run(self, plan: GenerationPlan) -> tuple[WholeAnswer, Finished]:
        """Run a request that does not stream to its end. Raises ApiError (503)."""
        answer = WholeAnswer(plan.blocks)
        try:
            request_id = self._live.start(plan, answer)
        except EngineOverloadedError as error:
            raise self.overloaded() from error
        try:
            return answer, await answer.finished
        finally:
            self._live.abort(request_id)

    def overloaded(self) -> ApiError:
        """Count a rejected request and return its error."""
        self._exposition.rejected_requests += 1
        return overloaded()
