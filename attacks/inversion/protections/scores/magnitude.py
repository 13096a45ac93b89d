"""Magnitude: large entries say most."""

from __future__ import annotations

import torch

from attacks.inversion.protections.scores.evidence import Evidence


def magnitude(evidence: Evidence) -> torch.Tensor:
    """|g|, of an update g; [d]. What a federation with ``significance = magnitude`` agrees on."""
    return evidence.update.abs()
