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
from secagg.rule import Rule
from secagg.simulation.datasets import Samples

_FORGING = 9
APART = 0.05
"""What each attacker adds by itself, as a share of its update's length: many published attacks send the same
from all attackers, which a comparison of updates would see before any rule.
"""


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
        self._rule = known_rule(cell)
        test = federation.test
        triggered = None if self._attack is None else self._attack.triggered(test.values, test.labels)
        self._triggered = None if triggered is None else Samples(values=triggered[0], labels=triggered[1])

    def falsify(self, samples: Samples, generator: np.random.Generator) -> Samples:
        """What an attacker trains on instead of its samples."""
        assert self._attack is not None
        classes = self._federation.dataset.classes
        values, labels = self._attack.falsify(samples.values, samples.labels, classes, generator)
        return Samples(values=values, labels=labels)

    def counts(self, trained: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many samples each of a round's clients says it has, int64 [n].

        Args:
            trained: how many it has trained on, the malicious ones' last.
        """
        stated = trained.copy()
        for place in range(len(trained) - self._cell.malicious, len(trained)):
            assert self._attack is not None
            stated[place] = self._attack.sample_count(int(trained[place]))
        return stated

    def forged(self, base: Flat, updates: Flat, round: int) -> Flat:
        """What the malicious ones send, float32 [f, d].

        Args:
            base: the model the round started from.
            updates: what training gave, the malicious ones' last, float32 [n, d].
            round: its number.
        """
        assert self._attack is not None
        honest = len(updates) - self._cell.malicious
        view = View(
            base=base,
            own=updates[honest:],
            others=updates[:honest],
            clients=len(updates),
            round=round,
            initial=self._federation.initial,
            rule=self._rule,
            manifest=self._federation.manifest,
        )
        generator = np.random.default_rng([self._cell.setting.seed, round, _FORGING])
        with np.errstate(over="ignore", invalid="ignore"):
            rows = sendable(self._attack.forge(view, generator))
            lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
            noise = generator.normal(0.0, APART / np.sqrt(rows.shape[1]), rows.shape)
            return sendable((rows + lengths * noise).astype(np.float32))

    def success(self, model: Flat) -> float | None:
        """How often the model does what a backdoor is for, in [0, 1]; None for other attacks."""
        return None if self._triggered is None else self._federation.accuracy(model, self._triggered)[0]


def known_rule(cell: Cell) -> Rule | None:
    """The rule as the attackers know it; None for one that only byzfl has."""
    try:
        return load_rule(cell.resolved_rule)
    except ConfigError:
        if cell.domain != "byzfl":
            raise
        return None
