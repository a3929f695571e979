"""Where a request may be served: names of regions, and of groups of regions."""


def allows(residency: frozenset[str] | None, region: str, groups: frozenset[str]) -> bool:
    """Whether a rule lets a region of these groups serve; no rule lets every region."""
    return residency is None or region in residency or not residency.isdisjoint(groups)
