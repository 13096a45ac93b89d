"""How significant each entry of an update is, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from attacks.inversion.protections.scores.evidence import Evidence
from attacks.inversion.protections.scores.magnitude import magnitude
from attacks.inversion.protections.scores.maskcrypt import maskcrypt
from attacks.inversion.protections.scores.product import product
from attacks.inversion.protections.scores.sensitivity import (
    estimated_sensitivity,
    exact_sensitivity,
    sensitivity,
)
from attacks.inversion.protections.scores.weighted import weighted
from attacks.inversion.protections.significance import Significance

__all__ = [
    "SCORES",
    "Evidence",
    "estimated_sensitivity",
    "exact_sensitivity",
    "magnitude",
    "maskcrypt",
    "product",
    "sensitivity",
    "weighted",
]

SCORES: Mapping[Significance, Callable[[Evidence], torch.Tensor]] = MappingProxyType(
    {
        Significance.MAGNITUDE: magnitude,
        Significance.SENSITIVITY: sensitivity,
        Significance.PRODUCT: product,
        Significance.WEIGHTED: weighted,
        Significance.MASKCRYPT: maskcrypt,
    }
)
"""Scores [d] of those that have any; the largest are hidden."""
