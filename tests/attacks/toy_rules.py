"""Rules of a few lines, to try attackers on that know the rule."""

import numpy as np

from defenses.gram_rule import GramRule
from secagg.rule import Answer, StatisticsRequest


class Gated(GramRule):
    """The mean of what passes the gates."""

    name = "gated"

    def coefficients(self, statistics, f):
        return np.full(statistics.size, 1 / statistics.size)


class Near(GramRule):
    """The mean of the n − f updates with the smallest sum of squared distances."""

    name = "near"
    inequality = "n ≥ 2f + 1"

    def least(self, f):
        return 2 * f + 1

    def coefficients(self, statistics, f):
        sums = statistics.squared_distances.sum(axis=1)
        kept = np.zeros(statistics.size)
        kept[np.argsort(sums)[: statistics.size - f]] = 1 / (statistics.size - f)
        return kept


class Alike(GramRule):
    """Mean of those at less than 75° to the models' last tensor; looks at nothing but that."""

    name = "alike"

    def request(self, manifest):
        return StatisticsRequest(blocks=((manifest.tensors[-1].name,),), references=1, screened=True)

    def coefficients(self, statistics, f):
        norms = np.sqrt(np.maximum(statistics.squared_norms * statistics.reference_norm, 1e-30))
        kept = statistics.reference_dots / norms > np.cos(np.deg2rad(75))
        return kept / max(kept.sum(), 1)


class Rooted(GramRule):
    """Each update as far as it points where the root update does."""

    name = "rooted"

    def request(self, manifest):
        return StatisticsRequest(root=True, screened=True)

    def coefficients(self, statistics, f):
        norms = np.sqrt(statistics.squared_norms)
        alike = np.maximum(statistics.gram[statistics.root] / (norms * norms[statistics.root]), 0)
        alike[statistics.root] = 0
        return alike / max(alike.sum(), 1e-9)


class Sybils(Near):
    """As ``Near``, on what clients have sent so far."""

    name = "sybils"

    def request(self, manifest):
        return StatisticsRequest(history=True, screened=True)

    def coefficients(self, statistics, f):
        norms = np.diagonal(statistics.history)
        cosines = statistics.history / np.sqrt(np.outer(norms, norms)) - 2 * np.eye(len(norms))
        kept = cosines.max(axis=1) < 0.8
        return kept / max(kept.sum(), 1)


class Closed(Gated):
    """Nobody passes."""

    def decide(self, statistics):
        return Answer.refusal(statistics.size, 4)


class Unasked:
    """What rules have in common that open nothing."""

    majority = False

    def request(self, manifest):
        return None

    def require(self, clients):
        pass

    def screen(self, statistics):
        return Answer.of(np.ones(statistics.size))

    decide = screen


class Average(Unasked):
    """Weights are the sample counts."""

    name = "average"

    def settle(self, answers, voters, sample_counts):
        return Answer.of(sample_counts / sample_counts.sum())


class Middle(Unasked):
    """The median of each coordinate."""

    name = "middle"

    def settle(self, answers, voters, sample_counts):
        return Answer.of(np.ones(len(sample_counts)))

    def combine(self, values):
        return np.median(values, axis=0)
