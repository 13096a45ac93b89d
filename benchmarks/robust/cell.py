"""What one cell of the campaign is: everything that its numbers depend on, and the key it is stored under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

DOMAINS = ("plain", "cipher", "byzfl")
NO_ATTACK = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A federation, without rule and attack; cells of equal settings have the same clients, data and start.

    Args:
        dataset: name or path, as ``load_dataset`` takes it.
        model: linear, mlp or cnn.
        clients, per_round: how many there are, and how many are chosen each round.
        partition: how samples are dealt out, ``iid`` or ``dirichlet:β``.
        samples: how many of its samples a client trains on in a round, drawn anew each round; 0: all.
        epochs, batch_size, learning_rate, momentum: local training.
        rounds: how many.
        start_round: the first round with an attack; 1: cold start.
        test_samples: size of the part of the test samples that accuracy is measured on; 0: all.
        evaluate_every: rounds between two evaluations; the last round always has one.
        seed: of all of it.
    """

    dataset: str
    model: str = "cnn"
    clients: int = 100
    per_round: int = 10
    partition: str = "dirichlet:0.25"
    samples: int = 128
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.05
    momentum: float = 0.9
    rounds: int = 30
    start_round: int = 11
    test_samples: int = 1000
    evaluate_every: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One curve: a rule against an attack in a setting.

    Args:
        setting: the federation.
        rule: as ``defenses.load_rule`` takes it, with ``{f}`` where the assumed number of attackers goes.
        attack: name, or ``NAME:STRENGTH``, or ``none``.
        fraction: share of malicious clients among those chosen in every round; for ``none`` the share that
            the rule assumes.
        domain: of ``DOMAINS``.
    """

    setting: Setting
    rule: str
    attack: str
    fraction: float
    domain: str

    @property
    def assumed(self) -> int:
        """How many of a round's clients the rule is told may be malicious."""
        return round(self.fraction * self.setting.per_round)

    @property
    def malicious(self) -> int:
        """How many of a round's clients are."""
        return 0 if self.attack == NO_ATTACK else self.assumed

    @property
    def resolved_rule(self) -> str:
        """The rule with its numbers."""
        return self.rule.replace("{f}", str(self.assumed))

    @property
    def key(self) -> str:
        """What it is stored under: equal for equal cells only."""
        return _digest({**asdict(self), "rule": self.resolved_rule})

    @property
    def warm_key(self) -> str:
        """Equal for cells that are the same until the attack starts.

        The ciphertext domain starts where the plain one does: up to rounding they are the same.
        """
        honest = asdict(replace(self.setting, rounds=0))
        domain = "byzfl" if self.domain == "byzfl" else "plain"
        return _digest({"setting": honest, "rule": self.resolved_rule, "domain": domain})

    @property
    def title(self) -> str:
        """For people."""
        against = self.attack if self.attack == NO_ATTACK else f"{self.attack} {self.fraction:g}"
        return f"{Path(self.setting.dataset).name} {self.resolved_rule} / {against} / {self.domain}"


def cell_of(stored: Mapping[str, object]) -> Cell:
    """The cell that ``dataclasses.asdict`` made this of."""
    given = dict(stored)
    setting = given.pop("setting")
    assert isinstance(setting, dict)
    return Cell(setting=Setting(**setting), **{name: given[name] for name in _NAMES})  # type: ignore[arg-type]


_NAMES = tuple(field.name for field in fields(Cell) if field.name != "setting")


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
