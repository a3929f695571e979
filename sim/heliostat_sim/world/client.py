"""Clients: they run sessions, wait for answers, and ask again where a stream was cut."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heliostat_sim.world.demand import Ask, Session
from heliostat_sim.world.request import Ending, Request

if TYPE_CHECKING:  # the world makes its clients
    from heliostat_sim.world.world import World


class Client:
    """Runs sessions one after the other; an arrival is a client with one session."""

    def __init__(
        self,
        world: "World",
        region: str,
        sessions: Iterator[Session],
        stops_at: float | None = None,
    ) -> None:
        self._world = world
        self._region = region
        self._sessions = sessions
        self._session: Session | None = None
        self._stops_at = stops_at
        self._open = 0
        """Requests of the session that are under way or about to be sent."""

    def start(self) -> None:
        """Begin the next session."""
        if self._stopped():
            return
        self._session = next(self._sessions, None)
        if self._session is not None:
            self._ask_all(self._session.start())

    def on_ended(self, request: Request, ask: Ask) -> None:
        """Take the end of a request: go on, ask again, or give the session up."""
        if request.ending is Ending.BROKEN:
            self._world.broken[request.id] = request
            self._world.loop.after(
                self._world.settings.retry_seconds, lambda: self._send_again(request, ask)
            )
            return
        self._world.records.note(request)
        self._open -= 1
        if request.ending is Ending.SERVED:
            if self._session is not None and not self._stopped():
                self._ask_all(self._session.on_answer(ask))
        else:
            self._session = None
        if not self._open:
            wait = 0.0 if request.ending is Ending.SERVED else self._world.settings.retry_seconds
            self._world.loop.after(wait, self.start)

    def _send_again(self, request: Request, ask: Ask) -> None:
        del self._world.broken[request.id]
        self._send(ask, request.sent_at, request.attempts + 1)

    def _stopped(self) -> bool:
        return self._stops_at is not None and self._world.loop.now >= self._stops_at

    def _ask_all(self, asks: list[Ask]) -> None:
        self._open += len(asks)
        for ask in asks:
            if ask.think_seconds:
                self._world.loop.after(ask.think_seconds, lambda ask=ask: self._send(ask))  # type: ignore[misc]
            else:
                self._send(ask)

    def _send(self, ask: Ask, sent_at: float | None = None, attempts: int = 0) -> None:
        world = self._world
        world.records.sent += not attempts
        request = Request(
            id=world.next_id(),
            region=self._region,
            user=self._session.user if self._session is not None else 0,
            chain=ask.chain,
            prompt_tokens=ask.prompt_tokens,
            output_tokens=ask.output_tokens,
            max_output_tokens=ask.max_output_tokens,
            source=(self, ask),
            sent_at=world.loop.now if sent_at is None else sent_at,
            attempts=attempts,
        )
        world.send(request)
