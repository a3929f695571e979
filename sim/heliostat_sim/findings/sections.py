"""The sections of the document, in its order."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

from heliostat_sim.findings.calibration import calibration
from heliostat_sim.findings.campaign import Campaign
from heliostat_sim.findings.exchange import exchange
from heliostat_sim.findings.gpu_hours import gpu_hours
from heliostat_sim.findings.overload import overload
from heliostat_sim.findings.pushing import pushing
from heliostat_sim.findings.regional import regional
from heliostat_sim.findings.robustness import robustness
from heliostat_sim.findings.scale_result import scale
from heliostat_sim.findings.section import Section
from heliostat_sim.findings.versus import chat, trees

Author = Callable[[Campaign], Section]

SECTIONS: Mapping[str, Author] = {
    "calibration": calibration,
    "chat": chat,
    "trees": trees,
    "pushing": pushing,
    "regional": regional,
    "overload": overload,
    "gpu-hours": gpu_hours,
    "exchange": exchange,
    "robustness": robustness,
}
"""By the name that `--only` takes. The scale scenario's result comes last and is not run."""


def written_sections(campaign: Campaign, folder: Path, only: Sequence[str] = ()) -> list[Section]:
    """Run the sections, telling how long each took. `folder` holds the scale scenario's result."""
    began_at = monotonic()
    sections = []
    for name, author in SECTIONS.items():
        if only and name not in only:
            continue
        campaign.tell(f"{name}:")
        at = monotonic()
        sections.append(author(campaign))
        campaign.tell(f"{name}: {monotonic() - at:.0f} s, {monotonic() - began_at:.0f} s in all")
    if not only:
        sections.append(scale(folder))
    return sections
