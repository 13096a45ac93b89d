"""What is likely of images, and of what a mask by magnitude hides."""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from attacks.inversion.exposure import Exposure


def total_variation(inputs: torch.Tensor) -> torch.Tensor:
    """TV(x) = mean |x_{i+1,j} − x_{i,j}| + mean |x_{i,j+1} − x_{i,j}| over a batch of images; scalar.

    Anisotropic, as in Geiping et al., NeurIPS 2020 (arXiv 2003.14053). 0 of samples that are no images.
    """
    if inputs.ndim < 4:
        return inputs.new_zeros(())
    down = (inputs[..., 1:, :] - inputs[..., :-1, :]).abs()
    right = (inputs[..., :, 1:] - inputs[..., :, :-1]).abs()
    return _mean(down) + _mean(right)


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean() if values.numel() else values.sum()


class Mask:
    """What the places of hidden entries say about their values, if the largest magnitudes are hidden.

    Then |∇_i L| ≥ τ where i is hidden and ≤ τ where it is visible; τ is between the largest visible and the
    smallest hidden magnitude. The attacker knows the former. Under any other mask these terms mislead.

    Args:
        exposure: one round; with noise, τ is taken that much lower.
    """

    def __init__(self, exposure: Exposure) -> None:
        self.hidden = exposure.hidden.nonzero()[:, 0]
        visible = exposure.visible[~exposure.hidden].abs()
        largest = float(visible.max()) if len(visible) else 0.0
        self.threshold = max(0.0, largest - 3 * exposure.noise)
        self.bites = len(self.hidden) > 0 and self.threshold > 0

    def hinges(self, gradient: torch.Tensor) -> torch.Tensor:
        """max(0, 1 − |∇_i L|/τ) of hidden entries, [hidden]: 0 where a gradient would be hidden, too."""
        inner = gradient.index_select(0, self.hidden).abs() / self.threshold
        return (1.0 - inner).clamp(min=0.0)

    def surprise(self, gradient: torch.Tensor, sharpness: float = 10.0) -> torch.Tensor:
        """−mean log P(this mask | ∇L), with P(i is hidden) = σ(s·(|∇_i L|/τ − 1)); scalar ≥ 0."""
        score = sharpness * (gradient.abs() / self.threshold - 1.0)
        # −log σ(u) = softplus(−u); over all entries, then the hidden ones' sign turned.
        chosen = score.index_select(0, self.hidden)
        total = softplus(score).sum() - softplus(chosen).sum() + softplus(-chosen).sum()
        return total / len(gradient)
