"""A round played in advance: what a rule would make of updates that an attacker thinks of sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning.attack import View
from defenses.gram_rule import judge
from secagg.errors import SecaggError
from secagg.rule import CoordinateRule, Floats, Statistics, StatisticsRequest
from secagg.update import Manifest, TensorSpec

COORDINATES = 8192
"""How many coordinates a rule is rehearsed on that looks at each; it takes its time for every one."""
REFUSED = -np.inf
"""The damage of a round that the rule would not go on with: no attacker's aim here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Updates μ + step·p + noise·e_j, one for each member j.

    Args:
        direction: which p.
        step: how far along it.
        noise: length of what tells the members' updates apart.
    """

    direction: int
    step: float
    noise: float


class Rehearsal:
    """The round of a view, with stand-ins for honest updates that are not known.

    Everything that is thought of is a linear combination of a few vectors, so their inner products are
    taken once, and a candidate costs no more than the rule itself.

    Args:
        view: with a rule.
        honest: the honest updates or what stands for them, float64 [h, d].
        directions: the p, float64 [d] each.
        noise: e_j, one row of length 1 for each member, float64 [f, d].
    """

    def __init__(self, view: View, honest: Floats, directions: Sequence[Floats], noise: Floats) -> None:
        assert view.rule is not None
        self._view, self._rule = view, view.rule
        self._vectors = np.vstack([honest, noise, *directions, view.mean, view.base])
        self._honest, self._noise = len(honest), len(honest)
        self._directions = self._noise + len(noise)
        self._mean, self._base = len(self._vectors) - 2, len(self._vectors) - 1
        manifest = view.manifest or one_tensor(view.base.size)
        self._request = self._rule.request(manifest)
        blocks = block_indices(self._request, manifest)
        self._products = np.stack([part @ part.T for part in (self._vectors[:, b] for b in blocks)])
        self._along_mean = self._vectors @ self._vectors[self._mean]
        self._sample = np.linspace(0, view.base.size - 1, min(view.base.size, COORDINATES)).astype(np.int64)

    def updates(self, candidate: Candidate) -> Floats:
        """The members' updates, float64 [f, d]."""
        rows: Floats = self._combinations(candidate)[self._honest :] @ self._vectors
        return rows

    def damage(self, candidate: Candidate) -> float:
        """−⟨new model − g, μ⟩: how far the round goes against the honest; ``REFUSED`` if it goes nowhere."""
        rows = self._combinations(candidate)
        try:
            if self._request is not None:
                weights = self._judged(rows, self._request)
            elif isinstance(self._rule, CoordinateRule):
                return self._damage_by_coordinate(rows, self._rule)
            else:
                # Nothing is opened: the rule only knows how many updates there are.
                settled = self._rule.settle([], 0, np.ones(len(rows), dtype=np.int64)).weights
                weights = settled / settled.sum()
        except SecaggError:
            return REFUSED
        return -float(weights @ rows @ self._along_mean) if weights.any() else REFUSED

    def _combinations(self, candidate: Candidate) -> Floats:
        """Honest updates, then the members', as coefficients of the vectors."""
        members = self._view.malicious
        rows = np.zeros((self._honest + members, len(self._vectors)))
        rows[: self._honest, : self._honest] = np.eye(self._honest)
        mine = rows[self._honest :]
        mine[:, self._mean] = 1.0
        mine[:, self._directions + candidate.direction] = candidate.step
        mine[:, self._noise : self._noise + members] = candidate.noise * np.eye(members)
        return rows

    def _judged(self, rows: Floats, request: StatisticsRequest) -> Floats:
        """The coefficients that the rule gives the rows."""
        size, root = len(rows), None
        if request.root:
            # What the root client will find is not known; the mean is as good a guess as any.
            root, size = size, size + 1
            rows = np.vstack([rows, np.eye(len(self._vectors))[self._mean]])
        base = np.eye(len(self._vectors))[[self._base, self._base]]
        combinations = np.vstack([rows, base])
        blocks = combinations @ self._products @ combinations.T
        statistics = Statistics(
            round=self._view.round,
            update_ids=tuple(f"{i:032x}" for i in range(size)),
            blocks=blocks,
            sample_counts=np.ones(size, dtype=np.int64),
            root=root,
            # As if this were the first round: what was sent before is each member's own affair.
            history=blocks.sum(axis=0)[:size, :size] if request.history else None,
        )
        weights = judge(self._rule, statistics).weights
        return weights if root is None else np.delete(weights, root)

    def _damage_by_coordinate(self, rows: Floats, rule: CoordinateRule) -> float:
        vectors = self._vectors[:, self._sample]
        moved = rule.combine(vectors[self._base] + rows @ vectors) - vectors[self._base]
        return -float(moved @ vectors[self._mean])


def one_tensor(size: int) -> Manifest:
    """A model of one matrix, for rules that ask what tensors there are."""
    return Manifest(tensors=(TensorSpec(name="weight", shape=(1, size)),))


def block_indices(request: StatisticsRequest | None, manifest: Manifest) -> list[slice | NDArray[np.int64]]:
    """Where in a flat vector each block of a request lies; one block of everything if it names none."""
    if request is None or not request.blocks:
        return [slice(None)]
    return [
        np.concatenate([np.arange(manifest.size)[manifest.slice_of(name)] for name in names])
        for names in request.blocks
    ]
