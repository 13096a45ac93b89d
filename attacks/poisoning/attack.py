"""What malicious clients know, and may do: falsify samples, forge updates, lie about counts and votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.rule import Floats, Rule
from secagg.update import Manifest

Updates = NDArray[np.float32]
"""One update per row, w − g, float32 [f, d]."""
Values = NDArray[np.uint8] | NDArray[np.float32]
"""What samples consist of; uint8 stands for value/255, float32 for itself."""
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """What a coalition of f malicious clients knows in one round.

    Args:
        base: g, the model the round started from, flat, float32 [d].
        own: what the members' own training gave, on samples falsified by ``Attack.falsify``, float32 or
            float64 [f, d].
        clients: n, how many updates the round has, the coalition's included.
        others: the honest clients' updates, [n − f, d], for an omniscient attacker; None for one that knows
            the coalition only: then the coalition's own updates stand for the honest ones.
        round: its number, from 1.
        initial: the model the federation started from, float32 [d]; None: g.
        rule: the rule the federation is known to use.
        manifest: which tensor is where in the flat vectors; None: one tensor.
    """

    base: Updates
    own: NDArray[np.float32] | Floats
    clients: int
    others: NDArray[np.float32] | Floats | None = None
    round: int = 1
    initial: Updates | None = None
    rule: Rule | None = None
    manifest: Manifest | None = None

    @property
    def malicious(self) -> int:
        """f."""
        return len(self.own)

    @property
    def known(self) -> Floats:
        """The honest updates as far as they are known, float64 [k, d]."""
        return np.asarray(self.own if self.others is None else self.others, dtype=np.float64)

    @property
    def mean(self) -> Floats:
        """μ, or the coalition's estimate of it, float64 [d]."""
        mean: Floats = self.known.mean(axis=0)
        return mean

    @property
    def std(self) -> Floats:
        """σ per coordinate over the known updates (divided by their number), float64 [d]."""
        std: Floats = self.known.std(axis=0)
        return std

    def everyone(self, update: Floats) -> Updates:
        """The same update for each member."""
        return np.tile(update.astype(np.float32), (self.malicious, 1))


class Attack:
    """Malicious clients that follow the protocol but lie about what they have learnt.

    Formulas use g, the model the round started from, u_i = w_i − g, a member's own update, and μ and σ,
    mean and standard deviation of the honest updates as far as the coalition knows them. The members of a
    coalition know each other's data, and forge their updates together.

    Args:
        strength: the attack's one parameter; its meaning is in each attack's docstring.
    """

    name: str
    default_strength: float | None = None
    """None if the attack has no parameter, or chooses it by what it sees."""
    takes_strength = True

    def __init__(self, strength: float | None = None) -> None:
        self.given = strength
        self.strength = strength if strength is not None else self.default_strength or 0.0

    def falsify(
        self,
        values: Values,
        labels: Labels,
        classes: int,
        generator: np.random.Generator,  # noqa: ARG002
    ) -> tuple[Values, Labels]:
        """What a member trains on instead of its samples; the inputs stay as they are.

        Args:
            values: [m, channels, height, width] or [m, features].
            labels: int64 [m], each in 0 … classes − 1.
            classes: how many there are.
            generator: the member's own; all members can repeat what it draws.
        """
        return values, self.labels(labels, classes)

    def labels(self, labels: Labels, classes: int) -> Labels:  # noqa: ARG002
        """The labels a member trains on, int64 [m]."""
        return labels

    def triggered(self, values: Values, labels: Labels) -> tuple[Values, Labels] | None:  # noqa: ARG002
        """Test samples on which accuracy is the attack's success, or None if it has no such aim."""
        return None

    def sample_count(self, count: int) -> int:
        """How many samples a member says it has."""
        return count

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """What the members send, as updates: member i's model is g + row i.

        Args:
            view: what the coalition knows.
            generator: the same for all members, so that each can compute all rows without talking.

        Returns:
            float32 [f, d]; not finite where the strength is beyond what float32 holds.
        """
        return view.own.astype(np.float32)

    def voter(self, rule: Rule) -> Rule:
        """The rule that a member answers opened statistics by."""
        return rule
