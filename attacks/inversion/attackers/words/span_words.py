"""Which of the words in a span occur, when more lie in it than can."""

from __future__ import annotations

import time
from collections import Counter

import torch

from attacks.inversion.attackers.words.same_sentence import affinities
from attacks.inversion.attackers.words.text_layers import AttentionLayer, read_by
from attacks.inversion.exposure import Exposure

INDEPENDENT = 1e-6
"""Part of a unit vector outside a span from which on it adds to it."""
APART = 1e-6
"""Affinity below which two words never met; above it, everything is mixed."""


class SpanWords:
    """Words at their positions whose h are linearly independent together: a basis of the span.

    Before layer normalisation h is e_v + P_p, so with words u, v at position p and v at q, u at q lies in
    the span as well: any spanning tree of the graph of words and positions explains the first layer's
    gradient. Only the right one explains it by attention within sentences, so words are exchanged as
    long as more affinities vanish (``affinities``).

    Args:
        exposure: of B sentences.
        layer: the first one.
        choices: words in the span, per position.
    """

    def __init__(self, exposure: Exposure, layer: AttentionLayer, choices: list[list[int]]) -> None:
        self.exposure, self.layer, self.size, self.length = exposure, layer, exposure.batch_size, len(choices)
        self.pairs = [(p, word) for p, words in enumerate(choices) for word in words]
        read = []
        for p, words in enumerate(choices):
            tokens = torch.tensor(words, device=exposure.victim.device)[:, None].expand(-1, self.length)
            read.append(read_by(exposure.victim, exposure.parameters, layer, tokens)[:, p])
        self.read = torch.cat(read)
        self.kept = self._first(choices)

    def _first(self, choices: list[list[int]]) -> list[int]:
        """At most B per position; positions without surplus first, and words that can't stand elsewhere."""
        often = Counter(word for words in choices for word in words)
        kept: list[int] = []
        basis = self.read.new_zeros(0, self.read.shape[1])
        for i in sorted(
            range(len(self.pairs)),
            key=lambda i: (len(choices[self.pairs[i][0]]) > self.size, often[self.pairs[i][1]]),
        ):
            rest = self.read[i] / self.read[i].norm()
            for _ in range(2):  # twice is enough for orthogonality to rounding
                rest = rest - (rest @ basis.T) @ basis
            if float(rest.norm()) > INDEPENDENT and self._count(kept, self.pairs[i][0]) < self.size:
                basis = torch.cat([basis, (rest / rest.norm())[None]])
                kept.append(i)
        return kept

    def _count(self, kept: list[int], p: int) -> int:
        return sum(self.pairs[i][0] == p for i in kept)

    def affinity(self, kept: list[int]) -> torch.Tensor:
        """Of these words, [n, n]."""
        return affinities(self.exposure, self.layer, self.read[kept])

    def exchanged(self, attempts: int, deadline: float) -> None:
        """Exchange words, at most so often, while the affinities become fewer."""
        mixed = self._mixed(self.kept)
        improved = True
        while improved:
            improved = False
            for new in range(len(self.pairs)):
                for trial in self._trials(new):
                    if attempts <= 0 or time.monotonic() > deadline:
                        return
                    attempts -= 1
                    value = self._mixed(trial)
                    if value < mixed:
                        self.kept, mixed, improved = trial, value, True
                        break

    def _mixed(self, kept: list[int]) -> float:
        """Share of affinities that don't vanish; positions without a word count as a mixture of all."""
        missing = sum(self._count(kept, p) == 0 for p in range(self.length))
        return float((self.affinity(kept) > APART).to(torch.float64).mean()) + missing

    def _trials(self, new: int) -> list[list[int]]:
        """What the words can be once this one is among them, in place of one that it depends on."""
        if new in self.kept:
            return []
        p, vector = self.pairs[new][0], self.read[new]
        room = self._count(self.kept, p) < self.size
        parts = torch.linalg.lstsq(self.read[self.kept].T, vector[:, None]).solution[:, 0]
        if float((self.read[self.kept].T @ parts - vector).norm()) > INDEPENDENT * float(vector.norm()):
            return [[*self.kept, new]] if room else []
        return [
            [*(k for k in self.kept if k != old), new]
            for old, part in zip(self.kept, parts.tolist(), strict=True)
            if abs(part) > INDEPENDENT and (room or self.pairs[old][0] == p)
        ]

    def words(self) -> tuple[list[list[int]], torch.Tensor]:
        """Per position, and the affinity of all, position by position; a position without any has none."""
        order = sorted(self.kept)
        found: list[list[int]] = [[] for _ in range(self.length)]
        for i in order:
            found[self.pairs[i][0]].append(self.pairs[i][1])
        return found, self.affinity(order)
