"""A rule for tests of everything around rules: all gates, and then the plain mean of who passed them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from defenses import load_rule
from defenses.gram_rule import GramRule
from secagg.rule import Floats, Rule, Statistics, StatisticsRequest
from secagg.update import Manifest


class Even(GramRule):
    """a_i = 1/n, or one share for all; asks for whatever a test wants released."""

    name = "even"

    def __init__(
        self,
        *,
        share: float = 0,
        references: float = 0,
        history: float = 0,
        root: float = 0,
        screened: float = 1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.share = share
        self.references, self.history, self.root = int(references), bool(history), bool(root)
        self.screened = bool(screened)

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """Pairs, and what the parameters say."""
        request = super().request(manifest)
        assert request is not None
        return replace(
            request,
            references=self.references,
            history=self.history,
            root=self.root,
            screened=self.screened,
        )

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """The mean of those that are no root."""
        size = statistics.size
        weights = np.full(size, self.share or 1.0 / (size - (statistics.root is not None)))
        if statistics.root is not None:
            weights[statistics.root] = 0.0
        return weights


def rules(name: str) -> Rule:
    """``even:PARAMETER=VALUE,…``, and what ``defenses`` has."""
    base, _, text = name.partition(":")
    if base != Even.name:
        return load_rule(name)
    items = (item.partition("=") for item in text.split(",") if item)
    return Even(**{key: float(value) for key, _, value in items})
