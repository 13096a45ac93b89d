"""The smallest piece of a sweep that is played, stored and seeded on its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

NONE = "none"
"""The significance of an update that travels in the clear: ratio 0, one for all ways to choose entries."""
FULL = "full"
"""That of an update which is hidden whole: what an attacker makes of it follows from its prior alone."""
BENCH_VERSION = 2
"""Part of every cell's content: goes up when attackers, measures or metrics come to other figures."""
MEASURE = "measure"
"""The attacker of a cell that plays none: it holds the measures of its exposure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all cells of a sweep have in common.

    Args:
        dataset: as in ``attacks.inversion.data``.
        batch: samples per update.
        rounds: updates of the same samples, one after the other, that an attacker sees together.
        epochs, steps, learning_rate: as in ``Training``.
        pretrain: passes over known samples that the victim has learnt from before.
        tokens: of text, length of a sample.
        granularity: what one decision to hide is about: entry or layer.
        scores: whose scores choose entries: those common to all clients, or the attacked client's own.
        labels: known to attackers, or inferred by them.
        precision: wire computes in float64 and sends float32, as secagg does; float32 and float64 do both so.
        device: where cells are played.
        effort, restarts: as in ``Budget``.
        seed: of everything that is drawn.
    """

    dataset: str
    batch: int = 1
    rounds: int = 1
    epochs: int = 1
    steps: int = 1
    learning_rate: float = 0.01
    pretrain: int = 0
    tokens: int = 16
    granularity: str = "entry"
    scores: str = "common"
    labels: str = "known"
    precision: str = "wire"
    device: str = "cpu"
    effort: float = 1.0
    restarts: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One attack on one update, or the measures of one.

    Args:
        setting: what is the same in the whole sweep.
        victim: as in ``load_victim``.
        significance: how hidden entries are chosen; ``NONE`` at ratio 0, ``FULL`` at ratio 1.
        ratio: hidden entries / all, 0 … 1.
        perturb: what is done to visible entries, empty for nothing.
        update: which one, 0, 1, …: of samples update·batch … (update + 1)·batch − 1.
        attacker: as in ``load_attacker``, or ``MEASURE``.
        aware: True if the attacker knows which entries are hidden.
        content: digest of what names alone don't tell: weights, what the network computes with them, samples,
            a mask's file, and ``BENCH_VERSION``.
    """

    setting: Setting
    victim: str
    significance: str
    ratio: float
    perturb: str = ""
    update: int
    attacker: str
    aware: bool = True
    content: str = ""

    @property
    def key(self) -> str:
        """Of the store: SHA-256 over all fields, 32 hexadecimal digits."""
        return _digest(asdict(self))[:32]

    @property
    def seed(self) -> int:
        """Of what the attacker draws; the same on every device, whatever else is in the sweep."""
        drawn = replace(self, setting=replace(self.setting, device=""), content="")
        return seed_of(self.setting.seed, "attack", asdict(drawn))

    @property
    def protection_seed(self) -> int:
        """Of what the protection draws; the same for every attacker, so that all see the same update."""
        names = (self.victim, self.significance, self.ratio, self.perturb, self.update)
        return seed_of(self.setting.seed, "protection", names)

    @property
    def is_clear(self) -> bool:
        """True of the reference at ratio 0: everything travels in the clear as it is."""
        return self.significance == NONE and not self.perturb

    @property
    def title(self) -> str:
        """For people."""
        hidden = self.significance
        if hidden not in (NONE, FULL):
            hidden += f" {self.ratio:g}"
        if self.perturb:
            hidden += f" + {self.perturb}"
        knows = "" if self.attacker == MEASURE else " aware" if self.aware else " naive"
        return f"{self.victim}, {hidden}, {self.attacker}{knows}, {self.update}"


def cell_of(fields: Mapping[str, Any]) -> Cell:
    """Inverse of ``dataclasses.asdict``."""
    return Cell(**{**fields, "setting": Setting(**fields["setting"])})


def seed_of(seed: int, *parts: object) -> int:
    """A seed for one purpose: 63 bits of SHA-256 over the sweep's seed and what it is for."""
    return int(_digest([seed, *parts])[:16], 16) >> 1


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
