"""The report in Markdown, as docs/benchmarks.md shows it."""

from collections.abc import Iterator, Mapping
from typing import Any

Report = Mapping[str, Any]
_ARMS = ("direct", "floor", "heliostat")


def facts(report: Report) -> list[str]:
    """Where it was measured, and the numbers that stand alone."""
    load = report["load_average_before"]
    lines = [
        f"Commit {report['commit']}; {report['machine']}; {report['system']}.",
        f"`{report['command']}`; core in {report['core_in']}; load average before: {load:.1f}.",
        "",
    ]
    held = report["held"]
    lines.append(
        f"{held['requests']} held requests with bodies of {held['body_bytes']} bytes: router "
        f"{held['router_bytes_each'] / 1000:.1f} KB each, Envoy "
        f"{held['envoy_bytes_each'] / 1000:.1f} KB each. As many streams that are merely"
        f" open: floor {held['floor_bytes_each'] / 1000:.1f} KB each."
    )
    lines += [
        f"Index at {it['endpoints']} endpoints, full: {it['bytes_per_block']:.0f} bytes for a"
        f" block of an endpoint, {it['bytes_per_endpoint'] / 1000:.0f} KB for an endpoint of 1,000"
        " blocks (128,000 tokens)."
        for it in report["index"]
    ]
    failed = sum(it["failed"] for it in report["cost"])
    lines.append(f"Requests that failed in the median round, of all cases: {failed:.0f}.")
    return [*lines, "", *_latency_table(report), "", *_memory_table(report)]


def cost_table(report: Report) -> list[str]:
    """CPU for a request, in microseconds."""
    rows: dict[tuple[int, int, str], dict[str, Report]] = {}
    for it in report["cost"]:
        rows.setdefault((it["endpoints"], it["body_bytes"], it["answer"]), {})[it["arm"]] = it
    table = []
    for (endpoints, size, answer), arms in rows.items():
        floor, ours = arms["floor"], arms["heliostat"]
        if not floor["requests"] or not ours["requests"]:
            continue  # a machine so busy that Envoy waits for no picker measures nothing
        table.append(
            [
                f"{endpoints:,}",
                f"{size / 1000:g} KB",
                answer,
                f"{floor['picker_us']:.0f}",
                f"{ours['picker_us']:.0f}",
                f"{ours['picker_us'] / floor['picker_us']:.2f}",
                f"{arms['direct']['envoy_us']:.0f}" if "direct" in arms else "",
                f"{floor['envoy_us']:.0f}",
                f"{ours['envoy_us']:.0f}",
                f"{floor['requests_per_second']:.0f}",
                f"{ours['requests_per_second']:.0f}",
            ]
        )
    head = ["endpoints", "body", "answer", "floor us", "router us", "ratio", "Envoy alone us"]
    head += ["Envoy at the floor us", "Envoy at Heliostat us", "floor req/s", "Heliostat req/s"]
    return list(_markdown(head, table))


def core_table(report: Report) -> list[str]:
    """The parts of a decision."""
    parts = ("parse_us", "digest_us", "decide_us", "finish_us", "learn_us")
    table = [
        [f"{it['endpoints']:,}", f"{it['body_bytes'] / 1000:g} KB"]
        + [f"{it[part]:.1f}" for part in parts]
        for it in report["core"]
    ]
    return list(_markdown(["endpoints", "body", *(it.replace("_", " ") for it in parts)], table))


def _latency_table(report: Report) -> Iterator[str]:
    by_size: dict[int, dict[str, Report]] = {}
    for it in report["latency"]:
        by_size.setdefault(it["body_bytes"], {})[it["arm"]] = it
    table = []
    for size, arms in by_size.items():
        times = [f"{arms[it]['p50_ms']:.2f} / {arms[it]['p99_ms']:.2f}" for it in _ARMS]
        added = arms["heliostat"]["p50_ms"] - arms["direct"]["p50_ms"]
        table.append([f"{size / 1000:g} KB", *times, f"{added:.2f}"])
    head = ["one at a time, p50 / p99 ms", "nobody asked", "floor", "Heliostat", "added p50 ms"]
    return _markdown(head, table)


def _memory_table(report: Report) -> Iterator[str]:
    table = [
        [
            f"{it['endpoints']:,}",
            f"{it['heliostat_bytes'] / 2**20:.0f}",
            f"{it['floor_bytes'] / 2**20:.0f}",
            f"{it['heliostat_envoy_bytes'] / 2**20:.0f}",
            f"{it['floor_envoy_bytes'] / 2**20:.0f}",
            f"{it['idle_core_ratio'] * 100:.1f} %",
        ]
        for it in report["memory"]
    ]
    head = ["endpoints", "router MiB", "floor MiB", "Envoy at Heliostat MiB"]
    return _markdown([*head, "Envoy at the floor MiB", "idle router, of a core"], table)


def _markdown(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
