"""Who may serve a request: the one rule for picks, for queues and for what frees."""

from heliostat_routing.fleet import Fleet
from heliostat_routing.flight import Flight


def eligible_slots(flight: Flight, fleet: Fleet) -> int:
    """Give the slots that work and may serve the request."""
    request = flight.request
    slots = fleet.serving & flight.pool.holding(request.adapter)
    return slots if request.subset is None else slots & fleet.slots_of_subset(request.subset)
