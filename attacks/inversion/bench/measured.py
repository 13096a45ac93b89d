"""What is said of an exposure without an attack, one row per sample."""

from __future__ import annotations

from collections.abc import Callable
from math import log10
from typing import Any

import torch

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.labels import LABEL_FIELDS, label_figures
from attacks.inversion.bench.scene import Scene
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Prior, measure, shared_jacobian
from attacks.inversion.measures.measure import PROBES, STEPS
from attacks.inversion.metrics import Scores, compare

FIELDS = (
    "psnr_pred_db",
    "psnr_naive_pred_db",
    "leaked_dimensions",
    "input_numbers",
    "i2f",
    "counting_ratio",
    "hidden_share",
    "mean_psnr_db",
    "mean_ssim",
    "mean_token_accuracy",
    "mean_bag_accuracy",
    *LABEL_FIELDS,
)
"""Of a row."""
LARGE = 1_000_000
"""Parameters of a victim whose measures are estimated from a few products with J, so that they take no longer
than attacks."""
FEW_PROBES, FEW_STEPS = 2, 16


def measured_rows(scene: Scene, cell: Cell) -> list[dict[str, Any]]:
    """``FIELDS`` of every sample of a cell's update; text has no measures of information.

    They are of real numbers with a Gaussian prior, and a word is one of finitely many. Reading it takes no
    more than a few bits of what its embedding's 128 numbers would say, so PSNR_pred would be low where texts
    are read.
    """
    exposure, batch, pool = scene.exposure(cell), scene.batch(cell), scene.pool

    def shared() -> torch.Tensor | None:
        if scene.setting.rounds > 1:
            return None  # what a later round starts from depends on the mask
        return scene.kept(("jacobian", cell.update), 1, lambda: shared_jacobian(exposure, batch))

    rows = exposure_rows(
        exposure,
        batch,
        prior=None if pool.vocabulary else scene.prior,
        labels=pool.known.labels,
        seed=cell.seed,
        shared=shared,
    )
    known = _text_figures(scene, batch) if pool.vocabulary else mean_figures(batch, pool.known.inputs)
    return [
        {**row, "sample": cell.update * len(batch) + at, **guessed}
        for at, (row, guessed) in enumerate(zip(rows, known, strict=True))
    ]


def exposure_rows(
    exposure: Exposure,
    batch: Batch,
    *,
    prior: Prior | None,
    labels: torch.Tensor,
    seed: int,
    shared: Callable[[], torch.Tensor | None],
) -> list[dict[str, Any]]:
    """``FIELDS`` of every sample, but for those of what is known without the exposure.

    ``leaked_dimensions`` is a sample's share of the batch's.

    Args:
        exposure: what is visible.
        batch: the true samples.
        prior: what is known of such samples' numbers; None to leave the measures of information out.
        labels: of samples that are known, int64 [n].
        seed: of probes, where measures are estimated.
        shared: gives J, if it is kept for other masks of the update (``shared_jacobian``), or None; called
            where J is needed.

    Raises:
        ConfigError: CONFIG_INVALID if batch or prior is of another size than the exposure.
    """
    told = label_figures(exposure, batch, labels)
    found = None if prior is None else _information(exposure, batch, prior, seed, shared)
    return [
        {
            **dict.fromkeys(FIELDS),
            **(found[at] if found else {}),
            **told[at],
            "input_numbers": batch.inputs[0].numel(),
            "hidden_share": float(exposure.hidden.double().mean()),
        }
        for at in range(len(batch))
    ]


def mean_figures(batch: Batch, known: torch.Tensor) -> list[dict[str, float]]:
    """Of every sample, as if the mean of known ones, [N, *shape], were what was reconstructed."""
    scores = _scored(batch, known.mean(dim=0))
    images = batch.inputs.ndim == 4
    return [
        {"mean_psnr_db": _rounded(psnr), **({"mean_ssim": _rounded(ssim)} if images else {})}
        for psnr, ssim in zip(scores.psnr_db, scores.ssim, strict=True)
    ]


def _information(
    exposure: Exposure,
    batch: Batch,
    prior: Prior,
    seed: int,
    shared: Callable[[], torch.Tensor | None],
) -> list[dict[str, float]]:
    if all(bool(one.hidden.all()) for one in exposure.rounds):
        # Nothing is visible, so nothing is left but the prior.
        blind = _rounded(-10 * log10(prior.mse(batch.inputs[0].numel())))
        return [{"psnr_pred_db": blind, "leaked_dimensions": 0.0}] * len(batch)
    large = exposure.victim.size > LARGE
    found = measure(
        exposure,
        batch,
        seed=seed,
        prior=prior,
        matrix=shared(),
        probes=FEW_PROBES if large else PROBES,
        steps=FEW_STEPS if large else STEPS,
    )
    of_all = {
        "psnr_naive_pred_db": _rounded(found.psnr_naive_pred_db),
        "leaked_dimensions": _rounded(found.leaked_dimensions / len(batch)),
        "i2f": _rounded(found.i2f),
        "counting_ratio": _rounded(found.counting_ratio),
    }
    return [{"psnr_pred_db": _rounded(psnr_db), **of_all} for psnr_db in found.sample_psnr_pred_db]


def _text_figures(scene: Scene, batch: Batch) -> list[dict[str, float]]:
    """Of every sample, as if the usual words were what was reconstructed."""
    usual = scene.pool.usual
    assert usual is not None
    places, bag = (
        _scored(batch, guess.to(batch.inputs), padding=scene.pool.padding, text=True) for guess in usual
    )
    return [
        {"mean_token_accuracy": _rounded(token), "mean_bag_accuracy": _rounded(word)}
        for token, word in zip(places.token_accuracy, bag.bag_accuracy, strict=True)
    ]


def _scored(batch: Batch, guess: torch.Tensor, *, text: bool = False, padding: int | None = None) -> Scores:
    """One guess at all samples."""
    found = Reconstruction(inputs=guess.expand_as(batch.inputs), labels=torch.zeros_like(batch.labels))
    return compare(batch, found, text=text, padding=padding)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
