"""When to send a request on to an engine: SkyLB's ablation."""

from heliostat_sim.evaluation import Comparison
from heliostat_sim.findings.campaign import Campaign, Study, contenders
from heliostat_sim.findings.rivals import policies_table
from heliostat_sim.findings.section import Draft, Section
from heliostat_sim.policies.registry import PolicyName

_VARIANTS = contenders(
    PolicyName.HELIOSTAT,
    PolicyName.SELECTIVE_PUSH_PENDING,
    PolicyName.BLIND_PUSH,
    PolicyName.SELECTIVE_PUSH_OUTSTANDING,
)


def pushing_comparison(campaign: Campaign) -> Comparison:
    """The variants in one region."""
    reference = PolicyName.SELECTIVE_PUSH_PENDING.value
    return campaign.compare(Study("pushing", _VARIANTS, reference=reference))


def pushing(campaign: Campaign) -> Section:
    """Blind pushing, below a cap, and where no request waits."""
    draft = Draft("Pushing")
    draft.say(
        """One region, 4 engines, 30 clients with trees of two branches. `bp` sends at once, `sp-o`
        below a cap of outstanding requests, `sp-p` where no request waits, which is SkyLB's own."""
    )
    draft.table(policies_table(pushing_comparison(campaign), "Pushing"))
    return draft.done()
