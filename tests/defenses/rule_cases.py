"""The rules from one Gram matrix as tests go through them: what each promises, and updates to try it on."""

from dataclasses import dataclass

import numpy as np

from defenses import load_rule
from defenses.gram_rule import GramRule
from secagg.rule import Floats, Statistics, statistics_of
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=tuple(
        TensorSpec(name=name, shape=shape)
        for name, shape in (("hidden.weight", (4, 8)), ("hidden.bias", (4,)), ("output.weight", (3, 4)))
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCase:
    """A rule and what it promises.

    Args:
        text: as ``load_rule`` takes it.
        shifts: True if the coefficients stay the same when all updates are shifted alike.
        drops: True if f updates that are far from all others get no weight at all.
        robust: True if f updates, wherever they are, leave the result near the honest ones.
    """

    text: str
    shifts: bool
    drops: bool = False
    robust: bool = True

    def rule(self) -> GramRule:
        loaded = load_rule(self.text)
        assert isinstance(loaded, GramRule)
        return loaded


CASES = (
    RuleCase(text="krum:k_min=1", shifts=True, drops=True),
    RuleCase(text="multi-krum", shifts=True, drops=True),
    RuleCase(text="mda", shifts=True, drops=True),
    RuleCase(text="nnm", shifts=True, robust=False),
    RuleCase(text="nnm+krum", shifts=True),
    RuleCase(text="nnm+geometric-median", shifts=True),
    RuleCase(text="arc+nnm+multi-krum", shifts=False),
    RuleCase(text="monna", shifts=True, drops=True),
    RuleCase(text="geometric-median", shifts=True),
    RuleCase(text="geometric-median:steps=3,nu=0.1", shifts=False, robust=False),
    RuleCase(text="centered-clipping", shifts=False),
    RuleCase(text="norm-clipping", shifts=False),
    RuleCase(text="arc", shifts=False),
    RuleCase(text="flame", shifts=False, drops=True),
    RuleCase(text="dnc", shifts=True, robust=False),
    RuleCase(text="caf", shifts=True),
    RuleCase(text="smea", shifts=True, drops=True),
    RuleCase(text="bulyan-selection", shifts=True, drops=True),
    RuleCase(text="ddfed-hardened", shifts=False, drops=True),
    RuleCase(text="fltrust", shifts=False),
    RuleCase(text="foolsgold", shifts=False, robust=False),
)


def statistics_for(
    rule: GramRule, updates: Floats, base: Floats, root: Floats, counts: list[int] | None = None
) -> Statistics:
    """Statistics of the updates; with the root update in the last row if the rule asks for one.

    Histories are the updates themselves, as in a first round.
    """
    request = rule.request(MANIFEST)
    assert request is not None
    if request.root:
        updates = np.vstack([updates, root])
        counts = None if counts is None else [*counts, 1]
    return statistics_of(
        updates,
        base=base,
        before=0.9 * base,
        sample_counts=counts,
        root=len(updates) - 1 if request.root else None,
        history=updates if request.history else None,
    )


def weights_of(rule: GramRule, statistics: Statistics, f: int) -> Floats:
    """The coefficients of the updates that can be summed, without the root's."""
    found = rule.coefficients(statistics, f)
    return found if statistics.root is None else np.delete(found, statistics.root)


def honest(n: int, generator: np.random.Generator, d: int = 24) -> Floats:
    """n updates within distance 1 of a point of norm 3."""
    centre = generator.normal(size=d)
    noise = generator.normal(size=(n, d))
    noise *= generator.uniform(0.3, 1.0, (n, 1)) / np.linalg.norm(noise, axis=1, keepdims=True)
    return 3 * centre / np.linalg.norm(centre) + noise
