"""All figures of one reconstruction, sample by sample, after matching."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.metrics.image import mse, psnr_db, ssim
from attacks.inversion.metrics.matching import identified, matched, similarities
from attacks.inversion.metrics.text import bag_accuracy, rouge, text_similarity, token_accuracy
from secagg.errors import Code, ConfigError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """What a reconstruction is worth; arrays of B entries, in the original samples' order.

    Args:
        order: which reconstruction was taken for which sample, int64.
        label_correct: whether that reconstruction's label is the sample's.
        psnr_db: data range 1, capped (``CAP_DB``); NaN of text.
        ssim: NaN of samples that are no images.
        mse: NaN of text.
        token_accuracy, bag_accuracy, rouge1, rouge2, rouge_l: 0 … 1; NaN of samples that are no text.
        identified: whether it is nearest to its own sample among candidates; None without candidates.
    """

    order: npt.NDArray[np.int64]
    label_correct: Bools
    psnr_db: Floats
    ssim: Floats
    mse: Floats
    token_accuracy: Floats
    bag_accuracy: Floats
    rouge1: Floats
    rouge2: Floats
    rouge_l: Floats
    identified: Bools | None = None

    def __len__(self) -> int:
        return len(self.order)

    def median(self, name: str) -> float:
        """The median over samples of one figure, named as its array."""
        return float(np.median(getattr(self, name)))

    def worst(self, name: str) -> float:
        """The figure of the sample that leaked most: the largest, of ``mse`` the smallest."""
        values: Floats = getattr(self, name)
        return float(values.min() if name == "mse" else values.max())

    @property
    def median_psnr_db(self) -> float:
        """Of the samples' own; never of a pooled MSE."""
        return self.median("psnr_db")

    @property
    def worst_psnr_db(self) -> float:
        """Of the sample that leaked most."""
        return self.worst("psnr_db")


def compare(
    original: Batch,
    reconstruction: Reconstruction,
    *,
    candidates: torch.Tensor | None = None,
    text: bool = False,
    padding: int | None = None,
) -> Scores:
    """Match a batch's reconstructions with its samples, and score every pair.

    Images are matched by PSNR, after both were clamped to [0, 1] (everybody knows the range of a picture),
    text by the mean of token and bag accuracy; labels go with what they came with.

    Args:
        original: what the client had.
        reconstruction: what an attacker made of it.
        candidates: [N, *shape], among which samples are to be identified; None to leave that out.
        text: True if samples are token ids, int64 [B, tokens].
        padding: of text, the token that doesn't count.

    Raises:
        ConfigError: CONFIG_INVALID if shapes or types differ, or values aren't finite.
    """
    if reconstruction.inputs.shape != original.inputs.shape or len(reconstruction.labels) != len(original):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"a reconstruction of shape {tuple(reconstruction.inputs.shape)} with "
            f"{len(reconstruction.labels)} labels isn't of samples of shape {tuple(original.inputs.shape)}",
        )
    found, wanted = _seen(reconstruction.inputs, text=text), _seen(original.inputs, text=text)
    similarity = partial(text_similarity, padding=padding) if text else psnr_db
    order = matched(similarities(found, wanted, similarity))
    found, labels = found[order], reconstruction.labels.cpu()[order]
    figures = _text_figures(found, wanted, padding) if text else _figures(found, wanted)
    hits = None
    if candidates is not None:
        hits = identified(found, wanted, _seen(candidates, text=text), similarity).numpy()
    return Scores(
        order=order.numpy(),
        label_correct=(labels == original.labels.cpu()).numpy(),
        identified=hits,
        **figures,
    )


def _seen(inputs: torch.Tensor, *, text: bool) -> torch.Tensor:
    """Samples as they are compared: on the CPU, in float64; images in [0, 1]."""
    inputs = inputs.detach().cpu()
    if text:
        return inputs
    # clamp would turn infinity into a pixel; NaN and infinity are left for the metrics to refuse.
    inputs = inputs.to(torch.float64)
    clamped = torch.where(torch.isfinite(inputs), inputs.clamp(0, 1), inputs)
    return clamped if inputs.ndim == 4 else inputs


def _figures(found: torch.Tensor, wanted: torch.Tensor) -> dict[str, Any]:
    nothing = np.full(len(wanted), np.nan)
    return {
        "psnr_db": psnr_db(found, wanted).numpy(),
        "ssim": ssim(found, wanted).numpy() if wanted.ndim == 4 else nothing,
        "mse": mse(found, wanted).numpy(),
        **dict.fromkeys(("token_accuracy", "bag_accuracy", "rouge1", "rouge2", "rouge_l"), nothing),
    }


def _text_figures(found: torch.Tensor, wanted: torch.Tensor, padding: int | None) -> dict[str, Any]:
    nothing = np.full(len(wanted), np.nan)
    rouge1, rouge2, longest = rouge(found, wanted, padding=padding)
    return {
        **dict.fromkeys(("psnr_db", "ssim", "mse"), nothing),
        "token_accuracy": token_accuracy(found, wanted, padding=padding).numpy(),
        "bag_accuracy": bag_accuracy(found, wanted, padding=padding).numpy(),
        "rouge1": rouge1.numpy(),
        "rouge2": rouge2.numpy(),
        "rouge_l": longest.numpy(),
    }
