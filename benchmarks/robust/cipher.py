"""A server that sees ciphertexts: what a rule makes of released statistics, and the sum that is opened.

All roles are in this process and use the engine's own functions: clients seal, the server multiplies and
sums, decryptors open. What a network would carry in between are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.robust.verdict import (
    Plain,
    Submissions,
    Verdict,
    arrangement,
    as_model,
    mean_of,
    settled,
    with_root,
    with_root_history,
    with_root_update,
)
from secagg.ckks import (
    CiphertextReader,
    Opener,
    PlainOperand,
    SealedOperand,
    Sealer,
    aggregate_vector,
    generate,
    gram_pairs,
    product_sums,
    profile,
)
from secagg.ckks.bounds import distance_resolution, squared_norm_bias
from secagg.ckks.parameters import HEADER_BYTES
from secagg.ckks.products import Operand, Pair
from secagg.errors import Code, ConfigError
from secagg.rule import Answer, CoordinateRule, Floats, Reason, Rule, Statistics
from secagg.update import Manifest

UNIT = 512
"""Coefficients are summed as multiples of 1/UNIT; twice it is the profile's weight total."""


class Cipher:
    """The server of a federation under profile robust, its clients and one decryptor.

    Raises:
        ConfigError: RULE_UNSUPPORTED for a rule that looks at single coordinates.
    """

    def __init__(self, rule: Rule, manifest: Manifest) -> None:
        if isinstance(rule, CoordinateRule):
            raise ConfigError(Code.RULE_UNSUPPORTED, f"{rule.name} looks at single coordinates: plain only")
        self._rule, self._profile = rule, profile("robust")
        pair = generate(self._profile)
        self._public, self._sealer, self._opener = pair.public, Sealer(pair.secret), Opener(pair.secret)
        self._plain, self._request = Plain(rule, manifest), rule.request(manifest)
        self._server_s = 0.0
        if self._request is None:
            self._take, self._blocks = (lambda vector: vector.astype(np.float64)), []
            self._parts = [np.arange(manifest.size)]
            return
        self._take, self._blocks = arrangement(self._request, manifest)
        order = self._take(np.arange(manifest.size)).astype(np.int64)
        self._parts = [order[block] for block in self._blocks]
        rest = np.setdiff1d(np.arange(manifest.size), order)
        self._parts += [rest] if rest.size else []

    def round(self, submissions: Submissions) -> Verdict:
        """One round: sealed, judged, summed, opened."""
        self._server_s = 0.0
        sealed = [self._sealed(update) for update in with_root_update(submissions)]
        count = len(submissions.updates)
        if self._request is None:
            weights = mean_of(self._rule.settle([], count, submissions.counts).weights)
        else:
            answer = self._judged(sealed, submissions)
            weights = settled(self._rule, answer, with_root(submissions))[:count]
            weights = mean_of(weights) if self._request.models else weights
        gap = float(np.abs(weights - self._plain.weights(submissions)).max())
        whole = np.round(weights * UNIT).astype(np.int64)
        if not whole.any():
            return Verdict(
                model=submissions.base,
                weights=np.zeros(count),
                refused=True,
                server_s=self._server_s,
                weight_gap=gap,
            )
        change = self._summed(sealed[:count], whole)
        if self._request is None or self._request.models:
            # Rounding must not make a mean of something that is none.
            change *= UNIT / whole.sum()
        return Verdict(
            model=as_model(submissions.base + change),
            weights=weights,
            refused=False,
            server_s=self._server_s,
            weight_gap=gap,
        )

    def close(self) -> None:
        """Keys go with the object."""

    def _sealed(self, vector: NDArray[np.floating]) -> list[CiphertextReader]:
        """A vector's parts as a client sends them: the request's blocks, and what no block has."""
        size = self._profile.sealed_ciphertext_bytes

        def reader(data: bytes) -> CiphertextReader:
            view = memoryview(data)[HEADER_BYTES:]
            return lambda index: view[index * size : (index + 1) * size]

        return [reader(self._sealer.seal(vector[part])) for part in self._parts]

    def _judged(self, sealed: Sequence[list[CiphertextReader]], submissions: Submissions) -> Answer:
        """The rule's answer, nothing but norms and references being released of what it screens out."""
        size = len(sealed)
        matrix = np.full((len(self._blocks), size + 2, size + 2), np.nan)
        self._release_singles(matrix, sealed, submissions)
        first = self._rule.screen(self._statistics(matrix, submissions, None))
        kept = first.weights > 0
        if submissions.root is not None:
            kept[-1] = True
        if not first.weights.any():
            return first
        places = np.flatnonzero(kept)
        self._release_pairs(matrix, sealed, [int(place) for place in places])
        history = with_root_history(submissions)
        second = self._rule.decide(
            self._statistics(matrix, submissions, self._gram_of(history, places)).of(kept)
        )
        if not second.weights.any():
            return Answer.refusal(size, Reason(int(second.reasons[0])))
        weights, reasons = np.zeros(size), first.reasons.copy()
        weights[kept], reasons[kept] = second.weights, second.reasons
        return Answer(weights=weights, reasons=reasons)

    def _release_singles(
        self, matrix: Floats, sealed: Sequence[list[CiphertextReader]], submissions: Submissions
    ) -> None:
        """Squared norms, and products with the references, which decryptors know in the clear."""
        size = len(sealed)
        assert self._request is not None
        known = [submissions.base, submissions.before][: self._request.references]
        ordered = [self._take(vector) for vector in known]
        pairs: list[Pair] = [(i, i) for i in range(size)]
        pairs += [(i, size + place) for place in range(len(known)) for i in range(size)]
        for block, where in enumerate(self._blocks):
            operands: list[Operand] = [SealedOperand(reader=parts[block]) for parts in sealed]
            operands += [PlainOperand(values=np.ascontiguousarray(vector[where])) for vector in ordered]
            self._fill(matrix[block], operands, pairs, where.stop - where.start)
            for i, left in enumerate(ordered):
                for j, right in enumerate(ordered):
                    matrix[block, size + i, size + j] = left[where] @ right[where]

    def _release_pairs(
        self, matrix: Floats, sealed: Sequence[list[CiphertextReader]], kept: Sequence[int]
    ) -> None:
        """Products of those kept with each other, or with the root's update only."""
        assert self._request is not None
        pairs = [(kept[i], kept[j]) for i, j in gram_pairs(len(kept)) if i != j]
        if not self._request.pairs:
            root = len(sealed) - 1
            pairs = [pair for pair in pairs if root in pair] if self._request.root else []
        for block, where in enumerate(self._blocks if pairs else []):
            operands = [SealedOperand(reader=parts[block]) for parts in sealed]
            self._fill(matrix[block], operands, pairs, where.stop - where.start)

    def _gram_of(self, history: Floats | None, kept: NDArray[np.int64]) -> Floats | None:
        """The Gram matrix of summed updates; the server would have added their ciphertexts up by itself."""
        if history is None:
            return None
        operands, size = [], history.shape[1]
        for row in history:
            data = memoryview(self._sealer.seal(row))[HEADER_BYTES:]
            step = self._profile.sealed_ciphertext_bytes
            operands.append(SealedOperand(reader=lambda i, d=data, s=step: d[i * s : (i + 1) * s]))
        matrix = np.full((len(history), len(history)), np.nan)
        places = [int(place) for place in kept]
        self._fill(matrix, operands, [(places[i], places[j]) for i, j in gram_pairs(len(places))], size)
        return matrix

    def _fill(self, matrix: Floats, operands: Sequence[Operand], pairs: Sequence[Pair], values: int) -> None:
        """Release and open inner products into their places."""
        started = perf_counter()
        sums = product_sums(operands, pairs, values, self._profile)
        released = [item.release(self._public) for item in sums]
        self._server_s += perf_counter() - started
        for (i, j), scalar in zip(pairs, released, strict=True):
            opened = self._opener.open_scalar(scalar)
            matrix[i, j] = matrix[j, i] = opened - (
                squared_norm_bias(self._profile, values) if i == j else 0.0
            )

    def _statistics(self, matrix: Floats, submissions: Submissions, history: Floats | None) -> Statistics:
        rows = matrix.shape[1] - 2
        return Statistics(
            round=submissions.round,
            update_ids=tuple(f"{i:032x}" for i in range(rows)),
            blocks=matrix,
            sample_counts=with_root(submissions),
            root=None if submissions.root is None else rows - 1,
            history=history,
            resolution=sum(
                distance_resolution(self._profile, len(part)) for part in self._parts[: len(matrix)]
            ),
        )

    def _summed(self, sealed: Sequence[list[CiphertextReader]], whole: NDArray[np.int64]) -> Floats:
        """Σ a_i·u_i with a_i = whole_i/UNIT, summed on ciphertexts and opened."""
        change = np.empty(sum(len(part) for part in self._parts))
        weights = [int(weight) for weight in whole]
        for place, part in enumerate(self._parts):
            readers = [parts[place] for parts in sealed]
            started = perf_counter()
            data = b"".join(aggregate_vector(readers, weights, len(part), self._profile))
            self._server_s += perf_counter() - started
            change[part] = self._opener.open_vector(data, len(part))
        return change * (sum(weights) / UNIT)
