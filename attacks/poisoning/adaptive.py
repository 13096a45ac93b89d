"""Adaptive attack: whoever knows the rule goes as far as the rule lets it."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View
from attacks.poisoning.directions import against_mean, against_sign, against_std
from attacks.poisoning.min_max import MinMax
from attacks.poisoning.rehearsal import REFUSED, Candidate, Rehearsal
from secagg.rule import Floats

DIRECTIONS = (against_mean, against_std, against_sign)
STEPS = 2.0 ** np.arange(-3, 8)
"""Tried first, in units of ‖μ‖."""
NOISE = (0.05, 0.5, 2.0)
"""In units of ‖μ‖: without any, updates that repeat each other give the coalition away."""
BISECTIONS = 12


class Adaptive(Attack):
    """μ + strength·γ·p + e_j, with the p, γ and length of the noise e_j that hurt most under the rule.

    Each candidate is put to the rule itself, with the honest updates that are known or with stand-ins
    drawn around the coalition's own; the damage is −⟨Σ a_i·u_i, μ⟩, a_i being what the rule gives each
    update. p is −μ, −σ or −sign(μ) at length 1. After the best of a coarse grid, γ is moved on by
    bisection to where the rule stops accepting it. The idea is that of Fang et al., USENIX Security 2020,
    arXiv 1911.11815, and of the adaptive attacks of Shejwalkar and Houmansadr, NDSS 2021, for any rule
    instead of for some. Under a rule without bound, as the mean, γ is the largest that is tried; an
    attacker that does not know the rule does what ``MinMax`` does.

    Args:
        strength: share of the largest step, as the acceptance of what is just inside hangs on what is not
            known.

    >>> from defenses import load_rule
    >>> honest = np.random.default_rng(1).normal(1, 1, (7, 50)).astype(np.float32)
    >>> view = View(
    ...     base=np.zeros(50, np.float32), own=honest[:3], others=honest, clients=10, rule=load_rule("mean")
    ... )
    >>> sent = Adaptive().forge(view, np.random.default_rng(0))
    >>> bool((sent @ honest.mean(axis=0) < 0).all())
    True
    """

    name = "adaptive"
    default_strength = 0.95

    def forge(self, view: View, generator: np.random.Generator) -> Updates:
        """What hurts most of all that was tried; honest updates if the rule bears nothing."""
        if view.rule is None:
            return MinMax(self.given).forge(view, generator)
        mean = view.mean
        length = float(np.linalg.norm(mean))
        if not (np.isfinite(length) and length > 0):
            return view.own.astype(np.float32)
        noise = generator.normal(0.0, 1 / np.sqrt(mean.size), (view.malicious, mean.size))
        directions = [direction(view) for direction in DIRECTIONS]
        rehearsal = Rehearsal(view, stand_ins(view, generator), directions, noise)
        best, damage = most_damaging(rehearsal, length, [bool(p.any()) for p in directions])
        if damage == REFUSED:
            return view.own.astype(np.float32)
        sent = Candidate(direction=best.direction, step=self.strength * best.step, noise=best.noise)
        return rehearsal.updates(sent).astype(np.float32)


def most_damaging(rehearsal: Rehearsal, length: float, usable: list[bool]) -> tuple[Candidate, float]:
    """The candidate that hurts most, and how much.

    Args:
        rehearsal: where candidates are tried.
        length: ‖μ‖.
        usable: which of ``DIRECTIONS`` lead anywhere.
    """
    tried = [
        Candidate(direction=index, step=float(length * step), noise=length * noise)
        for index, use in enumerate(usable)
        if use
        for noise in NOISE
        for step in STEPS
    ]
    damages = [rehearsal.damage(candidate) for candidate in tried]
    first = int(np.argmax(damages))
    best, damage = tried[first], damages[first]
    low, high = best.step, best.step * 2
    if best.step >= length * STEPS[-1]:
        return best, damage  # the rule knows no bound; nor does going on have an end
    for _ in range(BISECTIONS):
        middle = Candidate(direction=best.direction, step=(low + high) / 2, noise=best.noise)
        if (found := rehearsal.damage(middle)) >= damage:
            best, damage, low = middle, found, middle.step
        else:
            high = middle.step
    return best, damage


def stand_ins(view: View, generator: np.random.Generator) -> Floats:
    """The honest updates, or as many drawn around the coalition's mean with its spread, float64 [n − f, d].

    A single member sees no spread; it takes its own values' root mean square for one.
    """
    if view.others is not None:
        return view.known
    mean, members = view.mean, view.malicious
    if members > 1:
        spread = view.std * np.sqrt(members / (members - 1))
    else:
        spread = np.full(mean.shape, np.sqrt(np.mean(np.square(mean))))
    rows: Floats = mean + spread * generator.normal(size=(max(view.clients - members, 1), mean.size))
    return rows
