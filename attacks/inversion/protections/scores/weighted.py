"""Update times weight: what an entry contributes to the loss, to first order."""

from __future__ import annotations

import torch

from attacks.inversion.protections.scores.evidence import Evidence


def weighted(evidence: Evidence) -> torch.Tensor:
    """|g·w|: by how much the loss would change, to first order, without weight w (Molchanov, Tyree, Karras,
    Aila, Kautz, ICLR 2017, arXiv 1611.06440); [d]."""
    return (evidence.update * evidence.parameters).abs()
