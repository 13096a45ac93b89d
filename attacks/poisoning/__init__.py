"""Poisoning attacks by name, and the ``ATTACK:FRACTION[:STRENGTH][@ROUND]`` that configurations use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from attacks.poisoning.adaptive import Adaptive
from attacks.poisoning.alie import ALittleIsEnough
from attacks.poisoning.attack import Attack, View
from attacks.poisoning.backdoor import Backdoor
from attacks.poisoning.copy import Copy
from attacks.poisoning.ddfed_alie import DDFedALIE
from attacks.poisoning.ddfed_ipm import DDFedIPM
from attacks.poisoning.ddfed_scaling import DDFedScaling
from attacks.poisoning.gaussian import Gaussian
from attacks.poisoning.inflated_count import InflatedCount
from attacks.poisoning.ipm import InnerProductManipulation
from attacks.poisoning.label_flip import LabelFlip
from attacks.poisoning.liar import Liar
from attacks.poisoning.mimic import Mimic
from attacks.poisoning.min_max import MinMax
from attacks.poisoning.min_sum import MinSum
from attacks.poisoning.model_negation import ModelNegation
from attacks.poisoning.model_scaling import ModelScaling
from attacks.poisoning.mpaf import ModelPoisoningByFakeClients
from attacks.poisoning.probe import Probe
from attacks.poisoning.scaling import Scaling
from attacks.poisoning.sign_flip import SignFlip
from secagg.errors import Code, ConfigError

__all__ = ["ATTACKS", "FORM", "Attack", "Poison", "View", "load_attack", "parse_poison"]

FORM = "ATTACK:FRACTION[:STRENGTH][@ROUND]"

_KINDS: tuple[type[Attack], ...] = (
    SignFlip,
    InnerProductManipulation,
    Gaussian,
    Scaling,
    LabelFlip,
    ALittleIsEnough,
    MinMax,
    MinSum,
    ModelPoisoningByFakeClients,
    Mimic,
    Backdoor,
    Adaptive,
    DDFedIPM,
    DDFedALIE,
    DDFedScaling,
    ModelScaling,
    ModelNegation,
    InflatedCount,
    Probe,
    Copy,
    Liar,
)
ATTACKS: Mapping[str, type[Attack]] = MappingProxyType({kind.name: kind for kind in _KINDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """Which attack a share of the clients mounts.

    Args:
        attack: one of ``ATTACKS``.
        fraction: share of malicious clients, in (0, 1).
        strength: the attack's parameter, ≥ 0; None for its default.
        start_round: the first round with an attack; before it the attackers do as they should. 1: cold start.
    """

    attack: str
    fraction: float
    strength: float | None = None
    start_round: int = 1

    def malicious(self, clients: int, seed: int) -> tuple[int, ...]:
        """Indices of the malicious clients, sorted: round(fraction · clients) of them, drawn from the seed.

        Raises:
            ConfigError: CONFIG_INVALID if that is nobody, or everybody.
        """
        count = round(self.fraction * clients)
        if not 1 <= count < clients:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"poison: {self.fraction:g} of {clients} clients is {count}; "
                f"at least 1 must attack and 1 must not",
            )
        generator = np.random.default_rng([seed, 1])
        return tuple(sorted(int(i) for i in generator.choice(clients, count, replace=False)))


def parse_poison(text: str) -> Poison:
    """A checked ``Poison`` from ``ATTACK:FRACTION[:STRENGTH][@ROUND]``.

    Raises:
        ConfigError: CONFIG_INVALID, naming the part that is wrong and what it may be.

    >>> parse_poison("sign-flip:0.3")
    Poison(attack='sign-flip', fraction=0.3, strength=None, start_round=1)
    >>> parse_poison("ipm:0.3:2@5")
    Poison(attack='ipm', fraction=0.3, strength=2.0, start_round=5)
    """
    what, at, start = text.partition("@")
    name, _, rest = what.partition(":")
    fraction, colon, strength = rest.partition(":")
    load_attack(name)
    share = _number("fraction", fraction)
    if not 0.0 < share < 1.0:
        raise ConfigError(Code.CONFIG_INVALID, f"poison: fraction = {fraction} must lie between 0 and 1")
    poison = Poison(
        attack=name,
        fraction=share,
        strength=_number("strength", strength) if colon else None,
        start_round=_round(start) if at else 1,
    )
    load_attack(name, poison.strength)
    return poison


def load_attack(name: str, strength: float | None = None) -> Attack:
    """The attack with this name.

    Raises:
        ConfigError: CONFIG_INVALID for an unknown name, a negative strength, or a strength for an
            attack that has none.
    """
    try:
        kind = ATTACKS[name]
    except KeyError:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"poison: no attack {name!r}; write {FORM} with one of {', '.join(ATTACKS)}",
        ) from None
    if strength is not None and not kind.takes_strength:
        raise ConfigError(Code.CONFIG_INVALID, f"poison: {name} has no strength; leave it out")
    if strength is not None and strength < 0:
        raise ConfigError(Code.CONFIG_INVALID, f"poison: strength = {strength:g} must be at least 0")
    return kind(strength)


def _number(what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"poison: {what} {text!r} is no number; write {FORM}, e.g. sign-flip:0.3:3",
        )
    return value


def _round(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise ConfigError(
            Code.CONFIG_INVALID, f"poison: round {text!r} must be 1, 2, 3, …; write {FORM}, e.g. ipm:0.3:2@5"
        )
    return int(text)
