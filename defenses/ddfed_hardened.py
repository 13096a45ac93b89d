"""DDFed with its blind spots closed: signs and lengths count, and one function decides for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from defenses.geometry import cosines
from defenses.gram_rule import Common, GramRule
from defenses.norm_clipping import clipped
from secagg.errors import Code, ConfigError
from secagg.rule import Answer, Floats, Reason, Statistics, StatisticsRequest
from secagg.update import Manifest

COUNT_RANGE = 3.0
"""Sample counts beyond so many times the median (or below its share) explain no longer (shorter) updates."""
CLEARLY, SHARE = 0.05, 0.2
"""A direction is kept beyond the larger of this sum of cosines and this share of the median sum."""
AGAINST, HEAD_AGAINST = 0.35, 0.75
"""Cosine with the others, and sum of the last layer's, that no hint makes up for if it is negative."""
GUIDED = 0.15
"""Hints of at least this median say clearly where training goes."""
DEVIATIONS, LENGTH_DEVIATIONS, MAD_TO_DEVIATION = 2.5, 3.0, 1.4826
_CROWDING = 4


class DDFedHardened(GramRule):
    """DDFed's idea, similarity to where training goes (arXiv 2502.05547), in a form that can be trusted.

    Gates first (``GramRule``). Then, with n_i the sample counts and all medians over the updates that are
    left:

    1. *Length.* Training on n_i samples moves a model about √n_i far. u_i is dropped if ‖u_i‖/√n_i exceeds
       ``length`` medians, n_i cut to [1/3, 3] times its median. So a scaled update of a small client stands
       out though a large client's own may be as long.
    2. *Direction.* Three cosines are added: with the consensus of the others, with the last step g − g', and
       with g (training a network lengthens it). The latter two are hints that count if their medians are
       positive, up to them: g and g' are public, and an attacker can point along them. The worst is dropped,
       if its sum is not above max(0.05, median/5) or its cosine with the consensus not above −0.35, and the
       sums are taken anew without it, until all are. Where hints are weak (after the first round, median sum
       below 0.15: few of many clients take part in a round, or their data have little in common), honest sums
       straddle 0: the least is lowered to 2.5 deviations below the median, and lengths may be three
       deviations of their logarithm above it. Deviations are 1.4826 median absolute ones.
    3. *The last layer by itself* must not point against the others': the same sum above −0.75·max(1, median).
    4. a_i = p_i·min(1, median ‖u_j‖/‖u_i‖), with p_i ∝ min(n_i, 2·median n) of sum 1.

    The consensus is Σ_j e_j·u_j/‖u_j‖ with e_j = 1/Σ_k max(0, cos(u_j, u_k))⁴: those who all say the same
    have one voice together, as a coalition's members do (honest updates are never that alike). Consensus
    and g are compared outside the last layer, which under label skew points to each client's own labels.

    What it does not see: an attacker that stays within the honest spread (ALIE; Baruch et al., NeurIPS 2019,
    arXiv 1902.06635), and a part that is small in length. Changes when all updates are shifted alike.

    Args:
        length: how many medians of ‖u_i‖/√n_i are too many; at least 1.

    Raises:
        ConfigError: CONFIG_INVALID for a value out of range.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> generator = np.random.default_rng(0)
    >>> updates = 1 + generator.normal(size=(6, 50))
    >>> updates[4] *= 4                                      # a client that scales
    >>> updates[5] *= -1                                     # and one that turns around
    >>> answer = DDFedHardened().judged(statistics_of(updates), 2)
    >>> [Reason(reason).name for reason in answer.reasons]
    ['KEPT', 'KEPT', 'KEPT', 'KEPT', 'NORM', 'UNLIKE']
    """

    name = "ddfed-hardened"
    mixable = False
    references = 2
    inequality = "n ≥ 2f + 1"

    def __init__(self, *, length: float = 2.5, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.require_that(length >= 1, f"length = {length} must be at least 1")
        self.require_that(
            not self.layers, "layers = 1 has no use: the last layer is always looked at by itself"
        )
        self._length = length

    def least(self, f: int) -> int:
        """Medians need more than half; what is summed must not be too few."""
        return max(2 * f + 1, f + self.fewest)

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """Pairs, g and g', over the last layer and over all before it.

        Raises:
            ConfigError: RULE_UNSUPPORTED if the model has no tensor at all.
        """
        names = [spec.name for spec in manifest.tensors]
        if not names:
            raise ConfigError(Code.RULE_UNSUPPORTED, f"{self.name} compares weights; the model has none")
        matrices = [spec.name for spec in manifest.tensors if len(spec.shape) >= 2]
        layer = (matrices or names)[-1]
        stem = layer.rpartition(".")[0] or layer
        head = tuple(name for name in names if (name.rpartition(".")[0] or name) == stem)
        body = tuple(name for name in names if name not in head)
        return StatisticsRequest(
            blocks=(body, head) if body else (), pairs=True, references=2, screened=True, sample=self.sample
        )

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """a_i of those that are kept, 0 of others."""
        return self.judged(statistics, f).weights

    def judged(self, statistics: Statistics, f: int) -> Answer:  # noqa: ARG002
        """a_i, and NORM or UNLIKE for those that are dropped."""
        size, counts = statistics.size, np.maximum(statistics.sample_counts.astype(np.float64), 0.0)
        norms = np.sqrt(np.maximum(statistics.squared_norms, 0.0))
        middle = float(np.median(counts)) or 1.0
        relative = norms / np.sqrt(np.clip(counts, middle / COUNT_RANGE, middle * COUNT_RANGE))
        body, whole = statistics.blocks[0], statistics.blocks.sum(axis=0)
        everyone = np.ones(size, dtype=np.bool_)
        guidance = _hints((_with_base(body), _with_last_step(whole)), everyone)
        # In the first round nothing has been learned that could guide: there the others must do.
        clear = not _last_step(whole) > 0 or bool(np.median(guidance) >= GUIDED)
        lengths = np.log(np.maximum(relative, np.finfo(np.float64).tiny))
        surplus = lengths - np.median(lengths)
        most = 0.0 if clear else LENGTH_DEVIATIONS * MAD_TO_DEVIATION * float(np.median(np.abs(surplus)))
        reasons = np.full(size, Reason.KEPT, dtype=np.uint8)
        reasons[surplus > max(np.log(self._length), most)] = Reason.NORM
        kept = self._agreeing(statistics, reasons == Reason.KEPT, clear=clear)
        reasons[(reasons == Reason.KEPT) & ~kept] = Reason.UNLIKE
        if not kept.any():
            return Answer.of(np.zeros(size), reasons)
        capped = np.minimum(counts, 2 * middle) * kept
        total = capped.sum()
        shares = capped / total if total > 0 else kept / kept.sum()
        return Answer.of(shares * clipped(norms, float(np.median(norms[kept]))), reasons)

    def _agreeing(
        self, statistics: Statistics, candidates: NDArray[np.bool_], *, clear: bool
    ) -> NDArray[np.bool_]:
        """Who of the candidates points where the others point."""
        kept, body, size = candidates.copy(), statistics.blocks[0], statistics.size
        whole, head = statistics.blocks.sum(axis=0), statistics.blocks[-1]
        alike = cosines(body[:size, :size])
        hints = _hints((_with_base(body), _with_last_step(whole)), candidates)
        while kept.any():
            others = _with_others(alike, kept)
            sums = others + hints
            bad = kept & ((sums <= _least(sums[kept], clear=clear)) | (others <= -AGAINST))
            if not bad.any():
                break
            kept[np.flatnonzero(bad)[sums[bad].argmin()]] = False
        if kept.any() and len(statistics.blocks) > 1:
            sums = _with_others(cosines(head[:size, :size]), kept)
            sums = sums + _hints((_with_base(head), _with_last_step(head)), kept)
            kept &= sums > -max(HEAD_AGAINST, HEAD_AGAINST * float(np.median(sums[kept])))
        return kept


def _hints(hints: Sequence[Floats], candidates: NDArray[np.bool_]) -> Floats:
    """The sum of those hints that most candidates follow, each up to its median; float64 [n]."""
    found = np.zeros(len(candidates))
    for hint in hints:
        middle = float(np.median(hint[candidates])) if candidates.any() else 0.0
        if middle > 0:
            found += np.minimum(hint, middle)
    return found


def _least(sums: Floats, *, clear: bool) -> float:
    """What a sum of cosines must exceed."""
    middle = float(np.median(sums))
    clearly = max(CLEARLY, SHARE * middle)
    spread = MAD_TO_DEVIATION * float(np.median(np.abs(sums - middle)))
    return clearly if clear else min(clearly, middle - DEVIATIONS * spread)


def _with_others(alike: Floats, kept: NDArray[np.bool_]) -> Floats:
    """cos(u_i, Σ_j e_j·u_j/‖u_j‖), the sum over the kept ones besides i; float64 [n].

    Args:
        alike: cosines of pairs, float64 [n, n].
    """
    crowd = (np.maximum(alike, 0.0) ** _CROWDING).sum(axis=1)
    voices = kept / np.maximum(crowd, 1e-12)
    pulls = alike @ voices
    own = voices * np.diagonal(alike)
    # Without i itself: ‖Σ_j − e_i û_i‖² = ‖Σ_j‖² − 2e_i⟨û_i, Σ_j⟩ + e_i².
    squared = voices @ pulls - 2 * voices * pulls + voices * own
    lengths = np.sqrt(np.maximum(squared, 0.0))
    return np.asarray(np.divide(pulls - own, lengths, out=np.zeros_like(pulls), where=lengths > 1e-6))


def _with_base(block: Floats) -> Floats:
    """cos(u_i, g), float64 [n]; 0 where either vanishes."""
    size = len(block) - 2
    return _quotients(block[:size, size], np.diagonal(block)[:size], block[size, size])


def _with_last_step(block: Floats) -> Floats:
    """cos(u_i, g − g'), float64 [n]; 0 where either vanishes, as g − g' does in the first round."""
    size = len(block) - 2
    products = block[:size, size] - block[:size, size + 1]
    return _quotients(products, np.diagonal(block)[:size], _last_step(block))


def _last_step(block: Floats) -> float:
    """‖g − g'‖²; 0 in the first round."""
    size = len(block) - 2
    length = float(block[size, size] - 2 * block[size, size + 1] + block[size + 1, size + 1])
    # Models are float32: what is left of equal ones is not a step.
    return length if length > 1e-12 * block[size, size] else 0.0


def _quotients(products: Floats, squared: Floats, reference: float) -> Floats:
    lengths = np.sqrt(np.maximum(squared, 0.0) * max(reference, 0.0))
    return np.asarray(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))
