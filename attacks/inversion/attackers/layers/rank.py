"""What follows of a linear layer's gradient from its rank, in the place of hidden entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from attacks.inversion.attackers.layers.completion import complete
from attacks.inversion.attackers.layers.linear import LinearLayer, closed, linear_layers, precision
from attacks.inversion.exposure import Exposure

STARTS = 4
ITERATIONS = 100
FINEST = 1e-11
ROUNDING = 2
"""A fit leaves a residual of no more than so many times what visible values are uncertain by."""


def completed(
    exposure: Exposure,
    *,
    seed: int,
    starts: int = STARTS,
    iterations: int = ITERATIONS,
    layers: Sequence[LinearLayer] | None = None,
) -> Exposure:
    """The same exposure with all that follows from the rank of linear layers' gradients made visible.

    [∂L/∂W | ∂L/∂b] = Σ_s δ_s·[a_s | 1]ᵀ has rank ≤ B·positions, times epochs unless a_s is the sample
    itself, and the columns of the logits' layer sum to 0. Entries stay hidden if visible ones don't determine
    them; no entry of other layers changes. Any attacker can go on with the result. An attacker that does not
    know of the mask sees nothing missing: its exposures come back as they are.

    Args:
        seed: of the starting points.
        starts: per layer, at least 2.
        iterations: of each start at most.
        layers: which to complete; None for all of ``linear_layers``.
    """
    if not exposure.aware:
        return exposure
    visible, hidden = exposure.visible, exposure.hidden
    for layer in linear_layers(exposure.victim) if layers is None else layers:
        values, seen = layer.gradient(exposure)
        if seen.all() or not seen.any():
            continue
        start = seen
        if layer.gives_logits and layer.positions == 1:
            values, seen = closed(values, seen)
        rank = _rank(layer, exposure)
        if rank < min(values.shape) and not seen.all():
            tolerance = max(FINEST, ROUNDING * precision(exposure, layer))
            found = complete(
                values,
                seen,
                rank=rank,
                seed=seed,
                starts=starts,
                iterations=iterations,
                tolerance=tolerance,
                agreement=max(1e-6, 1e3 * tolerance),
            )
            values, seen = found.values, found.known
        if not torch.equal(start, seen):
            visible = layer.written(visible, torch.where(seen, values, 0.0), exposure.victim)
            hidden = layer.written(hidden, ~seen, exposure.victim)
    earlier = tuple(
        completed(round, seed=seed, starts=starts, iterations=iterations, layers=layers)
        for round in exposure.earlier
    )
    return replace(exposure, visible=visible, hidden=hidden, earlier=earlier)


def _rank(layer: LinearLayer, exposure: Exposure) -> int:
    # What later layers read changes from epoch to epoch; samples don't.
    epochs = 1 if layer.reads_sample else exposure.training.epochs
    return exposure.batch_size * layer.positions * epochs
