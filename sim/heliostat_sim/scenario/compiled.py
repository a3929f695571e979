"""From a scenario's fields to the world's settings and its demand."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from heliostat_sim.demand.arrivals import DayCurve
from heliostat_sim.demand.chat import ARENA, WILDCHAT, ChatSettings, chat_clients
from heliostat_sim.demand.open_chat import RegionTraffic, Storm, open_chats
from heliostat_sim.demand.planned import planned_arrivals
from heliostat_sim.demand.single_turn import SingleTurnSettings, single_turns
from heliostat_sim.demand.trees import TreeClients, TreeSettings, tree_clients
from heliostat_sim.engine.profiles import PROFILES, EngineProfile
from heliostat_sim.scenario.problems import ScenarioError
from heliostat_sim.scenario.spec import (
    EngineSpec,
    FaultSpec,
    RegionSpec,
    ScenarioSpec,
    SignalsSpec,
)
from heliostat_sim.scenario.workload_spec import (
    ChatShape,
    ChatWorkload,
    LengthSpec,
    OpenChatWorkload,
    SingleTurnWorkload,
    TraceWorkload,
    TreeWorkload,
)
from heliostat_sim.workload.azure import azure
from heliostat_sim.workload.conversations import LengthDistribution
from heliostat_sim.workload.mooncake import mooncake
from heliostat_sim.workload.traces import TraceWindow
from heliostat_sim.world.demand import Demand
from heliostat_sim.world.settings import Fault, RegionSettings, SignalSettings, WorldSettings

_CHATS: Mapping[str, ChatSettings] = {"arena": ARENA, "wildchat": WILDCHAT}


def world_settings(spec: ScenarioSpec) -> WorldSettings:
    """Everything but the demand."""
    return WorldSettings(
        regions=tuple(
            RegionSettings(name, region.engines, region.gateways)
            for name, region in spec.expanded_regions().items()
        ),
        profile=engine_profile(spec.engine),
        round_trips=_round_trips(spec),
        within_seconds=spec.round_trips.within,
        duration_seconds=spec.duration,
        queue_timeout_seconds=spec.queue_timeout,
        signals=_signals(spec.signals),
        faults=tuple(_fault(fault) for fault in spec.faults),
        single_gateway=spec.single_gateway,
        sample_seconds=spec.sample,
    )


def engine_profile(spec: EngineSpec) -> EngineProfile:
    """The named profile with what differs from it."""
    differing = {
        "kv_tokens": spec.kv_tokens,
        "block_tokens": spec.block_tokens,
        "max_running_requests": spec.max_running_requests,
        "max_step_tokens": spec.max_step_tokens,
        "max_unfinished_requests": spec.max_unfinished_requests,
        "prefill_seconds_per_token": spec.prefill_per_token,
        "prefill_floor_seconds": spec.prefill_floor,
        "decode_floor_seconds": spec.decode_floor,
        "context_seconds_per_token": spec.context_per_token,
        "step_overhead_seconds": spec.step_overhead,
        "speed_ratio": spec.speed,
    }
    given = {name: value for name, value in differing.items() if value is not None}
    return replace(PROFILES[spec.profile], **given)  # type: ignore[arg-type]


def scenario_demand(spec: ScenarioSpec, seed: int, traces: Path | None) -> Demand:
    """All that is asked, up to the scenario's end. Raises WorkloadError."""
    workload = spec.workload
    match workload:
        case ChatWorkload():
            return _chat_demand(spec, workload, seed)
        case TreeWorkload():
            return _tree_demand(spec, workload, seed)
        case OpenChatWorkload():
            return _open_chat_demand(spec, workload, seed)
        case SingleTurnWorkload():
            return _single_turn_demand(spec, workload, seed)
        case TraceWorkload():
            return _trace_demand(spec, workload, seed, traces)
        case _:
            assert_never(workload)


def _chat_demand(spec: ScenarioSpec, workload: ChatWorkload, seed: int) -> Demand:
    clients = {name: region.clients or 0 for name, region in spec.expanded_regions().items()}
    return Demand(
        closed=chat_clients(
            clients,
            chat_settings(workload.kind, workload, spec.think),
            workload.kind,
            seed,
            block_tokens=_block_tokens(spec),
            ramp_seconds=spec.ramp,
        )
    )


def _open_chat_demand(spec: ScenarioSpec, workload: OpenChatWorkload, seed: int) -> Demand:
    return Demand(
        arrivals=open_chats(
            {name: _traffic(region, workload) for name, region in spec.expanded_regions().items()},
            chat_settings(workload.chat, workload, spec.think),
            workload.chat,
            seed,
            spec.duration,
            storms=[
                Storm(storm.at, storm.share, storm.prefixes, storm.prefix_tokens)
                for storm in workload.storms
            ],
            block_tokens=_block_tokens(spec),
        )
    )


def _tree_demand(spec: ScenarioSpec, workload: TreeWorkload, seed: int) -> Demand:
    usual = TreeSettings(
        branches=workload.branches,
        depth=workload.depth,
        shared_tokens=workload.shared_tokens,
        instruction_tokens=workload.instruction_tokens,
        max_output_tokens=workload.max_output_tokens,
        think_seconds=spec.think,
    )
    if workload.question_tokens is not None:
        usual = replace(usual, question_tokens=_lengths(workload.question_tokens))
    if workload.answer_tokens is not None:
        usual = replace(usual, answer_tokens=_lengths(workload.answer_tokens))
    clients = {
        name: TreeClients(
            region.clients or 0, replace(usual, branches=region.branches or usual.branches)
        )
        for name, region in spec.expanded_regions().items()
    }
    closed = tree_clients(clients, seed, block_tokens=_block_tokens(spec), ramp_seconds=spec.ramp)
    return Demand(closed=closed)


def _single_turn_demand(spec: ScenarioSpec, workload: SingleTurnWorkload, seed: int) -> Demand:
    settings = SingleTurnSettings(
        workload.heads_per_region,
        workload.head_tokens,
        workload.question_tokens,
        workload.answer_tokens,
    )
    rates = {name: region.rate or 0.0 for name, region in spec.expanded_regions().items()}
    return Demand(
        arrivals=single_turns(
            rates, settings, seed, spec.duration, block_tokens=_block_tokens(spec)
        )
    )


def _trace_demand(
    spec: ScenarioSpec, workload: TraceWorkload, seed: int, traces: Path | None
) -> Demand:
    if traces is None:
        raise ScenarioError(
            f"the workload {workload.kind} plays the trace {workload.file}:"
            " give the folder that it is in with --traces"
        )
    path = traces / workload.file
    window = TraceWindow(workload.start, spec.duration * workload.time_scale, workload.time_scale)
    if workload.kind == "mooncake":
        plan = mooncake(path, window, seed)
    else:
        plan = azure(path, window, seed, workload.shared_tokens)
    weights = {name: region.weight or 0.0 for name, region in spec.expanded_regions().items()}
    return Demand(arrivals=planned_arrivals(plan, weights, block_tokens=_block_tokens(spec)))


def chat_settings(chat: str, shape: ChatShape, think_seconds: float) -> ChatSettings:
    """The published chats with what differs from them."""
    settings = _CHATS[chat]
    differing = {
        "users": shape.users,
        "mean_turns": shape.mean_turns,
        "single_turn_ratio": shape.single_turns,
        "user_tokens": _lengths(shape.user_tokens) if shape.user_tokens else None,
        "output_tokens": _lengths(shape.answer_tokens) if shape.answer_tokens else None,
        "max_context_tokens": shape.max_context_tokens,
        "think_seconds": think_seconds,
    }
    given = {name: value for name, value in differing.items() if value is not None}
    return replace(
        settings,
        shape=replace(settings.shape, **given),  # type: ignore[arg-type]
        max_output_tokens=shape.max_output_tokens or settings.max_output_tokens,
        recorded_answers=shape.answers == "recorded",
    )


def _traffic(region: RegionSpec, workload: OpenChatWorkload) -> RegionTraffic:
    day = None
    if None not in (workload.day, region.peak_at, region.peak_to_trough):
        day = DayCurve(workload.day or 1.0, region.peak_at or 0.0, region.peak_to_trough or 1.0)
    return RegionTraffic(region.rate or 0.0, workload.arrivals.process(), day)


def _round_trips(spec: ScenarioSpec) -> dict[frozenset[str], float]:
    names, circle = list(spec.expanded_regions()), spec.round_trips.circle
    trips: dict[frozenset[str], float] = {}
    if circle is not None:
        for i, one in enumerate(names):
            for j, other in enumerate(names[i + 1 :], start=i + 1):
                apart = min(j - i, len(names) - (j - i))
                trips[frozenset((one, other))] = circle * 2 * apart / len(names)
    for one, others in spec.round_trips.between.items():
        trips |= {frozenset((one, other)): seconds for other, seconds in others.items()}
    return trips


def _signals(spec: SignalsSpec) -> SignalSettings:
    return SignalSettings(
        scrape_interval_seconds=spec.scrape_interval,
        idle_scrape_interval_seconds=spec.idle_scrape_interval,
        scrape_delay_seconds=spec.scrape_delay,
        scrape_loss_ratio=spec.scrape_loss,
        access_log_seconds=spec.access_log,
        state_interval_seconds=spec.state_interval,
        most_peers=spec.most_peers,
        states_per_second=spec.states_per_second,
        heads=spec.heads,
        relays=spec.relays,
        relay_seconds=spec.relay_delay,
        relay_interval_seconds=spec.relay_interval,
        sibling_lost_seconds=spec.sibling_lost,
        assumed_prefill_ratio=spec.assumed_prefill,
    )


def _fault(spec: FaultSpec) -> Fault:
    return Fault(
        kind=spec.kind,
        at_seconds=spec.at,
        lasts_seconds=spec.lasts,
        region=spec.region,
        other_region=spec.other_region or "",
        engine=spec.engine or 0,
        gateway=spec.gateway or 0,
        speed_ratio=1.0 if spec.speed is None else spec.speed,
    )


def _lengths(spec: LengthSpec) -> LengthDistribution:
    return LengthDistribution(spec.mean, spec.deviation, spec.max)


def _block_tokens(spec: ScenarioSpec) -> int:
    return engine_profile(spec.engine).block_tokens
