"""Magnitude times sensitivity."""

from __future__ import annotations

import torch

from attacks.inversion.protections.scores.evidence import Evidence
from attacks.inversion.protections.scores.magnitude import magnitude
from attacks.inversion.protections.scores.sensitivity import sensitivity


def product(evidence: Evidence) -> torch.Tensor:
    """|g|·s with s as in ``sensitivity``: large entries which also tell labels apart; [d]."""
    return magnitude(evidence) * sensitivity(evidence)
