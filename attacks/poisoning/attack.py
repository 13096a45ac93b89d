"""What a poisoning attack may do: falsify its labels, and replace the model it has trained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Attack:
    """A malicious client that follows the protocol but lies about its model.

    Formulas use g, the model the round started from, and u = w − g, the attacker's own honest update.
    Attackers of one coalition know each other's data and nothing of the honest clients'.

    Args:
        strength: the attack's one parameter; its meaning is in each attack's docstring.
    """

    name: str
    default_strength: float | None
    """None for an attack without a parameter."""
    pools_data = False
    """True if each attacker trains on the whole coalition's data with the same random numbers."""

    def __init__(self, strength: float | None = None) -> None:
        self.strength = strength if strength is not None else self.default_strength or 0.0

    def labels(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:  # noqa: ARG002
        """The labels the attacker trains on, int64 [n], each in 0 … classes − 1."""
        return labels

    def model(
        self,
        base: NDArray[np.float32],  # noqa: ARG002
        trained: NDArray[np.float32],
        generator: np.random.Generator,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """The model the attacker sends.

        Args:
            base: g, flat, float32 [d].
            trained: w, flat, float32 [d].
            generator: seeded, so that an experiment can be repeated.

        Returns:
            float32 [d].
        """
        return trained
