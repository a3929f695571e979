"""The events that the routers of one region relay to each other, as messages.

The sibling's name is not on the wire: it is that of the link they come by.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from math import isfinite
from typing import Any

from heliostat_extproc.federation.protocol import is_name
from heliostat_extproc.federation.slots import RelayedEvent
from heliostat_extproc.federation.state_pb2 import (
    AttemptFailed as AttemptFailedMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    AttemptStarted as AttemptStartedMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    EndpointLearned as EndpointLearnedMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    Finished,
    Held,
    Measured,
    Names,
    Queue,
    Queues,
    Relayed,
    Scraped,
    Sent,
)
from heliostat_extproc.federation.state_pb2 import (
    LineSamples as LineSamplesMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    PoolLearned as PoolLearnedMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    PrefixesKnown as PrefixesKnownMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    ScrapeFailed as ScrapeFailedMessage,
)
from heliostat_extproc.federation.state_pb2 import (
    TokenSamples as TokenSamplesMessage,
)
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    EndpointLearned,
    EngineMetrics,
    MetricsScraped,
    Outcome,
    PoolLearned,
    PrefixesKnown,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
)
from heliostat_routing.learned import LineSamples, TokenSamples

MOST_BLOCK_KEYS = 100_000
"""Of one event; the largest request body has fewer blocks."""


class RelayError(ValueError):
    """What a sibling has relayed makes no sense."""


def relayed_message(event: RelayedEvent) -> Relayed:
    """Write an event."""
    match event:
        case SiblingSent():
            return Relayed(sent=_sent_message(event))
        case SiblingTold(event=told):
            return _told_message(told)
        case MetricsScraped():
            return Relayed(scraped=_scraped_message(event))
        case ScrapeFailed(endpoint):
            return Relayed(scrape_failed=ScrapeFailedMessage(endpoint=endpoint))
        case SiblingQueues():
            return Relayed(queues=Queues(queues=map(_queue_message, event.queues)))
        case PrefixesKnown():
            return Relayed(
                prefixes_known=PrefixesKnownMessage(
                    endpoint=event.endpoint,
                    block_keys=event.block_keys,
                    age_seconds=event.age_seconds,
                )
            )
        case PoolLearned():
            return Relayed(pool_learned=_pool_learned_message(event))
        case EndpointLearned(endpoint, prefill, step_seconds):
            return Relayed(
                endpoint_learned=EndpointLearnedMessage(
                    endpoint=endpoint, prefill=_line_message(prefill), step_seconds=step_seconds
                )
            )


def _sent_message(event: SiblingSent) -> Sent:
    request = event.request
    residency = request.residency
    return Sent(
        ticket=request.ticket,
        pool=request.pool,
        block_keys=request.block_keys,
        prompt_bytes=request.prompt_bytes,
        max_output_tokens=request.max_output_tokens,
        adapter=request.adapter,
        affinity_key=request.affinity_key,
        origin=request.origin,
        hold_seconds=request.hold_seconds,
        residency=None if residency is None else Names(names=sorted(residency)),
        endpoint=event.endpoint,
        age_seconds=event.age_seconds,
    )


def _told_message(
    told: AttemptStarted | AttemptFailed | RequestMeasured | RequestFinished,
) -> Relayed:
    match told:
        case AttemptStarted(ticket, endpoint):
            return Relayed(attempt_started=AttemptStartedMessage(ticket=ticket, endpoint=endpoint))
        case AttemptFailed(ticket, endpoint):
            return Relayed(attempt_failed=AttemptFailedMessage(ticket=ticket, endpoint=endpoint))
        case RequestFinished(ticket):
            return Relayed(finished=Finished(ticket=ticket))
        case RequestMeasured():
            return Relayed(
                measured=Measured(
                    ticket=told.ticket,
                    endpoint=told.endpoint,
                    outcome=told.outcome.value,
                    ttft_seconds=told.ttft_seconds,
                    duration_seconds=told.duration_seconds,
                    prompt_tokens=told.prompt_tokens,
                    cached_tokens=told.cached_tokens,
                    output_tokens=told.output_tokens,
                    output_bytes=told.output_bytes,
                )
            )


def _scraped_message(event: MetricsScraped) -> Scraped:
    metrics = event.metrics
    return Scraped(
        endpoint=event.endpoint,
        running_requests=metrics.running_requests,
        waiting_requests=metrics.waiting_requests,
        kv_cache_utilization=metrics.kv_cache_utilization,
        finished_requests=metrics.finished_requests,
        prompt_tokens=metrics.prompt_tokens,
        generation_tokens=metrics.generation_tokens,
        prefix_query_tokens=metrics.prefix_query_tokens,
        prefix_hit_tokens=metrics.prefix_hit_tokens,
        first_tokens=metrics.first_tokens,
        kv_capacity_tokens=metrics.kv_capacity_tokens,
        started_milliseconds=metrics.started_milliseconds,
    )


def _queue_message(queue: SiblingQueue) -> Queue:
    held = (Held(endpoint=address, oldest_seconds=age) for address, age in queue.held)
    return Queue(
        pool=queue.pool, queued=queue.queued, oldest_seconds=queue.oldest_seconds, held=held
    )


def _pool_learned_message(event: PoolLearned) -> PoolLearnedMessage:
    return PoolLearnedMessage(
        pool=event.pool,
        prefill=_line_message(event.prefill),
        pace=_line_message(event.pace),
        tokens=TokenSamplesMessage(**asdict(event.tokens)),
        usual_work_seconds=event.usual_work_seconds,
        usual_kv_tokens=event.usual_kv_tokens,
    )


def _line_message(samples: LineSamples) -> LineSamplesMessage:
    return LineSamplesMessage(**asdict(samples))


def parse_relayed(message: Relayed, sibling: str) -> RelayedEvent | None:
    """Read an event of this sibling; None where it is of a kind that is not known here.

    RelayError where it makes no sense.
    """
    kind = message.WhichOneof("event")
    if kind is None:
        return None
    return _PARSERS[kind](getattr(message, kind), sibling)


def _parse_sent(message: Sent, sibling: str) -> SiblingSent:
    if len(message.block_keys) > MOST_BLOCK_KEYS:
        raise RelayError("a prompt is too long")
    residency = message.residency.names if message.HasField("residency") else None
    request = RequestArrived(
        ticket=message.ticket,
        pool=_name(message.pool),
        block_keys=tuple(message.block_keys),
        prompt_bytes=message.prompt_bytes,
        max_output_tokens=_optional(message, "max_output_tokens"),
        adapter=_optional(message, "adapter"),
        affinity_key=message.affinity_key,
        origin=_optional(message, "origin"),
        hold_seconds=_optional_seconds(message, "hold_seconds"),
        residency=None if residency is None else frozenset(residency),
    )
    return SiblingSent(sibling, request, _name(message.endpoint), _seconds(message.age_seconds))


def _parse_attempt_started(message: AttemptStartedMessage, sibling: str) -> SiblingTold:
    return SiblingTold(sibling, AttemptStarted(message.ticket, _name(message.endpoint)))


def _parse_attempt_failed(message: AttemptFailedMessage, sibling: str) -> SiblingTold:
    return SiblingTold(sibling, AttemptFailed(message.ticket, _name(message.endpoint)))


def _parse_finished(message: Finished, sibling: str) -> SiblingTold:
    return SiblingTold(sibling, RequestFinished(message.ticket))


def _parse_measured(message: Measured, sibling: str) -> SiblingTold:
    try:
        outcome = Outcome(message.outcome)
    except ValueError as error:
        raise RelayError("an outcome is unknown") from error
    measured = RequestMeasured(
        ticket=message.ticket,
        endpoint=_optional(message, "endpoint"),
        outcome=outcome,
        ttft_seconds=_optional_seconds(message, "ttft_seconds"),
        duration_seconds=_optional_seconds(message, "duration_seconds"),
        prompt_tokens=_optional(message, "prompt_tokens"),
        cached_tokens=_optional(message, "cached_tokens"),
        output_tokens=_optional(message, "output_tokens"),
        output_bytes=_optional(message, "output_bytes"),
    )
    return SiblingTold(sibling, measured)


def _parse_queues(message: Queues, sibling: str) -> SiblingQueues:
    return SiblingQueues(sibling, tuple(map(_parse_queue, message.queues)))


def _parse_queue(message: Queue) -> SiblingQueue:
    held = tuple((_name(it.endpoint), _seconds(it.oldest_seconds)) for it in message.held)
    oldest_seconds = _optional_seconds(message, "oldest_seconds")
    return SiblingQueue(_name(message.pool), message.queued, oldest_seconds, held)


def _parse_scraped(message: Scraped, _sibling: str) -> MetricsScraped:
    metrics = EngineMetrics(
        running_requests=message.running_requests,
        waiting_requests=message.waiting_requests,
        kv_cache_utilization=_seconds(message.kv_cache_utilization),
        finished_requests=message.finished_requests,
        prompt_tokens=message.prompt_tokens,
        generation_tokens=message.generation_tokens,
        prefix_query_tokens=_optional(message, "prefix_query_tokens"),
        prefix_hit_tokens=_optional(message, "prefix_hit_tokens"),
        first_tokens=_optional(message, "first_tokens"),
        kv_capacity_tokens=_optional(message, "kv_capacity_tokens"),
        started_milliseconds=_optional(message, "started_milliseconds"),
    )
    return MetricsScraped(_name(message.endpoint), metrics)


def _parse_scrape_failed(message: ScrapeFailedMessage, _sibling: str) -> ScrapeFailed:
    return ScrapeFailed(_name(message.endpoint))


def _parse_prefixes_known(message: PrefixesKnownMessage, _sibling: str) -> PrefixesKnown:
    if len(message.block_keys) > MOST_BLOCK_KEYS:
        raise RelayError("there are too many keys")
    age_seconds = _seconds(message.age_seconds)
    return PrefixesKnown(_name(message.endpoint), tuple(message.block_keys), age_seconds)


def _parse_pool_learned(message: PoolLearnedMessage, _sibling: str) -> PoolLearned:
    return PoolLearned(
        _name(message.pool),
        _line(message.prefill),
        _line(message.pace),
        TokenSamples(*_quantities(message.tokens, TokenSamples)),
        _seconds(message.usual_work_seconds),
        _seconds(message.usual_kv_tokens),
    )


def _parse_endpoint_learned(message: EndpointLearnedMessage, _sibling: str) -> EndpointLearned:
    endpoint, prefill = _name(message.endpoint), _line(message.prefill)
    return EndpointLearned(endpoint, prefill, _seconds(message.step_seconds))


def _line(message: LineSamplesMessage) -> LineSamples:
    return LineSamples(*_quantities(message, LineSamples))


def _quantities(message: Any, kind: type[LineSamples] | type[TokenSamples]) -> Iterator[float]:
    return (_seconds(getattr(message, field.name)) for field in fields(kind))


_PARSERS: dict[str, Callable[[Any, str], RelayedEvent]] = {
    "sent": _parse_sent,
    "attempt_started": _parse_attempt_started,
    "attempt_failed": _parse_attempt_failed,
    "measured": _parse_measured,
    "finished": _parse_finished,
    "queues": _parse_queues,
    "scraped": _parse_scraped,
    "scrape_failed": _parse_scrape_failed,
    "prefixes_known": _parse_prefixes_known,
    "pool_learned": _parse_pool_learned,
    "endpoint_learned": _parse_endpoint_learned,
}


def _name(text: str) -> str:
    if not is_name(text):
        raise RelayError("a name is none")
    return text


def _seconds(seconds: float) -> float:
    """A quantity that is neither negative nor endless."""
    if not (isfinite(seconds) and seconds >= 0):
        raise RelayError("a number is not sane")
    return seconds


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _optional_seconds(message: Any, field: str) -> float | None:
    return _seconds(getattr(message, field)) if message.HasField(field) else None
