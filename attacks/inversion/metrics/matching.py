"""Which reconstruction is of which sample: attackers return a batch in any order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment

from secagg.errors import Code, ConfigError

Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def similarities(
    reconstruction: torch.Tensor, original: torch.Tensor, similarity: Similarity
) -> torch.Tensor:
    """``similarity`` of every original (rows) with every reconstruction (columns), float64 [n, m]."""
    return torch.stack(
        [similarity(reconstruction, sample.expand_as(reconstruction)).cpu() for sample in original]
    )


def matched(similarity: torch.Tensor) -> torch.Tensor:
    """π, with Σ_i similarity[i, π(i)] as large as can be; int64 [B] (Kuhn's Hungarian method).

    For images the similarity is PSNR, not −MSE: among bad reconstructions the least total squared error
    can pair a sample's exact copy with another sample, and so lose the very leak.

    Args:
        similarity: of original i with reconstruction j, finite, [B, B].

    Raises:
        ConfigError: CONFIG_INVALID if it isn't square.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"matching needs as many reconstructions as samples, not similarities of shape "
            f"{tuple(similarity.shape)}",
        )
    _, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    return torch.from_numpy(columns.astype("int64"))


def identified(
    reconstruction: torch.Tensor, original: torch.Tensor, candidates: torch.Tensor, similarity: Similarity
) -> torch.Tensor:
    """Whether the sample is nearer to its reconstruction than every other candidate is; bool [B].

    The rate over many samples says whether somebody who has a list of candidates could tell whose data it
    was; guessing gives 1/(number of candidates). A tie counts as a failure.

    Args:
        reconstruction, original: [B, …], paired in their order.
        candidates: [N, …], with the originals among them or not.
        similarity: as for matching; larger is nearer.

    Raises:
        ConfigError: CONFIG_INVALID if candidates are of another shape than samples.
    """
    if candidates.shape[1:] != original.shape[1:] or not len(candidates):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"candidates of shape {tuple(candidates.shape)} aren't of the samples' kind, "
            f"{tuple(original.shape)}",
        )
    found = []
    for guess, sample in zip(reconstruction, original, strict=True):
        others = candidates[(candidates != sample).flatten(1).any(dim=1)]
        near = similarity(guess[None], sample[None])
        found.append(all(bool(near > similarity(guess[None], other[None])) for other in others))
    return torch.tensor(found)
