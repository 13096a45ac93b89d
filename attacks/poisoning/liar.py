"""Liar: an honest update, and a false answer to the round's statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning.attack import Attack, Updates, View
from attacks.poisoning.rehearsal import block_indices, one_tensor
from secagg.rule import Answer, CoordinateRule, Floats, Rule, Statistics, StatisticsRequest
from secagg.update import Manifest

LIKENESS = 1e-2
"""How far, as a share, a released squared norm may be from a member's own to be taken for it."""


class Liar(Attack):
    """Members vote for their own updates and against all others; what they send is honest.

    Ballots name updates by numbers that members don't know of each other, so they find theirs by squared
    norms. All of them find the same and so give the same answer, to the last bit, as a majority of them
    must to be believed.

    >>> from secagg.rule import statistics_of
    >>> from defenses import load_rule
    >>> updates = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    >>> liar = Liar()
    >>> view = View(base=np.zeros(2, np.float32), own=updates[:1], clients=3, rule=load_rule("mean"))
    >>> _ = liar.forge(view, np.random.default_rng(0))
    >>> liar.voter(load_rule("mean")).decide(statistics_of(updates)).weights.tolist()
    [1.0, 0.0, 0.0]
    """

    name = "liar"
    takes_strength = False

    def __init__(self, strength: float | None = None) -> None:
        super().__init__(strength)
        self._round = 0
        self._squared_norms = np.zeros(0)

    def forge(self, view: View, generator: np.random.Generator) -> Updates:
        """The members' honest updates; their norms are remembered for the ballot."""
        manifest = view.manifest or one_tensor(view.base.size)
        request = view.rule.request(manifest) if view.rule is not None else None
        own = np.asarray(view.own, dtype=np.float64)
        parts = [own[:, block] for block in block_indices(request, manifest)]
        self._squared_norms = np.sum([np.square(part).sum(axis=1) for part in parts], axis=0)
        self._round = view.round
        return super().forge(view, generator)

    def voter(self, rule: Rule) -> Rule:
        """The rule with false answers; itself where nobody is asked."""
        return rule if isinstance(rule, CoordinateRule) else LyingRule(rule, self)

    def members(self, statistics: Statistics) -> NDArray[np.bool_]:
        """Which of the updates are the coalition's, bool [n]; none if the statistics are another round's."""
        found = np.zeros(statistics.size, dtype=np.bool_)
        if statistics.round != self._round:
            return found
        squared = statistics.squared_norms
        for norm in self._squared_norms:
            apart = np.abs(squared - norm)
            if np.isfinite(apart).any() and np.nanmin(apart) <= LIKENESS * norm:
                found[int(np.nanargmin(apart))] = True
        return found


class LyingRule:
    """Another rule, with false answers: the coalition's updates count alike, others not at all.

    Where it finds none of the coalition it answers as the rule does.
    """

    def __init__(self, rule: Rule, liar: Liar) -> None:
        self._rule, self._liar = rule, liar
        self._screened = 0
        """The last round whose screening was lied about."""

    @property
    def name(self) -> str:
        """The rule's."""
        return self._rule.name

    @property
    def majority(self) -> bool:
        """The rule's."""
        return self._rule.majority

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """The rule's."""
        return self._rule.request(manifest)

    def require(self, clients: int) -> None:
        """The rule's."""
        self._rule.require(clients)

    def screen(self, statistics: Statistics) -> Answer:
        """Only the coalition passes; asked once more, the truth: a client that goes on with the round holds
        its second stage against it.
        """
        if statistics.round == self._screened:
            return self._rule.screen(statistics)
        self._screened = statistics.round
        found = self._liar.members(statistics)
        return Answer.of(found.astype(np.float64)) if found.any() else self._rule.screen(statistics)

    def decide(self, statistics: Statistics) -> Answer:
        """The coalition's mean by sample counts, as any rule could answer."""
        found: Floats = np.where(self._liar.members(statistics), statistics.sample_counts, 0).astype(
            np.float64
        )
        return Answer.of(found / found.sum()) if found.any() else self._rule.decide(statistics)

    def settle(self, answers: Sequence[Answer], voters: int, sample_counts: NDArray[np.int64]) -> Answer:
        """The rule's."""
        return self._rule.settle(answers, voters, sample_counts)
