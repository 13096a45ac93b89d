"""Inverting gradients: the angle between gradients, smooth images, signs of slopes."""

from __future__ import annotations

from dataclasses import dataclass

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.descent import descend
from attacks.inversion.attackers.objective import Objective
from attacks.inversion.attackers.restarts import Clock, slopes_of
from attacks.inversion.attackers.unknowns import Unknowns, known_labels, no_images
from attacks.inversion.exposure import Exposure


@dataclass(slots=True, kw_only=True)
class InvertingGradients:
    """min Σ_rounds 1 − cos(∇L(x), g) + tv·TV(x), x in [0, 1], by Adam on the signs of gradients.

    Geiping, Bauermeister, Dröge, Moeller: Inverting Gradients, NeurIPS 2020, arXiv 2003.14053, §4. Labels
    that are not known are inferred. As published it takes 24,000 iterations; a rate that falls along a
    cosine gets most of the way in hundreds.

    Args:
        name: as asked for.
        tv: weight of the total variation.
        rate: Adam's first, in pixels of [0, 1].
        iterations: of Adam.
        hinge, likelihood: weights of what a mask by magnitude says about hidden entries; see ``Mask``.
        whiten: 1: where there is noise σ, entries are divided by |g_i| + σ.
    """

    name: str = "inverting-gradients"
    tv: float = 1e-2
    rate: float = 0.1
    iterations: int = 300
    hinge: float = 0.0
    likelihood: float = 0.0
    whiten: float = 0.0

    def unsuited(self, exposure: Exposure) -> str:
        """Text has no pixels."""
        return no_images(exposure)

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """As ``Attacker.attack``."""
        clock = Clock(budget)
        unknowns = Unknowns.of(exposure, known_labels(exposure))
        objective = Objective(
            exposure,
            unknowns,
            hinge=self.hinge,
            likelihood=self.likelihood,
            whiten=self.whiten > 0,
        )
        outcome = descend(
            slopes_of(
                lambda point: objective.angles(point) + self.tv * objective.variation(point),
                exposure.victim.size,
            ),
            unknowns.starts(seed, budget.restarts),
            iterations=budget.iterations(self.iterations),
            rate=self.rate,
            boxed=unknowns.boxed,
            clock=clock,
        )
        return outcome.reconstruction(unknowns)
