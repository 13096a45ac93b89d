"""Poisoning attacks by name, and the ``ATTACK:FRACTION[:STRENGTH]`` that configurations use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from attacks.poisoning.attack import Attack
from attacks.poisoning.gaussian import Gaussian
from attacks.poisoning.ipm import InnerProductManipulation
from attacks.poisoning.label_flip import LabelFlip
from attacks.poisoning.scaling import Scaling
from attacks.poisoning.sign_flip import SignFlip
from secagg.errors import Code, ConfigError

__all__ = ["ATTACKS", "Attack", "Poison", "load_attack", "parse_poison"]

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType(
    {a.name: a for a in (SignFlip, InnerProductManipulation, Gaussian, Scaling, LabelFlip)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """Which attack a share of the clients mounts.

    Args:
        attack: one of ``ATTACKS``.
        fraction: share of malicious clients, in (0, 1).
        strength: the attack's parameter, ≥ 0; None for its default.
    """

    attack: str
    fraction: float
    strength: float | None = None

    @property
    def pools_data(self) -> bool:
        """True if the attackers train on all their data together."""
        return ATTACKS[self.attack].pools_data

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
    """A checked ``Poison`` from ``ATTACK:FRACTION[:STRENGTH]``.

    Raises:
        ConfigError: CONFIG_INVALID, naming the part that is wrong and what it may be.

    >>> parse_poison("sign-flip:0.3")
    Poison(attack='sign-flip', fraction=0.3, strength=None)
    """
    name, _, rest = text.partition(":")
    fraction, colon, strength = rest.partition(":")
    load_attack(name)
    share = _number("fraction", fraction)
    if not 0.0 < share < 1.0:
        raise ConfigError(Code.CONFIG_INVALID, f"poison: fraction = {fraction} must lie between 0 and 1")
    poison = Poison(attack=name, fraction=share, strength=_number("strength", strength) if colon else None)
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
            f"poison: no attack {name!r}; write ATTACK:FRACTION[:STRENGTH] with one of {', '.join(ATTACKS)}",
        ) from None
    if strength is not None and kind.default_strength is None:
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
            f"poison: {what} {text!r} is no number; write ATTACK:FRACTION[:STRENGTH], e.g. sign-flip:0.3:3",
        )
    return value
