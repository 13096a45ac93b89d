"""Samples read off linear layers' gradients whose hidden entries were completed from the visible ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attacks.inversion.attackers.analytic import Analytic
from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.layers.linear import linear_layers
from attacks.inversion.attackers.layers.rank import ITERATIONS, STARTS, completed
from attacks.inversion.exposure import Exposure


@dataclass(slots=True, kw_only=True)
class RankCompletion:
    """``completed``, then ``Analytic``.

    Args:
        name: as asked for.
        iterations: of each start of a layer's completion.
        draws: as of ``Analytic``.
    """

    name: str = "rank-completion"
    iterations: int = ITERATIONS
    draws: int = 60_000

    def unsuited(self, exposure: Exposure) -> str:
        """What ``Analytic`` needs."""
        return Analytic().unsuited(exposure)

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """What can be read off the completed exposure."""
        whole = completed(
            exposure,
            seed=seed,
            starts=STARTS + budget.restarts - 1,
            iterations=budget.iterations(self.iterations),
            # Samples are read from the first, labels from the last.
            layers=[
                layer for layer in linear_layers(exposure.victim) if layer.reads_sample or layer.gives_logits
            ],
        )
        result = Analytic(draws=self.draws).attack(whole, seed=seed, budget=budget)
        share = 1 - float(whole.hidden.sum()) / max(1, int(exposure.hidden.sum()))
        detail = f"{share:.1%} of hidden entries completed"
        return replace(result, detail=f"{detail}; {result.detail}" if result.detail else detail)
