"""Which words stand in one sentence: those that attended to one another."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from attacks.inversion.attackers.words.text_layers import AttentionLayer
from attacks.inversion.exposure import Exposure

FAINT = 1e-3
"""Relative to the largest: weaker gradients count in proportion only."""


def affinities(exposure: Exposure, layer: AttentionLayer, read: torch.Tensor) -> torch.Tensor:
    """How much of each word's key gradient is made of each other word's query, and the reverse; [n, n].

    With S the attention scores of one head, ∂L/∂k_t = Σ_u (∂L/∂S_ut)·q_u/√width, and u runs over t's own
    sentence only. The words' h_t are known here, so their queries q_t and keys k_t are, and from
    G = Σ_t h_t·δ_tᵀ the δ_t = (∂L/∂q_t, ∂L/∂k_t) follow by least squares. What
    multiples of which q_u a δ_t consists of then says who is in its sentence: no network has to be run.
    Unique while there are no more words than a head is wide.

    Args:
        exposure: where the layer's gradient is seen in part, columns of at least n seen entries are used.
        layer: the first one.
        read: h of n words at their positions, independent, [n, width].
    """
    queries, keys, _ = layer.projected(exposure, read)
    width, count = queries.shape[1], len(read)
    values, seen = (sides[:, : 2 * width] for sides in layer.gradient(exposure))
    deltas = values.new_full((count, values.shape[1]), float("nan"))
    whole = seen.all(dim=0)
    if bool(whole.any()):
        deltas[:, whole] = torch.linalg.lstsq(read.T, values[:, whole]).solution
    for column in torch.nonzero(~whole & (seen.sum(dim=0) >= count)).flatten().tolist():
        rows = seen[:, column]
        deltas[:, column] = torch.linalg.lstsq(read.T[rows], values[rows, column, None]).solution[:, 0]
    total, tiny = read.new_zeros(count, count), torch.finfo(read.dtype).tiny
    for gradient, partner in ((deltas[:, width : 2 * width], queries), (deltas[:, :width], keys)):
        for head in torch.arange(width, device=read.device).chunk(layer.heads(exposure.victim)):
            known = head[~gradient[0, head].isnan()]
            if len(known) < count:
                continue
            # δ = M·Q: rows of M are over the words' queries.
            made_of = torch.linalg.lstsq(partner[:, known].T, gradient[:, known].T).solution.T.abs()
            # A word that attends to itself alone, as a decoder's first, has no query gradient but rounding.
            largest = made_of.amax(dim=1, keepdim=True)
            total += made_of / largest.clamp(min=FAINT * float(largest.max()) + tiny)
    return total + total.T


def sentences(choices: list[list[int]], affinity: torch.Tensor, size: int) -> list[list[int]]:
    """B sentences of one word per position, each word with those it is nearest to.

    Positions with B words come first; at each next one words are shared out so that their affinity
    to what the sentences hold already is largest, every word once at least, as far as
    there are sentences for it.

    Args:
        choices: words per position; one without any stays word 0.
        affinity: of all of them, position by position, [n, n].
        size: B.
    """
    starts = [sum(len(words) for words in choices[:p]) for p in range(len(choices))]
    order = sorted(
        (p for p in range(len(choices)) if choices[p]), key=lambda p: (abs(size - len(choices[p])), p)
    )
    held: list[list[int]] = [[] for _ in range(size)]
    chosen = [[0] * len(choices) for _ in range(size)]
    for p in order:
        places = range(starts[p], starts[p] + len(choices[p]))
        near = torch.stack([affinity[list(places)][:, row].sum(dim=1) for row in held])
        picks = [int(row.argmax()) for row in near]
        rows, columns = linear_sum_assignment(near.cpu().numpy(), maximize=True)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            picks[row] = column
        for s, pick in enumerate(picks):
            held[s].append(starts[p] + pick)
            chosen[s][p] = choices[p][pick]
    return chosen
