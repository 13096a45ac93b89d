"""Which domain a cell is played in, and byzfl's rules as one of them."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from benchmarks.peers import byzfl_rules
from benchmarks.robust.cell import Cell
from benchmarks.robust.cipher import Cipher
from benchmarks.robust.verdict import Domain, Plain, Submissions, Verdict, as_model
from defenses import load_rule
from secagg.rule import CoordinateRule
from secagg.update import Manifest


class Byzfl:
    """byzfl's aggregator of the same name on the same updates, in float64."""

    def __init__(self, rule: str, malicious: int) -> None:
        self._aggregate = byzfl_rules.aggregator(rule, malicious)

    def round(self, submissions: Submissions) -> Verdict:
        """One round; the updates are a copy, as byzfl may change them."""
        started = perf_counter()
        change = self._aggregate(submissions.updates.astype(np.float64))
        model = as_model(submissions.base + change)
        return Verdict(model=model, weights=None, refused=False, server_s=perf_counter() - started)

    def close(self) -> None:
        """There is nothing to let go of."""


def domain_of(cell: Cell, manifest: Manifest) -> Domain:
    """Where the cell's rule sees updates.

    Raises:
        ConfigError: as ``load_rule`` and ``Cipher``.
    """
    if cell.domain == "byzfl":
        return Byzfl(cell.resolved_rule, cell.assumed)
    rule = load_rule(cell.resolved_rule)
    return Cipher(rule, manifest) if cell.domain == "cipher" else Plain(rule, manifest)


def warm_domain_of(cell: Cell, manifest: Manifest) -> Domain:
    """Where rounds before the attack are played: in the clear, which gives the same up to rounding."""
    if cell.domain == "byzfl":
        return domain_of(cell, manifest)
    return Plain(load_rule(cell.resolved_rule), manifest)


def possible(rule: str, domain: str) -> bool:
    """True if there is such a cell: no coordinate rule on ciphertexts, none that byzfl does not have."""
    if domain == "byzfl":
        return byzfl_rules.known(rule)
    return domain == "plain" or not isinstance(load_rule(rule.replace("{f}", "0")), CoordinateRule)
