"""A round's attackers: they know all honest updates of the round, the rule, and each other's data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning import Attack, load_attack
from attacks.poisoning.attack import View
from benchmarks.robust.cell import NO_ATTACK, Cell
from benchmarks.robust.federation import Federation, Flat, sendable
from defenses import load_rule
from secagg.errors import Code, ConfigError
from secagg.simulation.datasets import Samples

_FORGING = 9


def attack_of(text: str) -> Attack | None:
    """The attack that ``NAME`` or ``NAME:STRENGTH`` names; None for ``none``.

    Raises:
        ConfigError: CONFIG_INVALID, as ``load_attack``, and for a strength that is no number.
    """
    name, _, given = text.partition(":")
    try:
        strength = float(given) if given else None
    except ValueError:
        raise ConfigError(Code.CONFIG_INVALID, f"attack {text!r}: {given!r} is no number") from None
    return None if name == NO_ATTACK else load_attack(name, strength)


class Coalition:
    """The malicious clients of a cell."""

    def __init__(self, cell: Cell, federation: Federation) -> None:
        self._cell, self._federation = cell, federation
        self._attack = attack_of(cell.attack)
        self._rule = None if cell.domain == "byzfl" else load_rule(cell.resolved_rule)

    def falsify(self, samples: Samples, generator: np.random.Generator) -> Samples:
        """What an attacker trains on instead of its samples."""
        assert self._attack is not None
        labels = self._attack.labels(samples.labels, self._federation.dataset.classes)
        return Samples(values=samples.values, labels=labels)

    def forged(self, base: Flat, updates: Flat, members: NDArray[np.int64], round: int) -> Flat:
        """What the malicious ones send, float32 [f, d].

        Args:
            base: the model the round started from.
            updates: what training gave, the malicious ones' last, float32 [n, d].
            members: who they are.
            round: its number.
        """
        assert self._attack is not None
        honest = len(members) - self._cell.malicious
        view = View(
            base=base,
            own=updates[honest:],
            others=updates[:honest],
            clients=len(members),
            round=round,
            initial=self._federation.initial,
            rule=self._rule,
        )
        generator = np.random.default_rng([self._cell.setting.seed, round, _FORGING])
        with np.errstate(over="ignore", invalid="ignore"):
            return sendable(self._attack.forge(view, generator))

    def success(self, model: Flat) -> float | None:
        """How often the model does what a backdoor is for, in [0, 1]; None for other attacks."""
        return None
