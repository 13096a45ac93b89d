"""Sensitivity of an update to labels, as FedML-HE measures it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import log_softmax
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.inversion.protections.scores.evidence import Evidence

MAX_EXACT_CLASSES = 100
"""With more, the norm over classes is estimated; exactly it takes a backward pass for each."""
PROBES = 64
"""Random directions of an estimate; its squared norm then has a relative standard deviation of
√(2/64) = 0.18 at most."""


def sensitivity(evidence: Evidence) -> torch.Tensor:
    """s_m = (1/B)·Σ_b ‖∂/∂y_b (∂ℓ_b/∂w_m)‖₂, y_b the one-hot label taken for continuous; [d].

    Jin, Yao, Han, Gu, Joe-Wong, Ravi, Avestimehr, He, *FedML-HE*, arXiv 2303.10837. Exact up to
    ``MAX_EXACT_CLASSES`` classes, beyond that estimated from ``PROBES`` directions.

    Cross entropy is linear in the label, ℓ = −Σ_c y_c·log p_c. So ∂ℓ/∂y_c = −log p_c, and

        ∂/∂y_c (∂ℓ/∂w_m) = ∂/∂w_m (∂ℓ/∂y_c) = −∂ log p_c/∂w_m,

    which no second derivative is needed for: C backward passes through one forward pass give the norm,

        ‖∂/∂y (∂ℓ/∂w_m)‖² = Σ_c (∂ log p_c/∂w_m)².

    It does not depend on what the labels are.
    """
    classes = evidence.victim.classes
    if classes <= MAX_EXACT_CLASSES:
        return exact_sensitivity(evidence)
    return estimated_sensitivity(evidence, probes=PROBES)


def exact_sensitivity(evidence: Evidence) -> torch.Tensor:
    """As ``sensitivity``: B·C backward passes."""
    victim = evidence.victim
    cotangents = torch.eye(victim.classes, dtype=victim.dtype, device=victim.device)
    return _mean_norm(evidence, (cotangents for _ in range(len(evidence.batch))))


def estimated_sensitivity(evidence: Evidence, *, probes: int) -> torch.Tensor:
    """As ``sensitivity``, from random signs v: B·K backward passes.

    E[(∂(vᵀ log p)/∂w_m)²] = Σ_c (∂ log p_c/∂w_m)², as E[vvᵀ] = I (Hutchinson 1989). The squared norms are
    unbiased, with a variance of at most 2/K times their square.

    Args:
        evidence: of what; its ``seed`` decides the signs.
        probes: K, at least 1.
    """
    victim = evidence.victim
    generator = torch.Generator().manual_seed(evidence.seed)

    def signs() -> Iterator[torch.Tensor]:
        for _ in range(len(evidence.batch)):
            drawn = torch.randint(2, (probes, victim.classes), generator=generator)
            yield (2 * drawn - 1).to(dtype=victim.dtype, device=victim.device) / probes**0.5

    return _mean_norm(evidence, signs())


def _mean_norm(evidence: Evidence, cotangents: Iterator[torch.Tensor]) -> torch.Tensor:
    """(1/B)·Σ_b √(Σ_v (∂(vᵀ log p_b)/∂w)²) over each sample's cotangents v, [K, C]."""
    victim, inputs = evidence.victim, evidence.batch.inputs
    parameters = evidence.parameters.detach().requires_grad_()
    together = _mixes_samples(victim.module)
    shared = log_softmax(victim.outputs(parameters, inputs), dim=-1) if together else None
    total = torch.zeros_like(evidence.parameters)
    for sample, directions in enumerate(cotangents):
        # One sample's passes cost a B-th of the batch's.
        outputs = (
            log_softmax(victim.outputs(parameters, inputs[sample : sample + 1]), dim=-1)[0]
            if shared is None
            else shared[sample]
        )
        squares = torch.zeros_like(total)
        for direction in directions:
            (gradient,) = torch.autograd.grad(outputs, parameters, direction, retain_graph=True)
            squares += gradient.square()
        total += squares.sqrt()
    return total / len(inputs)


def _mixes_samples(module: torch.nn.Module) -> bool:
    """True if a sample's outputs depend on what else is in the batch."""
    return any(
        isinstance(layer, _BatchNorm) and (layer.training or not layer.track_running_stats)
        for layer in module.modules()
    )
