"""Which labels an update gives away by itself, whoever attacks: a row's figures of every sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from attacks.inversion.attackers.labels import labels_from_last_layer, labels_from_mask
from attacks.inversion.batch import Batch
from attacks.inversion.bench.chance import blind_share
from attacks.inversion.exposure import Exposure

LABEL_FIELDS = ("label_from_mask", "label_from_update", "label_chance")
"""Of a row."""


def label_figures(
    exposure: Exposure, batch: Batch, known: torch.Tensor | None = None
) -> list[dict[str, Any]]:
    """``LABEL_FIELDS`` of every sample.

    ``label_from_mask`` and ``label_from_update`` say whether its label is among those that follow from
    which entries are hidden, and from the visible ones of the last layer, for somebody who knows the mask
    and no label. A batch's labels are compared as a multiset: of n samples of a class of which m are named,
    min(n, m) are told, the first ones. None where there is nothing to conclude from: nothing is hidden or
    everything, nothing is visible, or no linear layer gives the logits. ``label_chance`` is the share that
    whoever knows only how frequent labels are would name (``blind_share``).

    Args:
        exposure: of the batch's update.
        batch: samples and their labels.
        known: labels of other samples, int64 [n], which say how frequent each is; None: all alike.
    """
    blind = replace(exposure.seen_by(aware=True), labels=None)
    hidden = exposure.hidden
    empty = [None] * len(batch)
    from_mask = empty if not hidden.any() or hidden.all() else _told(labels_from_mask, blind, batch)
    from_update = empty if hidden.all() else _told(labels_from_last_layer, blind, batch)
    classes = exposure.victim.classes
    counts = torch.ones(classes) if known is None else torch.bincount(known.cpu(), minlength=classes)
    chance = float(f"{blind_share((counts / counts.sum()).tolist(), len(batch)):.6g}")
    return [
        dict(zip(LABEL_FIELDS, (mask, update, chance), strict=True))
        for mask, update in zip(from_mask, from_update, strict=True)
    ]


def _told(
    guess: Callable[[Exposure], torch.Tensor], exposure: Exposure, batch: Batch
) -> list[bool] | list[None]:
    try:
        found = guess(exposure)
    except ValueError:
        return [None] * len(batch)
    return list(_among(Counter(found.tolist()), batch.labels.tolist()))


def _among(left: Counter[int], labels: list[int]) -> Iterator[bool]:
    for label in labels:
        yield left[label] > 0
        left[label] -= 1
