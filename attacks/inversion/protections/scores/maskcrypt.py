"""MaskCrypt: hide what would bring the exposed model closest to the client's."""

from __future__ import annotations

import torch

from attacks.inversion.protections.scores.evidence import Evidence


def maskcrypt(evidence: Evidence) -> torch.Tensor:
    """(w_exposed − w_latest)·∇ℓ(w_latest), signed: the largest, not the largest absolute, are hidden; [d].

    Hu, Li, *MaskCrypt: Federated Learning with Selective Homomorphic Encryption*, IEEE TDSC 2024. To first
    order ℓ(w_exposed) − ℓ(w_latest) is the sum of the scores, so hiding the largest leaves an eavesdropper,
    who has old values in hidden places, with the worst model. ∇ is of the whole of the client's samples, at
    the model its training ended with. While everything of the model has been in the clear, as in the first
    round, w_exposed is θ_0; after one step of plain gradient descent the scores are then almost g², so that
    the choice is that by magnitude.
    """
    latest = evidence.latest
    exposed = evidence.parameters if evidence.exposed is None else evidence.exposed
    gradient = evidence.victim.gradient(latest, evidence.batch.inputs, evidence.batch.labels)
    return (exposed - latest) * gradient
