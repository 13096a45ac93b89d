"""Inverting gradients: the angle between gradients, smooth images, signs of slopes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.fitting.descent import descend
from attacks.inversion.attackers.fitting.features import fitted
from attacks.inversion.attackers.fitting.objective import Objective
from attacks.inversion.attackers.fitting.restarts import Clock, slopes_of
from attacks.inversion.attackers.fitting.unknowns import Unknowns, known_labels, no_images
from attacks.inversion.attackers.layers.peeling import peeled
from attacks.inversion.exposure import Exposure

FIT_RATE = 0.05


@dataclass(slots=True, kw_only=True)
class InvertingGradients:
    """min Σ_rounds 1 − cos(∇L(x), g) + tv·TV(x), x in [0, 1], by Adam on the signs of gradients.

    Geiping, Bauermeister, Dröge, Moeller: Inverting Gradients, NeurIPS 2020, arXiv 2003.14053, §4. Labels
    that are not known are inferred. As published it takes 24,000 iterations; a rate that falls along a
    cosine gets most of the way in hundreds.

    Behind max pooling, gradients say little about where to go unless the guess is close: angles are nearly
    flat around noise. Of networks that ``peeled`` takes layers off, what these layers read is known first;
    an image that gives it (``fitted``) is the start, and the descent on angles only refines it.

    Args:
        name: as asked for.
        tv: weight of the total variation.
        rate: Adam's first, in pixels of [0, 1].
        iterations: of Adam.
        hinge, likelihood: weights of what a mask by magnitude says about hidden entries; see ``Mask``.
        whiten: 1: where there is noise σ, entries are divided by |g_i| + σ.
        features: weight of the total variation while an image is fitted to features; 0: start from noise.
        fit: iterations of each stage of that.
        refine, refine_rate: iterations and first rate of the descent from there.
    """

    name: str = "inverting-gradients"
    tv: float = 1e-2
    rate: float = 0.1
    iterations: int = 300
    hinge: float = 0.0
    likelihood: float = 0.0
    whiten: float = 0.0
    features: float = 0.2
    fit: int = 30
    refine: int = 20
    refine_rate: float = 1e-3

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
        points, fits, detail = unknowns.starts(seed, budget.restarts), 0, ""
        iterations, rate = self.iterations, self.rate
        known = peeled(exposure) if self.features > 0 else None
        if known is not None:
            points, fits = fitted(
                known,
                points[:, : unknowns.pixels],
                exposure.victim.shape,
                iterations=budget.iterations(self.fit),
                rate=FIT_RATE,
                tv=self.features,
                parameters=exposure.victim.size,
                clock=clock,
            )
            iterations, rate, detail = self.refine, self.refine_rate, "start from features"
        outcome = descend(
            slopes_of(
                lambda point: objective.angles(point) + self.tv * objective.variation(point),
                exposure.victim.size,
            ),
            points,
            iterations=budget.iterations(iterations),
            rate=rate,
            boxed=unknowns.boxed,
            clock=clock,
        )
        outcome = replace(outcome, iterations=fits + outcome.iterations)
        return outcome.reconstruction(unknowns, detail=detail)
