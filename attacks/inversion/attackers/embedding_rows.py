"""Read the words off the rows of the word embeddings' gradient that aren't zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.words.text_fit import labels_that_fit
from attacks.inversion.attackers.words.text_layers import position_name, reads_text
from attacks.inversion.exposure import Exposure
from attacks.inversion.victims.transformer import embedding_name

SAME = 1e-4
"""By how much, relative to their size, two rows may differ that are sums of the same numbers."""


@dataclass(slots=True, kw_only=True)
class EmbeddingRows:
    """∂L/∂E_v = Σ over the places where word v stands of ∂L/∂e: zero for all words that don't occur.

    So the update lists the batch's words (Melis, Song, De Cristofaro, Shmatikov, arXiv 1805.04049, §4).
    An attacker that knows of the mask reads hidden rows, too (``words_that_occur``).

    The order follows, for a single sentence, from the position embeddings: ∂L/∂P_p = ∂L/∂e_p, so a word's
    row is the sum of the rows of its positions. Of several sentences only the words are found; which of
    them go together, and in which order, is a guess.
    """

    name: str = "embedding-rows"

    def unsuited(self, exposure: Exposure) -> str:
        """Needs token ids and trained word embeddings."""
        return "" if reads_text(exposure.victim) else "needs a victim that learns word embeddings"

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """The words, in order if it is one sentence; places that nothing is known of get any of them."""
        del seed, budget  # nothing is drawn, nothing goes on
        victim, (length,) = exposure.victim, exposure.victim.shape
        values, hidden = _rows(exposure, embedding_name(victim))
        words = words_that_occur(values, hidden, at_most=exposure.batch_size * length)
        positions = position_name(victim)
        if exposure.batch_size == 1 and positions is not None and len(words):
            places, shut = _rows(exposure, positions)
            tokens = in_order(values[words], hidden[words], places[:length], shut[:length])
            sentences = words[tokens][None]
        else:
            filled = words if len(words) else torch.zeros(1, dtype=torch.int64, device=values.device)
            count = exposure.batch_size * length
            # Position by position, so that every sentence gets its share of the strongest words.
            sentences = filled.repeat(-(-count // len(filled)))[:count].view(length, -1).T
        labels, error = labels_that_fit(exposure, sentences)
        return Reconstruction(
            inputs=sentences, labels=labels, loss=error, iterations=1, detail=f"words={len(words)}"
        )


def _rows(exposure: Exposure, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    values, hidden = exposure.of_tensor(name)
    return values, hidden if exposure.aware else torch.zeros_like(hidden)


def words_that_occur(values: torch.Tensor, hidden: torch.Tensor, *, at_most: int) -> torch.Tensor:
    """Words whose rows aren't zero, strongest first, and after them those whose rows are hidden; int64 [n].

    A row with a visible entry is decided by it. A row that is wholly hidden occurs if entries were hidden by
    their size; then zeros are hidden only once nothing else is left, the first ones first, so that
    hidden rows at the very beginning say nothing, unless all of them together are few enough to occur. More
    hidden rows than words can occur were hidden for another reason, and say nothing, either.

    Args:
        values: gradient of the word embeddings, [vocabulary, width], 0 where hidden.
        hidden: where it is; all False for attackers that don't know.
        at_most: how many words can occur.
    """
    strength = values.abs().amax(dim=1)
    sure = torch.nonzero(strength > 0).flatten()
    sure = sure[strength[sure].argsort(descending=True)][:at_most]
    shut = hidden.all(dim=1)
    if int(shut.sum()) > at_most - len(sure):
        beginning = int((~shut).to(torch.int64).argmax()) if not bool(shut.all()) else len(shut)
        shut = shut.clone()
        shut[:beginning] = False
    rest = torch.nonzero(shut).flatten()
    return torch.cat([sure, rest]) if len(rest) <= at_most - len(sure) else sure


def in_order(
    words: torch.Tensor, words_hidden: torch.Tensor, places: torch.Tensor, places_hidden: torch.Tensor
) -> torch.Tensor:
    """Which word stands at each position: the one whose row is the position's; int64 [positions].

    A word's row that equals none is a sum of several. Rows are compared where both are seen. Where nothing
    is, equal rows have the same entries hidden. Words left over get the places left over, in any order.

    Args:
        words, words_hidden: rows of the words that occur, [n, width].
        places, places_hidden: rows of the positions, [positions, width].
    """
    both = ~words_hidden[:, None] & ~places_hidden[None]
    size = words.square().mean(dim=1).clamp(min=torch.finfo(words.dtype).tiny)
    gaps = ((words[:, None] - places[None]) * both).square().sum(dim=2)
    gaps = gaps / both.sum(dim=2).clamp(min=1) / size[:, None]
    masks = (words_hidden[:, None] ^ places_hidden[None]).to(words.dtype).mean(dim=2)
    blind = both.sum(dim=2) == 0
    costs = torch.where(blind, masks, gaps + masks * SAME**2)
    chosen = costs.argmin(dim=0)
    unsure = costs.amin(dim=0) > SAME
    # A mask without a hidden or visible place of its own looks like every other one.
    unsure |= blind.all(dim=0) & ((costs == costs.amin(dim=0)).sum(dim=0) > 1)
    left = [p for p in range(len(places)) if bool(unsure[p])]
    unused = [word for word in range(len(words)) if word not in set(chosen[~unsure].tolist())]
    missing = []
    for word in unused:
        summands = _summands(words[word], words_hidden[word], places, places_hidden, left)
        chosen[summands] = word
        left = [p for p in left if p not in summands]
        missing += [] if summands else [word]
    # Words that occur somewhere come before words that have a place already.
    for p, word in zip(left, missing, strict=False):
        chosen[p] = word
    return chosen


def _summands(
    row: torch.Tensor, hidden: torch.Tensor, places: torch.Tensor, shut: torch.Tensor, among: list[int]
) -> list[int]:
    """The positions whose rows sum to this one: least squares, with weights near 1."""
    if not among:
        return []
    seen = ~hidden & ~shut[among].any(dim=0)
    if int(seen.sum()) < len(among):
        return []
    weights = torch.linalg.lstsq(places[among][:, seen].T, row[seen, None]).solution[:, 0]
    return [p for p, weight in zip(among, weights.tolist(), strict=True) if abs(weight - 1) < 0.1]
