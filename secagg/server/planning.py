"""What the next round asks of its clients."""

from __future__ import annotations

from collections.abc import Mapping

from secagg.plan import RoundPlan, Significance
from secagg.server.deployment import Deployment
from secagg.server.events import Round
from secagg.server.progress import Announce


def draft_plan(
    deployment: Deployment,
    outcome: Announce,
    mask_sha256: bytes,
    rounds: Mapping[int, Round],
    plans: Mapping[int, RoundPlan],
) -> RoundPlan:
    """A round's plan, but for the length of its payload, which a worker computes.

    Args:
        outcome: which round, and the model it starts from.
        mask_sha256: of the mask that clients agreed on; empty if they did not.
        rounds, plans: those held so far.
    """
    base, request = outcome.base_round, deployment.request
    compares = request is not None and request.references > 1
    config, descriptor = deployment.config, deployment.descriptor
    magnitude = config.protection.significance is Significance.MAGNITUDE
    return RoundPlan(
        round=outcome.number,
        protection=config.protection,
        mask_sha256=mask_sha256 if magnitude else b"",
        profile=descriptor.profile,
        key_id=descriptor.key_id,
        manifest=deployment.manifest,
        rule=config.rule,
        statistics_blocks=request.blocks if request else (),
        base_round=base,
        earlier_round=plans[base].base_round if base and compares else 0,
        max_sample_count=config.max_sample_count,
        count_unit=_count_unit(deployment, rounds.get(base)),
        divisor=deployment.divisor,
        payload_bytes=1,
    )


def _count_unit(deployment: Deployment, base: Round | None) -> int:
    """The sample count that stands for weight 1 where clients weigh their own values; else 0.

    The largest count of an update that the base round summed is the tightest that changes no weight; one far
    above all counts would cost bits. Before anybody has said how many samples it has, the aggregator weighs,
    as far as small integers can.
    """
    if not deployment.profile.quantised or base is None:
        return 0
    counted = [a.sample_count for a, w in zip(base.accepted, base.weights, strict=True) if w]
    return min(deployment.config.max_sample_count, max(counted))
