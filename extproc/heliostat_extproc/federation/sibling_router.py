"""Another router of this region, as it relays itself on one stream: told to the core."""

from collections.abc import Callable

import structlog

from heliostat_extproc.federation.link import Link, LinkError
from heliostat_extproc.federation.protocol import BLOCK_KEY_SCHEME
from heliostat_extproc.federation.reception import Reception
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.relay_wire import RelayError, parse_relayed
from heliostat_extproc.federation.reports import LinkReason
from heliostat_extproc.federation.slots import Slot
from heliostat_extproc.federation.state_pb2 import Hello, Relayed, WatchResponse
from heliostat_routing.events import Event, SiblingGone

_log = structlog.get_logger(__name__)


class SiblingRouter:
    """What one sibling relays. `link` is set once, right after it is made.

    Unlike a region's state, what it relays is a sequence: whatever breaks it, the core forgets the
    sibling until the next stream begins with everything.
    """

    link: Link

    def __init__(
        self,
        name: str,
        region: Region,
        *,
        submit: Callable[[Event], object],
        on_slot: Callable[[], None],
    ) -> None:
        self.name = name
        self._region = region
        self._submit = submit
        self._on_slot = on_slot
        self._reception = Reception(region.name)
        self._told = False
        self.refused = 0
        """Events that made no sense."""

    @property
    def slot(self) -> Slot | None:
        """What it says of its pools; None while it is not known."""
        return self._reception.slots.get(self.name)

    @property
    def reason(self) -> LinkReason:
        """Why the link is as it is."""
        if not self.link.heard:
            return self.link.problem
        refused = self.refused or self._reception.refused
        return LinkReason.STATE_REFUSED if refused else LinkReason.HEARD

    def on_hello(self, hello: Hello) -> None:
        """A stream begins, of which nothing is known yet."""
        if (hello.region, hello.router) != (self._region.name, self.name):
            raise LinkError(LinkReason.WRONG_PLACE, f"it is {hello.router[:100]!r}")
        if hello.block_key_scheme != BLOCK_KEY_SCHEME:
            raise LinkError(LinkReason.BLOCK_KEYS_DIFFER)
        self._reception = Reception(self._region.name)

    def on_response(self, response: WatchResponse) -> None:
        """Pass its events on to the core, in order."""
        if response.relay_anew:
            self._forget()
        for message in response.relayed:
            self._relay(message)
        if response.slots or response.gone_writers:
            self._reception.receive(response.slots, response.gone_writers)
            self._on_slot()

    def on_heard(self, *, heard: bool) -> None:
        """Open the stream anew once it is silent: that forgets the sibling at once."""
        if not heard:
            self.link.restart()

    def on_reached(self, *, reached: bool) -> None:
        """Nothing is sent there."""

    def on_broken(self) -> None:
        """Forget it."""
        self._forget()
        self._reception = Reception(self._region.name)
        self._on_slot()

    def _relay(self, message: Relayed) -> None:
        try:
            event = parse_relayed(message, self.name)
        except RelayError as error:
            if not self.refused:
                _log.warning("senseless event", sibling=self.name, problem=str(error))
            self.refused += 1
            return
        if event is not None:
            self._told = True
            self._submit(event)

    def _forget(self) -> None:
        if self._told:
            self._told = False
            self._submit(SiblingGone(self.name))
