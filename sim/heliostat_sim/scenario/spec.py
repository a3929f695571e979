"""A scenario file's fields: engines, regions, the ways between them, faults and signals."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from heliostat_crds.fields import Items, Strict, misfit
from heliostat_sim.engine.profiles import PROFILES
from heliostat_sim.scenario.values import (
    Count,
    PerSecond,
    Seconds,
    Share,
    Some,
    SomeRatio,
    SomeSeconds,
)
from heliostat_sim.scenario.workload_spec import (
    CLIENTS,
    RATE,
    WEIGHT,
    OpenChatWorkload,
    TreeWorkload,
    Workload,
    traffic_field,
)
from heliostat_sim.world.settings import FaultKind, SignalSettings

_SIGNALS = SignalSettings()
_TRAFFIC = (CLIENTS, RATE, WEIGHT)


class EngineSpec(Strict):
    """All engines: a profile, and what differs from it."""

    profile: str
    kv_tokens: Some | None = None
    block_tokens: Some | None = None
    """Tokens of a KV block, and of a block of every prompt."""
    max_running_requests: Some | None = None
    max_step_tokens: Some | None = None
    max_unfinished_requests: Some | None = None
    prefill_per_token: SomeSeconds | None = None
    prefill_floor: SomeSeconds | None = None
    decode_floor: SomeSeconds | None = None
    context_per_token: Seconds | None = None
    step_overhead: Seconds | None = None
    speed: SomeRatio | None = None

    @model_validator(mode="after")
    def _known_profile(self) -> Self:
        if self.profile not in PROFILES:
            known = ", ".join(sorted(PROFILES))
            raise misfit(f'there is no profile "{self.profile}"; there are {known}', "profile")
        return self


class RegionSpec(Strict):
    """A region, or `count` regions alike, which are then numbered."""

    engines: Count
    gateways: Some = 1
    count: Annotated[int, Field(ge=2, le=500)] | None = None
    clients: Count | None = None
    """Closed-loop clients."""
    rate: PerSecond | None = None
    """Sessions that arrive by themselves: a chat is one session, however many turns it has."""
    weight: Annotated[float, Field(ge=0)] | None = None
    """Its part of a trace, over the sum of all regions' weights."""
    branches: Annotated[int, Field(ge=1, le=8)] | None = None
    """Of its clients' trees."""
    peak_at: Seconds | None = None
    """When in the day the rate is greatest."""
    peak_to_trough: Annotated[float, Field(ge=1, le=1000)] | None = None
    """The day's greatest rate over its least."""


class RoundTripsSpec(Strict):
    """Round trips between the regions."""

    within: Seconds = 0.003
    """Inside a region."""
    circle: SomeSeconds | None = None
    """The regions lie on a circle in their order, and this is the way from one side to the other;
    for all pairs that `between` does not give."""
    between: dict[str, dict[str, SomeSeconds]] = Field(default_factory=dict)
    """By one region, then the other, in either order."""


class FaultSpec(Strict):
    """What breaks, when, and for how long."""

    kind: Annotated[FaultKind, Field(strict=False)]
    at: Seconds
    lasts: SomeSeconds
    region: str
    other_region: str | None = None
    engine: Count | None = None
    gateway: Count | None = None
    speed: SomeRatio | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        wanted = {
            "otherRegion": (self.other_region, self.kind is FaultKind.LINK),
            "engine": (self.engine, self.kind in (FaultKind.ENGINE, FaultKind.SLOW)),
            "gateway": (self.gateway, self.kind is FaultKind.POD),
            "speed": (self.speed, self.kind is FaultKind.SLOW),
        }
        for name, (value, needed) in wanted.items():
            if needed and value is None:
                raise misfit(f"a fault of the kind {self.kind} needs this field", name)
            if value is not None and not needed:
                raise misfit(f"a fault of the kind {self.kind} does not take this field", name)
        return self


class SignalsSpec(Strict):
    """How fresh and how reliable is what gateways are told."""

    scrape_interval: SomeSeconds = _SIGNALS.scrape_interval_seconds
    idle_scrape_interval: SomeSeconds = _SIGNALS.idle_scrape_interval_seconds
    scrape_delay: Seconds = _SIGNALS.scrape_delay_seconds
    scrape_loss: Share = _SIGNALS.scrape_loss_ratio
    access_log: Seconds = _SIGNALS.access_log_seconds
    state_interval: SomeSeconds = _SIGNALS.state_interval_seconds
    most_peers: Annotated[int, Field(ge=1)] | None = None
    """Regions that each exchanges states with, about."""
    states_per_second: PerSecond = _SIGNALS.states_per_second
    """That a router tells all its peers together, at most."""
    heads: bool = _SIGNALS.heads
    """Whether Heliostat's regions tell each other their hottest prefixes."""
    relays: bool = _SIGNALS.relays
    """Whether Heliostat's routers of one region keep one view."""
    relay_delay: Seconds = _SIGNALS.relay_seconds
    relay_interval: Seconds = _SIGNALS.relay_interval_seconds
    sibling_lost: Seconds = _SIGNALS.sibling_lost_seconds
    assumed_prefill: SomeRatio = _SIGNALS.assumed_prefill_ratio
    """The prefill rate that settings assume, of the true one."""


class ScenarioSpec(Strict):
    """A whole file."""

    description: str = ""
    engine: EngineSpec
    regions: Annotated[dict[str, RegionSpec], Field(min_length=1)]
    round_trips: RoundTripsSpec = RoundTripsSpec()
    workload: Workload
    think: Seconds = 0.0
    """Mean time between an answer and the next message; in trees, between one and the next."""
    ramp: Seconds = 10.0
    """The time in which closed-loop clients begin."""
    duration: SomeSeconds = 600.0
    queue_timeout: SomeSeconds = 60.0
    sample: SomeSeconds = 1.0
    """Between samples of the engines' load."""
    single_gateway: str | None = None
    """One gateway, in this region, places all requests."""
    signals: SignalsSpec = SignalsSpec()
    faults: Items[FaultSpec] = ()
    short: dict[str, Any] = Field(default_factory=dict)
    """What is different in the short form for tests: a value for each dotted path."""

    @model_validator(mode="after")
    def _traffic(self) -> Self:
        """Each region says how much it asks for in the workload's own terms, and in no others."""
        wanted = traffic_field(self.workload)
        for name, region in self.regions.items():
            kind = self.workload.kind
            if getattr(region, wanted) is None:
                raise misfit(f"the workload {kind} needs this field", "regions", name, wanted)
            for other in _TRAFFIC:
                if other != wanted and getattr(region, other) is not None:
                    message = f"the workload {kind} goes by {wanted}, and does not take this field"
                    raise misfit(message, "regions", name, other)
        return self

    @model_validator(mode="after")
    def _special_traffic(self) -> Self:
        open_chat = isinstance(self.workload, OpenChatWorkload)
        has_day = isinstance(self.workload, OpenChatWorkload) and self.workload.day is not None
        for name, region in self.regions.items():
            at = ("regions", name)
            if region.branches is not None and not isinstance(self.workload, TreeWorkload):
                raise misfit("only trees of thoughts have branches", *at, "branches")
            if region.peak_to_trough is not None and not has_day:
                hint = "workload.day" if open_chat else "a workload open-chat with a day"
                raise misfit(f"a peak needs {hint}", *at, "peakToTrough")
            if (region.peak_to_trough is None) != (region.peak_at is None):
                raise misfit("peakAt and peakToTrough go together", *at)
        return self

    @model_validator(mode="after")
    def _places(self) -> Self:
        """Whatever names a region names one that there is."""
        engines = self.engines_by_region()
        named: list[tuple[str, tuple[str | int, ...]]] = []
        if self.single_gateway is not None:
            named.append((self.single_gateway, ("singleGateway",)))
        for one, others in self.round_trips.between.items():
            named.append((one, ("roundTrips", "between", one)))
            named += [(other, ("roundTrips", "between", one, other)) for other in others]
        for index, fault in enumerate(self.faults):
            named.append((fault.region, ("faults", index, "region")))
            if fault.other_region is not None:
                named.append((fault.other_region, ("faults", index, "otherRegion")))
        for name, at in named:
            if name not in engines:
                there = ", ".join(list(engines)[:10])
                raise misfit(f'there is no region "{name}"; there are {there}', *at)
        for index, fault in enumerate(self.faults):
            if fault.engine is not None and fault.engine >= engines[fault.region]:
                raise misfit(
                    f"{fault.region} has {engines[fault.region]} engines, counted from 0",
                    *("faults", index, "engine"),
                )
            gateways = self.expanded_regions()[fault.region].gateways
            if fault.gateway is not None and fault.gateway >= gateways:
                raise misfit(
                    f"{fault.region} has {gateways} gateways, counted from 0",
                    *("faults", index, "gateway"),
                )
        return self

    @model_validator(mode="after")
    def _faults_in_time(self) -> Self:
        """A fault begins before the world ends."""
        for index, fault in enumerate(self.faults):
            if fault.at >= self.duration:
                message = f"the world ends at {self.duration:g} s, before this fault"
                raise misfit(message, "faults", index, "at")
        return self

    @model_validator(mode="after")
    def _ways(self) -> Self:
        """There is a way between any two regions."""
        if self.round_trips.circle is None:
            names, between = list(self.engines_by_region()), self.round_trips.between
            for i, one in enumerate(names):
                for other in names[i + 1 :]:
                    given = other in between.get(one, {}), one in between.get(other, {})
                    if sum(given) != 1:
                        how = "is given twice" if all(given) else "is missing"
                        message = f"the round trip between {one} and {other} {how}"
                        raise misfit(message, "roundTrips", "between")
        return self

    def expanded_regions(self) -> dict[str, RegionSpec]:
        """The regions by name, those alike one by one: `r` becomes `r-01`, `r-02` and so on."""
        regions: dict[str, RegionSpec] = {}
        for name, region in self.regions.items():
            if region.count is None:
                regions[name] = region
            else:
                width = len(str(region.count))
                for number in range(1, region.count + 1):
                    regions[f"{name}-{number:0{width}}"] = region
        return regions

    def engines_by_region(self) -> dict[str, int]:
        """How many engines each region has."""
        return {name: region.engines for name, region in self.expanded_regions().items()}
