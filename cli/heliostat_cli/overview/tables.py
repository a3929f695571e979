"""The overview in 80 columns: regions, who sends where and why, routers of one region."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heliostat_cli.loading.display import duration
from heliostat_cli.overview.answers import PeerStatus, RouterStatus
from heliostat_cli.overview.asking import Answer

Sent = Mapping[tuple[str, str], int]
"""(URL, peer's region) -> requests sent there up to an earlier answer."""
_PLACE_WIDTH = 24
_FROM_WIDTH = 12
_ROUTER_WIDTH = 30
_ENGINES_TOLD = 3
_STYLES = {"Connected": "green", "Degraded": "yellow", "Unreachable": "red"}


def overview(answers: Sequence[Answer], earlier: Sent | None = None) -> RenderableType:
    """All of it. With earlier counts, what was sent since then stands beside the totals."""
    known = [(answer.url, answer.status) for answer in answers if answer.status is not None]
    parts: list[RenderableType] = [_regions(answers)]
    if any(status.peers for _, status in known):
        parts += ["", _peers(known, earlier)]
        parts += ["", *(Text(sentence(status)) for _, status in known if status.peers)]
    if any(status.siblings for _, status in known):
        parts += ["", _siblings(known)]
    parts += [Text(f"{url}: {line}", "yellow") for url, s in known for line in s.problems]
    parts += [
        Text(f"{url}: {_silence(s.silent_engines)}", "yellow")
        for url, s in known
        if s.silent_engines
    ]
    parts += [Text(f"{a.url}: {a.problem}", "red") for a in answers if a.status is None]
    return Group(*parts)


def _silence(engines: Sequence[str]) -> str:
    some, more = ", ".join(engines[:_ENGINES_TOLD]), len(engines) - _ENGINES_TOLD
    return f"no metrics from {some}" + (f" and {more} more" if more > 0 else "")


def sent_counts(answers: Sequence[Answer]) -> dict[tuple[str, str], int]:
    """What has been sent up to these answers."""
    return {
        (answer.url, peer.region): peer.sent
        for answer in answers
        if answer.status is not None
        for peer in answer.status.peers
    }


def sentence(status: RouterStatus) -> str:
    """Where a region's next request goes, as far as can be told from outside, and why."""
    here = _name(status) if status.region else "this region"
    free, queued = sum(p.free for p in status.pools), sum(p.queued for p in status.pools)
    if free:
        return f"{here} serves its own: {free} free"
    why = f"{here} has none free, {queued} queued"
    open_to = [peer for peer in status.peers if peer.state != "Unreachable" and peer.pools]
    there = [f"{peer.region} ({_room(peer)})" for peer in open_to if _has_room(peer, queued)]
    return f"{why}: sends to {', '.join(there)}" if there else f"{why}: nobody has more room"


def _regions(answers: Sequence[Answer]) -> Table:
    table = _table(f"Regions ({len(answers)} asked)")
    for header in ("region", "pool"):
        table.add_column(header, no_wrap=True, max_width=_PLACE_WIDTH)
    for header in ("up", "free", "in flight", "load", "queued"):
        table.add_column(header, justify="right", no_wrap=True)
    for answer in answers:
        for row in _region_rows(answer):
            table.add_row(*row)
    return table


def _region_rows(answer: Answer) -> Iterator[tuple[str | Text, ...]]:
    status = answer.status
    if status is None:
        yield Text(_place(answer), "red"), Text("no answer", "red"), *(Text("-", "dim"),) * 5
        return
    name = Text(_place(answer))
    if not status.pools:
        yield name, Text("no pools", "yellow"), *(Text("-", "dim"),) * 5
    for pool in status.pools:
        up = Text(f"{pool.ready} of {pool.endpoints}", "" if pool.ready else "red")
        yield (
            name,
            Text(pool.pool),
            up,
            Text(str(pool.free), "green" if pool.free else "yellow"),
            str(pool.inflight),
            f"{pool.inflight / pool.ready:.1f}" if pool.ready else "-",
            Text(str(pool.queued), "bold yellow" if pool.queued else ""),
        )


def _place(answer: Answer) -> str:
    status = answer.status
    if status is None or not status.region:
        return answer.url.removeprefix("http://")
    return _name(status, _PLACE_WIDTH)


def _name(status: RouterStatus, width: int | None = None) -> str:
    """Name the region, and which of its routers it is where it has several.

    Of a router's name that is too wide the end is kept: it tells pods of one gateway apart.
    """
    if not status.siblings:
        return status.region
    whole = f"{status.region} {status.router}"
    if width is None or len(whole) <= width:
        return whole
    router = _end(status.router, max(width - len(status.region) - 1, width // 2))
    return f"{status.region[: width - len(router) - 1]} {router}"


def _end(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _peers(known: Sequence[tuple[str, RouterStatus]], earlier: Sent | None) -> Table:
    table = _table("Who sends where")
    for header in ("from", "to", "state"):
        table.add_column(header, no_wrap=True, max_width=16)
    for header in ("round\ntrip", "sent", "back"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("there now", min_width=12)
    for url, status in known:
        for peer in status.peers:
            before = None if earlier is None else earlier.get((url, peer.region), peer.sent)
            table.add_row(
                Text(_name(status, _FROM_WIDTH)),
                Text(peer.region),
                Text(peer.state, _STYLES.get(peer.state, "")),
                duration(peer.round_trip_seconds),
                f"{peer.sent}" if before is None else f"{peer.sent} +{max(0, peer.sent - before)}",
                str(peer.refused),
                Text(_there(peer)),
            )
    return table


def _there(peer: PeerStatus) -> str:
    if peer.state != "Connected":
        seen = peer.last_seen_seconds
        ago = "" if seen is None else f"seen {duration(seen)} ago"
        return ", ".join(part for part in (peer.reason, ago) if part)
    return _room(peer)


def _room(peer: PeerStatus) -> str:
    free, queued = sum(p.free for p in peer.pools), sum(p.queued for p in peer.pools)
    if not peer.pools:
        return "serves none of these"
    if free:
        return f"{free} free"
    wait = _wait(peer)
    return f"{queued} queued" + ("" if wait is None else f", wait {duration(wait)}")


def _has_room(peer: PeerStatus, queued_here: int) -> bool:
    free, queued = sum(p.free for p in peer.pools), sum(p.queued for p in peer.pools)
    return free > 0 or queued < queued_here


def _wait(peer: PeerStatus) -> float | None:
    return min((p.wait_seconds for p in peer.pools if p.wait_seconds is not None), default=None)


def _siblings(known: Sequence[tuple[str, RouterStatus]]) -> Table:
    table = _table("Routers of one region")
    for header in ("region", "router", "sees", "state"):
        table.add_column(header, no_wrap=True, max_width=_ROUTER_WIDTH)
    for _, status in known:
        for sibling in status.siblings:
            state = Text(sibling.state, _STYLES.get(sibling.state, ""))
            routers = (_end(name, _ROUTER_WIDTH) for name in (status.router, sibling.router))
            table.add_row(Text(status.region), *map(Text, routers), state)
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
